package main

// mutation replaces one place of the code.
type mutation struct {
	name     string
	file     string
	old, new string
	// tests are the arguments of go test that must fail.
	tests []string
}

var (
	clientTests   = []string{"./opsmanager"}
	activityTests = []string{"./activities"}
	workflowTests = []string{"./workflows"}
	replayTests   = []string{"./testsuite/replay"}
)

// serverTests are those with this in their names that need a real server: all of
// them would take minutes for each mutation.
func serverTests(named string) []string { return []string{"./testsuite/endtoend", "-run", named} }

func workerTests(named string) []string { return []string{"./worker", "-run", named} }

var mutations = []mutation{
	// One PUT
	{"every first attempt takes itself for the first PUT", "activities/rotatekey.go",
		`if !vouchedFor(ctx, in.UntouchedIn) {`, `if !vouchedFor(ctx, in.UntouchedIn) && activity.GetInfo(ctx).Attempt > 1 {`, activityTests},
	{"no settle time after a PUT of unknown outcome", "activities/rotatekey.go",
		`settled := time.Now().Add(settleTime)`, `settled := time.Now().Add(settleTime * 0)`, activityTests},
	{"no compare before a repeated PUT", "activities/rotatekey.go",
		`case err == nil && key != in.PreviousKeyUUID:`, `case err == nil && key == "":`, activityTests},
	{"PUT twice", "activities/rotatekey.go",
		"\t\terr := at.client.RotateEncryptionKey(ctx, in.ProjectID, in.ClusterID, lease)\n",
		"\t\t_ = at.client.RotateEncryptionKey(ctx, in.ProjectID, in.ClusterID, lease)\n\t\terr := at.client.RotateEncryptionKey(ctx, in.ProjectID, in.ClusterID, lease)\n", workflowTests},
	{"another PUT after a 429, without a look", "activities/rotatekey.go",
		`changed, err := at.settle(ctx, in, 0)`, `changed, err := false, error(nil)`, activityTests},
	{"an unknown outcome is taken for a refusal", "opsmanager/errors.go",
		`OutcomeUnknown: r.method == http.MethodPut && mayHaveApplied(a.status),`, `OutcomeUnknown: false,`, activityTests},
	{"a lost answer is taken for a request that was not sent", "opsmanager/errors.go",
		`OutcomeUnknown: r.method == http.MethodPut && sent, cause: err,`, `OutcomeUnknown: r.method == http.MethodPut && sent && false, cause: err,`, activityTests},
	{"a PUT is cut off by its caller", "opsmanager/client.go",
		`ctx = context.WithoutCancel(ctx) // half a PUT has an unknown outcome`, `_ = ctx`, clientTests},
	{"the check before a PUT is left out", "opsmanager/client.go",
		`if r.beforeSend != nil {`, `if r.beforeSend != nil && r.method == "" {`, clientTests},
	// Nothing claimed that wasn't read back
	{"no verify", "workflows/rotate.go",
		`if err := r.verifyKey(ctx, t); err != nil {`, `if err := r.verifyKey(ctx, t); err != nil && t == nil {`, workflowTests},
	{"the previous key counts as the new one", "activities/verifykey.go",
		`if key != in.PreviousKeyUUID {`, `if key != "" {`, activityTests},
	{"an answer about another cluster is believed", "opsmanager/keys.go",
		`if !strings.EqualFold(key.ClusterID, clusterID) || !strings.EqualFold(key.GroupID, projectID) {`, `if key.ClusterID == "never" {`, clientTests},
	{"ambiguous outcomes are not recorded", "workflows/rotate.go",
		`t.Ambiguous = t.Ambiguous || rotated.Ambiguous`, `_ = rotated.Ambiguous`, workflowTests},
	// Nothing lost
	{"records are not carried over", "workflows/rotate.go",
		`carried := carriedState{Result: *r.records(), Targets: targets,`, `carried := carriedState{Result: *r.records(), Targets: targets[:0],`, workflowTests},
	{"a failure without its records", "workflows/failures.go",
		`if records != nil {`, `if records != nil && errorType == "" {`, workflowTests},
	{"work is dropped at a cancellation", "workflows/rotate.go",
		`ctx, cancel := workflow.NewDisconnectedContext(ctx)`, `ctx, cancel := workflow.WithCancel(ctx)`, workflowTests},
	{"completed targets are rotated again", "workflows/rotatecluster.go",
		`if record.Status == StatusVerified {`, `if record.Status == "never" {`, workflowTests},
	{"a list's further pages are left out", "opsmanager/list.go",
		`if p.isLast(len(items)) || len(items) == before {`, `if len(items) > 0 || len(items) == before {`, clientTests},
	{"a shorter list than expected is taken", "workflows/rotatecluster.go",
		`expected != 0 && expected != len(listed.Targets)`, `expected < 0`, workflowTests},
	{"any topology is taken", "activities/listtargets.go",
		`case len(configServers) != 1:`, `case len(configServers) < 0:`, activityTests},
	// The lock, the canary, people
	{"lock removed", "workflows/rotatecluster.go",
		`if workflow.GetInfo(ctx).WorkflowExecution.ID != id {`, `if workflow.GetInfo(ctx).WorkflowExecution.ID == "" {`, workflowTests},
	{"no canary", "workflows/rotate.go",
		"\treturn 1\n}", "\treturn r.input.Concurrency\n}", workflowTests},
	{"the requester may approve", "workflows/steering.go",
		`if samePerson(q.By, r.input.Change.RequestedBy) {`, `if q.By == "" {`, workflowTests},
	{"a carried-over key that has changed stays verified", "workflows/rotatecluster.go",
		`&& leavesCarriedOver(ctx) {`, `&& !leavesCarriedOver(ctx) {`, workflowTests},
	{"a decision does not end what may be commanded", "workflows/steering.go",
		`func (r *rotation) isClosed() bool { return r.currentPhase() == PhaseDone }`, `func (r *rotation) isClosed() bool { return r.phase == PhaseDone }`, serverTests("Decisions")},
	{"a plan that is being aborted may be decided", "workflows/steering.go",
		"r.currentPhase())\n\t}\n\treturn r.checkNotAborting()", "r.currentPhase())\n\t}\n\treturn nil", serverTests("Decisions")},
	{"a pause ends while the rotation is aborted", "workflows/steering.go",
		"\t\treturn errors.New(\"the rotation is not paused\")\n\t}\n\treturn r.checkNotAborting()", "\t\treturn errors.New(\"the rotation is not paused\")\n\t}\n\treturn nil", workflowTests},
	{"a failure does not hold", "workflows/rotate.go",
		`return r.input.OnFailure != OnFailureContinue && r.count(StatusFailed) > 0`, `return r.input.OnFailure == OnFailureStop && r.count(StatusFailed) > 0`, workflowTests},
	{"a plan rotates", "workflows/rotatecluster.go",
		`if r.input.DryRun {`, `if r.input.DryRun && r.phase == "" {`, workflowTests},
	// Fleets
	{"rotations in work are forgotten when a fleet continues as new", "workflows/fleetreports.go",
		`if r.fleetID == "" {`, `if r.fleetID != "never" {`, serverTests("AFleetContinuesAsNew")},
	{"an old word of the fleet overrules a newer one", "workflows/fleetreports.go",
		`if order.Revision > r.steering.FleetRevision {`, `if order.Revision > 0 {`, workflowTests},
	{"a word that is meant for another rotation is obeyed", "workflows/fleetreports.go",
		`if order.FirstRunID != info.FirstRunID {`, `if order.FirstRunID == "never" {`, workflowTests},
	{"a fleet goes on whatever fails", "workflows/rotatefleet.go",
		`f.result.Counts.Failed > f.input.MaxFailedClusters`, `f.result.Counts.Failed < 0`, serverTests("AFleetStops")},
	{"a cluster without encryption counts as failed", "activities/errors.go",
		`return d.KeysRead == 0 &&`, `return d.KeysRead < 0 &&`, serverTests("RotatesAFleet")},
	{"a fleet's rotations go first", "workflows/rotatefleet.go",
		`fleetPriority = 4`, `fleetPriority = 1`, serverTests("DoesNotStarve")},
	{"a project's answer is quoted", "opsmanager/projects.go",
		`r.secret = true`, `r.secret = false`, clientTests},
	// Patience
	{"a 429 slows nothing down", "opsmanager/limits.go",
		`l.quietUntil(now.Add(l.slowdown))`, `l.quietUntil(now)`, clientTests},
	{"Retry-After ignored", "opsmanager/errors.go",
		`return min(max(wait, 0), maxRetryAfter)`, `return min(max(wait, 0), 0)`, clientTests},
	{"Retry-After cut short", "activities/attempt.go",
		`pause = max(min(backoff(try), left), err.RetryAfter)`, `pause = min(backoff(try), left)`, activityTests},
	{"permanent errors are retried", "activities/errors.go",
		`{ErrorForbidden, false,`, `{ErrorForbidden, true,`, activityTests},
	{"a stale nonce is taken for wrong credentials", "opsmanager/digest.go",
		`if n == nil || next.Stale {`, `if n == nil {`, clientTests},
	{"one nonce for all requests", "opsmanager/digest.go",
		`if n := p.known[i]; n.users == 0 || p.sharing == sharingWorks {`, `if n := p.known[i]; n != nil {`, clientTests},
	// Input, secrets, settings
	{"unknown fields are ignored", "workflows/strictjson.go",
		`case !known:`, `case !known && name == "":`, workflowTests},
	{"the private key is repeated in errors", "opsmanager/errors.go",
		`c.credentials.privateKey, "[private key]")`, `"", "")`, clientTests},
	{"plain http is taken anywhere", "opsmanager/config.go",
		`!c.AllowHTTP && !isLoopback(u.Hostname())`, `!c.AllowHTTP && u.Hostname() == ""`, clientTests},
	{"ids are not checked", "opsmanager/client.go",
		`if !ValidID(id) {`, `if id == "never" {`, clientTests},
	{"a name that no server can read is sent", "opsmanager/config.go",
		` || !quotable(c.PublicKey)`, ``, clientTests},
	{"Temporal's untrusted certificate is not told", "internal/handshake/handshake.go",
		`case errors.As(err, &unknown):`, `case errors.As(err, &unknown) && config == nil:`, workerTests("TemporalsTLS")},
	{"a rotation moves to the current version", "worker/versioning.go",
		`VersioningBehaviorPinned`, `VersioningBehaviorAutoUpgrade`, workerTests("RotationEndsOnTheVersion")},
	{"a file's text is shown in a setting's error", "worker/connections.go",
		`return fmt.Sprintf("the file is not TOML: line %d", parseErr.Position.Line)`, `return fmt.Sprintf("the file is not TOML: %v %s", parseErr, parseErr.LastKey)`, workerTests("WrongSetting")},
	// What those who watch are told
	{"a continued run is counted as an end", "workflows/metrics.go",
		`if errors.As(err, &goesOn) {`, `if errors.As(err, &goesOn) && ctx == nil {`, workflowTests},
	{"a rotation with skips counts as verified", "workflows/metrics.go",
		`if outcome == OutcomeRotated {`, `if outcome == OutcomeRotated || outcome == OutcomeRotatedWithSkips {`, workflowTests},
	{"a call that failed counts as an answer", "opsmanager/keys.go",
		`defer func() { c.ended(r, err) }()`, `defer func() { c.ended(r, nil) }()`, clientTests},
	{"a worker whose credentials are refused is ready", "worker/monitor.go",
		`refused := last.refused && last.at.After(lastRead)`, `refused := last.refused && lastRead.IsZero()`, workerTests("Readiness|Ledger|Silence")},
	{"a metric that is not documented", "worker/metrics/definitions.go",
		`buildInfo       = "keyturn_build_info"`, `buildInfo       = "keyturn_build"`, workerTests("Readiness|Ledger|Silence")},
	// Safety of change
	{"the order of the steps is changed", "workflows/rotatecluster.go",
		"\tif err := r.listTargets(ctx); err != nil {\n\t\treturn err\n\t}\n",
		"\t_ = workflow.Sleep(ctx, time.Second)\n\tif err := r.listTargets(ctx); err != nil {\n\t\treturn err\n\t}\n", replayTests},
	{"another activity id in the history", "activities/activities.go",
		`VerifyKeyName    = "VerifyKey"`, `VerifyKeyName    = "VerifyKeys"`, replayTests},
	{"one rotation for each cluster, on a real server", "workflows/rotatecluster.go",
		`if temporal.IsWorkflowExecutionAlreadyStartedError(err) {`, `if err == nil {`, serverTests("OneRotationForEachCluster|UnderAnotherID")},
}
