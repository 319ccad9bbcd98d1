package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

func holdingInput() workflows.RotateDeploymentInput {
	input := fixture.DeploymentInput()
	input.OnFailure = workflows.OnFailureHold
	return input
}

// Somebody publishes between the reading and the PUT: their change is lost, and a
// person is asked. The time is published, and a retry only waits for it.
func TestAnOverwrittenChangeIsHeld(t *testing.T) {
	t.Parallel()
	for _, onFailure := range []workflows.OnFailure{workflows.OnFailureHold, workflows.OnFailureContinue} {
		t.Run(string(onFailure), func(t *testing.T) {
			t.Parallel()
			d := fixture.Deploy(t, twoSets)
			d.OM.Inject(simulator.RivalAtPut(project, simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalTouches, By: "dana"}))
			input := holdingInput()
			input.OnFailure = onFailure
			env := fixture.NewDeployment(t, d)
			var held workflows.DeploymentProgress
			whenHeld(env, func(p workflows.DeploymentProgress) {
				held = p
				env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
			})
			result, err := env.Rotate(input)
			require.NoError(t, err)
			for _, record := range held.Targets[:3] {
				require.Equal(t, workflows.StatusFailed, record.Status)
				assert.Equal(t, workflows.ErrorOverwroteConcurrentChange, record.Error.Type)
				assert.Contains(t, record.Error.Message, "its version went from 41 to 43")
				assert.Contains(t, record.Error.Message, "dana at ")
				assert.NotNil(t, record.RotateAt, "it is published")
			}
			assert.Equal(t, allAre(workflows.StatusPending, "books-0", "books-1", "books-2"), processStatuses(held.Targets[3:]))
			requirePromise(t, d, result.Targets)
			assert.Equal(t, held.Targets[0].RotateAt, result.Targets[0].RotateAt)
			assert.Len(t, d.Puts(), 2)
		})
	}
}

// isAwaiting reports whether the agents of the first batch are waited for: the plan
// has read the status once.
func isAwaiting(d fixture.Deployed) bool {
	status := d.OM.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.Kind == simulator.KindAutomationStatus })
	return len(status) > 2
}

// A time that somebody removes before the agents have reached it is published again:
// the same one.
func TestADroppedTimeIsPublishedAgain(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	d.Edit(simulator.DropRotationTimes(auditProcesses...))
	d.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
	env := fixture.NewDeployment(t, d)
	env.When(func(workflows.DeploymentProgress) bool { return isAwaiting(d) && len(d.Rotations("")) == 1 }, func(workflows.DeploymentProgress) {
		d.Act(simulator.Rival{Change: simulator.RivalDropsTimes, When: simulator.RivalBefore, Processes: []string{"audit-1"}})
		d.SetAgent("audit-1", simulator.Agent{})
	})
	result, err := env.Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	requirePromise(t, d, result.Targets)
	assert.Equal(t, [][]string{{"audit-0", "audit-1", "audit-2"}, {"audit-1"}}, published(d))
}

// A rival who removes the time again and again is not fought for longer than
// deployTimeout.
func TestATimeThatIsAlwaysDroppedFails(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	d.Edit(simulator.DropRotationTimes(auditProcesses...))
	for _, process := range auditProcesses {
		d.SetAgent(process, simulator.Agent{Waits: time.Hour})
	}
	d.OM.Inject(simulator.Fault{
		Kind: simulator.KindAutomationStatus, Rival: &simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalDropsTimes},
	}.Always().Skipping(1)) // the plan reads it once
	input := fixture.DeploymentInput()
	input.DeployTimeout = workflows.Duration(time.Minute)
	_, err := fixture.NewDeployment(t, d).Rotate(input)
	records := deploymentRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, workflows.ErrorDeploymentFailed, records.Targets[0].Error.Type)
	assert.Contains(t, records.Targets[0].Error.Message, "was removed from the automation configuration")
	puts := d.Puts()
	assert.Greater(t, len(puts), 1)
	assert.Less(t, len(puts), 15)
	assert.Empty(t, d.Violations())
	assert.Empty(t, d.Rotations(""))
}

// Somebody else rotates after the plan: nothing is published. A retry reads the
// configuration again, and publishes a later time.
func TestProcessesThatOthersRotatedAreRefused(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	input := holdingInput()
	env := fixture.NewDeployment(t, d)
	theirs := time.Now().Add(20 * time.Second).UTC().Truncate(time.Second)
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotating] == 3 }, func(workflows.DeploymentProgress) {
		d.Publish("dana", simulator.SetRotationTime(theirs, "audit-1"))
	})
	var held workflows.DeploymentProgress
	whenHeld(env, func(p workflows.DeploymentProgress) {
		held = p
		assert.Empty(t, d.Puts())
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	failed := recordOf(t, held.Targets, "audit-1")
	assert.Equal(t, workflows.ErrorRotatedByOthers, failed.Error.Type)
	assert.Nil(t, failed.RotateAt, "nothing was published")
	record := recordOf(t, result.Targets, "audit-1")
	assert.Equal(t, opsmanager.RotationTime(theirs), record.PreviousRotateAt)
	assert.True(t, record.RotateAt.After(theirs))
	assert.Empty(t, d.Violations())
	assert.Len(t, d.Rotations("audit-1"), 2, "theirs and ours")
	assert.Len(t, d.Rotations("audit-0"), 1)
}

// A lost answer is settled by reading, and no process gets two keys.
func TestALostAnswerToAPublication(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]simulator.Fault{
		"applied":     simulator.PublicationCut(project, simulator.ApplyBefore),
		"not applied": simulator.PublicationCut(project, simulator.ApplyNo),
		"502":         simulator.PublicationBadGateway(project, simulator.ApplyBefore),
		"conflict":    simulator.PublicationConflict(project),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := fixture.Deploy(t, audit)
			d.OM.Inject(fault)
			result, err := fixture.NewDeployment(t, d).Rotate(fixture.DeploymentInput())
			require.NoError(t, err)
			requirePromise(t, d, result.Targets)
			for _, record := range result.Targets {
				assert.Equal(t, name != "conflict", record.Ambiguous)
			}
		})
	}
}

// A PUT of which it is not known whether it was sent keeps its time for the retry.
func TestARetryPublishesTheSameTime(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	d.OM.Inject(simulator.PublicationCut(project, simulator.ApplyNo).Always())
	input := holdingInput()
	input.RetryTimeout = workflows.Duration(300 * time.Millisecond)
	env := fixture.NewDeployment(t, d)
	var held workflows.DeploymentProgress
	whenHeld(env, func(p workflows.DeploymentProgress) {
		held = p
		d.OM.ClearFaults()
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	require.NotNil(t, held.Targets[0].RotateAt)
	assert.Equal(t, workflows.ErrorOpsManagerUnavailable, held.Targets[0].Error.Type)
	assert.Equal(t, held.Targets[0].RotateAt, result.Targets[0].RotateAt)
	requirePromise(t, d, result.Targets)
}

// A project that is locked when the time is to be published: the PUT was sent, so the
// time stays what it is.
func TestALockedProject(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	d.OM.Inject(simulator.RivalAtPut(project, simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalLocks}))
	_, err := fixture.NewDeployment(t, d).Rotate(fixture.DeploymentInput())
	records := deploymentRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, workflows.ErrorExternallyManaged, records.Targets[0].Error.Type)
	assert.NotNil(t, records.Targets[0].RotateAt)
	assert.Equal(t, workflows.OutcomePartial, records.Outcome)
	assert.Empty(t, d.Rotations(""))
	assert.Empty(t, d.Violations())
}

func approving(input workflows.RotateDeploymentInput) workflows.RotateDeploymentInput {
	input.RequireApproval = true
	return input
}

func TestADeploymentIsApproved(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	env := fixture.NewDeployment(t, d)
	env.When(fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval), func(p workflows.DeploymentProgress) {
		assert.Empty(t, d.Puts())
		assert.Contains(t, p.WaitingFor, "an operator other than dana to approve or reject the plan")
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "Dana"}, "another person must approve it")
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"audit-1"}})
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: "fine"})
	})
	result, err := env.Rotate(approving(fixture.DeploymentInput()))
	require.NoError(t, err)
	assert.Equal(t, "lee", result.Approval.By)
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	assert.Equal(t, map[string]string{"audit-0": "rotated", "audit-1": "skipped", "audit-2": "rotated"}, processStatuses(result.Targets))
	assert.Equal(t, [][]string{{"audit-0", "audit-2"}}, published(d))
}

func TestARejectedDeployment(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	env := fixture.NewDeployment(t, d)
	env.When(fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval), func(workflows.DeploymentProgress) {
		env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee", Reason: "not today"})
	})
	_, err := env.Rotate(approving(fixture.DeploymentInput()))
	records := deploymentRecords(t, err, workflows.ErrorRejected)
	assert.Equal(t, workflows.OutcomeNothingRotated, records.Outcome)
	assert.ErrorContains(t, err, "rejected by lee: not today; nothing was rotated")
	assert.Empty(t, d.Puts())
}

// What has changed since the approval is approved again; a snapshot changes nothing.
func TestAChangedConfigurationIsApprovedAgain(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	env := fixture.NewDeployment(t, d)
	approvals, theirs := 0, time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	var look func(workflows.DeploymentProgress)
	look = func(p workflows.DeploymentProgress) {
		if approvals++; approvals == 1 {
			d.Edit(simulator.SetRotationTime(theirs, "audit-1"))
		} else {
			assert.Contains(t, p.WaitingFor, "(the configuration of audit-1 changed after the approval)")
			d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{})
		}
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		env.When(func(p workflows.DeploymentProgress) bool {
			return p.Approval == nil && p.Phase == workflows.PhaseAwaitingApproval && approvals == 1
		}, look)
	}
	env.When(fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval), look)
	input := approving(fixture.DeploymentInput())
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, 2, approvals)
	assert.Equal(t, opsmanager.RotationTime(theirs), recordOf(t, result.Targets, "audit-1").PreviousRotateAt)
	requirePromise(t, d, result.Targets)
}

// A pause keeps the next replica set from starting; the one in progress finishes.
func TestAPausedDeployment(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	env := fixture.NewDeployment(t, d)
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotating] == 3 }, func(p workflows.DeploymentProgress) {
		assert.Equal(t, "Ops Manager; 3 targets in progress", p.WaitingFor)
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
	})
	env.When(func(p workflows.DeploymentProgress) bool {
		return p.Phase == workflows.PhasePaused && p.Counts[workflows.StatusRotated] == 3
	}, func(p workflows.DeploymentProgress) {
		assert.Equal(t, 3, p.Counts[workflows.StatusPending])
		assert.Len(t, d.Puts(), 1)
		env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	})
	result, err := env.Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	requirePromise(t, d, result.Targets)
	assert.Len(t, result.Actions, 2)
}

// An abort lets the replica set in progress finish, and does not wait for its proof.
func TestAnAbortedDeployment(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	env := fixture.NewDeployment(t, d)
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotating] == 3 }, func(workflows.DeploymentProgress) {
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee", Reason: "enough"})
	})
	input := fixture.DeploymentInput()
	input.Proof = workflows.ProofSnapshot
	_, err := env.Rotate(input)
	records := deploymentRecords(t, err, workflows.ErrorAborted)
	assert.Equal(t, workflows.OutcomePartial, records.Outcome)
	assert.Equal(t, map[workflows.Status]int{workflows.StatusRotated: 3, workflows.StatusPending: 3}, countsOf(records.Targets))
	assert.ErrorContains(t, err, "aborted by lee: enough; 3 of 6 targets rotated; not rotated: books-0 pending")
	assert.Less(t, records.FinishedAt.Sub(records.StartedAt), time.Hour)
	requirePromise(t, d, records.Targets)
}

func countsOf(records []workflows.ProcessRecord) map[workflows.Status]int {
	counts := map[workflows.Status]int{}
	for _, record := range records {
		counts[record.Status]++
	}
	return counts
}

// An abort while only proofs are waited for ends the rotation at once.
func TestAbortWhileProofsAreAwaited(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(fixture.Deployment){
		"abort":  func(env fixture.Deployment) { env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"}) },
		"cancel": func(env fixture.Deployment) { env.CancelWorkflow() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := fixture.Deploy(t, audit)
			env := fixture.NewDeployment(t, d)
			env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotated] == 3 }, func(workflows.DeploymentProgress) { end(env) })
			input := fixture.DeploymentInput()
			input.Proof = workflows.ProofSnapshot
			_, err := env.Rotate(input)
			records := deploymentRecords(t, err, workflows.ErrorAborted)
			assert.Equal(t, allAre(workflows.StatusRotated, auditProcesses...), processStatuses(records.Targets))
			assert.Less(t, records.FinishedAt.Sub(records.StartedAt), 2*time.Hour)
		})
	}
}

// A replica set may be skipped by its name, a process by its name or its address. Of the
// rest of a replica set, a snapshot is waited for.
func TestSkippedProcesses(t *testing.T) {
	t.Parallel()
	options := twoSets
	options.SnapshotEvery = time.Hour
	d := fixture.Deploy(t, options)
	failOn(d, "audit-2") // audit-1 has arrived by then, and no proof may begin
	input := holdingInput()
	input.Proof = workflows.ProofSnapshot
	env := fixture.NewDeployment(t, d)
	whenHeld(env, func(p workflows.DeploymentProgress) {
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"audit-9"}}, `no target is named "audit-9"`)
		d.SetAgent("audit-2", simulator.Agent{})
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"books"}, Reason: "later"})
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{recordOf(t, p.Targets, "audit-0").Host}})
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"audit-2"}})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	assert.Equal(t, map[string]string{
		"audit-0": "skipped", "audit-1": "rotated", "audit-2": "verified", "books-0": "skipped", "books-1": "skipped", "books-2": "skipped",
	}, processStatuses(result.Targets))
	assert.Len(t, d.Puts(), 1)
	assert.Equal(t, []string{"books-0", "books-1", "books-2"}, result.Actions[0].Targets)
}

// What an earlier run did is not done again: what it verified, what has restarted, and
// what will, as the time is still in the configuration.
func TestCompletedProcessesAreNotRotatedAgain(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	failOn(d, "books-1")
	input := fixture.DeploymentInput()
	input.Proof, input.OnFailure, input.ProofTimeout = workflows.ProofSnapshot, workflows.OnFailureHold, workflows.Duration(5*time.Second)
	env := fixture.NewDeployment(t, d)
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotated] >= 3 }, func(workflows.DeploymentProgress) {
		d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"audit-2"}})
	})
	env.When(func(p workflows.DeploymentProgress) bool {
		return p.Counts[workflows.StatusVerified] == 1 && p.Phase == workflows.PhaseHeld
	}, func(workflows.DeploymentProgress) {
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	first := deploymentRecords(t, err, workflows.ErrorAborted)
	require.Equal(t, "failed", processStatuses(first.Targets)["books-1"])
	d.SetAgent("books-1", simulator.Agent{})
	await(t, d, 6)
	d.TakeMemberSnapshot(d.ClusterIDs[1], simulator.MemberSnapshot{From: []string{"books-2"}})

	input.Completed = first.Targets
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Len(t, d.Puts(), 2, "nothing was published")
	assert.Len(t, d.Rotations(""), 6)
	for _, process := range []string{"audit-0", "audit-2", "books-2"} {
		before, after := recordOf(t, first.Targets, process), recordOf(t, result.Targets, process)
		if before.RotatedAt == nil {
			continue
		}
		assert.True(t, after.CarriedOver, process)
		assert.Equal(t, before.RotateAt, after.RotateAt)
		assert.Equal(t, before.RotatedAt, after.RotatedAt)
		assert.Equal(t, before.PreviousKeyUUID, after.PreviousKeyUUID)
	}
	verified := recordOf(t, result.Targets, "audit-2")
	assert.Equal(t, recordOf(t, first.Targets, "audit-2").NewKeyUUID, verified.NewKeyUUID)
	waited := recordOf(t, result.Targets, "books-1")
	assert.False(t, waited.CarriedOver)
	assert.Equal(t, recordOf(t, first.Targets, "books-1").RotateAt, waited.RotateAt, "the same time")
	assert.Equal(t, workflows.StatusVerified, recordOf(t, result.Targets, "books-2").Status, "proven now")
	assert.Empty(t, d.Violations())
}

// await waits until so many keys were made.
func await(t *testing.T, d fixture.Deployed, rotations int) {
	t.Helper()
	require.Eventually(t, func() bool { d.Version(); return len(d.Rotations("")) >= rotations }, 10*time.Second, 5*time.Millisecond)
}

// A completed process whose time is not in the configuration any more is rotated
// again, and so is one whose key was shown not to have changed.
func TestCompletedProcessesThatNeedAnotherRotation(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	first, err := fixture.NewDeployment(t, d).Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	d.Edit(simulator.DropRotationTimes("audit-0"))
	input := fixture.DeploymentInput()
	input.Completed = first.Targets
	unchanged := &input.Completed[1]
	unchanged.Status, unchanged.Error = workflows.StatusFailed, &workflows.TargetError{Type: workflows.ErrorKeyUnchanged}
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, [][]string{auditProcesses, {"audit-0", "audit-1"}}, published(d))
	for i, again := range []bool{true, true, false} {
		assert.Equal(t, again, result.Targets[i].RotateAt.After(*first.Targets[i].RotateAt))
		assert.Equal(t, !again, result.Targets[i].CarriedOver)
	}
}

func continueDeployment(t *testing.T, d fixture.Deployed, err error, prepare ...func(fixture.Deployment)) (workflows.RotateDeploymentResult, error) {
	t.Helper()
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	env := fixture.NewDeployment(t, d)
	env.SetContinuedExecutionRunID("default-test-run-id")
	for _, p := range prepare {
		p(env)
	}
	return env.Start(workflows.RotateDeploymentID("default", project), argumentsOf(continued)...)
}

// A run that continues another one publishes no time again and chooses none for a
// process that has one.
func TestADeploymentContinuesAsNew(t *testing.T) {
	t.Parallel()
	options := twoSets
	options.SnapshotEvery = time.Hour
	d := fixture.Deploy(t, options)
	failOn(d, "audit-1")
	input := holdingInput()
	input.Proof = workflows.ProofSnapshot
	env := fixture.NewDeployment(t, d)
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotating] == 3 }, func(workflows.DeploymentProgress) {
		env.SetContinueAsNewSuggested(true)
	})
	_, err := env.Rotate(input)
	var held workflows.DeploymentProgress
	result, err := continueDeployment(t, d, err, func(env fixture.Deployment) {
		whenHeld(env, func(p workflows.DeploymentProgress) {
			held = p
			d.SetAgent("audit-1", simulator.Agent{})
			env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
		})
	})
	require.NoError(t, err)
	assert.Equal(t, workflows.ErrorDeploymentFailed, recordOf(t, held.Targets, "audit-1").Error.Type)
	assert.Equal(t, recordOf(t, held.Targets, "audit-1").RotateAt, recordOf(t, result.Targets, "audit-1").RotateAt, "the same time")
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, "verified verified", string(recordOf(t, result.Targets, "audit-2").Status+" "+recordOf(t, result.Targets, "books-2").Status))
	requirePromise(t, d, result.Targets)
	assert.Len(t, d.Puts(), 2)
}

// A proof that is waited for does not keep a rotation from continuing as new, whether it
// was started or not: the next run waits for it.
func TestProofsAreAwaitedByTheNextRun(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]workflows.Status{"started": workflows.StatusRotated, "not started": workflows.StatusRotating} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := audit
			options.SnapshotEvery = time.Hour
			d := fixture.Deploy(t, options)
			input := fixture.DeploymentInput()
			input.Proof = workflows.ProofSnapshot
			env := fixture.NewDeployment(t, d)
			env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[status] == 3 }, func(workflows.DeploymentProgress) {
				env.SetContinueAsNewSuggested(true)
				if status == workflows.StatusRotated {
					env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
				}
			})
			_, err := env.Rotate(input)
			result, err := continueDeployment(t, d, err)
			require.NoError(t, err)
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
			assert.Equal(t, workflows.StatusVerified, recordOf(t, result.Targets, "audit-2").Status)
			requirePromise(t, d, result.Targets)
			assert.Len(t, d.Puts(), 1)
		})
	}
}

// The records to continue from are there after the approval, too.
func TestADeploymentContinuesAsNewWhileAwaitingApproval(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	first, err := fixture.NewDeployment(t, d).Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	input := approving(fixture.DeploymentInput())
	input.Completed = first.Targets[:2]
	env := fixture.NewDeployment(t, d)
	env.SetContinueAsNewSuggested(true)
	_, err = env.Rotate(input)
	result, err := continueDeployment(t, d, err, func(env fixture.Deployment) {
		env.When(fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval), func(workflows.DeploymentProgress) {
			env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"audit-2"}})
			env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		})
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"audit-0": "rotated", "audit-1": "rotated", "audit-2": "skipped"}, processStatuses(result.Targets))
	assert.True(t, result.Targets[0].CarriedOver && result.Targets[1].CarriedOver)
	assert.Len(t, d.Puts(), 1)
}
