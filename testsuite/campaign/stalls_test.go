package campaign

import (
	"sync"
	"time"
)

// stallLimit is what a machine that keeps up may be late by. The drawn times
// leave room for as much.
const stallLimit = 20 * time.Millisecond * slowness

// stalls notices when the machine lets this process wait: what then happens too
// late, or runs into a timeout, is not the rotation's fault.
type stalls struct {
	mu   sync.Mutex
	last time.Time
	end  chan struct{}
}

func watchForStalls() *stalls {
	s := &stalls{end: make(chan struct{})}
	go s.watch()
	return s
}

func (s *stalls) watch() {
	const nap = 2 * time.Millisecond
	for {
		before := time.Now()
		select {
		case <-s.end:
			return
		case <-time.After(nap):
		}
		if time.Since(before) > nap+stallLimit {
			s.mu.Lock()
			s.last = time.Now()
			s.mu.Unlock()
		}
	}
}

func (s *stalls) stop() { close(s.end) }

// since tells whether there was a stall after a moment.
func (s *stalls) since(moment time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.After(moment)
}
