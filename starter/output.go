package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/internal/markdown"
)

// write writes a status in the requested format; asJSON is its JSON form.
func (a *app) write(status statusView, asJSON any) error {
	if a.format == formatHTML {
		return writeHTML(a.stdout, status.page(), time.Now())
	}
	return a.writeAs(asJSON, status.table, status.csv, status.markdown)
}

// writeAs writes what one of the functions returns, or a value as JSON.
func (a *app) writeAs(asJSON any, table func(layout) string, csv, markdown func() string) error {
	switch a.format {
	case formatJSON:
		text, err := jsonText(asJSON, "")
		if err != nil {
			return err
		}
		return writeLine(a.stdout, text)
	case formatCSV:
		return writeLine(a.stdout, csv())
	case formatMarkdown:
		return writeLine(a.stdout, markdown())
	default:
		return writeLine(a.stdout, table(a.layoutOf(a.stdout)))
	}
}

func writeLine(out io.Writer, text string) error {
	_, err := fmt.Fprintln(out, strings.TrimRight(text, "\n"))
	return err
}

// println writes lines for people.
func (a *app) println(lines ...string) error {
	l := a.layoutOf(a.stdout)
	for i := range lines {
		lines[i] = l.line(clean(lines[i]))
	}
	return writeLine(a.stdout, strings.Join(lines, "\n"))
}

// jsonText is a value as indented JSON; prefix starts each line but the first.
func jsonText(value any, prefix string) (string, error) {
	value = withoutNilLists(value)
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent(prefix, "  ")
	err := encoder.Encode(value)
	return escapeControls(buffer.String()), err
}

// writeJSONWith writes an object as indented JSON, with a list as its last member that
// is read while it is written.
func writeJSONWith[Item any](out io.Writer, object any, list string, items iter.Seq2[Item, error]) error {
	head, err := jsonText(object, "")
	if err != nil {
		return err
	}
	next, end := strings.TrimSuffix(head, "\n}\n")+",\n  \""+list+"\": [", "]\n}\n"
	for item, err := range items {
		if err != nil {
			return err
		}
		text, err := jsonText(item, "    ")
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, next+"\n    "+strings.TrimRight(text, "\n")); err != nil {
			return err
		}
		next, end = ",", "\n  ]\n}\n"
	}
	if next == "," {
		next = ""
	}
	_, err = io.WriteString(out, next+end)
	return err
}

// escapeControls escapes the control characters that encoding/json leaves as
// they are and that a terminal may act on.
func escapeControls(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// escapeSequence is one that a terminal acts on: CSI, OSC and the short ones.
var escapeSequence = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-Z\\\\^-~]")

// clean makes untrusted text safe for one line of a terminal: names and messages
// come from Ops Manager, and from whoever started the rotation.
func clean(untrusted string) string {
	untrusted = escapeSequence.ReplaceAllString(strings.ToValidUTF8(untrusted, "�"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1 // it would reorder the rest of the line
		}
		return r
	}, untrusted)
}

// timeText shows a record's time; empty if there is none.
func timeText(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func finishedText(started time.Time, finished *time.Time) string {
	if finished == nil {
		return ""
	}
	return fmt.Sprintf("%s (after %s)", timeText(finished), roundedDuration(finished.Sub(started)))
}

// roundedDuration shows seconds, and tenths of them below 10 seconds.
func roundedDuration(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// pluralize counts things: "1 project", "2 projects".
func pluralize(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func orDash(text string) string { return cmp.Or(text, "-") }

// fact is a line of a report's head.
type fact struct{ label, value string }

// nonEmpty leaves out facts without a value, and cleans the others.
func nonEmpty(all []fact) []fact {
	var known []fact
	for _, one := range all {
		if one.value != "" {
			known = append(known, fact{one.label, clean(one.value)})
		}
	}
	return known
}

func summaryLines(first, waitingFor string) []string {
	lines := []string{clean(first)}
	if waitingFor != "" {
		lines = append(lines, clean("waiting for "+waitingFor))
	}
	return lines
}

func newTable() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	return t
}

func newCSV() table.Writer {
	t := table.NewWriter()
	t.Style().CSV.FieldProtection = true // a name must not become a spreadsheet's formula
	return t
}

func cleanRow(values ...string) table.Row {
	row := make(table.Row, len(values))
	for i, value := range values {
		row[i] = clean(value)
	}
	return row
}

// markdownHead is the head of a report for a ticket.
func markdownHead(title string, facts []fact) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", markdownText(title))
	for _, fact := range facts {
		fmt.Fprintf(&b, "- **%s:** %s\n", fact.label, markdownText(fact.value))
	}
	return b.String()
}

func markdownTable(header table.Row, rows []table.Row) string {
	t := table.NewWriter()
	t.AppendHeader(header)
	for _, row := range rows {
		for i := range row {
			row[i] = markdownText(fmt.Sprint(row[i]))
		}
		t.AppendRow(row)
	}
	return t.RenderMarkdown()
}

// markdownText is an untrusted text; the table's renderer escapes |.
func markdownText(untrusted string) string { return markdown.Escape(clean(untrusted)) }

// withoutNilLists is a value, or a pointer to it, for jsonText.
func withoutNilLists(value any) any {
	if value == nil {
		return nil
	}
	copied := reflect.New(reflect.TypeOf(value))
	copied.Elem().Set(reflect.ValueOf(value))
	listsNotNil(copied)
	return copied.Interface()
}

// listsNotNil makes the lists in a value empty that are nil: in JSON, an empty
// list is [], and records of earlier versions lack some.
func listsNotNil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			listsNotNil(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			// One that is left out where it is empty stays as it is.
			if field := v.Type().Field(i); field.IsExported() && !strings.HasSuffix(field.Tag.Get("json"), ",omitempty") {
				listsNotNil(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.IsNil() && v.CanSet() && v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		for i := range v.Len() {
			listsNotNil(v.Index(i))
		}
	}
}
