package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/opsmanager"
)

// plan lists the targets and reads their keys.
func (r *clusterRotation) plan(ctx workflow.Context) error {
	shared, err := r.listTargets(ctx)
	if err != nil {
		return err
	}
	read, err := r.readKeys(ctx)
	if err != nil {
		var listed *activities.ListTargetsResult
		listed, err = r.clusterGoneOr(ctx, err)
		if shared && listed != nil && !r.hasTargets(listed.Targets) {
			if err := r.takeTargets(*listed); err != nil {
				return err
			}
			read, err = r.readKeys(ctx)
		}
	}
	if err != nil {
		return err
	}
	r.recordKeys(ctx, read)
	return nil
}

// listTargets lists the targets, and reports whether they are from a list that was
// read for another rotation. Before anything is refused because of such a list, it
// is read afresh.
func (r *clusterRotation) listTargets(ctx workflow.Context) (shared bool, err error) {
	r.enterPhase(ctx, PhaseListing)
	summary := "list the targets of cluster " + r.input.ClusterID
	listed, err := r.requestTargets(ctx, summary, true)
	if err != nil {
		return false, err
	}
	r.sendsEvents = listed.SendsEvents
	if err := r.checkServed(ctx, listed.ServiceVersion); err != nil {
		return false, err
	}
	err = r.takeTargets(listed)
	if err != nil && listed.Shared {
		if listed, err = r.requestTargets(ctx, summary+" afresh", false); err != nil {
			return false, err
		}
		err = r.takeTargets(listed)
	}
	return listed.Shared, err
}

func (r *clusterRotation) requestTargets(ctx workflow.Context, summary string, allowShared bool) (listed activities.ListTargetsResult, err error) {
	ctx = activityOptions(ctx, summary, totalOf())
	err = workflow.ExecuteActivity(ctx, activities.ListTargetsName, activities.ListTargetsInput{
		Scope: r.scope(), ClusterID: r.input.ClusterID, AllowShared: allowShared,
	}).Get(ctx, &listed)
	return listed, err
}

// takeTargets makes records of the targets, unless they are not those that the
// input expects.
func (r *clusterRotation) takeTargets(listed activities.ListTargetsResult) error {
	if n := len(listed.Targets); n > maxTargets {
		return failure(ErrorUnexpectedTopology, nil, "cluster %s (%s) has %d targets, more than the limit of %d; nothing was rotated",
			listed.ClusterName, r.input.ClusterID, n, maxTargets)
	}
	r.clusterName = listed.ClusterName
	records := make([]TargetRecord, len(listed.Targets))
	for i, target := range listed.Targets {
		records[i] = TargetRecord{Target: target, Status: StatusPending}
	}
	r.setTargets(records)
	if expected := r.input.ExpectedTargets; expected != 0 && expected != len(listed.Targets) {
		return failure(ErrorUnexpectedTopology, nil,
			"expectedTargets: expected %d targets, but Ops Manager lists %d for cluster %s (%s): %s; nothing was rotated",
			expected, len(listed.Targets), listed.ClusterName, r.input.ClusterID, describeUnfinished(r.targets))
	}
	return r.checkCompleted()
}

func (r *clusterRotation) hasTargets(targets []Target) bool {
	return slices.EqualFunc(r.clusterTargets, targets, func(record TargetRecord, t Target) bool { return record.Target == t })
}

// firstUnservedMajor is the first version of Ops Manager that manages MongoDB 6.0
// and later only, while the keys of backups can be rotated through their endpoint
// up to FCV 4.0.
const firstUnservedMajor = 8

// checkServed refuses an Ops Manager whose endpoint serves no backup. One that
// names no version is not refused.
func (r *clusterRotation) checkServed(ctx workflow.Context, version opsmanager.ServiceVersion) error {
	if version.Major < firstUnservedMajor || r.input.AllowUnserved || !refusesUnserved(ctx) {
		return nil
	}
	return notServed(r.input.Connection, r.input.ProjectID, version)
}

// notServed names the command that rotates the keys that such an Ops Manager has.
func notServed(connection, projectID string, version opsmanager.ServiceVersion) error {
	command := "keyturn rotate --deployment --project " + projectID
	if connection != DefaultConnection {
		command += " --connection " + connection
	}
	return failure(ErrorNotServed, nil, "Ops Manager %s manages MongoDB 6.0 and later only, and PUT .../backupConfigs/{id}/encryptionKey serves backups of FCV 4.0 or earlier; nothing was rotated; "+
		"the keys of backups at FCV 4.2 or later are those of the deployment: rotate them with %s (workflow %s), or set allowUnserved to use this endpoint anyway", version.Text, command, RotateDeploymentType)
}

// refusesUnserved is false in histories that were recorded by a worker that did
// not look at the version.
func refusesUnserved(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, "refuse-unserved-endpoint", workflow.DefaultVersion, 1) == 1
}

// checkCompleted refuses records of targets that the cluster does not have: they
// are another cluster's, and believing the rest would rotate keys again.
func (r *clusterRotation) checkCompleted() error {
	known := map[string]bool{}
	for _, t := range r.clusterTargets {
		known[lower(t.ClusterID)] = true
	}
	var f fieldErrors
	for i, record := range r.input.Completed {
		if !known[lower(record.ClusterID)] {
			f.add(indexed("completed", i, "clusterId"), "%s is not a target of cluster %s (%s); nothing was rotated", record.ClusterID, r.clusterName, r.input.ClusterID)
		}
	}
	return f.err()
}

// parallelism is one until a canary is verified.
func (r *clusterRotation) parallelism() int {
	for i := range r.clusterTargets {
		if t := &r.clusterTargets[i]; t.Status == StatusVerified && !t.CarriedOver {
			return r.input.Concurrency
		}
	}
	return 1
}

func (r *clusterRotation) doneWord() string { return "verified" }

func (r *clusterRotation) outcome() Outcome {
	if r.count(StatusSkipped) > 0 {
		return OutcomeRotatedWithSkips
	}
	return OutcomeRotated
}

// A cluster's rotation has nothing to do in the background, and no failure that
// holds it against its input.
func (r *clusterRotation) startBackground(workflow.Context) {}
func (r *clusterRotation) stopBackground()                  {}
func (r *clusterRotation) waitingForBackground() string     { return "" }
func (r *clusterRotation) holdsOn(*TargetError) bool        { return false }

// nextWork is the first pending target.
func (r *clusterRotation) nextWork() []target {
	for _, t := range r.targets {
		if hasStatus(t, StatusPending) {
			return []target{t}
		}
	}
	return nil
}

// work works on one target, and counts and logs how that ended.
func (r *clusterRotation) work(ctx workflow.Context, targets []target) {
	t := targets[0].(*TargetRecord)
	wasAmbiguous := t.Ambiguous
	r.rotateTarget(ctx, t)
	countTarget(ctx, t)
	if t.Ambiguous && !wasAmbiguous {
		workflow.GetMetricsHandler(ctx).WithTags(labels{StatusLabel: string(t.Status)}).Counter(TargetsAmbiguousMetric).Inc(1)
		workflow.GetLogger(ctx).Warn("PUT outcome was unknown", "target", t.ClusterID, "targetName", t.Name, "status", t.Status)
	}
	if t.Status == StatusVerified {
		workflow.GetLogger(ctx).Info("target verified", "target", t.ClusterID, "targetName", t.Name, "previousKey", t.PreviousKeyUUID, "newKey", t.NewKeyUUID)
	}
}

// rotateTarget rotates and verifies one target. A PUT that was accepted before, in a
// try whose reading back failed, is only read back.
func (r *clusterRotation) rotateTarget(ctx workflow.Context, t *TargetRecord) {
	if t.RotatedAt == nil {
		if err := r.rotateKey(ctx, t); err != nil {
			failTarget(ctx, t, err)
			return
		}
	}
	t.Status = StatusRotated
	r.changed(ctx)
	if err := r.verifyKey(ctx, t); err != nil {
		failTarget(ctx, t, err)
		return
	}
	t.Status = StatusVerified
}

// rotateKey runs RotateKey until its outcome is known. A key that someone else
// has replaced is recorded before a PUT replaces it.
func (r *clusterRotation) rotateKey(ctx workflow.Context, t *TargetRecord) error {
	ctx = activityOptions(ctx, shorten(t.Name), totalOf(r.input.RetryTimeout, r.input.SettleTime, r.input.SettleTime))
	for {
		var rotated activities.RotateKeyResult
		err := workflow.ExecuteActivity(ctx, activities.RotateKeyName, r.rotateKeyInput(t)).Get(ctx, &rotated)
		if err != nil {
			details := failureDetailsOf(err)
			t.Ambiguous = t.Ambiguous || details.Ambiguous
			t.Attempts += max(details.Attempts, 1)
			r.reading(t).Refused = details.PutRefused
			r.reading(t).EarlierPut = r.reading(t).EarlierPut || details.EarlierPut
			return err
		}
		t.Ambiguous = t.Ambiguous || rotated.Ambiguous
		t.Attempts += rotated.Attempts
		switch {
		case rotated.ReplacedOutside != "":
			r.replacedOutside(ctx, t, rotated.ReplacedOutside)
		case !rotated.OutcomeUnknown:
			at := r.withinRotation(ctx, rotated.RotatedAt)
			t.RotatedAt = &at
			return nil
		}
	}
}

// replacedOutside records that someone else has replaced the key of a target
// that none of this rotation's PUTs has changed.
func (r *clusterRotation) replacedOutside(ctx workflow.Context, t *TargetRecord, key string) {
	if t.ReplacedOutside == "" {
		t.ReplacedOutside = t.PreviousKeyUUID
	}
	t.PreviousKeyUUID = key
	r.reading(t).Refused = true
	r.changed(ctx)
}

// rotateKeyInput guarantees that no PUT was sent before a target's first attempt,
// and less after attempts whose PUTs had no effect.
func (r *clusterRotation) rotateKeyInput(t *TargetRecord) activities.RotateKeyInput {
	input := activities.RotateKeyInput{
		Scope: r.scope(), ClusterID: t.ClusterID, PreviousKeyUUID: t.PreviousKeyUUID, Ambiguous: t.Ambiguous, SettleTime: r.input.SettleTime,
	}
	reading := r.reading(t)
	switch {
	case reading.EarlierPut:
	case t.Attempts == 0:
		input.FirstAttemptToken, input.ReadAt = reading.In, reading.At
	case reading.Refused:
		input.NothingAppliedToken = reading.In
	}
	reading.Refused = false
	return input
}

func (r *clusterRotation) verifyKey(ctx workflow.Context, t *TargetRecord) error {
	ctx = activityOptions(ctx, shorten(t.Name), totalOf(r.input.VerifyTimeout, r.input.RetryTimeout))
	var verified activities.VerifyKeyResult
	err := workflow.ExecuteActivity(ctx, activities.VerifyKeyName, activities.VerifyKeyInput{
		Scope: r.scope(), ClusterID: t.ClusterID, PreviousKeyUUID: t.PreviousKeyUUID, VerifyTimeout: r.input.VerifyTimeout,
	}).Get(ctx, &verified)
	if err != nil {
		return err
	}
	at := r.withinRotation(ctx, verified.VerifiedAt)
	t.NewKeyUUID, t.VerifiedAt, t.KMIP = verified.NewKeyUUID, &at, verified.KMIP
	return nil
}
