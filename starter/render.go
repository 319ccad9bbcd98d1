package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

// statuses in the order in which counts are shown.
var statuses = []string{
	workflows.StatusVerified, workflows.StatusPlanned, workflows.StatusRotated, workflows.StatusRotating,
	workflows.StatusPending, workflows.StatusSkipped, workflows.StatusFailed,
}

// findings is what there is to tell of a run.
type findings struct {
	workflows.RotateClusterResult
	phase, waitingFor string // of a run that goes on
	failure           string // of a run that has failed
}

func findingsSoFar(p workflows.Progress) findings {
	return findings{RotateClusterResult: p.RotateClusterResult, phase: p.Phase, waitingFor: p.WaitingFor}
}

// write writes the findings in the format that is asked for; asJSON is what
// they are in JSON.
func (a *app) write(f findings, asJSON any) error {
	switch a.format {
	case formatJSON:
		return writeJSON(a.stdout, asJSON)
	case formatCSV:
		return writeLine(a.stdout, csvOf(f))
	case formatMarkdown:
		return writeLine(a.stdout, markdownOf(f))
	default:
		return writeLine(a.stdout, tableOf(f))
	}
}

func writeLine(out io.Writer, text string) error {
	_, err := fmt.Fprintln(out, strings.TrimRight(text, "\n"))
	return err
}

func writeJSON(out io.Writer, value any) error {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(out, escapeControls(buffer.String()))
	return err
}

// escapeControls makes escapes of the control characters that encoding/json
// leaves as they are, and that a terminal may act on.
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

// clean makes foreign text fit for one line of a terminal: names and messages
// come from Ops Manager, and from whoever has started the rotation.
func clean(foreign string) string {
	foreign = escapeSequence.ReplaceAllString(strings.ToValidUTF8(foreign, "�"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1 // it would show the rest of the line in another order
		}
		return r
	}, foreign)
}

// timeText shows a record's time; there may be none.
func timeText(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// fact is a line of a report's head.
type fact struct{ label, value string }

// facts is the head of a report, with clean values.
func facts(f findings) []fact {
	all := []fact{
		{"Cluster", f.ClusterName + " (" + f.ClusterID + ")"},
		{"Project", f.ProjectID},
		{"Connection", f.Connection},
		{"Outcome", cmp.Or(f.Outcome, "none yet: "+f.phase)},
		{"Waiting for", f.waitingFor},
		{"Failure", f.failure},
		{"Requested by", orDash(f.Change.RequestedBy)},
		{"Ticket", orDash(f.Change.Ticket)},
		{"Reason", orDash(f.Change.Reason)},
		{"Approved by", approvalText(f.Approval)},
		{"Started", timeText(&f.StartedAt)},
		{"Finished", finishedText(f.RotateClusterResult)},
		{"Targets", countsText(countsOf(f.Targets))},
	}
	var known []fact
	for _, one := range all {
		if one.value != "" {
			known = append(known, fact{one.label, clean(one.value)})
		}
	}
	return known
}

func orDash(text string) string { return cmp.Or(text, "-") }

func approvalText(approval *workflows.Approval) string {
	if approval == nil {
		return "-"
	}
	approved := approval.By + " at " + timeText(&approval.At)
	if approval.Comment != "" {
		approved += ": " + approval.Comment
	}
	return approved
}

func finishedText(r workflows.RotateClusterResult) string {
	if r.FinishedAt == nil {
		return ""
	}
	return fmt.Sprintf("%s (after %s)", timeText(r.FinishedAt), durationText(r.FinishedAt.Sub(r.StartedAt)))
}

// durationText is for people: seconds, and tenths only where they matter.
func durationText(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func countsOf(records []workflows.TargetRecord) map[string]int {
	counts := map[string]int{}
	for _, record := range records {
		counts[record.Status]++
	}
	return counts
}

func countsText(counts map[string]int) string {
	var parts []string
	for _, status := range statuses {
		if counts[status] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
		}
	}
	return strings.Join(parts, ", ")
}

// remarkable are the targets that a person should know more of, with clean
// texts: what was skipped or has failed, and why.
func remarkable(records []workflows.TargetRecord) []table.Row {
	var rows []table.Row
	for _, record := range records {
		if remark := record.Remark(); remark != "" {
			rows = append(rows, table.Row{clean(record.Name), record.Status, clean(remark)})
		}
	}
	return rows
}

// briefly is a progress in two lines.
func briefly(p workflows.Progress) []string {
	lines := []string{clean(fmt.Sprintf("%s: %s: %s", cmp.Or(p.ClusterName, p.ClusterID), p.Phase, countsText(p.Counts)))}
	if p.WaitingFor != "" {
		lines = append(lines, clean("waiting for "+p.WaitingFor))
	}
	return lines
}

// tableOf is a report for a terminal.
func tableOf(f findings) string {
	var b strings.Builder
	for _, fact := range facts(f) {
		fmt.Fprintf(&b, "%-13s %s\n", fact.label, fact.value)
	}
	if len(f.Targets) == 0 {
		return b.String()
	}
	b.WriteString("\n" + targetTable(f).Render() + "\n")
	if rows := remarkable(f.Targets); len(rows) > 0 {
		b.WriteString("\nRemarks\n")
		for _, row := range rows {
			fmt.Fprintf(&b, "  %s (%s): %s\n", row...)
		}
	}
	return b.String()
}

// targetTable has two lines a target, so that all ids fit on a screen.
func targetTable(f findings) table.Writer {
	t := newTable()
	if f.Outcome == workflows.OutcomePlanned {
		t.AppendHeader(table.Row{"Target", "Role", "Cluster id", "Status", "Current key"})
		for _, r := range f.Targets {
			t.AppendRow(cleanRow(r.Name, r.Role, r.ClusterID, r.Status, r.PreviousKeyUUID))
		}
		return t
	}
	t.AppendHeader(table.Row{"Target\nCluster id", "Status\nRole", "Previous key\nNew key", "Rotated\nVerified", "Attempts"})
	for _, r := range f.Targets {
		t.AppendRow(table.Row{
			clean(r.Name) + "\n" + clean(r.ClusterID), clean(r.Status) + "\n" + clean(r.Role),
			orDash(clean(r.PreviousKeyUUID)) + "\n" + orDash(clean(r.NewKeyUUID)),
			orDash(timeText(r.RotatedAt)) + "\n" + orDash(timeText(r.VerifiedAt)), r.Attempts,
		})
	}
	t.Style().Options.SeparateRows = true
	return t
}

func newTable() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	return t
}

func cleanRow(values ...string) table.Row {
	row := make(table.Row, len(values))
	for i, value := range values {
		row[i] = clean(value)
	}
	return row
}

// columns of a target in full.
var targetColumns = table.Row{"target", "clusterId", "role", "status", "previousKeyUUID", "newKeyUUID", "rotatedAt", "verifiedAt", "attempts", "ambiguous", "carriedOver", "errorType", "errorMessage"}

func targetValues(r workflows.TargetRecord) []string {
	failure := workflows.TargetError{}
	if r.Error != nil {
		failure = *r.Error
	}
	return []string{
		r.Name, r.ClusterID, r.Role, r.Status, r.PreviousKeyUUID, r.NewKeyUUID, timeText(r.RotatedAt), timeText(r.VerifiedAt),
		strconv.Itoa(r.Attempts), strconv.FormatBool(r.Ambiguous), strconv.FormatBool(r.CarriedOver), failure.Type, failure.Message,
	}
}

// runColumns are the same in all rows of a report.
var runColumns = table.Row{"connection", "projectId", "rotatedClusterId", "cluster", "outcome", "ticket", "requestedBy", "reason", "approvedBy", "approvedAt", "startedAt", "finishedAt"}

func runValues(f findings) []string {
	approval := workflows.Approval{}
	if f.Approval != nil {
		approval = *f.Approval
	}
	return []string{
		f.Connection, f.ProjectID, f.ClusterID, f.ClusterName, f.Outcome, f.Change.Ticket, f.Change.RequestedBy, f.Change.Reason,
		approval.By, timeText(&approval.At), timeText(&f.StartedAt), timeText(f.FinishedAt),
	}
}

// csvOf has a row a target, complete in itself.
func csvOf(f findings) string {
	t := newCSV()
	t.AppendHeader(append(append(table.Row{}, runColumns...), targetColumns...))
	for _, record := range f.Targets {
		t.AppendRow(cleanRow(append(runValues(f), targetValues(record)...)...))
	}
	return t.RenderCSV()
}

func newCSV() table.Writer {
	t := table.NewWriter()
	t.Style().CSV.FieldProtection = true // a name must not become a spreadsheet's formula
	return t
}

// markdownOf is a report for a ticket.
func markdownOf(f findings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Key rotation of %s\n\n", markdownText(cmp.Or(f.ClusterName, f.ClusterID)))
	for _, fact := range facts(f) {
		fmt.Fprintf(&b, "- **%s:** %s\n", fact.label, markdownText(fact.value))
	}
	if len(f.Targets) == 0 {
		return b.String()
	}
	b.WriteString("\n## Targets\n\n" + markdownTargets(f.Targets) + "\n")
	if rows := remarkable(f.Targets); len(rows) > 0 {
		b.WriteString("\n## Remarks\n\n" + markdownTable(table.Row{"Target", "Status", "Remark"}, rows) + "\n")
	}
	return b.String()
}

func markdownTargets(records []workflows.TargetRecord) string {
	var rows []table.Row
	for _, r := range records {
		rows = append(rows, table.Row{r.Name, r.ClusterID, r.Role, r.Status, r.PreviousKeyUUID, r.NewKeyUUID, timeText(r.RotatedAt), timeText(r.VerifiedAt), strconv.Itoa(r.Attempts)})
	}
	return markdownTable(table.Row{"Target", "Cluster id", "Role", "Status", "Previous key", "New key", "Rotated", "Verified", "Attempts"}, rows)
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

// markdownSpecial are the characters that foreign text must not use as markup;
// the table's renderer sees to |.
var markdownSpecial = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "[", `\[`, "]", `\]`, "<", "&lt;", "&", "&amp;")

func markdownText(foreign string) string { return markdownSpecial.Replace(clean(foreign)) }
