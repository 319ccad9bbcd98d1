package activities

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
	errWorkerStopping = errors.New("worker is shutting down; another worker will continue")
	errCanceled       = errors.New("activity was paused, reset or canceled")
)

// heartbeatDetails are the heartbeat's details: what an attempt leaves to the next one.
// Their times are the server's: the next attempt may run on another machine.
type heartbeatDetails struct {
	// FailingSince is the time of the step's first transient error. Successes
	// do not reset it.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// FirstStarted is when the step's first attempt started, where the step has
	// a deadline of its own.
	FirstStarted time.Time `json:"firstStarted,omitzero"`
	// PutRefused: no PUT of this or an earlier attempt can have taken effect.
	// Unset, nothing is known. It is written only when an attempt ends,
	// so that it cannot outlive the sending of another PUT.
	PutRefused bool `json:"putRefused,omitempty"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// EarlierPut: an attempt could not prove that no PUT had been sent before it.
	EarlierPut bool `json:"earlierPut,omitempty"`
	// VersionBefore is that of the automation configuration that the last PUT was
	// made from, and ReadAt when that was read. They are noted before the PUT.
	VersionBefore int64     `json:"versionBefore,omitempty"`
	ReadAt        time.Time `json:"readAt,omitzero"`
	// Arrived are the processes that have reached the time of their rotation, and
	// ProgressAt is when there was progress for the last time.
	Arrived    []ArrivedProcess `json:"arrived,omitempty"`
	ProgressAt time.Time        `json:"progressAt,omitzero"`
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
	// recordHeartbeat shows, unlike the SDK's, whether Temporal has it.
	recordHeartbeat func(ctx context.Context, taskToken []byte, details any) error

	mu      sync.Mutex
	details heartbeatDetails
	// failedRequests counts the requests that failed and were made again.
	failedRequests atomic.Int64

	awaitBatch    func(context.Context)
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
		if err := activity.GetHeartbeatDetails(ctx, &at.details); err != nil {
			at.details = heartbeatDetails{} // unreadable = nothing is known
		}
	}
	at.putRefusedBefore, at.details.PutRefused = at.details.PutRefused, false
	go at.heartbeat()
	return at
}

// finish stops the heartbeat. The notes are then the SDK's to deliver.
func (at *attempt) finish() {
	at.awaitBatch(at.ctx)
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
			activity.RecordHeartbeat(at.ctx, at.currentDetails())
		case <-at.stopHeartbeat:
			return
		}
	}
}

func (at *attempt) updateDetails(change func(*heartbeatDetails)) {
	at.mu.Lock()
	defer at.mu.Unlock()
	change(&at.details)
}

func (at *attempt) currentDetails() heartbeatDetails {
	at.mu.Lock()
	defer at.mu.Unlock()
	return at.details
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

// isStopping reports whether the attempt's worker is shutting down.
func (at *attempt) isStopping() bool {
	select {
	case <-at.stopping:
		return true
	default:
		return false
	}
}

// maxDeadlineMargin is how long before its deadline an attempt ends itself.
const maxDeadlineMargin = time.Minute

// isNearDeadline reports whether Temporal is about to end the attempt because it has
// lasted too long.
func (at *attempt) isNearDeadline() bool {
	info := activity.GetInfo(at.ctx)
	if info.Deadline.IsZero() {
		return false
	}
	margin := min(maxDeadlineMargin, info.Deadline.Sub(info.StartedTime)/10)
	return at.serverTime(time.Now()).After(info.Deadline.Add(-margin))
}

// serverTime is a moment of this attempt by the server's clock: Temporal's time
// of the attempt's start, and what this worker has measured since. A worker's
// own clock may be minutes ahead or behind.
func (at *attempt) serverTime(moment time.Time) time.Time {
	return activity.GetInfo(at.ctx).StartedTime.Add(moment.Sub(at.started))
}

// timestamp is the time as records show it: UTC, to the millisecond.
func (at *attempt) timestamp() time.Time {
	return at.serverTime(time.Now()).UTC().Truncate(time.Millisecond)
}

// retries bounds the retrying of transient errors: RetryTimeout from the first
// one on, whatever succeeds in between.
type retries struct {
	at *attempt
	// failingSince gives the server's time of the first error; it is called
	// only when there is one.
	failingSince func() time.Time
}

// stepRetries has one deadline for all requests and attempts of a step.
func (at *attempt) stepRetries() retries {
	return retries{at, func() time.Time {
		now := at.serverTime(time.Now())
		at.updateDetails(func(n *heartbeatDetails) {
			if n.FailingSince.IsZero() {
				n.FailingSince = now
			}
		})
		return at.currentDetails().FailingSince
	}}
}

// newRetries has a deadline of its own: for one request among many.
func (at *attempt) newRetries() retries {
	var since time.Time
	return retries{at, func() time.Time {
		if since.IsZero() {
			since = at.serverTime(time.Now())
		}
		return since
	}}
}

// left is how much time is left for retrying; there has been an error.
func (r retries) left() time.Duration {
	return r.at.scope.RetryTimeout.Std() - r.at.serverTime(time.Now()).Sub(r.failingSince())
}

// next says how long to wait after a transient error before the next try, or
// that the time for it is up.
func (r retries) next(err *opsmanager.Error, try int) (pause time.Duration, ok bool) {
	left := r.left()
	if left <= 0 || err.RetryAfter > left {
		return 0, false
	}
	pause = max(min(backoff(try), left), err.RetryAfter)
	r.at.reportRetry(err, pause)
	return pause, true
}

// waitAfter pauses after a transient error. It gives the error back where it is
// not one, as a gaveUpError where its time is up.
func (r retries) waitAfter(ctx context.Context, err error, try int) error {
	apiError, ok := opsmanager.AsError(err)
	if !ok || !classify(apiError).retryable || errors.As(err, new(gaveUpError)) {
		return err
	}
	pause, again := r.next(apiError, try)
	if !again {
		return gaveUpError{err}
	}
	return r.at.wait(ctx, pause)
}

// rateLimited does something again after each 429, which costs no attempt: the
// client slows down until the server keeps up.
func (r retries) rateLimited(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if !isRateLimited(err) {
			return err
		}
		if err := r.waitAfter(ctx, err, try); err != nil {
			return err
		}
	}
}

// transient does something again after every transient error.
func (r retries) transient(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil {
			return nil
		}
		if err := r.waitAfter(ctx, err, try); err != nil {
			return err
		}
	}
}

// gaveUpError is a transient error whose time for retries is up.
type gaveUpError struct{ error }

func (e gaveUpError) Unwrap() error { return e.error }

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
		activity.RecordHeartbeat(at.ctx, at.currentDetails())
		return interrupted(err.Error(), firstRetryPause)
	}
	apiError, ok := opsmanager.AsError(err)
	if !ok {
		return err
	}
	m := classify(apiError)
	if !m.retryable {
		return at.finalFailure(apiError, "")
	}
	if errors.As(err, new(gaveUpError)) {
		return at.finalFailure(apiError, at.giveUpReason(apiError))
	}
	pause, again := at.stepRetries().next(apiError, int(activity.GetInfo(at.ctx).Attempt))
	if !again {
		return at.finalFailure(apiError, at.giveUpReason(apiError))
	}
	activity.RecordHeartbeat(at.ctx, at.currentDetails())
	return temporal.NewApplicationErrorWithOptions(message(apiError, m), string(m.errorType), temporal.ApplicationErrorOptions{
		NextRetryDelay: pause, Details: []any{at.failureDetails(apiError)},
	})
}

// giveUpReason says why a transient error is not retried any more.
func (at *attempt) giveUpReason(err *opsmanager.Error) string {
	allowed := at.scope.RetryTimeout
	if err.RetryAfter > allowed.Std() {
		return fmt.Sprintf("not retried: Ops Manager requests a pause of %s, longer than the retryTimeout of %s: ", Duration(err.RetryAfter), allowed)
	}
	return fmt.Sprintf("gave up after retrying for %s: ", allowed)
}

func (at *attempt) isInterruption(err error) bool {
	return errors.Is(err, errWorkerStopping) || errors.Is(err, errCanceled) || errors.Is(err, errLeaseLost) || at.ctx.Err() != nil
}

// finalFailure is final, whatever the error's kind.
func (at *attempt) finalFailure(err *opsmanager.Error, why string) error {
	return finalFailureWith(err, why, at.failureDetails(err))
}

func finalFailureWith(err *opsmanager.Error, why string, details FailureDetails) error {
	m := classify(err)
	return temporal.NewApplicationErrorWithOptions(why+message(err, m), string(m.errorType), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{details},
	})
}

func (at *attempt) failureDetails(err *opsmanager.Error) FailureDetails {
	known := at.currentDetails()
	return FailureDetails{
		ErrorCode:  err.ErrorCode,
		Ambiguous:  known.Ambiguous,
		PutRefused: known.PutRefused,
		EarlierPut: known.EarlierPut,
		Attempts:   int(activity.GetInfo(at.ctx).Attempt),

		VersionBefore: known.VersionBefore,
		Arrived:       known.Arrived,
	}
}

// Pauses before something is read again after an answer that is not the API's: a
// passing fault is retried, a permanent one is reported within seconds.
var rereadPauses = []time.Duration{300 * time.Millisecond, time.Second}

// readKey reads a key's id. seenBefore says that the key was seen before, so that
// an answer without one is as odd as any that is not the API's.
func (at *attempt) readKey(ctx context.Context, r retries, clusterID string, seenBefore bool) (string, error) {
	odd := func(err *opsmanager.Error) bool {
		return isOdd(err) || seenBefore && err.Kind == opsmanager.EncryptionOff
	}
	var key string
	err := at.rereadOdd(ctx, r, odd, func() (err error) {
		key, err = at.client.EncryptionKey(ctx, at.scope.ProjectID, clusterID)
		return err
	})
	if err != nil {
		return "", err
	}
	return key, nil
}

// isOdd reports an answer that is not the API's.
func isOdd(err *opsmanager.Error) bool { return err.Kind == opsmanager.UnexpectedResponse }

// rereadOdd reads again after each 429, and after the first odd answers.
func (at *attempt) rereadOdd(ctx context.Context, r retries, odd func(*opsmanager.Error) bool, read func() error) error {
	for try := 0; ; try++ {
		err := r.rateLimited(ctx, read)
		apiError, ok := opsmanager.AsError(err)
		if !ok || !odd(apiError) || try == len(rereadPauses) {
			return err
		}
		at.reportRetry(apiError, rereadPauses[try])
		if err := at.wait(ctx, rereadPauses[try]); err != nil {
			return err
		}
	}
}

// retryRateLimited does something again after each 429, within the step's time.
func (at *attempt) retryRateLimited(ctx context.Context, do func() error) error {
	return at.stepRetries().rateLimited(ctx, do)
}

// retryTransient does something again after every transient error, within a time
// of its own.
func (at *attempt) retryTransient(ctx context.Context, do func() error) error {
	return at.newRetries().transient(ctx, do)
}

func isRateLimited(err error) bool {
	apiError, ok := opsmanager.AsError(err)
	return ok && apiError.Kind == opsmanager.RateLimited
}

// pollPause is the pause between two reads of a key that is expected to
// change: a twentieth of the time allowed, within bounds that fit a person.
func pollPause(allowed time.Duration) time.Duration {
	return min(max(allowed/20, 20*time.Millisecond), 5*time.Second)
}
