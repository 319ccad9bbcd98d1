package activities

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/opsmanager"
)

// The pauses between the attempts of an activity: growing, with jitter, and
// never shorter than a Retry-After.
const (
	firstRetryPause = time.Second
	maxRetryPause   = 30 * time.Second
)

// minHeartbeatInterval keeps the ticker sane where the timeout is not set, as
// in a test of one activity alone.
const minHeartbeatInterval = 100 * time.Millisecond

var (
	errWorkerStopping = errors.New("this worker is stopping; another one goes on")
	errCanceled       = errors.New("the activity was paused, reset or canceled")
)

// notes are the heartbeat's details: what an attempt leaves to the next one.
type notes struct {
	// FailingSince is the time of the first of an unbroken row of transient
	// errors.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// PutRefused: no PUT of this or an earlier attempt can have taken effect.
	// Unset, nothing is known. It is written only as an attempt's last word,
	// so that it can't outlive the sending of another PUT.
	PutRefused bool `json:"putRefused,omitempty"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// Keys read so far, by ReadKeys.
	Keys []Key `json:"keys,omitempty"`
}

// attempt is one execution of an activity.
type attempt struct {
	ctx      context.Context
	client   *opsmanager.Client
	scope    Scope
	started  time.Time
	stopping <-chan struct{}
	// putRefusedBefore is what the attempts before noted as PutRefused.
	putRefusedBefore bool
	// recordHeartbeat tells, unlike the SDK's, whether Temporal has it.
	recordHeartbeat func(ctx context.Context, taskToken []byte, details any) error

	mu    sync.Mutex
	notes notes

	inUnison      func(context.Context)
	stopHeartbeat chan struct{}
	heartbeatDone chan struct{}
}

func newAttempt(ctx context.Context, client *opsmanager.Client, scope Scope) *attempt {
	at := &attempt{
		ctx: ctx, client: client, scope: scope, started: time.Now(),
		stopping:      activity.GetWorkerStopChannel(ctx),
		stopHeartbeat: make(chan struct{}), heartbeatDone: make(chan struct{}),
	}
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &at.notes); err != nil {
			at.notes = notes{} // unreadable = nothing is known
		}
	}
	at.putRefusedBefore, at.notes.PutRefused = at.notes.PutRefused, false
	go at.heartbeat()
	return at
}

// end stops the heartbeat. The notes are then the SDK's to deliver.
func (at *attempt) end() {
	at.inUnison(at.ctx)
	close(at.stopHeartbeat)
	<-at.heartbeatDone
}

// heartbeat begins after a quarter of the timeout, so that an undisturbed
// request costs Temporal none.
func (at *attempt) heartbeat() {
	defer close(at.heartbeatDone)
	interval := max(activity.GetInfo(at.ctx).HeartbeatTimeout/4, minHeartbeatInterval)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			activity.RecordHeartbeat(at.ctx, at.currentNotes())
		case <-at.stopHeartbeat:
			return
		}
	}
}

func (at *attempt) note(change func(*notes)) {
	at.mu.Lock()
	defer at.mu.Unlock()
	change(&at.notes)
}

func (at *attempt) currentNotes() notes {
	at.mu.Lock()
	defer at.mu.Unlock()
	return at.notes
}

// wait pauses between two reads. It ends early when the attempt is canceled or
// its worker stops.
func (at *attempt) wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errCanceled
	case <-at.stopping:
		return errWorkerStopping
	}
}

// succeeded ends a row of transient errors.
func (at *attempt) succeeded() {
	at.note(func(n *notes) { n.FailingSince = time.Time{} })
}

// retryIn says how long to wait after a transient error before the next try,
// or that the time for it is up.
func (at *attempt) retryIn(err *opsmanager.Error, try int) (pause time.Duration, ok bool) {
	now := time.Now()
	at.note(func(n *notes) {
		if n.FailingSince.IsZero() {
			n.FailingSince = now
		}
	})
	left := at.scope.RetryTimeout.Std() - now.Sub(at.currentNotes().FailingSince)
	if left <= 0 || err.RetryAfter > left {
		return 0, false
	}
	pause = max(min(backoff(try), left), err.RetryAfter)
	at.retrying(err, pause)
	return pause, true
}

// backoff doubles from firstRetryPause to maxRetryPause, a fifth more or less.
func backoff(try int) time.Duration {
	pause := firstRetryPause << min(max(try-1, 0), 10)
	pause = min(pause, maxRetryPause)
	return time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
}

// failure makes an error the application error that ends this attempt, and
// leaves the notes to the next one where there is to be a next one.
func (at *attempt) failure(err error) error {
	if at.isInterruption(err) {
		activity.RecordHeartbeat(at.ctx, at.currentNotes())
		return interrupted(err.Error(), firstRetryPause)
	}
	apiError, ok := opsmanager.AsError(err)
	if !ok {
		return err
	}
	m := meaningOf(apiError)
	if !m.retryable {
		return at.lastFailure(apiError, "")
	}
	pause, again := at.retryIn(apiError, int(activity.GetInfo(at.ctx).Attempt))
	if !again {
		return at.lastFailure(apiError, at.givenUp(apiError))
	}
	activity.RecordHeartbeat(at.ctx, at.currentNotes())
	return temporal.NewApplicationErrorWithOptions(message(apiError, m), m.errorType, temporal.ApplicationErrorOptions{
		NextRetryDelay: pause, Details: []any{at.failureDetails(apiError)},
	})
}

// givenUp says why a transient error is not retried any more.
func (at *attempt) givenUp(err *opsmanager.Error) string {
	allowed := at.scope.RetryTimeout
	if err.RetryAfter > allowed.Std() {
		return fmt.Sprintf("not retried: Ops Manager asks for a pause of %s, and retryTimeout is %s: ", err.RetryAfter, allowed)
	}
	return fmt.Sprintf("given up after %s of retrying: ", allowed)
}

func (at *attempt) isInterruption(err error) bool {
	return errors.Is(err, errWorkerStopping) || errors.Is(err, errCanceled) || errors.Is(err, errLeaseLost) || at.ctx.Err() != nil
}

// lastFailure is final, whatever the error's kind.
func (at *attempt) lastFailure(err *opsmanager.Error, why string) error {
	m := meaningOf(err)
	return temporal.NewApplicationErrorWithOptions(why+message(err, m), m.errorType, temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{at.failureDetails(err)},
	})
}

func (at *attempt) failureDetails(err *opsmanager.Error) FailureDetails {
	known := at.currentNotes()
	return FailureDetails{
		ErrorCode:  err.ErrorCode,
		Ambiguous:  known.Ambiguous,
		PutRefused: known.PutRefused,
		Attempts:   int(activity.GetInfo(at.ctx).Attempt),
	}
}

// Pauses before a key is read again after an answer that is not the API's: a
// passing fault is forgiven, a lasting one is told within seconds.
var rereadPauses = []time.Duration{300 * time.Millisecond, time.Second}

// readKey reads a key's id. seenBefore says that the key was seen before, so that
// an answer without one is as odd as any that is not the API's.
func (at *attempt) readKey(ctx context.Context, clusterID string, seenBefore bool) (string, error) {
	for try := 0; ; try++ {
		var key string
		err := at.patiently(ctx, func() (err error) {
			key, err = at.client.EncryptionKey(ctx, at.scope.ProjectID, clusterID)
			return err
		})
		if err == nil {
			return key, nil
		}
		apiError, ok := opsmanager.AsError(err)
		odd := ok && (apiError.Kind == opsmanager.UnexpectedResponse || seenBefore && apiError.Kind == opsmanager.EncryptionOff)
		if !odd || try == len(rereadPauses) {
			return "", err
		}
		at.retrying(apiError, rereadPauses[try])
		if err := at.wait(ctx, rereadPauses[try]); err != nil {
			return "", err
		}
	}
}

// patiently does something again after each 429, which costs no attempt: the
// client slows down until the server keeps up.
func (at *attempt) patiently(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if !isRateLimited(err) {
			return err
		}
		if err := at.waitAfter(ctx, err, try); err != nil {
			return err
		}
	}
}

// persistently does something again after every transient error.
func (at *attempt) persistently(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil {
			at.succeeded()
			return nil
		}
		if err := at.waitAfter(ctx, err, try); err != nil {
			return err
		}
	}
}

func isRateLimited(err error) bool {
	apiError, ok := opsmanager.AsError(err)
	return ok && apiError.Kind == opsmanager.RateLimited
}

// waitAfter pauses after a transient error, or gives the error back where it
// is not one, or its time is up.
func (at *attempt) waitAfter(ctx context.Context, err error, try int) error {
	apiError, ok := opsmanager.AsError(err)
	if !ok || !meaningOf(apiError).retryable {
		return err
	}
	pause, again := at.retryIn(apiError, try)
	if !again {
		return err
	}
	return at.wait(ctx, pause)
}

// pollPause is the pause between two reads of a key that is expected to
// change: a twentieth of the time allowed, within bounds that fit a person.
func pollPause(allowed time.Duration) time.Duration {
	return min(max(allowed/20, 20*time.Millisecond), 5*time.Second)
}
