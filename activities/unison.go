package activities

import (
	"context"
	"sync"
	"time"
)

// Each completed activity wakes its workflow, which costs three events of
// history and a turn of the server; several that complete together wake it
// once. So an activity whose work is done waits for the others of its run that
// this worker has in work, for a tenth of the time that it took itself, and
// then all that wait complete together. As the workflow then starts their
// successors together, too, they go on in step and hardly wait any more.
const (
	unisonShare = 10 // one over the share of an activity's own time
	minUnison   = 5 * time.Millisecond
	maxUnison   = 50 * time.Millisecond
)

// unison brings the completions of each run's activities together.
type unison struct {
	mu   sync.Mutex
	runs map[string]*chorus
}

// chorus are the activities of one run.
type chorus struct {
	working int
	done    int
	leave   chan struct{} // closed when those who are done leave
}

// enter counts an activity in, and gives what it must call when its work is
// done: that returns when it may complete.
func (u *unison) enter(run string) (done func(ctx context.Context)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.runs == nil {
		u.runs = map[string]*chorus{}
	}
	c := u.runs[run]
	if c == nil {
		c = &chorus{leave: make(chan struct{})}
		u.runs[run] = c
	}
	c.working++
	started := time.Now()
	return func(ctx context.Context) {
		patience := min(max(time.Since(started)/unisonShare, minUnison), maxUnison)
		u.await(ctx, run, patience)
	}
}

func (u *unison) await(ctx context.Context, run string, patience time.Duration) {
	u.mu.Lock()
	c := u.runs[run]
	c.working--
	c.done++
	leave, first := c.leave, c.done == 1
	if c.working == 0 {
		u.dismiss(run)
	}
	u.mu.Unlock()
	if !first {
		patience += maxUnison // the first one's patience is what counts
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-leave:
		return
	case <-ctx.Done():
	case <-timer.C:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if c.leave == leave {
		u.dismiss(run)
	}
}

// dismiss lets all that are done complete. The caller holds the lock.
func (u *unison) dismiss(run string) {
	c := u.runs[run]
	close(c.leave)
	c.leave, c.done = make(chan struct{}), 0
	if c.working == 0 {
		delete(u.runs, run)
	}
}
