package activities

import (
	"context"
	"time"

	"keyturn/opsmanager"
)

// VerifyKeyInput says which id must have gone.
type VerifyKeyInput struct {
	Scope
	ClusterID       string `json:"clusterId"`
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// VerifyTimeout is how long the new id may take to show.
	VerifyTimeout Duration `json:"verifyTimeout"`
}

// VerifyKeyResult is what was read back.
type VerifyKeyResult struct {
	NewKeyUUID string    `json:"newKeyUUID"`
	VerifiedAt time.Time `json:"verifiedAt"`
}

// VerifyKey reads a target's key until its id is not the previous one. An id
// that stays for VerifyTimeout is KeyUnchanged.
func (a *Activities) VerifyKey(ctx context.Context, in VerifyKeyInput) (VerifyKeyResult, error) {
	ctx, at, err := a.begin(ctx, in.Scope)
	if err != nil {
		return VerifyKeyResult{}, err
	}
	defer at.end()
	deadline := at.started.Add(in.VerifyTimeout.Std())
	pause := pollPause(in.VerifyTimeout.Std())
	for {
		key, err := at.readKey(ctx, in.ClusterID, true)
		if err != nil {
			return VerifyKeyResult{}, at.failure(err)
		}
		at.succeeded()
		if key != in.PreviousKeyUUID {
			return VerifyKeyResult{NewKeyUUID: key, VerifiedAt: now()}, nil
		}
		if !time.Now().Before(deadline) {
			return VerifyKeyResult{}, at.keyUnchanged(in)
		}
		if err := at.wait(ctx, min(pause, time.Until(deadline))); err != nil {
			return VerifyKeyResult{}, at.failure(err)
		}
	}
}

func (at *attempt) keyUnchanged(in VerifyKeyInput) error {
	return permanent(ErrorKeyUnchanged, "the PUT for cluster %s was accepted, but GET %s shows key %s for %s since; "+
		"check the feature compatibility version (FCV) of the databases: this endpoint serves backups at FCV 4.0 or earlier, "+
		"those at FCV 4.2 and later use the deployment's own encryption setting",
		in.ClusterID, opsmanager.KeyPath(at.scope.ProjectID, in.ClusterID), in.PreviousKeyUUID, in.VerifyTimeout)
}
