package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/stretchr/testify/assert"

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
	p.WaitingFor = "Ops Manager; 1 target in progress"
	return p
}

func TestLiveDisplay(t *testing.T) {
	p := halfDone()
	got := plain(frame{progress: clusterStatusOf(p), notice: "no worker", now: began.Add(65 * time.Second)}.lines(size{100, 24}))
	want := `orders █████████░░░░░░░░░░░░░░░  rotating  2/5 done, 1 in progress, 1 failed, 1:05, about 0:20 left
waiting for Ops Manager; 1 target in progress
 Target   │ Status   │ Previous key │ New key │ Remark
──────────┼──────────┼──────────────┼─────────┼──────────
 orders-0 │ verified │ old-00       │ new-00  │
 orders-1 │ verified │ old-01       │ new-01  │
 orders-2 │ rotating │ old-02       │         │
 orders-3 │ failed   │ old-03       │         │ NotFound
 orders-4 │ pending  │ old-04       │         │
no worker
Ctrl-C stops watching; the rotation continues.
`
	assert.Equal(t, want, got)
}

func TestLiveDisplayBeforeTheFirstAnswer(t *testing.T) {
	assert.Equal(t, "no worker\nCtrl-C stops watching; the rotation continues.\n", plain(frame{notice: "no worker"}.lines(size{80, 24})))
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
		lines := frame{progress: clusterStatusOf(p), notice: strings.Repeat("no worker ", 30), now: began}.lines(screen)
		// One row is left for the cursor, so that nothing scrolls.
		assert.False(t, len(lines) > max(screen.height-1, 1))
		for _, line := range lines {
			assert.False(t, text.StringWidthWithoutEscSequences(line) > max(screen.width-1, 1))
		}
	}
	got := plain(frame{progress: clusterStatusOf(p), now: began}.lines(size{80, 12}))
	assert.Contains(t, got, "failed", "a low screen shows\n%s", got)
	assert.Contains(t, got, "rotating", "a low screen shows\n%s", got)
	assert.Contains(t, got, "and 197 more: 197 pending", "a low screen shows\n%s", got)
	assert.Contains(t, got, "│ 001c36b3", "a low screen shows\n%s", got)
}

func TestMostTellingKeepsTheOrder(t *testing.T) {
	records := []workflows.TargetRecord{
		target("00", "pending", workflows.StatusPending), verified("01", "old", 1), verified("02", "newer", 9), verified("03", "newest", 10),
		target("04", "rotating", workflows.StatusRotating), target("05", "failed", workflows.StatusFailed),
	}
	var names []string
	for _, record := range topRows((&clusterRecords{progressOf(workflows.PhaseRotating, records...)}).targets(), 4) {
		names = append(names, record.name)
	}
	assert.Equal(t, []string{"newer", "newest", "rotating", "failed"}, names)
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
		phase   workflows.Phase
		targets []workflows.TargetRecord
		want    string
	}{
		"by the rate so far":        {workflows.PhaseRotating, append(pending(6), verified("00", "a", 10), verified("01", "b", 15), verified("02", "c", 20)), "30s"},
		"of one nothing is known":   {workflows.PhaseRotating, append(pending(6), verified("00", "a", 10)), "unknown"},
		"carried over is no work":   {workflows.PhaseRotating, append(pending(6), carried, verified("00", "a", 10)), "unknown"},
		"no rate if all at once":    {workflows.PhaseRotating, append(pending(6), verified("00", "a", 10), verified("01", "b", 10)), "unknown"},
		"nothing is left":           {workflows.PhaseRotating, []workflows.TargetRecord{verified("00", "a", 10), verified("01", "b", 15)}, "unknown"},
		"a person can't be counted": {workflows.PhaseHeld, append(pending(6), verified("00", "a", 10), verified("01", "b", 15)), "unknown"},
		"by the latest ones":        {workflows.PhaseRotating, append(pending(10), many...), "10s"},
	} {
		got := "unknown"
		if left, known := clusterStatusOf(progressOf(test.phase, test.targets...)).estimateRemaining(); known {
			got = left.String()
		}
		assert.Equal(t, test.want, got, name)
	}
}

func TestClock(t *testing.T) {
	for want, d := range map[string]time.Duration{"0:00": 0, "0:59": 59 * time.Second, "1:00": 59600 * time.Millisecond, "1:02:03": 3723 * time.Second} {
		assert.Equal(t, want, clock(d))
	}
}

func TestChangesBetweenSnapshots(t *testing.T) {
	listing := progressOf(workflows.PhaseListing)
	read := progressOf(workflows.PhaseRotating, target("00", "orders-0", workflows.StatusRotating), target("01", "orders-1", workflows.StatusPending))
	read.WaitingFor = "Ops Manager; 1 target in progress"
	failed := target("01", "orders-1", workflows.StatusFailed)
	failed.Error = &workflows.TargetError{Type: "NotFound", Message: "no\nbackup"}
	held := progressOf(workflows.PhaseHeld, verified("00", "orders-0", 3), failed)
	held.WaitingFor = "an operator"
	recording := progressOf(workflows.PhaseRecording, verified("00", "orders-0", 3), verified("01", "orders-1", 4))
	recording.Outcome, recording.WaitingFor = workflows.OutcomeRotated, "the ledger to record the rotation"
	done := recording
	done.Phase, done.WaitingFor = workflows.PhaseDone, ""
	var got []string
	var before statusView
	for _, snapshot := range []workflows.Progress{listing, listing, read, read, held, held, recording, recording, done} {
		now := clusterStatusOf(snapshot)
		got = append(got, now.changes(before)...)
		before = now
	}
	want := []string{
		"orders is listing",
		"orders is rotating: 1 rotating, 1 pending; waiting for Ops Manager; 1 target in progress",
		"orders-0 (1 of 2) rotating",
		"orders is held: 1 verified, 1 failed; waiting for an operator",
		"orders-0 (1 of 2) verified: key old-00 -> new-00",
		"orders-1 (2 of 2) failed: NotFound: no backup",
		"orders-1 (2 of 2) verified: key old-01 -> new-01",
		"orders has ended (rotated, not recorded yet): 2 verified; waiting for the ledger to record the rotation",
		"orders has ended (rotated): 2 verified",
	}
	assert.Equal(t, want, got)
}

func TestPlainLinesHaveTheTimeAndTellOfATroubleOnce(t *testing.T) {
	var out bytes.Buffer
	v := &lineView{out: &out, now: func() time.Time { return began }}
	for _, notice := range []string{"", "no worker", "no worker", "", ""} {
		v.notice(notice)
	}
	v.show(clusterStatusOf(progressOf(workflows.PhaseReading)))
	want := "2026-03-01T12:00:00Z no worker\n2026-03-01T12:00:00Z the progress can be read again\n2026-03-01T12:00:00Z orders is reading\n"
	assert.Equal(t, want, out.String())
}

func TestLiveViewDrawsInItsPlaceAndRestoresTheCursor(t *testing.T) {
	var out bytes.Buffer
	on := size{80, 24}
	v := newLiveView(screen{out: &out, size: func() size { return on }})
	v.now = func() time.Time { return began }
	p := halfDone()
	v.show(clusterStatusOf(p))
	drawn := len(v.drawn)
	out.Reset()
	v.tick()
	assert.True(t, strings.HasPrefix(out.String(), fmt.Sprintf("\x1b[%dA\r", drawn)))
	on.width = 40 // what is drawn takes more rows now
	out.Reset()
	v.tick()
	assert.False(t, strings.HasPrefix(out.String(), fmt.Sprintf("\x1b[%dA\r", drawn)), "a narrower screen is ignored")
	out.Reset()
	v.close(true)
	assert.Contains(t, out.String(), eraseBelow)
	assert.True(t, strings.HasSuffix(out.String(), showCursor))
}
