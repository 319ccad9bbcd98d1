package main

import (
	_ "embed"
	"html/template"
	"io"
	"iter"
	"strings"
	"time"

	"keyturn/internal/version"
	"keyturn/workflows"
)

// htmlPage is a report as a page for a browser or a printer.
type htmlPage struct {
	Title string
	// Verdict is how the rotation has ended, in a few words.
	Verdict  htmlMark
	Facts    []fact
	Sections []htmlSection
	// Parts are reports of their own within this one, with a title above them.
	// Appendix follows them.
	PartsTitle string
	Parts      iter.Seq[htmlPage]
	Appendix   []htmlSection
	// Notes explain the terms.
	Notes []htmlNote

	Version, Generated string
}

// htmlMark is a text with a sign before it. The sign has another shape for each
// class, so that nothing depends on colors.
type htmlMark struct{ Class, Sign, Text string }

// htmlSection is a table. The first cell of each row is its header.
type htmlSection struct {
	Title   string
	Chart   *htmlChart // above the table
	Caption string
	Columns [][]string // each with one line or more
	Rows    [][]htmlCell
	// After is a line below the table.
	After string
}

// htmlCell is a cell with one line or more.
type htmlCell []htmlLine

// htmlLine is a line of a cell: a text, an ID, a time, or a mark.
type htmlLine struct {
	Text string
	ID   string
	Long bool // the ID is too long for one line
	Time string
	Mark *htmlMark
	// Status: the mark is short, and stays on one line.
	Status bool
}

// htmlNote explains a term.
type htmlNote struct{ Term, Text string }

//go:embed report.html.tmpl
var reportTemplate string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{"label": fact.labelText, "value": fact.valueText}).Parse(reportTemplate))

func (f fact) labelText() string { return f.label }
func (f fact) valueText() string { return f.value }

// writeHTML writes a page as one file that needs no other one.
func writeHTML(out io.Writer, page htmlPage, now time.Time) error {
	page.Version, page.Generated = version.String(), timeText(&now)
	return reportPage.Execute(out, page)
}

// longestID is how many characters of an ID are kept on one line: a UUID's.
const longestID = 36

func textLine(text string) htmlLine { return htmlLine{Text: orDash(clean(text))} }
func idLine(id string) htmlLine     { return htmlLine{ID: clean(id), Long: len(id) > longestID} }
func timeLine(at *time.Time) htmlLine {
	return htmlLine{Time: timeText(at)}
}

// Classes of marks.
const (
	markGood    = "good"
	markBad     = "bad"
	markOpen    = "open"
	markNeutral = "neutral"
)

func newMark(class, text string) htmlMark {
	signs := map[string]string{markGood: "✓", markBad: "✗", markOpen: "…", markNeutral: "–"}
	return htmlMark{Class: class, Sign: signs[class], Text: clean(text)}
}

func markLine(class, text string) htmlLine {
	mark := newMark(class, text)
	return htmlLine{Mark: &mark}
}

func (t targetRecord) statusLine() htmlLine {
	class := markNeutral
	switch {
	case t.status == workflows.StatusVerified:
		class = markGood
	case t.status == workflows.StatusFailed:
		class = markBad
	case t.isInProgress():
		class = markOpen
	}
	line := markLine(class, string(t.status))
	line.Status = true
	return line
}

// evidenceLine distinguishes an answer that speaks against a key from none.
func evidenceLine(e *workflows.KeyEvidence) htmlLine {
	if e == nil {
		return markLine(markNeutral, "not asked")
	}
	switch e.Outcome {
	case workflows.EvidenceWitnessed:
		return markLine(markGood, evidenceText(e))
	case workflows.EvidenceAbsent:
		return markLine(markBad, evidenceText(e))
	default:
		return markLine(markNeutral, evidenceText(e))
	}
}

// verdictOf is an outcome in words.
func verdictOf(outcome workflows.Outcome, phase workflows.Phase, counts string) htmlMark {
	text := outcomeText(outcome, phase)
	if counts != "" {
		text += ": " + counts
	}
	switch outcome {
	case workflows.OutcomeRotated:
		return newMark(markGood, text)
	case workflows.OutcomeRotatedWithSkips, workflows.OutcomeRotatedUnproven, workflows.OutcomePlanned:
		return newMark(markNeutral, text)
	case "":
		if phase != workflows.PhaseDone {
			return newMark(markOpen, text)
		}
	}
	return newMark(markBad, text)
}

var (
	noteKeys  = htmlNote{"Previous and new key", "IDs of keys in the KMIP server, read from Ops Manager before and after. Keep every old key: old snapshots can be restored only with it."}
	noteTimes = htmlNote{"Times", "In UTC."}
	notesKMIP = []htmlNote{
		{"KMIP server", "What the server that holds the keys says about the new key, independently of Ops Manager: its state, and when it was made by that server's clock. Key material is never asked for."},
		{"witnessed", "The KMIP server has the key."},
		{"absent", "The KMIP server knows no such key, or has destroyed it."},
		{"forbidden", "The KMIP server does not show the key to keyturn. Many servers show a key only to the client that made it."},
		{"unreachable", "The KMIP server gave no usable answer. Nothing is known about the key."},
	}
)

// html is the section as a table.
func (s remarkSection) html() htmlSection {
	section := htmlSection{Title: s.title, Caption: s.caption, Columns: [][]string{{s.columns[0]}, {s.columns[1]}, {s.columns[2]}}}
	for _, r := range s.rows {
		section.Rows = append(section.Rows, []htmlCell{{textLine(r.subject)}, {r.state}, {textLine(r.text)}})
	}
	return section
}

func actionSection(actions []workflows.Action, notListed int) htmlSection {
	section := htmlSection{Title: "Actions", Caption: "What operators did", Columns: [][]string{{"At"}, {"By"}, {"Action"}, {"Targets"}, {"Reason"}}}
	for _, action := range actions {
		section.Rows = append(section.Rows, []htmlCell{{timeLine(&action.At)}, {textLine(action.By)}, {textLine(action.Action)}, {textLine(actionTargets(action))}, {textLine(action.Reason)}})
	}
	section.After = olderActions(notListed)
	return section
}

// memberCell names a cluster with its IDs, or a project.
func memberCell(ref workflows.ClusterRef) htmlCell {
	cell := htmlCell{textLine(workflows.NameOf(ref))}
	if ref.ClusterID != "" {
		cell = append(cell, idLine(ref.ClusterID), textLine("project "+ref.ProjectID))
	}
	return cell
}

// page is a fleet's report.
func (f *fleetStatus) page() htmlPage {
	member, members, keys := "Cluster", "Clusters", "Each cluster's keys before and after are in the report of that cluster."
	if f.isOfDeployments() {
		member, members, keys = "Project", "Projects", "Each process's keys, as far as snapshots show them, are in the report of its project."
	}
	inProgress := htmlSection{Title: "In progress", Caption: members + " that are being rotated", Columns: [][]string{{member}, {"Since"}, {"Workflow ID"}}}
	for _, c := range f.InProgress {
		inProgress.Rows = append(inProgress.Rows, []htmlCell{{textLine(workflows.NameOf(c.ClusterRef))}, {timeLine(&c.StartedAt)}, {idLine(c.WorkflowID)}})
	}
	failed := htmlSection{Title: "Failed", Caption: members + " whose rotation failed", Columns: [][]string{{member}, {"Error"}, {"Workflow", "Run"}}, After: strings.TrimSpace(f.notListed(""))}
	for _, c := range f.Failures {
		failed.Rows = append(failed.Rows, []htmlCell{
			memberCell(c.ClusterRef), {markLine(markBad, string(c.Error.Type)), textLine(c.Error.Message)}, {idLine(c.WorkflowID), idLine(c.RunID)},
		})
	}
	leftOut := htmlSection{Title: "Left out", Caption: members + " that were not rotated and have not failed", Columns: [][]string{{member}, {"Reason"}}}
	for _, c := range f.LeftOut {
		leftOut.Rows = append(leftOut.Rows, []htmlCell{memberCell(c.ClusterRef), {textLine(string(c.Reason))}})
	}
	leftOut.After = strings.TrimSpace(f.leftOutNotListed(""))
	return htmlPage{
		Title:    "Key rotation of the " + clean(f.name()),
		Verdict:  verdictOf(f.Outcome, f.Phase, f.counts()),
		Facts:    f.facts(),
		Sections: []htmlSection{inProgress, failed, leftOut, actionSection(f.Actions, f.ActionsNotListed)},
		Notes:    []htmlNote{{"Keys", keys}, noteTimes},
	}
}
