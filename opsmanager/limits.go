package opsmanager

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// After a 429, nothing is sent for a pause that doubles with each further one;
// then half as many requests as before may be under way, and with each round of
// answers one more.
const (
	firstSlowdown   = 500 * time.Millisecond
	longestSlowdown = 30 * time.Second
	// longestObedience bounds how long one Retry-After stops all requests; the
	// one that was refused keeps to the whole of it.
	longestObedience = time.Minute
)

// maxUrgentInARow is how many urgent requests go before a patient one that
// waits, so that no crowd of them keeps it waiting for ever.
const maxUrgentInARow = 4

type patientKey struct{}

// Patiently marks the requests of a context as those that nobody waits for:
// within the client's limits, others go first.
func Patiently(ctx context.Context) context.Context {
	return context.WithValue(ctx, patientKey{}, true)
}

func isPatient(ctx context.Context) bool {
	patient, _ := ctx.Value(patientKey{}).(bool)
	return patient
}

// limiter decides when a request may go out: the one place for the client's
// limits, for the server's (429), and for who goes first.
type limiter struct {
	maxInFlight int // 0 = no limit
	rate        *rate.Limiter

	mu          sync.Mutex
	inFlight    int
	urgent      []*waiter
	patient     []*waiter
	urgentInRow int
	wakeUp      *time.Timer

	// allowance is the limit on requests in flight since a 429; 0 = none.
	allowance int
	answered  int // since the allowance has last changed
	slowdown  time.Duration
	slowedAt  time.Time
	quietTill time.Time
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

// enter waits until a request may go out, and tells when that was. The caller
// must call leave after the answer.
func (l *limiter) enter(ctx context.Context) (time.Time, error) {
	w := &waiter{granted: make(chan struct{})}
	l.mu.Lock()
	if isPatient(ctx) {
		l.patient = append(l.patient, w)
	} else {
		l.urgent = append(l.urgent, w)
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

// another waits until a request that has entered may be sent once more, as the
// answer of a challenge is.
func (l *limiter) another(ctx context.Context) error { return l.rate.Wait(ctx) }

// withdraw takes back a request that is no longer wanted, granted or not.
func (l *limiter) withdraw(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.granted:
		l.inFlight--
		l.admit()
	default:
		isIt := func(other *waiter) bool { return other == w }
		l.urgent = slices.DeleteFunc(l.urgent, isIt)
		l.patient = slices.DeleteFunc(l.patient, isIt)
	}
}

func (l *limiter) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.admit()
}

// admit lets in whoever may go now, and sees to it that it is called again when
// the next one may. The caller holds the lock.
func (l *limiter) admit() {
	for len(l.urgent)+len(l.patient) > 0 && l.hasRoom() {
		now := time.Now()
		if pause := l.quietTill.Sub(now); pause > 0 {
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
	return (l.maxInFlight == 0 || l.inFlight < l.maxInFlight) && (l.allowance == 0 || l.inFlight < l.allowance)
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

// next takes the first of those whose turn it is. The caller holds the lock, and
// somebody waits.
func (l *limiter) next() *waiter {
	from := &l.urgent
	if len(l.urgent) == 0 || len(l.patient) > 0 && l.urgentInRow >= maxUrgentInARow {
		from = &l.patient
		l.urgentInRow = 0
	} else {
		l.urgentInRow++
	}
	w := (*from)[0]
	*from = (*from)[1:]
	return w
}

// refused is told of a 429: it slows down all of the client's requests. Of many
// that were under way together, one counts.
func (l *limiter) refused(sentAt time.Time, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !sentAt.Before(l.slowedAt) {
		l.slowdown = min(max(2*l.slowdown, firstSlowdown), longestSlowdown)
		l.allowance = max(l.inFlight/2, 1)
		l.answered, l.slowedAt = 0, now
		l.quietUntil(now.Add(l.slowdown))
	}
	l.quietUntil(now.Add(min(retryAfter, longestObedience)))
}

func (l *limiter) quietUntil(until time.Time) {
	if until.After(l.quietTill) {
		l.quietTill = until
	}
}

// accepted is told of an answer that is no 429: the server keeps up.
func (l *limiter) accepted(sentAt time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.allowance == 0 || sentAt.Before(l.slowedAt) {
		return
	}
	l.slowdown = 0
	if l.answered++; l.answered < l.allowance {
		return
	}
	l.answered = 0
	if l.allowance++; l.allowance >= maxIdleConnections {
		l.allowance = 0
	}
	l.admit()
}
