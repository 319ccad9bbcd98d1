package activities

import (
	"context"
	"sync"
	"time"
)

// Each completed activity wakes its workflow, which costs three events of
// history and a turn of the server; several that complete together wake it
// once. So an activity whose work is done waits for the others of its run that
// this worker has in progress, for a tenth of the time that it took itself, and
// then all that wait complete together. As the workflow then starts their
// successors together, too, they go on in step and hardly wait any more.
const (
	batchWaitShare = 10 // one over the share of an activity's own time
	minBatchWait   = 5 * time.Millisecond
	maxBatchWait   = 50 * time.Millisecond
)

// completionBatcher brings the completions of each run's activities together.
type completionBatcher struct {
	mu      sync.Mutex
	batches map[string]*batch
}

// batch are the activities of one run.
type batch struct {
	running  int
	done     int
	released chan struct{} // closed when those who are done leave
}

// join counts an activity in, and gives what it must call when its work is
// done: that returns when it may complete.
func (u *completionBatcher) join(run string) (done func(ctx context.Context)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.batches == nil {
		u.batches = map[string]*batch{}
	}
	c := u.batches[run]
	if c == nil {
		c = &batch{released: make(chan struct{})}
		u.batches[run] = c
	}
	c.running++
	started := time.Now()
	return func(ctx context.Context) {
		wait := min(max(time.Since(started)/batchWaitShare, minBatchWait), maxBatchWait)
		u.awaitBatch(ctx, run, wait)
	}
}

func (u *completionBatcher) awaitBatch(ctx context.Context, run string, wait time.Duration) {
	u.mu.Lock()
	c := u.batches[run]
	c.running--
	c.done++
	leave, first := c.released, c.done == 1
	if c.running == 0 {
		u.release(run)
	}
	u.mu.Unlock()
	if !first {
		wait += maxBatchWait // the wait of the first one counts
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-leave:
		return
	case <-ctx.Done():
	case <-timer.C:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if c.released == leave {
		u.release(run)
	}
}

// release lets all that are done complete. The caller holds the lock.
func (u *completionBatcher) release(run string) {
	c := u.batches[run]
	close(c.released)
	c.released, c.done = make(chan struct{}), 0
	if c.running == 0 {
		delete(u.batches, run)
	}
}
