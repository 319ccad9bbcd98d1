package main

import (
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

// columnOf is a column of a table whose rows are of one type. For a terminal and in
// HTML, each of its fields is a line of the cell; in Markdown, a column of its own.
type columnOf[Row any] []fieldOf[Row]

// fieldOf is a field of a row.
type fieldOf[Row any] struct {
	title    string
	line     func(Row) htmlLine
	isNumber bool
	// narrowest is what it may be cut to; 0 = it is not cut, as an ID, a time or a word.
	narrowest int
	// isOptional: the live display leaves it out if there is no room.
	isOptional bool
}

// column and field are those of the targets' table in a report.
type (
	column = columnOf[targetRecord]
	field  = fieldOf[targetRecord]
)

func newTextField[Row any](title string, of func(Row) string) fieldOf[Row] {
	return fieldOf[Row]{title: title, narrowest: narrowestText, line: func(r Row) htmlLine { return htmlLine{Text: clean(of(r))} }}
}

// newMarkField is a field of a word with a class.
func newMarkField[Row any](title string, of func(Row) (class, text string)) fieldOf[Row] {
	return fieldOf[Row]{title: title, line: func(r Row) htmlLine { return markLine(of(r)) }}
}

func newIDField[Row any](title string, of func(Row) string) fieldOf[Row] {
	return fieldOf[Row]{title: title, line: func(r Row) htmlLine { return idLine(of(r)) }}
}

func newTimeField[Row any](title string, of func(Row) *time.Time) fieldOf[Row] {
	return fieldOf[Row]{title: title, line: func(r Row) htmlLine { return timeLine(of(r)) }}
}

// Fields of targets of every kind.
var (
	statusField      = field{title: "Status", line: targetRecord.statusLine}
	roleField        = newTextField("Role", func(t targetRecord) string { return string(t.role) })
	previousKeyField = newIDField("Previous key", func(t targetRecord) string { return t.previousKey })
	newKeyField      = newIDField("New key", func(t targetRecord) string { return t.newKey })
	currentKeyField  = newIDField("Current key", func(t targetRecord) string { return t.previousKey })
	rotatedField     = newTimeField("Rotated", func(t targetRecord) *time.Time { return t.rotatedAt })
	verifiedField    = newTimeField("Verified", func(t targetRecord) *time.Time { return t.verifiedAt })
)

// evidenceColumn is shown if a KMIP server was asked about any of the keys.
var evidenceColumn = column{
	{title: "KMIP server", line: func(t targetRecord) htmlLine { return evidenceLine(t.kmip) }},
	newTimeField("Key made", func(t targetRecord) *time.Time {
		if t.kmip == nil {
			return nil
		}
		return t.kmip.InitialDate
	}),
}

// class is that of a mark.
func (l htmlLine) class() string {
	if l.Mark == nil {
		return ""
	}
	return l.Mark.Class
}

// plain is a line of a cell as text.
func (l htmlLine) plain() string {
	switch {
	case l.Mark != nil:
		return l.Mark.Text
	case l.ID != "":
		return l.ID
	case l.Time != "":
		return l.Time
	default:
		return l.Text
	}
}

// tableOf is a table for a terminal. Texts that it has no room for follow it as a
// whole.
func tableOf[Row any](l layout, columns []columnOf[Row], rows []Row) string {
	columns, widths := fit(l.width, columns, rows)
	t := newTable()
	var cutTexts []string
	fill(t, columns, rows, func(i int, line htmlLine) string {
		plain := orDash(line.plain())
		shown := plain
		if widths != nil {
			shown = inCell(plain, widths[i], len(columns[i]) == 1)
		}
		if widths != nil && strings.HasSuffix(shown, "…") && !slices.Contains(cutTexts, plain) && shown != plain {
			cutTexts = append(cutTexts, plain)
		}
		return l.paintLines(line.class(), shown)
	})
	table := t.Render()
	for i, text := range cutTexts {
		if i == 0 {
			table += "\n\nIn full"
		}
		table += "\n" + l.hang("  "+text, "    ")
	}
	return table
}

// inCell is a text in a cell. A sentence that has a column to itself is wrapped.
func inCell(plain string, width int, isAlone bool) string {
	wrapped := layout{width: width}.hang(plain, "")
	if isAlone && strings.Contains(plain, " ") && strings.Count(wrapped, "\n") < maxCellLines {
		return wrapped
	}
	return cut(plain, width)
}

// liveTable is a table without a frame, whose rows have a line each.
func liveTable[Row any](l layout, columns []columnOf[Row], rows []Row) []string {
	columns, widths := fitLive(l.width, columns, rows)
	t := newTable()
	t.Style().Options.DrawBorder = false
	fill(t, columns, rows, func(i int, line htmlLine) string { return l.paint(line.class(), cut(line.plain(), widths[i])) })
	return strings.Split(t.Render(), "\n")
}

// fill adds the header and the rows; cell is a line of a cell in the column i.
func fill[Row any](t table.Writer, columns []columnOf[Row], rows []Row, cell func(i int, line htmlLine) string) {
	header, configs := make(table.Row, len(columns)), make([]table.ColumnConfig, len(columns))
	for i, column := range columns {
		titles := make([]string, len(column))
		for j, field := range column {
			titles[j] = field.title
		}
		header[i] = strings.Join(titles, "\n")
		configs[i].Number = i + 1
		if len(column) > 1 {
			t.Style().Options.SeparateRows = true
		} else if column[0].isNumber {
			configs[i].Align = text.AlignRight
		}
	}
	t.AppendHeader(header)
	t.SetColumnConfigs(configs)
	for _, one := range rows {
		row := make(table.Row, len(columns))
		for i, column := range columns {
			lines := make([]string, len(column))
			for j, field := range column {
				lines[j] = cell(i, field.line(one))
			}
			row[i] = strings.Join(lines, "\n")
		}
		t.AppendRow(row)
	}
}

// markdownOf is the same for a ticket.
func markdownOf[Row any](columns []columnOf[Row], rows []Row) string {
	var header table.Row
	cells := make([]table.Row, len(rows))
	for _, column := range columns {
		for _, field := range column {
			header = append(header, field.title)
			for i, one := range rows {
				cells[i] = append(cells[i], field.line(one).plain())
			}
		}
	}
	return markdownTable(header, cells)
}

// sectionOf is the same for a browser.
func sectionOf[Row any](title, caption string, columns []columnOf[Row], rows []Row) htmlSection {
	section := htmlSection{Title: title, Caption: caption}
	for _, column := range columns {
		titles := make([]string, len(column))
		for i, field := range column {
			titles[i] = field.title
		}
		section.Columns = append(section.Columns, titles)
	}
	for _, one := range rows {
		row := make([]htmlCell, len(columns))
		for i, column := range columns {
			for _, field := range column {
				row[i] = append(row[i], field.line(one))
			}
		}
		section.Rows = append(section.Rows, row)
	}
	return section
}

// csvColumnOf is a column of a spreadsheet. Names are final: scripts read them.
type csvColumnOf[Row any] struct {
	name string
	of   func(Row) string
}

// csvColumn is a column of the targets.
type csvColumn = csvColumnOf[targetRecord]

// csvOf is a spreadsheet.
func csvOf[Row any](columns []csvColumnOf[Row], rows []Row) string {
	t := newCSV()
	t.AppendHeader(headerOf(columns))
	for _, one := range rows {
		t.AppendRow(cleanRow(valuesOf(columns, one)...))
	}
	return t.RenderCSV()
}

// rowsPerBatch is how many rows of a long spreadsheet are in memory.
const rowsPerBatch = 500

// writeCSV writes a spreadsheet whose rows are read while it is written.
func writeCSV[Row any](out io.Writer, columns []csvColumnOf[Row], rows iter.Seq2[Row, error]) error {
	t := newCSV()
	t.AppendHeader(headerOf(columns))
	flush := func() error {
		defer func() { t = newCSV() }()
		return writeLine(out, t.RenderCSV())
	}
	for one, err := range rows {
		if err != nil {
			return err
		}
		if t.Length() == rowsPerBatch {
			if err := flush(); err != nil {
				return err
			}
		}
		t.AppendRow(cleanRow(valuesOf(columns, one)...))
	}
	return flush()
}

// Columns of targets of every kind.
var (
	idColumns = []csvColumn{
		{"previousKeyUUID", func(t targetRecord) string { return t.previousKey }},
		{"newKeyUUID", func(t targetRecord) string { return t.newKey }},
		{"rotatedAt", func(t targetRecord) string { return timeText(t.rotatedAt) }},
		{"verifiedAt", func(t targetRecord) string { return timeText(t.verifiedAt) }},
	}
	settledColumns = []csvColumn{
		{"ambiguous", func(t targetRecord) string { return strconv.FormatBool(t.ambiguous) }},
		{"carriedOver", func(t targetRecord) string { return strconv.FormatBool(t.carriedOver) }},
	}
)

// errorColumns are those of a target of every kind, too.
var errorColumns = []csvColumn{
	{"errorType", func(t targetRecord) string { return string(errorOf(t.failure).Type) }},
	{"errorMessage", func(t targetRecord) string { return errorOf(t.failure).Message }},
	{"firstErrorType", func(t targetRecord) string { return string(errorOf(t.firstFailure).Type) }},
	{"firstErrorMessage", func(t targetRecord) string { return errorOf(t.firstFailure).Message }},
}

func errorOf(failure *workflows.TargetError) workflows.TargetError {
	if failure == nil {
		return workflows.TargetError{}
	}
	return *failure
}

// targetLastColumns follow those of a target's kind.
var targetLastColumns = table.Row{"actions", "kmipOutcome", "kmipState", "kmipInitialDate", "kmipAskedAt"}

func headerOf[Row any](columns []csvColumnOf[Row]) (header table.Row) {
	for _, column := range columns {
		header = append(header, column.name)
	}
	return header
}

func valuesOf[Row any](columns []csvColumnOf[Row], row Row) (values []string) {
	for _, column := range columns {
		values = append(values, column.of(row))
	}
	return values
}
