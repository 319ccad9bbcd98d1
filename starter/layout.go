package main

import (
	"io"
	"math"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

const (
	// narrowestLayout is how narrow a terminal may be: below that, its lines wrap.
	narrowestLayout = 44
	// narrowestText is what a column keeps of a name that is longer.
	narrowestText = 16
	// maxCellLines is how many lines a sentence takes in a cell.
	maxCellLines = 4
)

// layout is how texts for people are laid out. For a pipe or a file, nothing is cut,
// wrapped or colored.
type layout struct {
	width   int // of the terminal; 0 = there is none
	colored bool
}

// layoutOf is the layout for one of the outputs.
func (a *app) layoutOf(out io.Writer) layout {
	screen, isTerminal := a.terminal(out)
	if !isTerminal {
		return layout{}
	}
	return layout{width: max(screen.size().width, narrowestLayout), colored: screen.colored}
}

// markWaiting and markFaint are classes of text on a terminal, beside those of marks.
const (
	markWaiting = "waiting"
	markFaint   = "faint"
)

// escapes set the color of a class.
var escapes = map[string]string{markGood: "\x1b[32m", markBad: "\x1b[31m", markOpen: "\x1b[36m", markWaiting: "\x1b[33m", markFaint: "\x1b[2m"}

// paint colors a text by its class.
func (l layout) paint(class, text string) string {
	escape := escapes[class]
	if !l.colored || escape == "" || text == "" {
		return text
	}
	return escape + text + "\x1b[0m"
}

func widthOf(line string) int { return text.StringWidthWithoutEscSequences(line) }

// cut cuts a text to a width; an ellipsis shows that.
func cut(line string, width int) string { return text.Snip(line, width, "…") }

// paintLines colors each line of a text: a color must not go beyond its cell.
func (l layout) paintLines(class, text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = l.paint(class, lines[i])
	}
	return strings.Join(lines, "\n")
}

// line is a line for people, which is wrapped with a deeper indent. A command can be
// pasted as it is.
func (l layout) line(line string) string {
	content := strings.TrimLeft(line, " +-") // also of a list, or of changed lines
	indent := strings.Repeat(" ", len(line)-len(content))
	if strings.HasPrefix(content, programName+" ") {
		return l.wrap(line, indent+"    ", commandWords(line), ` \`)
	}
	return l.hang(line, indent+"  ")
}

// hang wraps a line; its further lines have this indent.
func (l layout) hang(line, indent string) string {
	content := strings.TrimLeft(line, " +-")
	return l.hangAfter(line[:len(line)-len(content)], content, indent)
}

// hangAfter is the same for what follows a label, which is not divided.
func (l layout) hangAfter(label, content, indent string) string {
	words := strings.Fields(content)
	if len(words) > 0 {
		words[0] = label + words[0]
	}
	return l.wrap(label+content, indent, words, "")
}

// wrap puts words into lines, all of which but the last have this end.
func (l layout) wrap(line, indent string, words []string, end string) string {
	if l.width == 0 || widthOf(line) <= l.width {
		return line
	}
	room := l.width - widthOf(end)
	var lines []string
	current, isEmpty := "", true
	for _, word := range words {
		switch {
		case isEmpty:
			current += word
		case widthOf(current+" "+word) <= room:
			current += " " + word
		default:
			lines, current = append(lines, current), indent+word
		}
		// A word that is longer than a line is broken; a command's is not.
		for isEmpty = false; end == "" && widthOf(current) > room && widthOf(indent) < room; {
			head := brokenAt(current, room, len(indent))
			rest := indent + strings.TrimPrefix(current, head)
			if len(rest) >= len(current) {
				break // not even a character has room
			}
			lines, current = append(lines, head), rest
		}
	}
	return strings.Join(append(lines, current), end+"\n")
}

// brokenAt is the part of a long word for which a line has room: up to a sign that
// divides it, if there is one in the second half.
func brokenAt(word string, room, indent int) string {
	head := text.Trim(word, room)
	if at := strings.LastIndexAny(head, "/:,-"); at+1 > indent+(len(head)-indent)/2 {
		return head[:at+1]
	}
	return head
}

// commandWords are the parts of a command that stay on one line: it may be divided
// before each flag that is not in quotes.
func commandWords(command string) (words []string) {
	start, isQuoted := 0, false
	for i := range command {
		if command[i] == '\'' {
			isQuoted = !isQuoted
		}
		if !isQuoted && strings.HasPrefix(command[i:], " --") {
			words, start = append(words, command[start:i]), i+1
		}
	}
	return append(words, command[start:])
}

// atMost are the first lines of a text; an ellipsis shows that there were more.
func (l layout) atMost(n int, wrapped string) []string {
	lines := strings.Split(wrapped, "\n")
	if len(lines) > n {
		lines = lines[:n]
		lines[n-1] = cut(lines[n-1]+strings.Repeat(" ", l.width), l.width-1)
		lines[n-1] = strings.TrimRight(strings.TrimSuffix(lines[n-1], "…"), " ") + "…"
	}
	return lines
}

// head is the head of a report. The value of Outcome has the color of its class.
func (l layout) head(facts []fact, outcomeClass string) string {
	const labelWidth = 13
	var b strings.Builder
	for _, fact := range facts {
		line := fact.label + strings.Repeat(" ", max(labelWidth-len(fact.label), 0)) + " "
		indent := strings.Repeat(" ", len(line))
		// An ID that fits a line of its own is not broken.
		if width := widthOf(fact.value); len(line)+width > l.width && width+2 <= l.width && !strings.Contains(fact.value, " ") {
			b.WriteString(fact.label + "\n  " + fact.value + "\n")
			continue
		}
		class := ""
		if fact.label == "Outcome" {
			class = outcomeClass
		}
		wrapped := l.hangAfter(line, fact.value, indent)
		b.WriteString(line + l.paintLines(class, strings.TrimPrefix(wrapped, line)) + "\n")
	}
	return b.String()
}

// columnWidth is how wide a column is, and how narrow it can be.
type columnWidth struct{ natural, narrowest int }

func measured[Row any](column columnOf[Row], rows []Row) (w columnWidth) {
	for _, field := range column {
		widest := 0
		for _, row := range rows {
			widest = max(widest, widthOf(orDash(field.line(row).plain())))
		}
		narrowest := widest
		if field.narrowest > 0 {
			narrowest = min(widest, field.narrowest)
		}
		w.natural = max(w.natural, widest, widthOf(field.title))
		w.narrowest = max(w.narrowest, narrowest, widthOf(field.title))
	}
	return w
}

func measuredAll[Row any](columns []columnOf[Row], rows []Row) (measures []columnWidth, sum columnWidth) {
	for _, column := range columns {
		w := measured(column, rows)
		measures = append(measures, w)
		sum.natural, sum.narrowest = sum.natural+w.natural, sum.narrowest+w.narrowest
	}
	return measures, sum
}

// fitLive makes a table of the live display fit the width: it narrows columns or, if
// that is not enough, leaves out the last optional one, or the last one.
func fitLive[Row any](width int, columns []columnOf[Row], rows []Row) (fitting []columnOf[Row], widths []int) {
	fitting = slices.Clone(columns)
	for {
		measures, sum := measuredAll(fitting, rows)
		room := max(width-3*len(fitting)+1, 1)
		switch {
		case sum.narrowest <= room:
			return fitting, narrowed(measures, room)
		case len(fitting) == 1:
			return fitting, []int{room}
		}
		last := len(fitting) - 1
		for i := last; i > 0; i-- {
			if fitting[i][0].isOptional {
				last = i
				break
			}
		}
		fitting = slices.Delete(fitting, last, last+1)
	}
}

// fit makes a table fit the width: it narrows columns of texts or, if that is not
// enough, puts columns below each other. widths are the columns' limits; nil = there is
// none.
func fit[Row any](width int, columns []columnOf[Row], rows []Row) (fitting []columnOf[Row], widths []int) {
	measures, sum := measuredAll(columns, rows)
	if width == 0 || sum.natural+frameWidth(len(columns)) <= width {
		return columns, nil
	}
	best := stacking{cost: []int{math.MaxInt}}
	heights := make([]int, len(columns))
	for i, column := range columns {
		heights[i] = len(column)
	}
	best.search(width, heights, measures, nil)
	if best.stacks == nil { // a very narrow terminal
		return []columnOf[Row]{slices.Concat(columns...)}, []int{max(width-frameWidth(1), 1)}
	}
	var stacked []columnWidth
	for _, stack := range best.stacks {
		var column columnOf[Row]
		for _, i := range stack {
			column = append(column, columns[i]...)
		}
		fitting, stacked = append(fitting, column), append(stacked, widest(measures, stack))
	}
	return fitting, narrowed(stacked, width-frameWidth(len(fitting)))
}

// frameWidth is the width of a table's lines and padding.
func frameWidth(columns int) int { return 3*columns + 1 }

// stacking says which columns are below each other.
type stacking struct {
	stacks [][]int
	cost   []int
}

// search finds the stacking that fits with the fewest lines, then the one that cuts
// least, then the one that keeps neighbors together, then that of the most columns.
// There are few columns: it tries every one.
func (best *stacking) search(width int, heights []int, measures []columnWidth, stacks [][]int) {
	next := 0
	for _, stack := range stacks {
		next += len(stack)
	}
	if next == len(measures) {
		best.consider(width, heights, measures, stacks)
		return
	}
	for i := range stacks {
		longer := slices.Clone(stacks)
		longer[i] = append(slices.Clone(stacks[i]), next)
		best.search(width, heights, measures, longer)
	}
	best.search(width, heights, measures, append(slices.Clone(stacks), []int{next}))
}

func (best *stacking) consider(width int, heights []int, measures []columnWidth, stacks [][]int) {
	room, lines, distance := width-frameWidth(len(stacks)), 0, 0
	var sum columnWidth
	for _, stack := range stacks {
		w, height := widest(measures, stack), 0
		for at, i := range stack {
			height += heights[i]
			if at > 0 {
				distance += i - stack[at-1]
			}
		}
		sum.natural, sum.narrowest, lines = sum.natural+w.natural, sum.narrowest+w.narrowest, max(lines, height)
	}
	cost := []int{lines, max(sum.natural-room, 0), distance, -len(stacks)}
	if sum.narrowest <= room && slices.Compare(cost, best.cost) < 0 {
		best.stacks, best.cost = stacks, cost
	}
}

// widest is how wide columns are below each other.
func widest(measures []columnWidth, stack []int) (w columnWidth) {
	for _, i := range stack {
		w.natural, w.narrowest = max(w.natural, measures[i].natural), max(w.narrowest, measures[i].narrowest)
	}
	return w
}

// narrowed takes room from the widest columns first.
func narrowed(measures []columnWidth, room int) []int {
	widths, sum := make([]int, len(measures)), 0
	for i, m := range measures {
		widths[i] = m.natural
		sum += m.natural
	}
	for ; sum > room; sum-- {
		widest := -1
		for i, m := range measures {
			if widths[i] > m.narrowest && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return widths
		}
		widths[widest]--
	}
	return widths
}
