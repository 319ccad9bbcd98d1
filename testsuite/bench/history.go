package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/proxy"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"
)

const (
	// visibilityTime limits the time until the server's list of runs is
	// complete, visibilityInterval is the time between two reads.
	visibilityTime     = 60 * time.Second
	visibilityInterval = 250 * time.Millisecond

	// maxScanned is how many histories, the largest, are read event by event.
	// The lengths and sizes of all histories come from the list of runs.
	maxScanned = 2000
	// readersAtATime is how many histories are read in parallel.
	readersAtATime = 4
)

// workflowRun is a closed run of a workflow.
type workflowRun struct {
	workflowID, runID, workflowType string

	events, bytes int64
	continued     bool // as new
}

// runsSince lists the runs on the target's task queue that started since then.
// It waits until the list is complete: all runs are closed, this number of
// workflows has ended, and two reads give the same list.
func (s *target) runsSince(ctx context.Context, startedAt time.Time, workflows int) ([]workflowRun, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, visibilityTime, fmt.Errorf("the list of runs was not complete after %s", visibilityTime))
	defer cancel()
	query := fmt.Sprintf("TaskQueue = '%s' AND StartTime >= '%s'", s.taskQueue, startedAt.UTC().Format(time.RFC3339Nano))
	var seen []workflowRun
	for {
		runs, complete, err := s.listRuns(ctx, query, workflows)
		if err != nil {
			return nil, err
		}
		if complete && slices.Equal(runs, seen) {
			return runs, nil
		}
		seen = runs
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(visibilityInterval):
		}
	}
}

func (s *target) listRuns(ctx context.Context, query string, workflows int) (runs []workflowRun, complete bool, err error) {
	ended, running := 0, 0
	var token []byte
	for {
		page, err := s.harness.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: token})
		if err != nil {
			return nil, false, err
		}
		for _, info := range page.GetExecutions() {
			listed := runOf(info)
			runs = append(runs, listed)
			switch {
			case info.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING:
				running++
			case !listed.continued:
				ended++
			}
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			break
		}
	}
	slices.SortFunc(runs, func(a, b workflowRun) int { return strings.Compare(a.runID, b.runID) })
	return runs, running == 0 && ended == workflows, nil
}

func runOf(info *workflowpb.WorkflowExecutionInfo) workflowRun {
	return workflowRun{
		workflowID: info.GetExecution().GetWorkflowId(), runID: info.GetExecution().GetRunId(), workflowType: info.GetType().GetName(),
		events: info.GetHistoryLength(), bytes: info.GetHistorySizeBytes(),
		continued: info.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW,
	}
}

// histories are sums over runs.
type histories struct {
	runs              int
	events, bytes     int64
	biggestHistory    int64  // events
	biggestHistoryRun string // workflow ID
}

func historiesOf(runs []workflowRun) histories {
	h := histories{runs: len(runs)}
	for _, r := range runs {
		h.events += r.events
		h.bytes += r.bytes
		if r.events > h.biggestHistory {
			h.biggestHistory, h.biggestHistoryRun = r.events, r.workflowID
		}
	}
	return h
}

// history returns the events of a run.
func (s *target) history(ctx context.Context, r workflowRun) ([]*historypb.HistoryEvent, error) {
	var events []*historypb.HistoryEvent
	pages := s.harness.temporal.GetWorkflowHistory(ctx, r.workflowID, r.runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for pages.HasNext() {
		event, err := pages.Next()
		if err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	return events, nil
}

// biggestPayload returns the size of the largest payload in the largest
// histories.
func (s *target) biggestPayload(ctx context.Context, runs []workflowRun) (bytes int64, scanned int, err error) {
	bySize := slices.Clone(runs)
	slices.SortStableFunc(bySize, func(a, b workflowRun) int { return int(b.bytes - a.bytes) })
	bySize = bySize[:min(len(bySize), maxScanned)]
	var most atomic.Int64
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(readersAtATime)
	for _, r := range bySize {
		readers.Go(func() error {
			events, err := s.history(ctx, r)
			if err != nil {
				return err
			}
			found, err := biggestPayloadOf(ctx, events)
			for known := most.Load(); found > known && !most.CompareAndSwap(known, found); known = most.Load() {
			}
			return err
		})
	}
	err = readers.Wait()
	return most.Load(), len(bySize), err
}

func biggestPayloadOf(ctx context.Context, events []*historypb.HistoryEvent) (most int64, err error) {
	look := proxy.VisitPayloadsOptions{Visitor: func(_ *proxy.VisitPayloadsContext, payloads []*common.Payload) ([]*common.Payload, error) {
		for _, payload := range payloads {
			most = max(most, int64(len(payload.GetData())))
		}
		return payloads, nil
	}}
	err = proxy.VisitPayloads(ctx, &historypb.History{Events: events}, look)
	return most, err
}
