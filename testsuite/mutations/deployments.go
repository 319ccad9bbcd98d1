package main

func deploymentTests(named string) []string { return []string{"./activities", "-run", named} }

// deploymentMutations change the activities that rotate the keys of deployments.
var deploymentMutations = []mutation{
	// What is refused
	{"a pinned key is rotated", "activities/listprocesses.go",
		`	if member.KeyIdentifierPinned {`, `	if member.KeyIdentifierPinned && member.arbiter {`, deploymentTests("MustNotBeRotated|ManyProcesses")},
	{"a member without encryption is passed over", "activities/listprocesses.go",
		`	case !member.arbiter:`, `	case member.arbiter:`, deploymentTests("MustNotBeRotated")},
	{"the operator's lock is not seen before", "activities/listprocesses.go",
		`if l.feature.IsExternallyManaged() {`, `if l.feature.System == "none" {`, deploymentTests("MustNotBeRotated")},
	{"a member that is down is restarted with the others", "activities/listprocesses.go",
		`"PRIMARY", "SECONDARY", "ARBITER"}`, `"PRIMARY", "SECONDARY", "ARBITER", "DOWN"}`, deploymentTests("MustNotBeRotated")},
	{"a silent agent counts as running", "activities/listprocesses.go",
		`l.now.Sub(host.LastPing) > maxPingAge`, `l.now.Sub(host.LastPing) < 0`, deploymentTests("MustNotBeRotated")},
	{"a rotation begins within another deployment", "activities/listprocesses.go",
		`case !status.IsAtGoal(l.goal):`, `case status.AchievedVersion < 0:`, deploymentTests("MustNotBeRotated")},
	{"a rotation begins in spite of an agent's error", "activities/listprocesses.go",
		`case status.ErrorCode != 0:`, `case status.ErrorCode < 0:`, deploymentTests("MustNotBeRotated")},
	{"clocks may differ by any time", "activities/listprocesses.go",
		`case least > maxSkew:`, `case least > 24*time.Hour:`, deploymentTests("MustNotBeRotated")},
	{"a process in manual mode is rotated", "activities/listprocesses.go",
		`if member.ManualMode {`, `if member.ManualMode && member.arbiter {`, deploymentTests("MustNotBeRotated")},
	{"a replica set may belong to any of several clusters", "activities/listprocesses.go",
		`if len(parts) != 1 {`, `if len(parts) == 0 {`, deploymentTests("MustNotBeRotated")},
	{"clusters that are not asked for are refused", "activities/listprocesses.go",
		`		case !named:
			continue
`, `		case !named && joined.problem == "":
			continue
`, deploymentTests("OtherClusters")},
	{"the config server does not go last", "activities/listprocesses.go",
		`		slices.SortStableFunc(joined.sets, func(a, b deployedSet) int { return naturally(a.id, b.id) })
		l.addSet(&joined, sets, cluster.ConfigServer, RoleConfigServer)
`, `		l.addSet(&joined, sets, cluster.ConfigServer, RoleConfigServer)
		slices.SortStableFunc(joined.sets, func(a, b deployedSet) int { return naturally(b.id, a.id) })
`, deploymentTests("ListedInOrder")},
	{"another member's key counts as a process's own", "activities/membersnapshots.go",
		`return part.host != "" && strings.EqualFold(part.host, host)`, `return part.host != "" && strings.EqualFold(part.host, part.host)`, deploymentTests("ListedInOrder")},
	{"a large listing is not compressed", "activities/listprocesses.go",
		`if len(r.Processes) <= maxPlainProcesses {`, `if len(r.Processes) >= 0 {`, deploymentTests("LargestListing")},

	// What is published
	{"a value that others have set is overwritten", "activities/publishrotation.go",
		`case !sameRotationTime(process.LastRotation, wanted.PreviousRotateAt):`, `case false:`, deploymentTests("MustNotGetTheTime")},
	{"a process that has the time gets it again", "activities/publishrotation.go",
		`		case isRotationTime(process.LastRotation, p.in.RotateAt):
`, `		case isRotationTime(process.LastRotation, p.in.RotateAt):
			state.pending = append(state.pending, wanted.Process)
`, deploymentTests("PublishRotation")},
	{"one reading is enough for a PUT", "activities/publishrotation.go",
		`		if again.Equal(current.AutomationConfig) {`, `		if again.Equal(current.AutomationConfig) || try == 1 {
			again = current`, deploymentTests("BetweenTheReadings")},
	{"a PUT of unknown outcome is repeated at once", "activities/publishrotation.go",
		`shown, settleErr := p.settle(context.WithoutCancel(ctx))`, `shown, settleErr := p.read(context.WithoutCancel(ctx))`, deploymentTests("UnknownOutcome")},
	{"the settle time of a publication is not waited for", "activities/publishrotation.go",
		`if row.lasted() >= settleTime {`, `if row.lasted() >= 0 {`, deploymentTests("UnknownOutcome|KilledWorker|Unproven")},
	{"the settle time of a publication runs on while a response is awaited", "activities/observation.go",
		`if o.since.IsZero() || gap || o.at.failedRequests.Load() > o.failedBefore {`, `if o.since.IsZero() || o.at.failedRequests.Load() > o.failedBefore {`, deploymentTests("PublicationIsObserved")},
	{"the settle time of a publication runs on after odd responses", "activities/observation.go",
		`if o.since.IsZero() || gap || o.at.failedRequests.Load() > o.failedBefore {`, `if o.since.IsZero() || gap {`, deploymentTests("PublicationIsObserved")},
	{"a publication that never settles is read for ever", "activities/publishrotation.go",
		`if row.unchanged() && retries.left() <= 0 {`, `if row.unchanged() && retries.left() < -time.Hour {`, deploymentTests("NeverSettles")},
	{"a publication is not settled once it is canceled", "activities/publishrotation.go",
		`p.settle(context.WithoutCancel(ctx))`, `p.settle(ctx)`, deploymentTests("CanceledPublication")},
	{"every attempt publishes without reading first", "activities/publishrotation.go",
		`if isFirstAttempt(ctx, in.FirstAttemptToken) || at.putRefusedBefore {`, `if in.RotateAt.After(time.Time{}) {`, deploymentTests("Unproven|KilledWorker")},
	{"a publication needs no lease", "activities/publishrotation.go",
		`	return p.confirm()
`, `	_ = p.confirm()
	return nil
`, deploymentTests("WithoutALease")},
	{"a refusal before a PUT is lost", "opsmanager/client.go",
		`			e.cause = err // the caller's own, also where those of a response are dropped
`, ``, []string{"./opsmanager", "-run", "CallersRefusal"}},
	{"an old configuration is sent", "activities/publishrotation.go",
		`if time.Since(from.answered) > maxConfigurationAge {`, `if from.answered.IsZero() {`, deploymentTests("OldConfiguration")},
	{"a publication of others in between is not reported", "activities/publishrotation.go",
		`result.Version > result.VersionBefore+1 {`, `result.Version < result.VersionBefore {`, deploymentTests("DirectlyBeforeThePut|Publishers")},
	{"a publication of a killed worker is not compared with what was before", "activities/publishrotation.go",
		`		n.VersionBefore, n.ReadAt = from.Version(), p.serverTime(from.answered)
`, `		n.ReadAt = p.serverTime(from.answered)
`, deploymentTests("PublishRotation|KilledWorker|DirectlyBefore")},
	{"publishers that cannot be read fail a publication", "activities/publishrotation.go",
		`	if err != nil {
		activity.GetLogger(ctx).Warn("the publishers`, `	if err != nil {
		panic(err)
	}
	if err != nil {
		activity.GetLogger(ctx).Warn("the publishers`, deploymentTests("PublishersThatCannot")},
	{"a PUT that the operator's lock refused is retried or blamed on the key", "activities/errors.go",
		`	if err.IsExternallyManaged() {`, `	if err.IsExternallyManaged() && err.OutcomeUnknown {`, deploymentTests("OperatorsLock")},
	{"the open outcome of a stopping worker is lost", "activities/publishrotation.go",
		`		result.OutcomeUnknown, result.Ambiguous = true, true
`, `		result.Ambiguous = true
`, deploymentTests("StoppedWithAnOpenPut")},

	// What counts as arrived
	{"the agent's report is enough", "activities/awaitrotation.go",
		`arrived := p.isAtGoal() && p.restartedAt.After(w.in.RotateAt)`, `arrived := p.isAtGoal()`, deploymentTests("Deployment|TooEarly|AwaitRotation")},
	{"a restart is enough", "activities/awaitrotation.go",
		`arrived := p.isAtGoal() && p.restartedAt.After(w.in.RotateAt)`, `arrived := p.restartedAt.After(w.in.RotateAt)`, deploymentTests("RestartIsNotEnough")},
	{"a goal without the time counts", "activities/awaitrotation.go",
		` && (!p.dropped || p.status.AchievedVersion <= p.until)`, ``, deploymentTests("GoalWithoutTheTime")},
	{"a dropped time is waited for", "activities/awaitrotation.go",
		`		if process.dropped {
			names`, `		if process.dropped && !process.hasStatus {
			names`, deploymentTests("TimeThatIsDropped|GoalWithoutTheTime|Outlive")},
	{"an agent's error is waited out", "activities/awaitrotation.go",
		`return p.errors >= errorReadings`, `return p.errors < 0`, deploymentTests("DeploymentThatFails|Bounded")},
	{"one reading of an agent's error fails a deployment", "activities/awaitrotation.go",
		`const errorReadings = 2`, `const errorReadings = 1`, deploymentTests("PassingError")},
	{"progress extends nothing", "activities/awaitrotation.go",
		`	w.updateDetails(func(n *heartbeatDetails) { n.ProgressAt = now })
`, `	_ = now
`, deploymentTests("ProgressExtends")},
	{"each attempt has a deployTimeout of its own", "activities/awaitrotation.go",
		`			n.ProgressAt = in.ProgressAt
`, `			n.ProgressAt = at.serverTime(at.started)
`, deploymentTests("OneForAllRuns")},
	{"arrivals die with their worker", "activities/awaitrotation.go",
		`	for _, process := range at.currentDetails().Arrived {
`, `	for _, process := range in.Processes[:0] {
`, deploymentTests("Outlive|ProgressExtends")},
	{"the configuration is read at each poll", "activities/awaitrotation.go",
		`if status.GoalVersion != w.goal {`, `if status.GoalVersion >= 0 {`, deploymentTests("OncePerGoal")},

	// What proves a rotation
	{"the key of a snapshot from before an earlier rotation counts as the last one", "activities/membersnapshots.go",
		`return ok && created.After(previous.Add(rotationTakes))`, `return ok && !previous.IsZero()`, []string{"./activities", "-run", "EarlierRotationIsNoProof"}},
	{"an earlier rotation is carried out at once", "activities/membersnapshots.go",
		`return ok && created.After(previous.Add(rotationTakes))`, `return ok && created.After(previous)`, []string{"./activities", "-run", "EarlierRotationIsNoProof"}},
	{"another member's new key is a proof", "activities/proverotation.go",
		`member != nil && member.PreviousKeyUUID != ""), nil`, `member != nil), nil`, deploymentTests("ProveNothing|LaterSnapshot")},
	{"an earlier key of another member is a proof", "activities/proverotation.go",
		`	case p.earlier[part.key]:
`, `	case p.earlier[part.key] && member == nil:
`, deploymentTests("ProveNothing")},
	{"a snapshot from between the restarts is considered", "activities/proverotation.go",
		`case s.Created.After(p.lastRestart) && !s.Incomplete:`, `case !s.Incomplete:`, deploymentTests("ProveNothing")},
	{"a running snapshot is considered", "activities/proverotation.go",
		`s.Created.After(p.lastRestart) && !s.Incomplete:`, `s.Created.After(p.lastRestart):`, deploymentTests("ProveNothing")},
	{"a member's old key is no failure", "activities/proverotation.go",
		`case member != nil && member.earlier[part.key]:`, `case member != nil && part.key == "none":`, deploymentTests("OldKey")},
	{"a key that was made before the rotation is a proof", "activities/proverotation.go",
		` && evidence.InitialDate.After(at)`, ` && !at.IsZero()`, deploymentTests("EvidenceThatProves")},
	{"a snapshot is enough where the KMIP server is to be asked", "activities/proverotation.go",
		`case ofKnownMember && p.in.Proof == ProofSnapshot:`, `case ofKnownMember:`, deploymentTests("SnapshotProves|EvidenceThatProves")},
	{"snapshots since the listing are left out", "activities/proverotation.go",
		`			p.addEarlier(part.KeyUUID, host, s.Created)
`, `			_ = p.addEarlier
`, deploymentTests("EarlierKeys")},
	{"a wait of hours holds a worker", "activities/proverotation.go",
		`if pause > maxPollWithin {`, `if pause > 48*time.Hour {`, deploymentTests("LongWait")},
}
