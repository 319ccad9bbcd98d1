package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/opsmanager"
)

// plan finds the processes, and carries over what an earlier run did.
func (r *deploymentRotation) plan(ctx workflow.Context) error {
	r.enterPhase(ctx, PhaseListing)
	listed, err := r.listProcesses(ctx)
	if err != nil {
		return err
	}
	if err := r.checkCompleted(listed); err != nil {
		return err
	}
	r.takeReading(ctx, listed)
	r.recordProcesses(listed)
	n := len(r.processes)
	if expected := r.input.ExpectedTargets; expected != 0 && expected != n {
		return failure(ErrorUnexpectedTopology, nil,
			"expectedTargets: expected %d processes, but the automation configuration of project %s has %d to rotate: %s; nothing was rotated",
			expected, r.input.ProjectID, n, describeUnfinished(r.targets))
	}
	return nil
}

// listProcesses reads which processes there are, and refuses what no result can
// hold. Nothing of the rotation is changed.
func (r *deploymentRotation) listProcesses(ctx workflow.Context) (activities.ListProcessesResult, error) {
	ctx = activityOptions(ctx, shorten("find the processes of project "+r.input.ProjectID), totalOf(r.input.RetryTimeout)+requestAllowance)
	var listed activities.ListProcessesResult
	err := workflow.ExecuteActivity(ctx, activities.ListProcessesName, activities.ListProcessesInput{
		Scope: r.scope(), ClusterIDs: r.input.ClusterIDs, Proof: r.input.Proof,
	}).Get(ctx, &listed)
	if err != nil {
		return listed, err
	}
	r.sendsEvents = listed.SendsEvents
	if n := len(listed.Processes); n > maxProcesses {
		return listed, failure(ErrorUnexpectedTopology, nil,
			"project %s has %d processes to rotate, more than the limit of %d; nothing was rotated; name some of its clusters in clusterIds", r.input.ProjectID, n, maxProcesses)
	}
	return listed, nil
}

// checkCompleted refuses records of processes that are not to be rotated: they are
// another deployment's, and believing the rest would rotate keys again.
func (r *deploymentRotation) checkCompleted(listed activities.ListProcessesResult) error {
	known := map[string]bool{}
	for _, p := range listed.Processes {
		known[p.Process] = true
	}
	var f fieldErrors
	for i, record := range r.input.Completed {
		if !known[record.Process] {
			f.add(indexed("completed", i, "process"), "%.*q is not a target of this rotation of project %s; nothing was rotated", maxFieldQuoted, record.Process, r.input.ProjectID)
		}
	}
	return f.err()
}

// recordProcesses makes the records of the processes that were found. One that an
// operator has skipped meanwhile stays skipped.
func (r *deploymentRotation) recordProcesses(listed activities.ListProcessesResult) {
	earlier, known := map[string]ProcessRecord{}, map[string]ProcessRecord{}
	for _, record := range r.input.Completed {
		earlier[record.Process] = record
	}
	for _, record := range r.processes {
		known[record.Process] = record
	}
	r.earlierKeys = map[replicaSet][]string{}
	r.addEarlierKeys(listed.EarlierKeys)
	records := make([]ProcessRecord, len(listed.Processes))
	for i, p := range listed.Processes {
		t := &records[i]
		*t = ProcessRecord{Status: StatusPending}
		t.describe(p)
		if skipped := known[p.Process]; skipped.Status == StatusSkipped {
			t.Status, t.Error, t.FirstError = skipped.Status, skipped.Error, skipped.FirstError
			continue
		}
		if record, found := earlier[p.Process]; found {
			r.carryOver(t, record)
		}
	}
	r.setTargets(records)
}

// maxClockOffset is the most that the clocks of Ops Manager and of Temporal differ by:
// more is ClockSkew.
const maxClockOffset = time.Minute

// takeReading takes up what a reading says of the project.
func (r *deploymentRotation) takeReading(ctx workflow.Context, listed activities.ListProcessesResult) {
	if listed.LatestRotation.After(r.latest) {
		r.latest = listed.LatestRotation
	}
	r.clockOffset = min(max(listed.ServerTime.Sub(workflow.Now(ctx)), -maxClockOffset), maxClockOffset)
}

func (r *deploymentRotation) addEarlierKeys(earlier []activities.EarlierKeys) {
	for _, keys := range earlier {
		r.earlierKeys[replicaSet{keys.ClusterID, keys.ReplicaSet}] = keys.KeyUUIDs
	}
}

// describe takes over what was read of a process that this rotation has not changed.
func (t *ProcessRecord) describe(p activities.Process) {
	t.Process, t.Host, t.ReplicaSet, t.ClusterID, t.ClusterName, t.Role = p.Process, p.Host, p.ReplicaSet, p.ClusterID, p.ClusterName, p.Role
	t.PreviousRotateAt, t.PreviousKeyUUID = p.PreviousRotateAt, p.PreviousKeyUUID
}

// hasTime reports whether a configuration has this time for a process.
func hasTime(inConfiguration string, at *time.Time) bool {
	configured, ok := opsmanager.ParseRotationTime(inConfiguration)
	return ok && at != nil && configured.Equal(*at)
}

// carryOver takes over what an earlier run did to a process whose time is still in
// the configuration: it has been rotated, or will be without another request. One
// whose key was shown not to have changed is rotated again.
//
// The snapshots that name earlier keys may have been taken since that rotation. So
// the earlier run's record says what the key was before, and the other ones of its
// replica set are not used.
func (r *deploymentRotation) carryOver(t *ProcessRecord, done ProcessRecord) {
	if !hasTime(t.PreviousRotateAt, done.RotateAt) || done.Error != nil && done.Error.Type == ErrorKeyUnchanged {
		return
	}
	delete(r.earlierKeys, t.set())
	rotateAt := done.RotateAt.UTC()
	t.RotateAt, t.PreviousRotateAt, t.PreviousKeyUUID, t.Ambiguous = &rotateAt, done.PreviousRotateAt, done.PreviousKeyUUID, done.Ambiguous
	if done.RotatedAt == nil {
		return // it is waited for
	}
	t.Status, t.CarriedOver, t.RotatedAt, t.FirstError = StatusRotated, true, inUTC(done.RotatedAt), done.FirstError
	if done.Status == StatusVerified {
		t.Status, t.VerifiedAt, t.ProvenBy = StatusVerified, inUTC(done.VerifiedAt), done.ProvenBy
		t.NewKeyUUID, t.SnapshotID, t.KMIP = done.NewKeyUUID, done.SnapshotID, done.KMIP
	}
}

// confirmPlan reads the processes again. Snapshots that were taken meanwhile change
// no plan.
func (r *deploymentRotation) confirmPlan(ctx workflow.Context) (changed string, err error) {
	r.enterPhase(ctx, PhaseReading)
	listed, err := r.listProcesses(ctx)
	if err != nil {
		return "", err
	}
	names := r.changedSincePlan(listed)
	r.takeReading(ctx, listed)
	r.recordProcesses(listed)
	if len(names) > 0 {
		return "the configuration of " + someNames(names) + " changed after the approval", nil
	}
	return "", nil
}

// changedSincePlan names the processes that were added, removed or changed.
func (r *deploymentRotation) changedSincePlan(listed activities.ListProcessesResult) (names []string) {
	planned := map[string]*ProcessRecord{}
	for i := range r.processes {
		planned[r.processes[i].Process] = &r.processes[i]
	}
	for _, p := range listed.Processes {
		t := planned[p.Process]
		if t == nil || t.Host != p.Host || t.ReplicaSet != p.ReplicaSet || t.ClusterID != p.ClusterID || !t.hasPlannedTime(p.PreviousRotateAt) {
			names = append(names, p.Process)
		}
		delete(planned, p.Process)
	}
	for i := range r.processes {
		if t := &r.processes[i]; planned[t.Process] != nil {
			names = append(names, t.Process)
		}
	}
	return names
}

// hasPlannedTime reports whether the configuration has the time that the plan shows:
// that of an earlier run which is carried over, or the previous one.
func (t *ProcessRecord) hasPlannedTime(inConfiguration string) bool {
	if t.RotateAt != nil {
		return hasTime(inConfiguration, t.RotateAt)
	}
	if planned, ok := opsmanager.ParseRotationTime(t.PreviousRotateAt); ok {
		return hasTime(inConfiguration, &planned)
	}
	return t.PreviousRotateAt == inConfiguration
}
