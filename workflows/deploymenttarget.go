package workflows

import (
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/opsmanager"
)

// parallelism: a piece of work is a batch of replica sets in one publication. The
// next one is published when these have arrived.
func (r *deploymentRotation) parallelism() int { return 1 }

// nextWork is the next batch: processes that have a time, which may be published and
// must not change, before others; of these the pending ones of the next replica sets.
func (r *deploymentRotation) nextWork() (batch []target) {
	var rotateAt *time.Time
	for i := range r.processes {
		if t := &r.processes[i]; t.Status == StatusPending && t.RotateAt != nil {
			rotateAt = t.RotateAt
			break
		}
	}
	sets, limit := map[replicaSet]bool{}, r.setsAtATime()
	for i := range r.processes {
		t := &r.processes[i]
		switch {
		case t.Status != StatusPending:
		case rotateAt != nil:
			if t.RotateAt != nil && t.RotateAt.Equal(*rotateAt) {
				batch = append(batch, t)
			}
		case sets[t.set()] || len(sets) < limit:
			sets[t.set()] = true
			batch = append(batch, t)
		}
	}
	return batch
}

// setsAtATime is one until a replica set has been rotated.
func (r *deploymentRotation) setsAtATime() int {
	for i := range r.processes {
		if t := &r.processes[i]; t.isDone() && !t.CarriedOver {
			return r.input.Concurrency
		}
	}
	return 1
}

// work publishes a time for the processes of a batch and waits until each has
// restarted with it.
func (r *deploymentRotation) work(ctx workflow.Context, targets []target) {
	batch := make([]*ProcessRecord, len(targets))
	for i, t := range targets {
		batch[i] = t.(*ProcessRecord)
	}
	r.rotateBatch(ctx, batch)
	for _, t := range batch {
		if t.Status != StatusPending {
			countTarget(ctx, t)
		}
	}
}

func (r *deploymentRotation) rotateBatch(ctx workflow.Context, batch []*ProcessRecord) {
	isNew := batch[0].RotateAt == nil
	if isNew {
		isNew = r.isOfThisRun(ctx)
		if err := r.readAgain(ctx, batch); err != nil {
			failProcesses(ctx, batch, err)
			return
		}
		if batch = withStatus(batch, StatusRotating); len(batch) == 0 {
			return
		}
		if err := r.chooseTime(ctx, batch); err != nil {
			failProcesses(ctx, batch, err)
			return
		}
	}
	r.changed(ctx)
	if err := r.publish(ctx, batch, isNew); err != nil {
		failProcesses(ctx, r.leftAfter(ctx, err, batch), err)
		return
	}
	r.await(ctx, batch)
}

// leftAfter are the processes of a batch that fail with a publication. In a copy made by
// a reset, the run before may have had a PUT under way, which Ops Manager has applied
// since the copy looked for its times: those are taken over after all.
func (r *deploymentRotation) leftAfter(ctx workflow.Context, err error, batch []*ProcessRecord) []*ProcessRecord {
	if !r.isCopy || batch[0].RotateAt != nil || ErrorTypeOf(err) != ErrorRotatedByOthers || r.readAgain(ctx, batch) != nil {
		return batch
	}
	return withStatus(batch, StatusRotating)
}

func failProcesses(ctx workflow.Context, batch []*ProcessRecord, err error) {
	for _, t := range batch {
		failTarget(ctx, t, err)
	}
}

// clockPrecision is how well Ops Manager's clock is known.
const clockPrecision = time.Second

// chooseTime chooses the time for a batch: in whole seconds of Ops Manager's clock,
// with which it is compared, and later than every earlier one of the project. It waits
// until then: a process that restarted before its time would count as not restarted.
// So the time is also in the history before it is published: a workflow that is reset
// to the publication, or to any point after it, publishes the same time.
func (r *deploymentRotation) chooseTime(ctx workflow.Context, batch []*ProcessRecord) error {
	now := workflow.Now(ctx).UTC().Add(r.clockOffset)
	rotateAt := now.Truncate(time.Second).Add(time.Second)
	if !rotateAt.After(r.latest) {
		rotateAt = r.latest.UTC().Truncate(time.Second).Add(time.Second)
	}
	r.latest = rotateAt
	if err := workflow.NewTimerWithOptions(ctx, rotateAt.Add(clockPrecision).Sub(now), workflow.TimerOptions{Summary: "waiting for the time that is published"}).Get(ctx, nil); err != nil {
		return err
	}
	for _, t := range batch {
		at := rotateAt
		t.RotateAt = &at
	}
	return nil
}

// readAgain reads the processes again where one has failed before anything can have
// been published for it: its previous time may be another one by now.
//
// So does a copy of a run that a reset made: that run may have published times which
// this one's history does not have. Processes with such a time go back to the pending
// ones, to be waited for.
func (r *deploymentRotation) readAgain(ctx workflow.Context, batch []*ProcessRecord) error {
	mustRead := r.isCopy
	for _, t := range batch {
		mustRead = mustRead || t.FirstError != nil
	}
	if !mustRead {
		return nil
	}
	listed, err := r.listAtGoal(ctx)
	if err != nil {
		return err
	}
	r.takeReading(ctx, listed)
	read := map[string]activities.Process{}
	for _, p := range listed.Processes {
		read[p.Process] = p
	}
	defer r.groupMembers() // a process may belong to another replica set now
	for _, t := range batch {
		p, found := read[t.Process]
		if !found {
			return failure(ErrorUnexpectedTopology, nil, "process %s is not listed any more; nothing was published for its batch; skip it", t.Process)
		}
		if at, isTime := opsmanager.ParseRotationTime(p.PreviousRotateAt); isTime && r.isCopy && !t.hasPlannedTime(p.PreviousRotateAt) && at.After(r.common.StartedAt.Add(r.clockOffset)) {
			t.RotateAt = &at
			setStatus(t, StatusPending, nil)
			workflow.GetLogger(ctx).Warn("taking over a time that was published before the reset", "process", t.Process, "rotateAt", at)
			continue
		}
		key := t.PreviousKeyUUID
		t.describe(p)
		if r.isCopy {
			t.PreviousKeyUUID = key // the plan's: what was read since may be a new one
		}
	}
	if !r.isCopy { // the run before may have rotated any replica set
		r.addEarlierKeys(r.ofUntouchedSets(listed.EarlierKeys))
	}
	return nil
}

// goalPause is the pause between two looks at agents that are busy.
const goalPause = 10 * time.Second

// listAtGoal lists the processes. In a copy made by a reset, agents may be busy with
// what the run before has published: it waits for them, up to deployTimeout.
func (r *deploymentRotation) listAtGoal(ctx workflow.Context) (listed activities.ListProcessesResult, err error) {
	pause := min(goalPause, r.input.DeployTimeout.Std()/10)
	for until := workflow.Now(ctx).Add(r.input.DeployTimeout.Std()); ; {
		listed, err = r.listProcesses(ctx)
		isBusy := ErrorTypeOf(err) == ErrorNotInGoalState || ErrorTypeOf(err) == ErrorMemberDown
		if !r.isCopy || !isBusy || !workflow.Now(ctx).Before(until) {
			return listed, err
		}
		if err := workflow.Sleep(ctx, pause); err != nil {
			return listed, err
		}
	}
}

// isOfThisRun reports whether this very run starts a batch, so that no other one can
// have published the time that is chosen for it. It notes whether this run, or one that
// it continues, is a copy made by a reset: a copy has the batches of the run before up
// to the reset in its history.
func (r *deploymentRotation) isOfThisRun(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	var startedIn any
	err := workflow.SideEffect(ctx, func(ctx workflow.Context) any { return workflow.GetInfo(ctx).WorkflowExecution.RunID }).Get(&startedIn)
	if isCopy, isOld := startedIn.(bool); isOld { // in older histories: whether it is a copy
		r.isCopy = r.isCopy || isCopy
		return !isResetCopy(ctx)
	}
	// The test environment has no OriginalRunID.
	r.isCopy = r.isCopy || err != nil || info.OriginalRunID != "" && startedIn != info.OriginalRunID
	return startedIn == info.WorkflowExecution.RunID
}

// ofUntouchedSets leaves out the keys of replica sets that may have been rotated: of
// these, the snapshots that were taken since may name new keys.
func (r *deploymentRotation) ofUntouchedSets(keys []activities.EarlierKeys) []activities.EarlierKeys {
	touched := map[replicaSet]bool{}
	for i := range r.processes {
		if t := &r.processes[i]; t.RotateAt != nil {
			touched[t.set()] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k activities.EarlierKeys) bool { return touched[replicaSet{k.ClusterID, k.ReplicaSet}] })
}

// publish publishes the time of these processes, all of which have the same one.
// isNew: no PUT with it can have been sent before. If none can have been sent
// afterwards either, a retry may choose another time.
func (r *deploymentRotation) publish(ctx workflow.Context, batch []*ProcessRecord, isNew bool) error {
	activityCtx := activityOptions(ctx, shorten("publish the time for "+namesOfSets(batch)), totalOf(r.input.RetryTimeout, r.input.SettleTime, r.input.SettleTime))
	input := activities.PublishRotationInput{Scope: r.scope(), RotateAt: *batch[0].RotateAt, SettleTime: r.input.SettleTime}
	for _, t := range batch {
		input.Processes = append(input.Processes, activities.ProcessToPublish{Process: t.Process, PreviousRotateAt: t.PreviousRotateAt})
	}
	if isNew {
		input.FirstAttemptToken = workflow.GetInfo(ctx).WorkflowExecution.RunID
	}
	for {
		var published activities.PublishRotationResult
		err := workflow.ExecuteActivity(activityCtx, activities.PublishRotationName, input).Get(ctx, &published)
		details := failureDetailsOf(err)
		for _, t := range batch {
			t.Ambiguous = t.Ambiguous || published.Ambiguous || details.Ambiguous
		}
		switch {
		case err != nil:
			if isNew && sentNothing(err) {
				for _, t := range batch {
					t.RotateAt = nil
				}
			}
			return err
		case published.OutcomeUnknown:
			input.FirstAttemptToken, input.VersionBefore, isNew = "", published.VersionBefore, false
		case published.ConcurrentChange != nil:
			return r.overwroteConcurrentChange(batch, *published.ConcurrentChange)
		default:
			return nil
		}
	}
}

// sentNothing reports whether the failure of a publication proves that no PUT was
// sent with its time.
func sentNothing(err error) bool {
	var appErr *temporal.ApplicationError
	if !errors.As(err, &appErr) || !appErr.HasDetails() {
		return false
	}
	details := failureDetailsOf(err)
	return details.VersionBefore == 0 && !details.Ambiguous && !details.EarlierPut
}

// overwroteConcurrentChange is the failure of a publication that may have undone
// someone else's.
func (r *deploymentRotation) overwroteConcurrentChange(batch []*ProcessRecord, change activities.ConcurrentChange) error {
	var publishers []string
	for _, p := range change.Publishers {
		text := "someone whom the event does not name"
		if p.By != "" {
			text = p.By
		}
		text += " at " + p.At.UTC().Format(time.RFC3339)
		if p.RemoteAddress != "" {
			text += " from " + p.RemoteAddress
		}
		publishers = append(publishers, text)
	}
	who := "Ops Manager's events name no publisher"
	if len(publishers) > 0 {
		who = "published by: " + someNames(publishers)
	}
	return failure(ErrorOverwroteConcurrentChange, nil,
		"PUT of the automation configuration of project %s: its version went from %d to %d, so someone else may have published at the same moment, and their change may be lost (%s); "+
			"the time %s is published for %s: compare the configuration with what they published, then retry these targets to go on waiting for them",
		r.input.ProjectID, change.VersionBefore, change.VersionAfter, who, batch[0].RotateAt.Format(time.RFC3339), namesOfSets(batch))
}

// namesOfSets names the replica sets of a batch.
func namesOfSets(batch []*ProcessRecord) string {
	var names []string
	seen := map[replicaSet]bool{}
	for _, t := range batch {
		if !seen[t.set()] {
			names = append(names, t.ReplicaSet)
		}
		seen[t.set()] = true
	}
	return someNames(names)
}

// Pauses before a time that someone has removed is published again.
const (
	firstRepublishPause = 10 * time.Second
	maxRepublishPause   = 5 * time.Minute
)

// await waits until every process of a batch has restarted with the time that was
// published. A time that someone removes before is published again: the same one, and
// only as long as deployTimeout allows without progress.
func (r *deploymentRotation) await(ctx workflow.Context, batch []*ProcessRecord) {
	waiting, progressAt, pause := batch, workflow.Now(ctx), firstRepublishPause
	input := activities.AwaitRotationInput{Scope: r.scope(), RotateAt: *batch[0].RotateAt, DeployTimeout: r.input.DeployTimeout}
	for len(waiting) > 0 {
		awaited, err := r.awaitArrivals(ctx, input, waiting)
		waiting = withStatus(waiting, StatusRotating)
		if err != nil {
			failProcesses(ctx, waiting, err)
			return
		}
		if len(waiting) == 0 {
			return
		}
		if awaited.ProgressAt.After(progressAt) {
			progressAt, pause = awaited.ProgressAt, firstRepublishPause
		}
		input.ProgressAt = progressAt
		dropped := named(waiting, awaited.Dropped)
		switch {
		case len(dropped) == 0:
			failProcesses(ctx, waiting, failure(ErrorUnexpectedResponse, nil, "AwaitRotation reported neither an arrival nor a removal of the time for %s", namesOfSets(waiting)))
			return
		case workflow.Now(ctx).Sub(progressAt) >= r.input.DeployTimeout.Std():
			failProcesses(ctx, waiting, r.droppedForGood(dropped))
			return
		}
		if err := workflow.Sleep(ctx, min(pause, r.input.DeployTimeout.Std()/10)); err != nil {
			failProcesses(ctx, waiting, err)
			return
		}
		pause = min(2*pause, maxRepublishPause)
		if err := r.publish(ctx, dropped, false); err != nil {
			failProcesses(ctx, dropped, err)
			waiting = withStatus(waiting, StatusRotating)
		}
	}
}

// awaitArrivals runs AwaitRotation, and records the processes that have arrived, also
// where others have failed.
func (r *deploymentRotation) awaitArrivals(ctx workflow.Context, input activities.AwaitRotationInput, waiting []*ProcessRecord) (awaited activities.AwaitRotationResult, err error) {
	known := map[string]*ProcessRecord{}
	for _, t := range waiting {
		known[t.Process] = t
		input.Processes = append(input.Processes, activities.ProcessToAwait{Process: t.Process, Host: t.Host})
	}
	longest := time.Duration(len(waiting)+1) * r.input.DeployTimeout.Std() // each process that arrives is progress
	activityCtx := activityOptions(ctx, shorten("wait for "+namesOfSets(waiting)), longest+r.input.RetryTimeout.Std())
	err = workflow.ExecuteActivity(activityCtx, activities.AwaitRotationName, input).Get(ctx, &awaited)
	arrived := awaited.Processes
	if err != nil {
		arrived = failureDetailsOf(err).Arrived
	}
	for _, a := range arrived {
		if t := known[a.Process]; t != nil {
			restartedAt := a.RestartedAt.UTC()
			t.Status, t.RotatedAt = StatusRotated, &restartedAt
			workflow.GetLogger(ctx).Info("process rotated", "process", t.Process, "replicaSet", t.ReplicaSet, "rotateAt", t.RotateAt, "restartedAt", restartedAt)
		}
	}
	r.changed(ctx)
	return awaited, err
}

func (r *deploymentRotation) droppedForGood(dropped []*ProcessRecord) error {
	return failure(ErrorDeploymentFailed, nil,
		"the time %s was removed from the automation configuration of project %s again and again before %s had reached it, and there was no progress for the deployTimeout of %s: "+
			"find out who else publishes configurations of this project, then retry the targets",
		dropped[0].RotateAt.Format(time.RFC3339), r.input.ProjectID, namesOfSets(dropped), r.input.DeployTimeout)
}

func withStatus(records []*ProcessRecord, status Status) (found []*ProcessRecord) {
	for _, t := range records {
		if t.Status == status {
			found = append(found, t)
		}
	}
	return found
}

func named(records []*ProcessRecord, names []string) (found []*ProcessRecord) {
	isNamed := map[string]bool{}
	for _, name := range names {
		isNamed[name] = true
	}
	for _, t := range records {
		if isNamed[t.Process] {
			found = append(found, t)
		}
	}
	return found
}
