package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"keyturn/worker/metrics"
	"keyturn/workflows"
)

// snapshot is what Temporal knows of the open rotations of the task queue,
// whichever workers start and stop.
type snapshot struct {
	taken  time.Time // zero = never
	phases map[string]metrics.Open
	// pausedSchedules: see monitor.pausedSchedules.
	pausedSchedules []string
	// observed are the rotations, by run.
	observed map[string]observation
}

// observation is the state of a rotation, and since when it has been the same.
type observation struct {
	phase workflows.Phase
	ended string // the numbers of targets that ended, by status
	since time.Time
	// isProving: only proofs are waited for.
	isProving bool
}

const (
	// phaseUnknown is that of a rotation that does not answer, or is not queried.
	phaseUnknown = "unknown"
	// maxQueried is how many rotations are queried for one snapshot at most.
	maxQueried = 200
	// maxConcurrentQueries bounds the load on Temporal.
	maxConcurrentQueries = 4
	// queryTimeout is how long one rotation may take to answer.
	queryTimeout = 5 * time.Second
	// staleAfter is for how many pauses a snapshot counts.
	staleAfter = 5
)

var phases = []workflows.Phase{
	workflows.PhaseListing, workflows.PhaseReading, workflows.PhaseAwaitingApproval, workflows.PhaseRotating,
	workflows.PhasePaused, workflows.PhaseHeld, workflows.PhaseRecording, phaseUnknown,
}

// inTemporal is what Temporal knows; false = the last snapshot is too old.
func (m *monitor) inTemporal() (metrics.InTemporal, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return metrics.InTemporal{Open: m.open.phases, PausedSchedules: m.open.pausedSchedules}, time.Since(m.open.taken) < staleAfter*m.settings.monitoring.openRotations
}

// refresh takes a new snapshot of the open rotations.
func (m *monitor) refresh(ctx context.Context, temporal client.Client) bool {
	open, err := m.openRotations(ctx, temporal)
	if err != nil {
		if m.ctx.Err() == nil {
			m.logger.Debug("cannot count the open rotations", "error", err)
		}
		return false
	}
	m.mu.Lock()
	before := m.open
	m.mu.Unlock()
	now := queryAll(ctx, temporal, open, before.observed)
	paused, err := m.pausedSchedules(ctx, temporal) // last: it must not take the rotations' time
	if err != nil {
		m.logSchedules(err)
		paused = before.pausedSchedules
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = snapshot{taken: time.Now(), observed: now, phases: aggregate(now), pausedSchedules: paused}
	return true
}

// openRotation is a rotation that Temporal lists.
type openRotation struct{ workflowID, runID string }

func (m *monitor) openRotations(ctx context.Context, temporal client.Client) (open []openRotation, err error) {
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("ExecutionStatus = 'Running' AND WorkflowType IN ('%s', '%s')", workflows.RotateClusterType, workflows.RotateDeploymentType),
	}
	for {
		page, err := temporal.ListWorkflow(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, info := range page.GetExecutions() {
			id := info.GetExecution().GetWorkflowId()
			_, _, _, isCluster := workflows.ParseRotateClusterID(id)
			_, _, isDeployment := workflows.ParseRotateDeploymentID(id)
			if (isCluster || isDeployment) && info.GetTaskQueue() == m.settings.taskQueue {
				open = append(open, openRotation{id, info.GetExecution().GetRunId()})
			}
		}
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return open, nil
		}
	}
}

// queryAll returns the state of each rotation; that of all beyond maxQueried is
// unknown.
func queryAll(ctx context.Context, temporal client.Client, open []openRotation, before map[string]observation) map[string]observation {
	now := map[string]observation{}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(maxConcurrentQueries)
	for i, rotation := range open {
		group.Go(func() error {
			found := observation{phase: phaseUnknown, since: time.Now()}
			if i < maxQueried {
				found = queryProgress(ctx, temporal, rotation)
			}
			if earlier, known := before[rotation.runID]; known && earlier.phase == found.phase && earlier.ended == found.ended && !found.isProving {
				found = earlier
			}
			mu.Lock()
			defer mu.Unlock()
			now[rotation.runID] = found
			return nil
		})
	}
	_ = group.Wait() // none fails
	return now
}

func queryProgress(ctx context.Context, temporal client.Client, rotation openRotation) observation {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	unknown := observation{phase: phaseUnknown, since: time.Now()}
	value, err := temporal.QueryWorkflow(ctx, rotation.workflowID, rotation.runID, workflows.ProgressQuery)
	if err != nil {
		return unknown
	}
	var p progress
	if value.Get(&p) != nil {
		return unknown
	}
	return p.observe()
}

// progress is what the progress of a rotation has, whatever it rotates.
type progress struct {
	Proof     workflows.Proof          `json:"proof"` // of a deployment
	Phase     workflows.Phase          `json:"phase"`
	Counts    map[workflows.Status]int `json:"counts"`
	StartedAt time.Time                `json:"startedAt"`
	Approval  *workflows.Approval      `json:"approval"`
	Targets   []targetTimes            `json:"targets"`
}

type targetTimes struct {
	RotatedAt  *time.Time `json:"rotatedAt"`
	VerifiedAt *time.Time `json:"verifiedAt"`
}

func (p progress) observe() observation {
	ended := []int{p.Counts[workflows.StatusVerified], p.Counts[workflows.StatusFailed], p.Counts[workflows.StatusSkipped]}
	if p.Proof == "" {
		return observation{phase: p.Phase, ended: fmt.Sprint(ended), since: p.lastChange()}
	}
	// A rotated process is done. With all done, the rotation waits for a snapshot: that
	// takes hours and is no lack of progress.
	ended = append(ended, p.Counts[workflows.StatusRotated])
	found := observation{phase: p.Phase, ended: fmt.Sprint(ended), since: p.lastChange()}
	open := p.Counts[workflows.StatusPending] + p.Counts[workflows.StatusRotating] + p.Counts[workflows.StatusFailed]
	if p.Phase == workflows.PhaseRotating && open == 0 {
		found.since, found.isProving = time.Now(), true
	}
	return found
}

// lastChange returns the time of the last change in the records, which is all that
// a worker knows that has just started.
func (p progress) lastChange() time.Time {
	last := p.StartedAt
	note := func(at *time.Time) {
		if at != nil && at.After(last) {
			last = *at
		}
	}
	if p.Approval != nil {
		note(&p.Approval.At)
	}
	for _, t := range p.Targets {
		note(t.RotatedAt)
		note(t.VerifiedAt)
	}
	return last
}

// aggregate returns the totals of every phase, including those without a rotation.
func aggregate(seen map[string]observation) map[string]metrics.Open {
	sums := map[string]metrics.Open{}
	for _, phase := range phases {
		sums[string(phase)] = metrics.Open{}
	}
	for _, s := range seen {
		sum, known := sums[string(s.phase)]
		if !known {
			continue // it has ended since
		}
		sum.Count++
		sum.Idle = max(sum.Idle, time.Since(s.since))
		sums[string(s.phase)] = sum
	}
	return sums
}
