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

// census is what Temporal tells of the open rotations of the task queue: the one
// place that knows it, whichever workers come and go.
type census struct {
	taken  time.Time // zero = never
	phases map[string]metrics.Open
	// seen are the rotations of the last census, by run.
	seen map[string]sighting
}

// sighting is how a rotation was found, and since when it has been so.
type sighting struct {
	phase string
	ended string // how many targets, by status
	since time.Time
}

const (
	// phaseUnknown is that of a rotation that does not answer, or is not asked.
	phaseUnknown = "unknown"
	// maxAsked bounds the rotations that one census asks.
	maxAsked = 200
	// askedAtATime bounds what a census costs Temporal at a time.
	askedAtATime = 4
	// answerPatience is how long one rotation may take to answer.
	answerPatience = 5 * time.Second
	// censusLasts is how many pauses a census is believed for.
	censusLasts = 5
)

var phases = []string{
	workflows.PhaseListing, workflows.PhaseReading, workflows.PhaseAwaitingApproval, workflows.PhaseRotating,
	workflows.PhasePaused, workflows.PhaseHeld, phaseUnknown,
}

// open are the open rotations by phase; false = the last census is too old.
func (m *monitor) open() (map[string]metrics.Open, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.census.phases, time.Since(m.census.taken) < censusLasts*m.settings.monitoring.census
}

// takeCensus asks the open rotations for their progress.
func (m *monitor) takeCensus(ctx context.Context, temporal client.Client) bool {
	open, err := m.openRotations(ctx, temporal)
	if err != nil {
		if m.ends.Err() == nil {
			m.logger.Debug("the open rotations can't be counted", "error", err)
		}
		return false
	}
	m.mu.Lock()
	before := m.census.seen
	m.mu.Unlock()
	now := ask(ctx, temporal, open, before)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.census = census{taken: time.Now(), seen: now, phases: summed(now)}
	return true
}

// openRotation is one as Temporal lists it.
type openRotation struct{ workflowID, runID string }

func (m *monitor) openRotations(ctx context.Context, temporal client.Client) (open []openRotation, err error) {
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("ExecutionStatus = 'Running' AND WorkflowType = '%s'", workflows.RotateClusterType),
	}
	for {
		page, err := temporal.ListWorkflow(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, info := range page.GetExecutions() {
			id := info.GetExecution().GetWorkflowId()
			_, _, _, isRotation := workflows.ParseRotateClusterID(id)
			if isRotation && info.GetTaskQueue() == m.settings.taskQueue {
				open = append(open, openRotation{id, info.GetExecution().GetRunId()})
			}
		}
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return open, nil
		}
	}
}

// ask finds out how each rotation is, as far as maxAsked goes.
func ask(ctx context.Context, temporal client.Client, open []openRotation, before map[string]sighting) map[string]sighting {
	now := map[string]sighting{}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(askedAtATime)
	for i, rotation := range open {
		group.Go(func() error {
			found := sighting{phase: phaseUnknown, since: time.Now()}
			if i < maxAsked {
				found = askOne(ctx, temporal, rotation)
			}
			if earlier, known := before[rotation.runID]; known && earlier.phase == found.phase && earlier.ended == found.ended {
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

func askOne(ctx context.Context, temporal client.Client, rotation openRotation) sighting {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	unknown := sighting{phase: phaseUnknown, since: time.Now()}
	value, err := temporal.QueryWorkflow(ctx, rotation.workflowID, rotation.runID, workflows.ProgressQuery)
	if err != nil {
		return unknown
	}
	var p workflows.Progress
	if value.Get(&p) != nil {
		return unknown
	}
	return sighting{
		phase: p.Phase,
		ended: fmt.Sprint(p.Counts[workflows.StatusVerified], p.Counts[workflows.StatusFailed], p.Counts[workflows.StatusSkipped]),
		since: lastChange(p),
	}
}

// lastChange is the last one that the records know of: what a worker that has
// just started has to go by.
func lastChange(p workflows.Progress) time.Time {
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

// summed has every phase, those without a rotation, too.
func summed(seen map[string]sighting) map[string]metrics.Open {
	sums := map[string]metrics.Open{}
	for _, phase := range phases {
		sums[phase] = metrics.Open{}
	}
	for _, s := range seen {
		sum, known := sums[s.phase]
		if !known {
			continue // at its end
		}
		sum.Count++
		sum.Idle = max(sum.Idle, time.Since(s.since))
		sums[s.phase] = sum
	}
	return sums
}
