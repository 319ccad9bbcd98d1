package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"
)

// The SDK's test environment neither kills workers nor resets activities, and
// starts each attempt at the time of the first. So the campaign keeps the
// server's books of an activity itself, on a clock on which the heartbeat
// timeout is short: its attempts, when each started, and which heartbeat came
// last. As on a server, an attempt that does not complete is given up only when
// no heartbeat has come for the heartbeat timeout; resetting an activity sets
// its count of attempts back, and lets an attempt that is running run.

var (
	errWorkerLost = temporal.NewApplicationError("no heartbeat came in time", "WorkerLost")
	errTerminated = temporal.NewNonRetryableApplicationError("the run was terminated", "Terminated", nil)
	errSilent     = errors.New("no answer from Temporal")
)

// execution is one activity, over all its attempts.
type execution struct {
	job     job
	started int // attempts so far
	number  int // of the last one, as Temporal counts it
	details json.RawMessage
}

// begin starts the next attempt.
func (e *execution) begin(f fate, scheduled time.Time, heartbeatTimeout time.Duration) *attempt {
	e.started++
	e.number++
	now := time.Now()
	return &attempt{
		fate: f, number: e.number, nth: e.started, before: e.details, details: e.details,
		scheduled: scheduled, started: now, lastHeartbeat: now, heartbeatTimeout: heartbeatTimeout,
		stop: make(chan struct{}),
	}
}

// finish takes over what an attempt leaves to the next one.
func (e *execution) finish(a *attempt) {
	e.details = a.left()
	if a.fate.reset {
		e.number = 0
	}
	if a.fate.wiped {
		e.details = nil
	}
}

// attempt is one attempt of an activity, as the server and its worker see it.
type attempt struct {
	fate             fate
	number           int // as Temporal counts
	nth              int // from 1, whatever Temporal counts
	before           json.RawMessage
	scheduled        time.Time
	started          time.Time
	heartbeatTimeout time.Duration
	stop             chan struct{} // closed when the worker is told to stop

	mu            sync.Mutex
	silent        bool // nothing that its worker sends gets through any more
	lastHeartbeat time.Time
	details       json.RawMessage
}

// isDoomed tells that its worker will be lost.
func (a *attempt) isDoomed() bool { return a.fate.end == unreported || a.fate.end == cutOff }

// note is a heartbeat whose arrival its sender does not learn.
func (a *attempt) note(details any) {
	if a.isDoomed() && a.fate.lastWordsLost {
		return
	}
	_ = a.heartbeat(details)
}

// heartbeat is one whose arrival its sender learns.
func (a *attempt) heartbeat(details any) error {
	text, err := json.Marshal(details)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.silent {
		return errSilent
	}
	a.details, a.lastHeartbeat = text, time.Now()
	return nil
}

func (a *attempt) fallSilent() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = true
}

func (a *attempt) left() json.RawMessage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.details
}

// lost comes when the server gives the silent attempt up.
func (a *attempt) lost() <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.After(time.Until(a.lastHeartbeat.Add(a.heartbeatTimeout)))
}

// report is what an activity returned.
type report struct {
	result any
	err    error
}

// live lets the attempt meet its fate. work runs the activity, given is closed
// when the run is terminated. When it returns, the work may still go on.
func (a *attempt) live(ctx context.Context, work func(context.Context) report, given <-chan struct{}) report {
	if a.fate.end == neverRuns {
		a.fallSilent()
		return a.wait(given)
	}
	// What this attempt leaves at work is not ended with it.
	ctx, interrupt := context.WithCancel(context.WithoutCancel(ctx))
	reported := make(chan report, 1)
	go func() {
		defer interrupt()
		reported <- work(ctx)
	}()
	timer := time.NewTimer(a.fate.after)
	defer timer.Stop()
	for {
		select {
		case r := <-reported:
			if a.fate.end != unreported && !a.isSilent() {
				return r
			}
			a.fallSilent()
			return a.wait(given)
		case <-given:
			a.fallSilent()
			return report{err: errTerminated}
		case <-timer.C:
			if a.fate.end == cutOff {
				a.fallSilent()
				return a.wait(given)
			}
			a.befall(interrupt)
		}
	}
}

func (a *attempt) befall(interrupt context.CancelFunc) {
	switch a.fate.end {
	case stopped:
		close(a.stop)
	case interrupted:
		interrupt()
	}
}

func (a *attempt) isSilent() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.silent
}

// wait is until the server gives the attempt up.
func (a *attempt) wait(given <-chan struct{}) report {
	select {
	case <-a.lost():
		return report{err: errWorkerLost}
	case <-given:
		return report{err: errTerminated}
	}
}
