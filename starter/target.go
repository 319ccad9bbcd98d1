package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyturn/workflows"
)

// targetRecord is the record of a target as displays and reports of rotations of
// every kind see it. A field that its kind does not have is empty.
type targetRecord struct {
	id   string // distinguishes it from all other targets of the rotation
	name string
	// otherNames also mean the target in what operators ask for. The first one means no
	// other target; further ones may.
	otherNames []string
	role       workflows.Role
	status     workflows.Status
	// isDone reports whether the target needs no more work, and doneAt since when.
	isDone bool
	doneAt *time.Time

	previousKey, newKey    string
	rotatedAt, verifiedAt  *time.Time
	carriedOver, ambiguous bool
	failure, firstFailure  *workflows.TargetError
	kmip                   *workflows.KeyEvidence
	remark                 string

	clusterID string
	// Of a cluster's target only.
	replacedOutside string
	attempts        int
	// Of a process only.
	host, replicaSet, clusterName          string
	previousRotateAt, provenBy, snapshotID string
	rotateAt                               *time.Time
}

// statuses in the order in which counts are shown.
var statuses = []workflows.Status{
	workflows.StatusVerified, workflows.StatusPlanned, workflows.StatusRotated, workflows.StatusRotating,
	workflows.StatusPending, workflows.StatusSkipped, workflows.StatusFailed,
}

func countsOf(targets []targetRecord) map[workflows.Status]int {
	counts := map[workflows.Status]int{}
	for _, t := range targets {
		counts[t.status]++
	}
	return counts
}

func countsText(counts map[workflows.Status]int) string {
	var parts []string
	for _, status := range statuses {
		if counts[status] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
		}
	}
	return strings.Join(parts, ", ")
}

func countIf(targets []targetRecord, is func(targetRecord) bool) (count int) {
	for _, t := range targets {
		if is(t) {
			count++
		}
	}
	return count
}

func (t targetRecord) isInProgress() bool {
	return !t.isDone && (t.status == workflows.StatusRotating || t.status == workflows.StatusRotated)
}

// isOpen reports whether the rotation has not finished with the target.
func (t targetRecord) isOpen() bool { return t.isInProgress() || t.status == workflows.StatusPending }

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

// failedTargets lists the failed targets as --targets takes them, by another name
// where the name would need quoting.
func failedTargets(targets []targetRecord) string {
	var names []string
	for _, t := range targets {
		switch {
		case t.status != workflows.StatusFailed:
		case plainName.MatchString(t.name):
			names = append(names, t.name)
		default:
			names = append(names, t.otherNames[0])
		}
	}
	return strings.Join(names, ",")
}

// change is a line for a target that has another status.
func (t targetRecord) change(number, all int) string {
	line := fmt.Sprintf("%s (%d of %d) %s", t.name, number, all, t.status)
	switch {
	case t.status == workflows.StatusVerified && t.previousKey == "":
		line += ": key " + t.newKey
	case t.status == workflows.StatusVerified:
		line += ": key " + t.previousKey + " -> " + t.newKey
	}
	if t.remark != "" {
		line += ": " + t.remark
	}
	return clean(line)
}

// shortRemark is the short form of the remark.
func (t targetRecord) shortRemark() string {
	switch {
	case t.failure != nil:
		return string(t.failure.Type)
	case t.carriedOver:
		return "carried over"
	case t.ambiguous:
		return "ambiguous"
	default:
		return ""
	}
}

// rateSample is how many of the latest targets the estimate is based on.
const rateSample = 20

// estimateRemaining estimates how long the remaining targets take, from the rate of
// those that were done last. It is not known before two were.
func estimateRemaining(targets []targetRecord) (time.Duration, bool) {
	var done []time.Time
	for _, t := range targets {
		if t.isDone && t.doneAt != nil && !t.carriedOver {
			done = append(done, *t.doneAt)
		}
	}
	remaining := countIf(targets, targetRecord.isOpen)
	if remaining == 0 || len(done) < 2 {
		return 0, false
	}
	slices.SortFunc(done, time.Time.Compare)
	latest := done[max(len(done)-rateSample, 0):]
	took := latest[len(latest)-1].Sub(latest[0])
	if took <= 0 {
		return 0, false
	}
	return took / time.Duration(len(latest)-1) * time.Duration(remaining), true
}

// topRows picks the targets to show where there is not enough room for all, and
// keeps their order: failed targets, targets in progress, the ones done last, the
// others.
func topRows(targets []targetRecord, room int) []targetRecord {
	if len(targets) <= room {
		return targets
	}
	order := make([]int, len(targets))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return byDisplayPriority(targets[a], targets[b]) })
	order = order[:room]
	slices.Sort(order)
	shown := make([]targetRecord, room)
	for i, index := range order {
		shown[i] = targets[index]
	}
	return shown
}

func byDisplayPriority(a, b targetRecord) int {
	if by := cmp.Compare(a.displayPriority(), b.displayPriority()); by != 0 {
		return by
	}
	return timeOf(b.doneAt).Compare(timeOf(a.doneAt))
}

func (t targetRecord) displayPriority() int {
	switch {
	case t.status == workflows.StatusFailed:
		return 0
	case t.isInProgress():
		return 1
	case t.isDone:
		return 2
	default:
		return 3
	}
}

func timeOf(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return *at
}

// remainingCounts are the counts of the targets that are not shown.
func remainingCounts(targets, shown []targetRecord) map[workflows.Status]int {
	counts := countsOf(targets)
	for _, t := range shown {
		counts[t.status]--
	}
	return counts
}
