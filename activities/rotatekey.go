package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"

	"keyturn/opsmanager"
)

// RotateKeyInput says which key is to be replaced, and what is known of the
// time before this activity.
type RotateKeyInput struct {
	Scope
	ClusterID       string `json:"clusterId"`
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// UntouchedIn is the run of the workflow that vouches that no PUT has been
	// sent for this target before; empty = nobody does.
	UntouchedIn string `json:"untouchedIn,omitempty"`
	// RefusedIn is the run that vouches for less: that a PUT has been sent,
	// and none can have taken effect.
	RefusedIn string `json:"refusedIn,omitempty"`
	// SettleTime is how long the key must keep its old id, after a PUT of
	// unknown outcome, before another PUT.
	SettleTime Duration `json:"settleTime"`
}

// RotateKeyResult says that a PUT was accepted, or seen to have taken effect.
type RotateKeyResult struct {
	// RotatedAt is when the PUT was accepted; after an unknown outcome, when
	// the new id was first read.
	RotatedAt time.Time `json:"rotatedAt,omitzero"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// Attempts made of the activity, as Temporal counts them.
	Attempts int `json:"attempts"`
	// Unsettled: the worker had to stop before the outcome of its PUT was
	// known. The activity is to be run again, with nobody vouching.
	Unsettled bool `json:"unsettled,omitempty"`
}

// RotateKey replaces a target's master key by one PUT, and never by two: the
// PUT goes out only where it is provable that none did before, or where a GET
// still shows the previous id, for SettleTime if an earlier PUT's outcome is
// unknown.
//
// A PUT's outcome is settled within the attempt that sent it, or the activity
// completes as Unsettled: it never fails retryably with a PUT in the open, so
// that no later attempt can take itself for the first one.
func (a *Activities) RotateKey(ctx context.Context, in RotateKeyInput) (RotateKeyResult, error) {
	ctx, at, err := a.begin(ctx, in.Scope)
	if err != nil {
		return RotateKeyResult{}, err
	}
	defer at.end()
	if !vouchedFor(ctx, in.UntouchedIn) {
		rotated, err := at.settleEarlierPut(ctx, in)
		if err != nil {
			return RotateKeyResult{}, at.failure(err)
		}
		if rotated {
			return at.rotated(), nil
		}
	}
	return at.put(ctx, in)
}

// vouchedFor tells whether what a run vouches for still holds: that this attempt
// is that run's, and the first. The attempt's number alone does not tell:
// resetting an activity sets it back to 1. But an attempt that sent a PUT ends
// for the server only by completing, or by its heartbeat timing out; so an
// attempt that starts sooner after the scheduling than that is the first.
func vouchedFor(ctx context.Context, run string) bool {
	info := activity.GetInfo(ctx)
	return run != "" && run == info.WorkflowExecution.RunID &&
		info.Attempt == 1 &&
		!activity.HasHeartbeatDetails(ctx) &&
		info.StartedTime.Sub(info.ScheduledTime) < info.HeartbeatTimeout
}

// settleEarlierPut tells, by reading, whether a PUT of an earlier attempt or
// run has taken effect.
func (at *attempt) settleEarlierPut(ctx context.Context, in RotateKeyInput) (rotated bool, err error) {
	settleTime := in.SettleTime.Std()
	if at.putRefusedBefore || vouchedFor(ctx, in.RefusedIn) {
		settleTime = 0
	} else if activity.GetInfo(ctx).Attempt > 1 {
		at.note(func(n *notes) { n.Ambiguous = true }) // the attempt before may have sent one
	}
	return at.settle(ctx, in, settleTime)
}

// settle reads the key until it has another id than the previous one (true) or
// has kept it for settleTime (false). Transient errors are retried within the
// attempt.
func (at *attempt) settle(ctx context.Context, in RotateKeyInput, settleTime time.Duration) (bool, error) {
	settled := time.Now().Add(settleTime)
	pause := pollPause(settleTime)
	for try := 1; ; try++ {
		readAt := time.Now()
		key, err := at.readKey(ctx, in.ClusterID, true)
		switch {
		case err == nil && key != in.PreviousKeyUUID:
			at.note(func(n *notes) { n.Ambiguous = true })
			return true, nil
		case err == nil && !readAt.Before(settled):
			return false, nil
		case err == nil:
			try = 0
			err = at.wait(ctx, min(pause, time.Until(settled)))
		default:
			err = at.waitAfter(ctx, err, try)
		}
		if err != nil {
			return false, err
		}
	}
}

// put sends the PUT and settles its outcome. One that a 429 refused is sent
// again within the attempt, once a GET still shows the previous id.
func (at *attempt) put(ctx context.Context, in RotateKeyInput) (RotateKeyResult, error) {
	lease := at.lease()
	for try := 1; ; try++ {
		err := at.client.RotateEncryptionKey(ctx, in.ProjectID, in.ClusterID, lease)
		if err == nil {
			activity.GetLogger(ctx).Info("PUT accepted", "target", in.ClusterID, "previousKey", in.PreviousKeyUUID)
			return at.rotated(), nil
		}
		if apiError, ok := opsmanager.AsError(err); ok && apiError.OutcomeUnknown {
			at.note(func(n *notes) { n.Ambiguous = true })
			activity.GetLogger(ctx).Warn("a PUT's outcome is unknown, reading until it is", "target", in.ClusterID, "settleTime", in.SettleTime, "message", err.Error())
			return at.settleOwnPut(in, err)
		}
		if !isRateLimited(err) {
			return RotateKeyResult{}, at.refused(err)
		}
		if err := at.waitAfter(ctx, err, try); err != nil {
			return RotateKeyResult{}, at.refused(err)
		}
		changed, err := at.settle(ctx, in, 0)
		if err != nil {
			return RotateKeyResult{}, at.refused(err)
		}
		if changed {
			return at.rotated(), nil
		}
	}
}

// refused ends an attempt whose PUT is known not to have taken effect.
func (at *attempt) refused(err error) error {
	at.note(func(n *notes) { n.PutRefused = true })
	return at.failure(err)
}

// settleOwnPut reads until the outcome of this attempt's PUT is known, whoever
// pauses, resets or cancels the activity meanwhile; only the worker's stopping
// leaves it open.
func (at *attempt) settleOwnPut(in RotateKeyInput, putError error) (RotateKeyResult, error) {
	rotated, err := at.settle(context.WithoutCancel(at.ctx), in, in.SettleTime.Std())
	switch {
	case errors.Is(err, errWorkerStopping):
		result := at.rotated()
		result.RotatedAt, result.Unsettled = time.Time{}, true
		return result, nil
	case err != nil:
		apiError, _ := opsmanager.AsError(err)
		return RotateKeyResult{}, at.lastFailure(apiError, "a PUT's outcome is unknown, and can't be read: ")
	case rotated:
		return at.rotated(), nil
	default:
		return RotateKeyResult{}, at.refused(putError)
	}
}

func (at *attempt) rotated() RotateKeyResult {
	return RotateKeyResult{
		RotatedAt: now(),
		Ambiguous: at.currentNotes().Ambiguous,
		Attempts:  int(activity.GetInfo(at.ctx).Attempt),
	}
}

var errLeaseLost = errors.New("this attempt can't prove to be the only one")

// maxClockSkew is how far the worker's clock may be behind Temporal's before it
// is of no use in telling how old a task is.
const maxClockSkew = time.Second

// lease gives the check to be made directly before a PUT goes out: that
// Temporal can't have given the target to another worker meanwhile, which it
// does when no heartbeat has come for the heartbeat timeout. Where half of
// that has gone by since the last proof, or a note is to be withdrawn, a
// heartbeat is sent and must succeed. Without a heartbeat timeout there is
// nothing to lose.
func (at *attempt) lease() func() error {
	info := activity.GetInfo(at.ctx)
	proven := at.provenAtStart()
	return func() error {
		if info.HeartbeatTimeout == 0 || time.Since(proven) < info.HeartbeatTimeout/2 {
			return nil
		}
		asked := time.Now()
		ctx, cancel := context.WithTimeout(at.ctx, info.HeartbeatTimeout/4)
		defer cancel()
		if err := at.recordHeartbeat(ctx, info.TaskToken, at.currentNotes()); err != nil {
			return errors.Join(errLeaseLost, err)
		}
		proven = asked
		return nil
	}
}

// provenAtStart is since when this attempt is known to be the only one: since
// Temporal started it, which may be long before the task came to this worker.
// The zero time = not at all: the clock is of no use, or a note of the attempts
// before must be withdrawn first.
func (at *attempt) provenAtStart() time.Time {
	age := at.started.Sub(activity.GetInfo(at.ctx).StartedTime)
	if at.putRefusedBefore || age < -maxClockSkew {
		return time.Time{}
	}
	return at.started.Add(-max(age, 0))
}
