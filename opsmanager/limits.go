package opsmanager

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The limiter is an AIMD (additive increase, multiplicative decrease) concurrency
// limiter: a 429 halves the window of requests in flight, and each window of
// other responses adds one to it. After a 429 nothing is sent for a pause that
// doubles with each further one.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
	// maxRetryAfterPause is how long one Retry-After stops all requests at most.
	// The request that was refused waits for the whole of it.
	maxRetryAfterPause = time.Minute
)

// maxNormalInRow is how many normal requests precede a waiting one of low
// priority, so that low priority never means no progress.
const maxNormalInRow = 4

type lowPriorityKey struct{}

// WithLowPriority returns a context whose requests let others go first within the
// client's limits. Of five requests that wait, at least one of low priority is
// sent, so that they are delayed but never starved.
func WithLowPriority(ctx context.Context) context.Context {
	return context.WithValue(ctx, lowPriorityKey{}, true)
}

func hasLowPriority(ctx context.Context) bool {
	low, _ := ctx.Value(lowPriorityKey{}).(bool)
	return low
}

// limiter decides when a request may be sent. It is the one place for the
// client's limits, the server's (429), and priority.
type limiter struct {
	maxInFlight int // 0 = no limit
	rate        *rate.Limiter

	mu          sync.Mutex
	inFlight    int
	normal      []*waiter
	lowPriority []*waiter
	normalInRow int
	wakeUp      *time.Timer

	// window is the limit on requests in flight since a 429; 0 = none.
	window      int
	answered    int // since the window last changed
	backoff     time.Duration
	reducedAt   time.Time
	pausedUntil time.Time
}

type waiter struct {
	granted chan struct{}
	at      time.Time // when it was granted
}

func newLimiter(perSecond float64, maxInFlight int) *limiter {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	return &limiter{maxInFlight: maxInFlight, rate: rate.NewLimiter(limit, 1)}
}

// enter waits until a request may be sent and returns the time at which it was
// allowed. The caller must call leave after the response.
func (l *limiter) enter(ctx context.Context) (time.Time, error) {
	w := &waiter{granted: make(chan struct{})}
	l.mu.Lock()
	if hasLowPriority(ctx) {
		l.lowPriority = append(l.lowPriority, w)
	} else {
		l.normal = append(l.normal, w)
	}
	l.admit()
	l.mu.Unlock()
	select {
	case <-w.granted:
		if err := ctx.Err(); err != nil {
			l.leave()
			return time.Time{}, err
		}
		return w.at, nil
	case <-ctx.Done():
		l.withdraw(w)
		return time.Time{}, ctx.Err()
	}
}

// waitRate waits until a request that has entered may be sent once more, as the
// answer to a challenge is.
func (l *limiter) waitRate(ctx context.Context) error { return l.rate.Wait(ctx) }

// withdraw removes a request that has given up, whether or not it was granted.
func (l *limiter) withdraw(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.granted:
		l.inFlight--
		l.admit()
	default:
		same := func(other *waiter) bool { return other == w }
		l.normal = slices.DeleteFunc(l.normal, same)
		l.lowPriority = slices.DeleteFunc(l.lowPriority, same)
	}
}

func (l *limiter) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.admit()
}

// admit grants all requests that may be sent now, and schedules its next call for
// when another one may. The caller holds the lock.
func (l *limiter) admit() {
	for len(l.normal)+len(l.lowPriority) > 0 && l.hasRoom() {
		now := time.Now()
		if pause := l.pausedUntil.Sub(now); pause > 0 {
			l.admitIn(pause)
			return
		}
		token := l.rate.ReserveN(now, 1)
		if pause := token.DelayFrom(now); pause > 0 {
			token.CancelAt(now)
			l.admitIn(pause)
			return
		}
		w := l.next()
		l.inFlight++
		w.at = now
		close(w.granted)
	}
}

func (l *limiter) hasRoom() bool {
	return (l.maxInFlight == 0 || l.inFlight < l.maxInFlight) && (l.window == 0 || l.inFlight < l.window)
}

func (l *limiter) admitIn(pause time.Duration) {
	if l.wakeUp != nil {
		l.wakeUp.Stop()
	}
	l.wakeUp = time.AfterFunc(pause, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.admit()
	})
}

// next removes the request whose turn it is. The caller holds the lock, and at
// least one request waits.
func (l *limiter) next() *waiter {
	from := &l.normal
	if len(l.normal) == 0 || len(l.lowPriority) > 0 && l.normalInRow >= maxNormalInRow {
		from = &l.lowPriority
		l.normalInRow = 0
	} else {
		l.normalInRow++
	}
	w := (*from)[0]
	*from = (*from)[1:]
	return w
}

// refused slows down all requests after a 429. Of several requests that were in
// flight together, only the first 429 counts.
func (l *limiter) refused(sentAt time.Time, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !sentAt.Before(l.reducedAt) {
		l.backoff = min(max(2*l.backoff, minBackoff), maxBackoff)
		l.window = max(l.inFlight/2, 1)
		l.answered, l.reducedAt = 0, now
		l.pauseUntil(now.Add(l.backoff))
	}
	l.pauseUntil(now.Add(min(retryAfter, maxRetryAfterPause)))
}

func (l *limiter) pauseUntil(until time.Time) {
	if until.After(l.pausedUntil) {
		l.pausedUntil = until
	}
}

// accepted widens the window after a response that is not a 429.
func (l *limiter) accepted(sentAt time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.window == 0 || sentAt.Before(l.reducedAt) {
		return
	}
	l.backoff = 0
	if l.answered++; l.answered < l.window {
		return
	}
	l.answered = 0
	if l.window++; l.window >= maxIdleConnections {
		l.window = 0
	}
	l.admit()
}
