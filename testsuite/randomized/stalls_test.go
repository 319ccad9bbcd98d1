package randomized

import (
	"sync"
	"time"
)

// stallLimit is the delay that a machine without stalls may have. Generated
// durations leave room for it.
const stallLimit = 20 * time.Millisecond * timeScale

// stalls detects when this process was not scheduled in time. Timeouts and
// delays then are not caused by the rotation.
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
	const interval = 2 * time.Millisecond
	for {
		before := time.Now()
		select {
		case <-s.end:
			return
		case <-time.After(interval):
		}
		if time.Since(before) > interval+stallLimit {
			s.mu.Lock()
			s.last = time.Now()
			s.mu.Unlock()
		}
	}
}

func (s *stalls) stop() { close(s.end) }

// since reports whether there was a stall after a point in time.
func (s *stalls) since(moment time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.After(moment)
}
