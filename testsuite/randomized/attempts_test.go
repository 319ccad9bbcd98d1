package randomized

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"
)

// The SDK's test environment does not kill workers, does not reset activities,
// and reports the start time of the first attempt for all of them. So this test
// keeps the state that a server keeps of an activity, with a short heartbeat
// timeout: its attempts, when each of them started, and the last heartbeat. As
// on a server, an attempt that does not complete times out only if no heartbeat
// arrives within the heartbeat timeout. Resetting an activity resets its number
// of attempts; an attempt that is running continues.

var (
	errWorkerLost   = temporal.NewApplicationError("no heartbeat came in time", "WorkerLost")
	errTerminated   = temporal.NewNonRetryableApplicationError("the run was terminated", "Terminated", nil)
	errDisconnected = errors.New("no answer from Temporal")
)

// execution is one activity with all its attempts.
type execution struct {
	job     job
	started int // attempts so far
	number  int // Temporal's number of the last attempt
	details json.RawMessage
}

// begin starts the next attempt.
func (e *execution) begin(f attemptFault, scheduled time.Time, offset, heartbeatTimeout time.Duration) *attempt {
	e.started++
	e.number++
	now := time.Now()
	return &attempt{
		fault: f, number: e.number, nth: e.started, before: e.details, details: e.details,
		scheduled: scheduled, started: now, offset: offset, lastHeartbeat: now, heartbeatTimeout: heartbeatTimeout,
		stop: make(chan struct{}),
	}
}

// finish stores what the next attempt gets from this one.
func (e *execution) finish(a *attempt) {
	e.details = a.lastDetails()
	if a.fault.reset {
		e.number = 0
	}
	if a.fault.wiped {
		e.details = nil
	}
}

// attempt is one attempt of an activity, as seen by the server and by its
// worker.
type attempt struct {
	fault            attemptFault
	number           int // Temporal's number, which a reset sets to 1
	nth              int // counts all attempts from 1
	before           json.RawMessage
	scheduled        time.Time
	started          time.Time
	offset           time.Duration // of Temporal's clock, when it started
	heartbeatTimeout time.Duration
	stop             chan struct{} // closed when the worker shuts down

	mu            sync.Mutex
	disconnected  bool // nothing that the worker sends arrives any more
	lastHeartbeat time.Time
	details       json.RawMessage
}

// losesWorker reports whether the fault ends the worker of this attempt.
func (a *attempt) losesWorker() bool {
	return a.fault.end == workerKilledAfter || a.fault.end == workerDisconnected
}

// recordHeartbeat sends a heartbeat without waiting for the response.
func (a *attempt) recordHeartbeat(details any) {
	if a.losesWorker() && a.fault.finalHeartbeatLost {
		return
	}
	_ = a.heartbeat(details)
}

// heartbeat sends a heartbeat and returns an error if it does not arrive.
func (a *attempt) heartbeat(details any) error {
	text, err := json.Marshal(details)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.disconnected {
		return errDisconnected
	}
	a.details, a.lastHeartbeat = text, time.Now()
	return nil
}

func (a *attempt) disconnect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.disconnected = true
}

func (a *attempt) lastDetails() json.RawMessage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.details
}

// timeout fires at the heartbeat timeout of a disconnected attempt.
func (a *attempt) timeout() <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.After(time.Until(a.lastHeartbeat.Add(a.heartbeatTimeout)))
}

// report is what an activity returned.
type report struct {
	result any
	err    error
}

// run runs the activity and applies the fault of the attempt. terminated is
// closed when the run is terminated. work may continue after run has returned.
func (a *attempt) run(ctx context.Context, work func(context.Context) report, terminated <-chan struct{}) report {
	if a.fault.end == workerKilledBefore {
		a.disconnect()
		return a.wait(terminated)
	}
	// The work of a disconnected worker must not end with this attempt.
	ctx, interrupt := context.WithCancel(context.WithoutCancel(ctx))
	reported := make(chan report, 1)
	go func() {
		defer interrupt()
		reported <- work(ctx)
	}()
	timer := time.NewTimer(a.fault.after)
	defer timer.Stop()
	for {
		select {
		case r := <-reported:
			if a.fault.end != workerKilledAfter && !a.isDisconnected() {
				return r
			}
			a.disconnect()
			return a.wait(terminated)
		case <-terminated:
			a.disconnect()
			return report{err: errTerminated}
		case <-timer.C:
			if a.fault.end == workerDisconnected {
				a.disconnect()
				return a.wait(terminated)
			}
			a.apply(interrupt)
		}
	}
}

func (a *attempt) apply(interrupt context.CancelFunc) {
	switch a.fault.end {
	case workerStopped:
		close(a.stop)
	case interrupted:
		interrupt()
	}
}

func (a *attempt) isDisconnected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.disconnected
}

// wait returns when the attempt times out or the run is terminated.
func (a *attempt) wait(terminated <-chan struct{}) report {
	select {
	case <-a.timeout():
		return report{err: errWorkerLost}
	case <-terminated:
		return report{err: errTerminated}
	}
}
