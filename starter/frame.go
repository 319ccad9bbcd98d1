package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

const (
	barWidth = 24
	// reservedLines are those of the live display that belong to its table, but are
	// no rows: the header's two, and how many more rows there are.
	reservedLines = 3
	// maxWaitingLines and maxNoticeLines bound the sentences above and below it, the
	// former also by a sixth of the screen.
	maxWaitingLines, maxNoticeLines = 4, 2
)

// size of a screen, in characters.
type size struct{ width, height int }

// frame is one picture of the live display.
type frame struct {
	progress statusView // nil = not known yet
	notice   string
	now      time.Time
	colored  bool
}

// lines fit the screen.
func (f frame) lines(screen size) []string {
	// The last column is left free: some terminals wrap a line that fills it.
	l := layout{width: max(screen.width-1, 1), colored: f.colored}
	var above, table, below []string
	if p := f.progress; p != nil {
		above = p.statusLine(l, f.now).lines(l)
		if _, waitingFor := p.state(); waitingFor != "" {
			above = append(above, l.atMost(min(maxWaitingLines, max(screen.height/6, 1)), l.line(clean("waiting for "+waitingFor)))...)
		}
	}
	if f.notice != "" {
		for _, line := range l.atMost(maxNoticeLines, l.line(clean(f.notice))) {
			below = append(below, l.paint(markWaiting, line))
		}
	}
	below = append(below, l.paint(markFaint, cut("Ctrl-C stops watching; the rotation continues.", l.width)))
	room := max(screen.height-1, 1)
	if f.progress != nil {
		table = f.progress.rows(l, f.now, max(room-len(above)-len(below)-reservedLines, 1))
	}
	lines := slices.Concat(above, table, below)
	// The last line stays, whatever else a very low screen has no room for.
	if len(lines) > room {
		lines = append(lines[:room-1], lines[len(lines)-1])
	}
	for i, line := range lines {
		lines[i] = text.Trim(line, l.width)
	}
	return lines
}

// statusLine is the first line of the live display, or its first lines.
type statusLine struct {
	name      string
	phase     workflows.Phase
	done, all int
	parts     []string
}

func (s *statusLine) add(format string, args ...any) {
	s.parts = append(s.parts, fmt.Sprintf(format, args...))
}

// lines are one line or, if there is no room for it, the parts below the bar.
func (s statusLine) lines(l layout) []string {
	end := " " + bar(s.done, s.all) + "  " + l.paint(phaseClass(s.phase), phaseName(s.phase))
	parts := strings.Join(s.parts, ", ")
	if one := clean(s.name) + end + "  " + parts; widthOf(one) <= l.width {
		return []string{one}
	}
	words := slices.Clone(s.parts) // which stay whole
	for i := range words[:max(len(words)-1, 0)] {
		words[i] += ","
	}
	first := cut(clean(s.name), max(l.width-widthOf(end), 1)) + end
	return append([]string{first}, strings.Split(l.wrap(parts, "  ", words, ""), "\n")...)
}

func bar(done, all int) string {
	full := 0
	if all > 0 {
		full = done * barWidth / all
	}
	return strings.Repeat("█", full) + strings.Repeat("░", barWidth-full)
}

// phaseClass is the class of a phase's name.
func phaseClass(phase workflows.Phase) string {
	switch phase {
	case workflows.PhaseHeld, workflows.PhaseAwaitingApproval, workflows.PhasePaused, workflows.PhaseRecording:
		return markWaiting
	default:
		return ""
	}
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
