package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
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

// write writes an account in the format that is asked for; asJSON is what it is
// in JSON.
func (a *app) write(told account, asJSON any) error {
	switch a.format {
	case formatJSON:
		return writeJSON(a.stdout, asJSON)
	case formatCSV:
		return writeLine(a.stdout, told.csv())
	case formatMarkdown:
		return writeLine(a.stdout, told.markdown())
	default:
		return writeLine(a.stdout, told.table())
	}
}

func writeLine(out io.Writer, text string) error {
	_, err := fmt.Fprintln(out, strings.TrimRight(text, "\n"))
	return err
}

func writeJSON(out io.Writer, value any) error {
	text, err := jsonText(value, "")
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}

// jsonText is a value for people and programs; prefix stands before each line
// but the first.
func jsonText(value any, prefix string) (string, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent(prefix, "  ")
	err := encoder.Encode(value)
	return escapeControls(buffer.String()), err
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
func (c *clusterAccount) facts() []fact {
	return knownOf([]fact{
		{"Cluster", strings.TrimSpace(c.ClusterName + " (" + c.ClusterID + ")")},
		{"Project", c.ProjectID},
		{"Connection", c.Connection},
		{"Outcome", outcomeText(c.Outcome, c.Phase)},
		{"Waiting for", c.WaitingFor},
		{"Failure", c.failure},
		{"Requested by", orDash(c.Change.RequestedBy)},
		{"Ticket", orDash(c.Change.Ticket)},
		{"Reason", orDash(c.Change.Reason)},
		{"Approved by", approvalText(c.Approval)},
		{"Started", timeText(&c.StartedAt)},
		{"Finished", finishedText(c.StartedAt, c.FinishedAt)},
		{"Targets", countsText(countsOf(c.Targets))},
	})
}

// knownOf leaves out what is not known, and cleans the rest.
func knownOf(all []fact) []fact {
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

func finishedText(started time.Time, finished *time.Time) string {
	if finished == nil {
		return ""
	}
	return fmt.Sprintf("%s (after %s)", timeText(finished), durationText(finished.Sub(started)))
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

func (c *clusterAccount) briefly() []string {
	return inTwoLines(fmt.Sprintf("%s: %s: %s", cmp.Or(c.ClusterName, c.ClusterID), c.Phase, countsText(c.Counts)), c.WaitingFor)
}

func inTwoLines(first, waitingFor string) []string {
	lines := []string{clean(first)}
	if waitingFor != "" {
		lines = append(lines, clean("waiting for "+waitingFor))
	}
	return lines
}

// headOf is the head of a report for a terminal.
func headOf(facts []fact) string {
	var b strings.Builder
	for _, fact := range facts {
		fmt.Fprintf(&b, "%-13s %s\n", fact.label, fact.value)
	}
	return b.String()
}

// table is a report for a terminal.
func (c *clusterAccount) table() string {
	var b strings.Builder
	b.WriteString(headOf(c.facts()))
	if len(c.Targets) == 0 {
		return b.String()
	}
	b.WriteString("\n" + targetTable(c.RotateClusterResult).Render() + "\n")
	if rows := remarkable(c.Targets); len(rows) > 0 {
		b.WriteString("\nRemarks\n")
		for _, row := range rows {
			fmt.Fprintf(&b, "  %s (%s): %s\n", row...)
		}
	}
	return b.String()
}

// targetTable has two lines a target, so that all ids fit on a screen.
func targetTable(result workflows.RotateClusterResult) table.Writer {
	t := newTable()
	if result.Outcome == workflows.OutcomePlanned {
		t.AppendHeader(table.Row{"Target", "Role", "Cluster id", "Status", "Current key"})
		for _, r := range result.Targets {
			t.AppendRow(cleanRow(r.Name, r.Role, r.ClusterID, r.Status, r.PreviousKeyUUID))
		}
		return t
	}
	t.AppendHeader(table.Row{"Target\nCluster id", "Status\nRole", "Previous key\nNew key", "Rotated\nVerified", "Attempts"})
	for _, r := range result.Targets {
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

func runValues(r workflows.RotateClusterResult) []string {
	approval := workflows.Approval{}
	if r.Approval != nil {
		approval = *r.Approval
	}
	return []string{
		r.Connection, r.ProjectID, r.ClusterID, r.ClusterName, r.Outcome, r.Change.Ticket, r.Change.RequestedBy, r.Change.Reason,
		approval.By, timeText(&approval.At), timeText(&r.StartedAt), timeText(r.FinishedAt),
	}
}

// csv has a row a target, complete in itself.
func (c *clusterAccount) csv() string {
	t := newCSV()
	t.AppendHeader(slices.Concat(runColumns, targetColumns))
	for _, record := range c.Targets {
		t.AppendRow(cleanRow(append(runValues(c.RotateClusterResult), targetValues(record)...)...))
	}
	return t.RenderCSV()
}

func newCSV() table.Writer {
	t := table.NewWriter()
	t.Style().CSV.FieldProtection = true // a name must not become a spreadsheet's formula
	return t
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

// markdown is a report for a ticket.
func (c *clusterAccount) markdown() string {
	var b strings.Builder
	b.WriteString(markdownHead("Key rotation of "+cmp.Or(c.ClusterName, c.ClusterID), c.facts()))
	if len(c.Targets) == 0 {
		return b.String()
	}
	b.WriteString("\n## Targets\n\n" + markdownTargets(c.Targets) + "\n")
	if rows := remarkable(c.Targets); len(rows) > 0 {
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
