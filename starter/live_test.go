package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

// plain takes the colors out of lines.
func plain(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(strings.TrimRight(escapeSequence.ReplaceAllString(line, ""), " ") + "\n")
	}
	return b.String()
}

func halfDone() workflows.Progress {
	failed := target("03", "orders-3", workflows.StatusFailed)
	failed.Error = &workflows.TargetError{Type: "NotFound", Message: "GET ..."}
	p := progressOf(workflows.PhaseRotating, verified("00", "orders-0", 10), verified("01", "orders-1", 20),
		target("02", "orders-2", workflows.StatusRotating), failed, target("04", "orders-4", workflows.StatusPending))
	p.WaitingFor = "Ops Manager; 1 targets are in work"
	return p
}

func TestLiveDisplay(t *testing.T) {
	p := halfDone()
	got := plain(scene{progress: &clusterAccount{Progress: p}, notice: "no worker", now: began.Add(65 * time.Second)}.lines(size{100, 24}))
	want := `orders █████████░░░░░░░░░░░░░░░  rotating  2/5 done, 1 in work, 1 failed, 1:05, about 0:20 left
waiting for Ops Manager; 1 targets are in work
 Target   │ Status   │ Previous key │ New key │ Remark
──────────┼──────────┼──────────────┼─────────┼──────────
 orders-0 │ verified │ old-00       │ new-00  │
 orders-1 │ verified │ old-01       │ new-01  │
 orders-2 │ rotating │ old-02       │         │
 orders-3 │ failed   │ old-03       │         │ NotFound
 orders-4 │ pending  │ old-04       │         │
no worker
Ctrl-C ends the watching, not the rotation.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLiveDisplayBeforeTheFirstAnswer(t *testing.T) {
	if got := plain(scene{notice: "no worker"}.lines(size{80, 24})); got != "no worker\nCtrl-C ends the watching, not the rotation.\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestLiveDisplayFitsEveryScreen(t *testing.T) {
	var targets []workflows.TargetRecord
	for i := range 200 {
		one := target(fmt.Sprintf("%02x", i), strings.Repeat("生", 30)+fmt.Sprint(i), workflows.StatusPending)
		one.PreviousKeyUUID = "001c36b3-c519-4c3b-a5e0-b1ff12bef668"
		targets = append(targets, one)
	}
	targets[150].Status, targets[160].Status = workflows.StatusFailed, workflows.StatusRotating
	p := progressOf(workflows.PhaseRotating, targets...)
	p.WaitingFor = strings.Repeat("Ops Manager ", 30)
	for _, screen := range []size{{200, 60}, {80, 24}, {80, 12}, {40, 10}, {20, 5}, {1, 1}} {
		lines := scene{progress: &clusterAccount{Progress: p}, notice: strings.Repeat("no worker ", 30), now: began}.lines(screen)
		// One row is left for the cursor, so that nothing scrolls.
		if len(lines) > max(screen.height-1, 1) {
			t.Errorf("%v: %d lines", screen, len(lines))
		}
		for _, line := range lines {
			if width := text.StringWidthWithoutEscSequences(line); width > max(screen.width-1, 1) {
				t.Errorf("%v: a line of %d: %q", screen, width, line)
			}
		}
	}
	got := plain(scene{progress: &clusterAccount{Progress: p}, now: began}.lines(size{80, 12}))
	if !strings.Contains(got, "failed") || !strings.Contains(got, "rotating") || !strings.Contains(got, "and 196 more: 196 pending") || !strings.Contains(got, "001c36b3…") {
		t.Errorf("a low screen shows\n%s", got)
	}
}

func TestMostTellingKeepsTheOrder(t *testing.T) {
	records := []workflows.TargetRecord{
		target("00", "pending", workflows.StatusPending), verified("01", "old", 1), verified("02", "newer", 9), verified("03", "newest", 10),
		target("04", "rotating", workflows.StatusRotating), target("05", "failed", workflows.StatusFailed),
	}
	var names []string
	for _, record := range mostTelling(records, 4) {
		names = append(names, record.Name)
	}
	if want := []string{"newer", "newest", "rotating", "failed"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

func TestTimeLeft(t *testing.T) {
	pending := func(n int) (targets []workflows.TargetRecord) {
		return slices.Repeat([]workflows.TargetRecord{target("ff", "more", workflows.StatusPending)}, n)
	}
	carried := verified("09", "carried", -1000)
	carried.CarriedOver = true
	var many []workflows.TargetRecord // slow at first, then one a second
	for i := range 40 {
		many = append(many, verified(fmt.Sprintf("%02d", i), "orders", i*100+max(i-20, 0)*-99))
	}
	for name, test := range map[string]struct {
		phase   string
		targets []workflows.TargetRecord
		want    string
	}{
		"by the rate so far":        {workflows.PhaseRotating, append(pending(6), verified("00", "a", 10), verified("01", "b", 15), verified("02", "c", 20)), "30s"},
		"of one nothing is known":   {workflows.PhaseRotating, append(pending(6), verified("00", "a", 10)), "unknown"},
		"carried over is no work":   {workflows.PhaseRotating, append(pending(6), carried, verified("00", "a", 10)), "unknown"},
		"all at once says nothing":  {workflows.PhaseRotating, append(pending(6), verified("00", "a", 10), verified("01", "b", 10)), "unknown"},
		"nothing is left":           {workflows.PhaseRotating, []workflows.TargetRecord{verified("00", "a", 10), verified("01", "b", 15)}, "unknown"},
		"a person can't be counted": {workflows.PhaseHeld, append(pending(6), verified("00", "a", 10), verified("01", "b", 15)), "unknown"},
		"by the latest ones":        {workflows.PhaseRotating, append(pending(10), many...), "10s"},
	} {
		got := "unknown"
		if left, known := timeLeft(progressOf(test.phase, test.targets...)); known {
			got = left.String()
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

func TestClock(t *testing.T) {
	for want, d := range map[string]time.Duration{"0:00": 0, "0:59": 59 * time.Second, "1:00": 59600 * time.Millisecond, "1:02:03": 3723 * time.Second} {
		if got := clock(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func TestChangesBetweenSnapshots(t *testing.T) {
	listing := progressOf(workflows.PhaseListing)
	read := progressOf(workflows.PhaseRotating, target("00", "orders-0", workflows.StatusRotating), target("01", "orders-1", workflows.StatusPending))
	read.WaitingFor = "Ops Manager; 1 targets are in work"
	failed := target("01", "orders-1", workflows.StatusFailed)
	failed.Error = &workflows.TargetError{Type: "NotFound", Message: "no\nbackup"}
	held := progressOf(workflows.PhaseHeld, verified("00", "orders-0", 3), failed)
	held.WaitingFor = "an operator"
	var got []string
	var before account
	for _, snapshot := range []workflows.Progress{listing, listing, read, read, held, held} {
		now := &clusterAccount{Progress: snapshot}
		got = append(got, now.changes(before)...)
		before = now
	}
	want := []string{
		"orders is listing",
		"orders is rotating: 1 rotating, 1 pending; waiting for Ops Manager; 1 targets are in work",
		"orders-0 (1 of 2) rotating",
		"orders is held: 1 verified, 1 failed; waiting for an operator",
		"orders-0 (1 of 2) verified: key old-00 -> new-00",
		"orders-1 (2 of 2) failed: NotFound: no backup",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPlainLinesHaveTheTimeAndTellOfATroubleOnce(t *testing.T) {
	var out bytes.Buffer
	v := &lineView{out: &out, now: func() time.Time { return began }}
	for _, notice := range []string{"", "no worker", "no worker", "", ""} {
		v.notice(notice)
	}
	v.show(&clusterAccount{Progress: progressOf(workflows.PhaseReading)})
	want := "2026-03-01T12:00:00Z no worker\n2026-03-01T12:00:00Z the progress is known again\n2026-03-01T12:00:00Z orders is reading\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func TestLiveViewDrawsInItsPlaceAndRestoresTheCursor(t *testing.T) {
	var out bytes.Buffer
	on := size{80, 24}
	v := newLiveView(screen{out: &out, size: func() size { return on }})
	v.now = func() time.Time { return began }
	p := halfDone()
	v.show(&clusterAccount{Progress: p})
	drawn := len(v.drawn)
	out.Reset()
	v.tick()
	if !strings.HasPrefix(out.String(), fmt.Sprintf("\x1b[%dA\r", drawn)) {
		t.Errorf("the second picture does not begin %d lines up: %q", drawn, out.String())
	}
	on.width = 40 // what is drawn takes more rows now
	out.Reset()
	v.tick()
	if strings.HasPrefix(out.String(), fmt.Sprintf("\x1b[%dA\r", drawn)) {
		t.Error("a narrower screen is not taken into account")
	}
	out.Reset()
	v.close(true)
	if !strings.Contains(out.String(), eraseBelow) || !strings.HasSuffix(out.String(), showCursor) {
		t.Errorf("the end is %q", out.String())
	}
}
