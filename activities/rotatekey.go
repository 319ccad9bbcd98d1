package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/opsmanager"
)

// RotateKeyInput says which key is to be replaced, and what is known of the
// time before this activity.
type RotateKeyInput struct {
	Scope
	// ClusterID is that of the target.
	ClusterID string `json:"clusterId"`
	// PreviousKeyUUID is the key's ID as it was read before.
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// FirstAttemptToken is the run of the workflow that guarantees that no PUT has
	// been sent for this target before; empty = no run guarantees it.
	FirstAttemptToken string `json:"untouchedIn,omitempty"`
	// ReadAt is when that run began to read PreviousKeyUUID, by Temporal's
	// clock. Zero = long ago.
	ReadAt time.Time `json:"readAt,omitzero"`
	// NothingAppliedToken is the run that guarantees less: PUTs may have been sent,
	// but none can have taken effect.
	NothingAppliedToken string `json:"refusedIn,omitempty"`
	// Ambiguous: the outcome of an earlier PUT was unknown, and settled by
	// reading. A change of the key may be that PUT's.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// SettleTime is how long the key must keep its old id, after a PUT of
	// unknown outcome, before another PUT.
	SettleTime Duration `json:"settleTime"`
}

// RotateKeyResult says that a PUT was accepted, or seen to have taken effect, or
// why none was sent.
type RotateKeyResult struct {
	// RotatedAt is when the PUT was accepted; after an unknown outcome, when
	// the new id was first read.
	RotatedAt time.Time `json:"rotatedAt,omitzero"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// Attempts made of the activity, as Temporal counts them.
	Attempts int `json:"attempts"`
	// OutcomeUnknown: the worker had to stop before the outcome of its PUT was
	// known. Run the activity again, without a token.
	OutcomeUnknown bool `json:"unsettled,omitempty"`
	// ReplacedOutside is the id that was read instead of PreviousKeyUUID, where
	// only someone else can have replaced the key. The activity is to be run
	// again with it as PreviousKeyUUID: it must be in the history before a PUT.
	ReplacedOutside string `json:"replacedOutside,omitempty"`
}

// maxReadingAge is how old the reading of the previous id may be when a PUT is
// sent.
const maxReadingAge = 10 * time.Minute

// RotateKey replaces a target's master key by one PUT, and never by two: the
// PUT goes out only where it is provable that none did before, or where a GET
// still shows the previous id, for SettleTime if an earlier PUT's outcome is
// unknown. A reading that is older than maxReadingAge is repeated first.
//
// A PUT's outcome is settled within the attempt that sent it, or the activity
// completes as OutcomeUnknown: it never fails retryably with a PUT in the open, so
// that no later attempt can take itself for the first one.
func (a *Activities) RotateKey(ctx context.Context, in RotateKeyInput) (RotateKeyResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return RotateKeyResult{}, err
	}
	defer at.finish()
	k := &keyRotation{attempt: at, in: in, readAt: in.ReadAt}
	if in.Ambiguous {
		at.updateDetails(func(n *heartbeatDetails) { n.Ambiguous = true })
	}
	if !isFirstAttempt(ctx, in.FirstAttemptToken) {
		changed, err := k.resolveEarlierPut(ctx)
		if err != nil {
			return RotateKeyResult{}, at.failure(err)
		}
		if changed != "" {
			return k.changed(changed), nil
		}
	}
	return k.put(ctx)
}

// keyRotation is one attempt of RotateKey.
type keyRotation struct {
	*attempt
	in RotateKeyInput
	// readAt is when the previous id was last read, by the server's clock.
	readAt time.Time
}

// isFirstAttempt reports whether what a run guarantees still holds: that this attempt
// is that run's, and the first. The attempt's number alone does not show it:
// resetting an activity sets it back to 1. But an attempt that sent a PUT ends
// for the server only by completing, or by its heartbeat timing out; so an
// attempt that starts sooner after the scheduling than that is the first.
func isFirstAttempt(ctx context.Context, run string) bool {
	info := activity.GetInfo(ctx)
	return run != "" && run == info.WorkflowExecution.RunID &&
		info.Attempt == 1 &&
		!activity.HasHeartbeatDetails(ctx) &&
		info.StartedTime.Sub(info.ScheduledTime) < info.HeartbeatTimeout
}

// resolveEarlierPut shows, by reading, whether a PUT of an earlier attempt or
// run has taken effect: it gives the new id, or none.
func (k *keyRotation) resolveEarlierPut(ctx context.Context) (changed string, err error) {
	if k.putRefusedBefore || isFirstAttempt(ctx, k.in.NothingAppliedToken) {
		changed, err = k.resolveOutcome(ctx, 0)
		if err != nil { // no PUT was sent since
			k.updateDetails(func(n *heartbeatDetails) { n.PutRefused = true })
		}
		return changed, err
	}
	k.updateDetails(func(n *heartbeatDetails) {
		n.EarlierPut = true
		n.Ambiguous = n.Ambiguous || activity.GetInfo(ctx).Attempt > 1 // the attempt before may have sent one
	})
	return k.resolveOutcome(ctx, k.in.SettleTime.Std())
}

// changed completes an attempt that has read another id than the previous one:
// the rotation's own, unless every PUT that may have been sent is known to have
// had no effect.
func (k *keyRotation) changed(key string) RotateKeyResult {
	if known := k.currentDetails(); !known.EarlierPut && !known.Ambiguous {
		activity.GetLogger(k.ctx).Warn("the key was replaced outside of the rotation", "target", k.in.ClusterID, "previousKey", k.in.PreviousKeyUUID, "key", key)
		return RotateKeyResult{ReplacedOutside: key, Attempts: int(activity.GetInfo(k.ctx).Attempt)}
	}
	k.updateDetails(func(n *heartbeatDetails) { n.Ambiguous = true })
	return k.rotated()
}

// resolveOutcome reads the key until it has another id than the previous one, which
// it gives, or has been seen with the previous one for settleTime (empty). Only
// observed time counts: it begins with the end of the first successful reading,
// and again after one that failed or a gap between two, as a server that hangs
// may carry out a PUT when it continues. Transient errors are retried within
// the attempt. All that ends by retryTimeout, from the first error or gap on.
func (k *keyRotation) resolveOutcome(ctx context.Context, settleTime time.Duration) (changed string, err error) {
	pause := pollPause(settleTime)
	row := k.observeWithin(pause)
	retries := k.stepRetries()
	for try := 1; ; try++ {
		row.ask()
		key, err := k.readKey(ctx, retries, k.in.ClusterID, true)
		switch {
		case err != nil:
			row.interrupt()
			if err := retries.waitAfter(ctx, err, try); err != nil {
				return "", err
			}
			continue
		case key != k.in.PreviousKeyUUID:
			return key, nil
		}
		k.readAt = k.serverTime(row.asked)
		if settleTime <= 0 {
			return "", nil
		}
		if row.unchanged() && retries.left() <= 0 {
			return "", k.notObserved()
		}
		if row.lasted() >= settleTime {
			return "", nil
		}
		try = 0
		if err := k.wait(ctx, min(pause, time.Until(row.since.Add(settleTime)))); err != nil {
			return "", err
		}
	}
}

// notObserved is the failure of a step that could read the key, but never often
// enough to settle a PUT's outcome.
func (k *keyRotation) notObserved() error {
	details := k.failureDetails(&opsmanager.Error{})
	return temporal.NewApplicationErrorWithOptions(
		fmt.Sprintf("GET %s: the responses took so long that the key was not observed for the settleTime of %s without a gap, within the retryTimeout of %s; %s",
			opsmanager.KeyPath(k.scope.ProjectID, k.in.ClusterID), k.in.SettleTime, k.scope.RetryTimeout, adviceUnknownOutcome),
		string(ErrorOpsManagerUnavailable), temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{details}})
}

// adviceUnknownOutcome is what to do where a PUT's outcome stays unknown.
const adviceUnknownOutcome = "whether the PUT took effect is unknown: when Ops Manager answers again, retry the target, which reads the key before it sends another PUT"

var errReadingTooOld = errors.New("the reading of the previous key is too old")

// put sends the PUT and settles its outcome. One that a 429 refused is sent
// again within the attempt, once a GET still shows the previous id; so is one
// that was not sent because the last reading was too old by then.
func (k *keyRotation) put(ctx context.Context) (RotateKeyResult, error) {
	lease := k.lease()
	beforeSend := func() error {
		if k.serverTime(time.Now()).Sub(k.readAt) > maxReadingAge {
			return errReadingTooOld
		}
		return lease()
	}
	for try := 1; ; try++ {
		err := k.client.RotateEncryptionKey(ctx, k.in.ProjectID, k.in.ClusterID, beforeSend)
		if err == nil {
			activity.GetLogger(ctx).Info("PUT accepted", "target", k.in.ClusterID, "previousKey", k.in.PreviousKeyUUID)
			return k.rotated(), nil
		}
		if apiError, ok := opsmanager.AsError(err); ok && apiError.OutcomeUnknown {
			k.updateDetails(func(n *heartbeatDetails) { n.Ambiguous = true })
			activity.GetLogger(ctx).Warn("PUT outcome unknown; polling the key to resolve it", "target", k.in.ClusterID, "settleTime", k.in.SettleTime, "message", err.Error())
			return k.resolveOwnPut(err)
		}
		if !errors.Is(err, errReadingTooOld) {
			if !isRateLimited(err) {
				return RotateKeyResult{}, k.refused(err)
			}
			if err := k.stepRetries().waitAfter(ctx, err, try); err != nil {
				return RotateKeyResult{}, k.refused(err)
			}
		}
		changed, err := k.resolveOutcome(ctx, 0)
		if err != nil {
			return RotateKeyResult{}, k.refused(err)
		}
		if changed != "" {
			return k.changed(changed), nil
		}
	}
}

// refused ends an attempt whose PUT is known not to have taken effect.
func (k *keyRotation) refused(err error) error {
	k.updateDetails(func(n *heartbeatDetails) { n.PutRefused = true })
	return k.failure(err)
}

// resolveOwnPut reads until the outcome of this attempt's PUT is known, whoever
// pauses, resets or cancels the activity meanwhile; only the worker's stopping
// leaves it open.
func (k *keyRotation) resolveOwnPut(putError error) (RotateKeyResult, error) {
	changed, err := k.resolveOutcome(context.WithoutCancel(k.ctx), k.in.SettleTime.Std())
	apiError, isAPIError := opsmanager.AsError(err)
	switch {
	case errors.Is(err, errWorkerStopping):
		result := k.rotated()
		result.RotatedAt, result.OutcomeUnknown = time.Time{}, true
		return result, nil
	case isAPIError:
		return RotateKeyResult{}, k.finalFailure(apiError, fmt.Sprintf("PUT outcome unknown, and the key could not be read for the settleTime of %s without a failure (%s): ", k.in.SettleTime, adviceUnknownOutcome))
	case err != nil:
		return RotateKeyResult{}, err
	case changed != "":
		return k.changed(changed), nil
	default:
		return RotateKeyResult{}, k.refused(putError)
	}
}

func (k *keyRotation) rotated() RotateKeyResult {
	return RotateKeyResult{
		RotatedAt: k.timestamp(),
		Ambiguous: k.currentDetails().Ambiguous,
		Attempts:  int(activity.GetInfo(k.ctx).Attempt),
	}
}

var errLeaseLost = errors.New("cannot prove that this is the only running attempt")

// maxClockSkew is how far the worker's clock may be behind Temporal's before it
// cannot be used to determine the age of a task.
const maxClockSkew = time.Second

// lease gives the check to be made directly before a PUT goes out: that
// Temporal can't have given the target to another worker meanwhile, which it
// does when no heartbeat has come for the heartbeat timeout. Where half of
// that has gone by since the last proof, or a note is to be withdrawn, a
// heartbeat is sent and must succeed. Without a heartbeat timeout there is
// nothing to lose.
func (at *attempt) lease() func() error {
	info := activity.GetInfo(at.ctx)
	proven := at.confirmedAtStart()
	return func() error {
		if info.HeartbeatTimeout == 0 || time.Since(proven) < info.HeartbeatTimeout/2 {
			return nil
		}
		asked := time.Now()
		if err := at.confirm(); err != nil {
			return err
		}
		proven = asked
		return nil
	}
}

// confirm sends a heartbeat, which must succeed: then Temporal has the details, and
// has not given the activity to another worker.
func (at *attempt) confirm() error {
	info := activity.GetInfo(at.ctx)
	ctx, cancel := context.WithTimeout(at.ctx, info.HeartbeatTimeout/4)
	defer cancel()
	if err := at.recordHeartbeat(ctx, info.TaskToken, at.currentDetails()); err != nil {
		return errors.Join(errLeaseLost, err)
	}
	return nil
}

// confirmedAtStart is since when this attempt is known to be the only one: since
// Temporal started it, which may be long before the task came to this worker.
// The zero time = not at all: the clock cannot be used, or the heartbeat details
// of earlier attempts must be withdrawn first.
func (at *attempt) confirmedAtStart() time.Time {
	age := at.started.Sub(activity.GetInfo(at.ctx).StartedTime)
	if at.putRefusedBefore || age < -maxClockSkew {
		return time.Time{}
	}
	return at.started.Add(-max(age, 0))
}
