package activities

import (
	"context"
	"time"

	"keyturn/internal/kmipevidence"
	"keyturn/opsmanager"
)

// VerifyKeyInput says which id must have gone.
type VerifyKeyInput struct {
	Scope
	// ClusterID is that of the target.
	ClusterID string `json:"clusterId"`
	// PreviousKeyUUID is the ID that the key must no longer have.
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// VerifyTimeout is how long the new id may take to show.
	VerifyTimeout Duration `json:"verifyTimeout"`
}

// VerifyKeyResult is what was read back.
type VerifyKeyResult struct {
	// NewKeyUUID is the ID that was read.
	NewKeyUUID string `json:"newKeyUUID"`
	// VerifiedAt is when it was read, in UTC.
	VerifiedAt time.Time `json:"verifiedAt"`
	// KMIP is what the KMIP server says about the new key; nil = it was not asked.
	KMIP *kmipevidence.Evidence `json:"kmip,omitempty"`
}

// minUnchanged is for how long the previous id must have been seen, at the least, for
// KeyUnchanged; VerifyTimeout if that is shorter.
const minUnchanged = 30 * time.Second

// VerifyKey reads a target's key until its id is not the previous one. An id
// that stays for VerifyTimeout is KeyUnchanged: one time for all attempts, from
// the first one's start on. A server that stood still in that time may show the new
// id after it, so that the old one must also have been seen without a failure for
// minUnchanged. The KMIP server is asked about the new key then, within
// evidenceTimeout; whatever it says, the key is verified.
func (a *Activities) VerifyKey(ctx context.Context, in VerifyKeyInput) (VerifyKeyResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return VerifyKeyResult{}, err
	}
	defer at.finish()
	pause := pollPause(in.VerifyTimeout.Std())
	left := in.VerifyTimeout.Std() - at.sinceFirstStart()
	unchangedFor := min(in.VerifyTimeout.Std(), minUnchanged)
	row := observation{at: at}
	for {
		row.ask()
		key, err := at.readKey(ctx, at.stepRetries(), in.ClusterID, true)
		if err != nil {
			return VerifyKeyResult{}, at.failure(err)
		}
		if key != in.PreviousKeyUUID {
			verified := VerifyKeyResult{NewKeyUUID: key, VerifiedAt: at.timestamp()}
			verified.KMIP = a.evidence(ctx, at, key)
			return verified, nil
		}
		row.unchanged()
		remaining := max(left-time.Since(at.started), unchangedFor-row.lasted())
		if remaining <= 0 {
			return VerifyKeyResult{}, at.keyUnchanged(in)
		}
		if err := at.wait(ctx, min(pause, remaining)); err != nil {
			return VerifyKeyResult{}, at.failure(err)
		}
	}
}

// sinceFirstStart is how long before this attempt the step's first one started,
// which it notes for the attempts to come.
func (at *attempt) sinceFirstStart() time.Duration {
	started := at.serverTime(at.started)
	at.updateDetails(func(n *heartbeatDetails) {
		if n.FirstStarted.IsZero() {
			n.FirstStarted = started
		}
	})
	return max(started.Sub(at.currentDetails().FirstStarted), 0)
}

func (at *attempt) keyUnchanged(in VerifyKeyInput) error {
	return permanent(ErrorKeyUnchanged, "Ops Manager accepted the PUT for cluster %s, but GET %s still returned key %s after %s; "+
		"check the feature compatibility version (FCV) of the databases: this endpoint rotates keys of backups at FCV 4.0 or earlier, "+
		"those at FCV 4.2 or later use the encryption settings of the deployment",
		in.ClusterID, opsmanager.KeyPath(at.scope.ProjectID, in.ClusterID), in.PreviousKeyUUID, in.VerifyTimeout)
}
