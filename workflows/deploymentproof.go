package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// proofRetryPause is how long a proof waits after Ops Manager could not be asked for
// RetryTimeout.
const proofRetryPause = 10 * time.Minute

// isProven reports whether a snapshot shows a new key of a replica set.
func (r *deploymentRotation) isProven(set replicaSet) bool {
	for _, t := range r.members[set] {
		if t.Status == StatusVerified {
			return true
		}
	}
	record := r.replicaSetRecord(set)
	return record != nil && record.ProvenBy != ""
}

// replicaSetRecord is what is known of a replica set as a whole; nil = nothing.
func (r *deploymentRotation) replicaSetRecord(set replicaSet) *ReplicaSetRecord {
	if i, isKnown := r.recordOf[set]; isKnown {
		return &r.replicaSets[i]
	}
	return nil
}

func (r *deploymentRotation) addReplicaSetRecord(record ReplicaSetRecord) {
	r.recordOf[replicaSet{record.ClusterID, record.ReplicaSet}] = len(r.replicaSets)
	r.replicaSets = append(r.replicaSets, record)
}

// startBackground starts to wait for the proof of each replica set whose members have
// all arrived or are skipped.
func (r *deploymentRotation) startBackground(ctx workflow.Context) {
	if r.input.Proof == ProofAgent || r.aborted != nil {
		return
	}
	for _, set := range r.sets {
		if _, isRunning := r.proving[set]; isRunning || r.replicaSetRecord(set) != nil || r.isProven(set) {
			continue
		}
		if members := r.rotatedMembers(set); len(members) > 0 {
			r.startProof(ctx, set, members)
		}
	}
}

// rotatedMembers are the members of a replica set that were rotated; none as long as
// one of its members is still to be rotated.
func (r *deploymentRotation) rotatedMembers(set replicaSet) (members []*ProcessRecord) {
	for _, t := range r.members[set] {
		switch {
		case t.Status == StatusSkipped:
		case t.isDone():
			members = append(members, t)
		default:
			return nil
		}
	}
	return members
}

func (r *deploymentRotation) startProof(ctx workflow.Context, set replicaSet, members []*ProcessRecord) {
	ctx, cancel := workflow.WithCancel(ctx)
	r.proving[set] = cancel
	r.inBackground++
	workflow.Go(ctx, func(ctx workflow.Context) {
		r.prove(ctx, set, members)
		delete(r.proving, set)
		r.inBackground--
		r.changed(ctx)
	})
}

// stopBackground gives up waiting for proofs: nothing is lost by it.
func (r *deploymentRotation) stopBackground() {
	for _, set := range r.sets { // a map has no order
		if cancel, isRunning := r.proving[set]; isRunning {
			cancel()
			delete(r.proving, set)
		}
	}
}

// prove waits until a snapshot shows a new key of the replica set, or the time for it
// is up.
func (r *deploymentRotation) prove(ctx workflow.Context, set replicaSet, members []*ProcessRecord) {
	input := activities.ProveRotationInput{
		Scope: r.scope(), ClusterID: set.clusterID, ReplicaSet: set.name, RotateAt: *members[0].RotateAt,
		Parts: r.replicaSetsOf(set.clusterID), EarlierKeys: r.earlierKeys[set], Proof: r.input.Proof, Deadline: r.proofDeadline(members),
	}
	for _, t := range members {
		if t.RotateAt.Before(input.RotateAt) {
			input.RotateAt = *t.RotateAt
		}
		input.Members = append(input.Members, activities.MemberToProve{
			Process: t.Process, Host: t.Host, RestartedAt: *t.RotatedAt, PreviousKeyUUID: t.PreviousKeyUUID, PreviousRotateAt: t.PreviousRotateAt,
		})
	}
	proof, err := r.awaitProof(ctx, input)
	switch {
	case temporal.IsCanceledError(err):
		return
	case ErrorTypeOf(err) == ErrorKeyUnchanged:
		for _, t := range members {
			failTarget(ctx, t, err)
			countTarget(ctx, t)
		}
		return
	case err != nil:
		proof = activities.ProveRotationResult{Reason: string(targetErrorOf(err).Type) + ": " + targetErrorOf(err).Message}
	}
	r.recordProof(ctx, set, members, proof)
}

// replicaSetsOf is how many replica sets of a cluster have targets.
func (r *deploymentRotation) replicaSetsOf(clusterID string) (n int) {
	for _, set := range r.sets {
		if set.clusterID == clusterID {
			n++
		}
	}
	return n
}

// awaitProof runs ProveRotation until the deadline, also where Ops Manager cannot be
// asked meanwhile.
func (r *deploymentRotation) awaitProof(ctx workflow.Context, input activities.ProveRotationInput) (proof activities.ProveRotationResult, err error) {
	for {
		left := max(input.Deadline.Sub(workflow.Now(ctx)), 0)
		activityCtx := activityOptions(ctx, shorten("prove the new key of "+input.ReplicaSet), left+r.input.RetryTimeout.Std())
		err = workflow.ExecuteActivity(activityCtx, activities.ProveRotationName, input).Get(ctx, &proof)
		if !mayPass(err) || !workflow.Now(ctx).Before(input.Deadline) {
			return proof, err
		}
		if err := workflow.Sleep(ctx, min(proofRetryPause, input.Deadline.Sub(workflow.Now(ctx)))); err != nil {
			return proof, err
		}
	}
}

// mayPass reports whether a failure may be over later: that of an Ops Manager which
// could not be asked for RetryTimeout, or of attempts that ended without a result.
func mayPass(err error) bool {
	var appErr *temporal.ApplicationError
	switch {
	case err == nil || temporal.IsCanceledError(err):
		return false
	case errors.As(err, &appErr) && appErr.NonRetryable():
		return ErrorTypeOf(err) == ErrorOpsManagerUnavailable || ErrorTypeOf(err) == ErrorRateLimited
	default:
		return true
	}
}

// proofDeadline is until when a proof is waited for: proofTimeout from the last
// restart on. Members that an earlier run rotated are given that time from the start
// of this one.
func (r *deploymentRotation) proofDeadline(members []*ProcessRecord) time.Time {
	since := r.common.StartedAt
	for _, t := range members {
		if t.RotatedAt == nil {
			continue
		}
		if restarted := t.RotatedAt.Add(-r.clockOffset); restarted.After(since) { // by Temporal's clock
			since = restarted
		}
	}
	return since.Add(r.input.ProofTimeout.Std())
}

// recordProof records what ProveRotation has found. A snapshot is a proof for the
// member that it was taken from, and for the replica set; of the other members it says
// nothing.
func (r *deploymentRotation) recordProof(ctx workflow.Context, set replicaSet, members []*ProcessRecord, proof activities.ProveRotationResult) {
	provenAt := proof.ProvenAt.UTC()
	for _, t := range members {
		if proof.Proven && t.Process == proof.Process {
			t.Status, t.VerifiedAt, t.ProvenBy = StatusVerified, &provenAt, proof.ProvenBy
			t.NewKeyUUID, t.SnapshotID, t.KMIP = proof.NewKeyUUID, proof.SnapshotID, proof.KMIP
			if proof.PreviousKeyUUID != "" {
				t.PreviousKeyUUID = proof.PreviousKeyUUID
			}
			countTarget(ctx, t)
			workflow.GetLogger(ctx).Info("process verified", "process", t.Process, "replicaSet", t.ReplicaSet, "previousKey", t.PreviousKeyUUID, "newKey", t.NewKeyUUID)
			return
		}
	}
	record := ReplicaSetRecord{
		ClusterID: set.clusterID, ReplicaSet: set.name, SnapshotID: proof.SnapshotID, KMIP: proof.KMIP, Reason: proof.Reason,
	}
	if proof.Proven {
		record.ProvenBy, record.ProvenAt, record.NewKeyUUID, record.Reason = proof.ProvenBy, &provenAt, proof.NewKeyUUID, ""
	}
	r.addReplicaSetRecord(record)
	workflow.GetLogger(ctx).Info("proof ended", "replicaSet", set.name, "provenBy", record.ProvenBy, "reason", record.Reason)
}

func (r *deploymentRotation) waitingForBackground() string {
	var names []string
	var until time.Time
	for _, set := range r.sets {
		if _, isRunning := r.proving[set]; !isRunning {
			continue
		}
		names = append(names, set.name)
		if deadline := r.proofDeadline(r.rotatedMembers(set)); deadline.After(until) {
			until = deadline
		}
	}
	return fmt.Sprintf("snapshots that prove the new keys of %s, until %s", someNames(names), until.Format(time.RFC3339))
}
