package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

const (
	barWidth = 24
	// linesAround are those of the live display that are no target's: the bar,
	// what is waited for, the table's two header lines, how many more there
	// are, the notice, and what Ctrl-C does.
	linesAround = 7
	// shortKey is how much of a key's id a narrow screen shows.
	shortKey = 8
	// longestName is how much of a target's name is shown.
	longestName = 40
	// rateOver is how many of the latest targets the estimate goes by.
	rateOver = 20
)

// size of a screen, in characters.
type size struct{ width, height int }

// scene is all that the live display is a picture of.
type scene struct {
	progress account // nil = not known yet
	notice   string
	now      time.Time
}

// lines is the picture: lines that fit the screen.
func (s scene) lines(screen size) []string {
	var lines []string
	if p := s.progress; p != nil {
		lines = append(lines, p.statusLine(s.now))
		if _, waitingFor := p.state(); waitingFor != "" {
			lines = append(lines, clean("waiting for "+waitingFor))
		}
		lines = append(lines, p.rows(s.now, screen)...)
	}
	if s.notice != "" {
		lines = append(lines, text.FgYellow.Sprint(clean(s.notice)))
	}
	lines = append(lines, text.Faint.Sprint("Ctrl-C ends the watching, not the rotation."))
	for i, line := range lines {
		lines[i] = text.Trim(line, max(screen.width-1, 1))
	}
	// The last line stays, whatever else a very low screen has no room for.
	if room := max(screen.height-1, 1); len(lines) > room {
		lines = append(lines[:room-1], lines[len(lines)-1])
	}
	return lines
}

func (c *clusterAccount) statusLine(now time.Time) string {
	p := c.Progress
	done, all := doneOf(p.Targets), len(p.Targets)
	parts := []string{fmt.Sprintf("%d/%d done", done, all)}
	if inWork := p.Counts[workflows.StatusRotating] + p.Counts[workflows.StatusRotated]; inWork > 0 {
		parts = append(parts, fmt.Sprintf("%d in work", inWork))
	}
	if failed := p.Counts[workflows.StatusFailed]; failed > 0 {
		parts = append(parts, text.FgRed.Sprintf("%d failed", failed))
	}
	parts = append(parts, clock(elapsed(p.StartedAt, p.FinishedAt, now)))
	if left, known := timeLeft(p); known {
		parts = append(parts, "about "+clock(left)+" left")
	}
	return fmt.Sprintf("%s %s  %s  %s", clean(cmp.Or(p.ClusterName, p.ClusterID)), bar(done, all), phaseText(p.Phase), strings.Join(parts, ", "))
}

func bar(done, all int) string {
	full := 0
	if all > 0 {
		full = done * barWidth / all
	}
	return strings.Repeat("█", full) + strings.Repeat("░", barWidth-full)
}

func phaseText(phase string) string {
	switch phase {
	case workflows.PhaseHeld, workflows.PhaseAwaitingApproval, workflows.PhasePaused:
		return text.FgYellow.Sprint(phase)
	default:
		return phase
	}
}

// doneOf counts what needs no more work.
func doneOf(records []workflows.TargetRecord) (done int) {
	for _, record := range records {
		switch record.Status {
		case workflows.StatusVerified, workflows.StatusSkipped, workflows.StatusPlanned:
			done++
		}
	}
	return done
}

func elapsed(started time.Time, finished *time.Time, now time.Time) time.Duration {
	if finished != nil {
		now = *finished
	}
	return max(now.Sub(started), 0)
}

// clock shows a duration as 1:02:03 or 2:03.
func clock(d time.Duration) string {
	seconds := int(math.Round(d.Seconds()))
	if seconds >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// timeLeft estimates how long the rest takes, by the rate of the targets that
// were verified last. It is not known before two were, nor while the rotation
// waits for somebody.
func timeLeft(p workflows.Progress) (time.Duration, bool) {
	if p.Phase != workflows.PhaseRotating {
		return 0, false
	}
	left := 0
	var verified []time.Time
	for _, record := range p.Targets {
		switch {
		case isLeft(record):
			left++
		case record.VerifiedAt != nil && !record.CarriedOver:
			verified = append(verified, *record.VerifiedAt)
		}
	}
	if left == 0 || len(verified) < 2 {
		return 0, false
	}
	slices.SortFunc(verified, time.Time.Compare)
	latest := verified[max(len(verified)-rateOver, 0):]
	took := latest[len(latest)-1].Sub(latest[0])
	if took <= 0 {
		return 0, false
	}
	return took / time.Duration(len(latest)-1) * time.Duration(left), true
}

func isLeft(record workflows.TargetRecord) bool {
	switch record.Status {
	case workflows.StatusPending, workflows.StatusRotating, workflows.StatusRotated:
		return true
	}
	return false
}

func (c *clusterAccount) rows(_ time.Time, screen size) []string {
	records := c.Targets
	if len(records) == 0 {
		return nil
	}
	shown := mostTelling(records, max(screen.height-1-linesAround, 1))
	t := liveTable(shown, func(key string) string { return key })
	if text.LongestLineLen(t) >= screen.width {
		t = liveTable(shown, shorten)
	}
	lines := strings.Split(t, "\n")
	if more := len(records) - len(shown); more > 0 {
		lines = append(lines, text.Faint.Sprintf("and %d more: %s", more, countsText(countsLeft(records, shown))))
	}
	return lines
}

func shorten(key string) string {
	if runes := []rune(key); len(runes) > shortKey {
		return string(runes[:shortKey]) + "…"
	}
	return key
}

func liveTable(records []workflows.TargetRecord, key func(string) string) string {
	t := newTable()
	t.Style().Options.DrawBorder = false
	t.AppendHeader(table.Row{"Target", "Status", "Previous key", "New key", "Remark"})
	for _, r := range records {
		t.AppendRow(table.Row{
			text.Snip(clean(r.Name), longestName, "…"), statusText(r.Status), key(clean(r.PreviousKeyUUID)), key(clean(r.NewKeyUUID)), remarkType(r),
		})
	}
	return t.Render()
}

// remarkType is the short form of a record's remark.
func remarkType(r workflows.TargetRecord) string {
	switch {
	case r.Error != nil:
		return clean(r.Error.Type)
	case r.CarriedOver:
		return "carried over"
	case r.Ambiguous:
		return "ambiguous"
	default:
		return ""
	}
}

func statusText(status string) string {
	switch status {
	case workflows.StatusVerified:
		return text.FgGreen.Sprint(status)
	case workflows.StatusFailed:
		return text.FgRed.Sprint(status)
	case workflows.StatusRotating, workflows.StatusRotated:
		return text.FgCyan.Sprint(status)
	default:
		return clean(status)
	}
}

// mostTelling picks the records to show where there is no room for all, and
// keeps their order: failed ones, those in work, those verified last, the rest.
func mostTelling(records []workflows.TargetRecord, room int) []workflows.TargetRecord {
	if len(records) <= room {
		return records
	}
	order := make([]int, len(records))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return byInterest(records[a], records[b]) })
	order = order[:room]
	slices.Sort(order)
	shown := make([]workflows.TargetRecord, room)
	for i, index := range order {
		shown[i] = records[index]
	}
	return shown
}

func byInterest(a, b workflows.TargetRecord) int {
	if by := cmp.Compare(interest(a), interest(b)); by != 0 {
		return by
	}
	return verifiedAt(b).Compare(verifiedAt(a))
}

func interest(r workflows.TargetRecord) int {
	switch r.Status {
	case workflows.StatusFailed:
		return 0
	case workflows.StatusRotating, workflows.StatusRotated:
		return 1
	case workflows.StatusVerified:
		return 2
	default:
		return 3
	}
}

// verifiedAt is zero for what isn't.
func verifiedAt(r workflows.TargetRecord) time.Time {
	if r.VerifiedAt == nil {
		return time.Time{}
	}
	return *r.VerifiedAt
}

// countsLeft are the counts of the records that are not shown.
func countsLeft(records, shown []workflows.TargetRecord) map[string]int {
	counts := countsOf(records)
	for _, record := range shown {
		counts[record.Status]--
	}
	return counts
}

// changes are a line for the phase, and one for each target whose status is
// another.
func (c *clusterAccount) changes(since account) []string {
	var lines []string
	known := map[string]string{}
	before, isKnown := since.(*clusterAccount)
	if !isKnown {
		before = &clusterAccount{}
	}
	after := c.Progress
	for _, record := range before.Targets {
		known[record.ClusterID] = record.Status
	}
	if before.Phase != after.Phase {
		lines = append(lines, phaseChange(after))
	}
	for i, record := range after.Targets {
		was, isKnown := known[record.ClusterID]
		if was == record.Status || !isKnown && record.Status == workflows.StatusPending {
			continue
		}
		lines = append(lines, targetChange(record, i+1, len(after.Targets)))
	}
	return lines
}

func phaseChange(p workflows.Progress) string {
	line := cmp.Or(p.ClusterName, p.ClusterID) + " is " + p.Phase
	if counts := countsText(p.Counts); counts != "" {
		line += ": " + counts
	}
	if p.WaitingFor != "" {
		line += "; waiting for " + p.WaitingFor
	}
	return clean(line)
}

func targetChange(r workflows.TargetRecord, number, all int) string {
	line := fmt.Sprintf("%s (%d of %d) %s", r.Name, number, all, r.Status)
	if r.Status == workflows.StatusVerified {
		line += ": key " + r.PreviousKeyUUID + " -> " + r.NewKeyUUID
	}
	if remark := r.Remark(); remark != "" {
		line += ": " + remark
	}
	return clean(line)
}
