package main

import (
	"strings"
	"testing"

	"keyturn/workflows"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAHeldRotationIsShownWithTheWaysOn(t *testing.T) {
	a, stdout, _ := newTestApp()
	hostile := target("05", "a b,c", workflows.StatusFailed)
	p := progressOf(workflows.PhaseHeld, target("04", "orders-4", workflows.StatusFailed), hostile, verified("00", "orders-0", 1))
	p.WaitingFor = "an operator to retry, skip or abort"
	err := a.showWaiting(clusterStatusOf(p))
	var advised *hintedError
	require.ErrorAs(t, err, &advised)
	require.Equal(t, "held: waiting for an operator to retry, skip or abort", err.Error())
	named := " --project " + testProject + " --cluster " + testCluster
	want := []string{
		"keyturn retry" + named + " --by dana",
		"keyturn skip" + named + " --by dana --targets orders-4," + hostile.ClusterID + " --reason WHY",
		"keyturn abort" + named + " --by dana --reason WHY",
	}
	assert.Equal(t, want, advised.commands)
	assert.Contains(t, stdout.String(), "none yet: held")
}

func TestTheRequesterIsNotAskedToApprove(t *testing.T) {
	for requestedBy, want := range map[string]string{"dana": "--by SOMEONE-ELSE", "erin": "--by dana"} {
		a, _, _ := newTestApp()
		p := progressOf(workflows.PhaseAwaitingApproval)
		p.Change.RequestedBy = requestedBy
		assert.True(t, strings.HasPrefix(clusterStatusOf(p).nextCommands(a)[0], "keyturn approve"))
		assert.True(t, strings.HasSuffix(clusterStatusOf(p).nextCommands(a)[0], want))
	}
}

// What is paused and held needs two decisions, and so does what is paused and
// waits for approval.
func TestAllThatAPausedRotationWaitsForIsNamed(t *testing.T) {
	commands := func(p workflows.Progress) (names []string) {
		a, _, _ := newTestApp()
		for _, line := range clusterStatusOf(p).nextCommands(a) {
			names = append(names, strings.Fields(line)[1])
		}
		return names
	}
	assert.Equal(t, []string{"resume", "abort"}, commands(progressOf(workflows.PhasePaused, verified("00", "orders-0", 1))))
	assert.Equal(t, []string{"resume", "retry", "skip", "abort"}, commands(progressOf(workflows.PhasePaused, target("01", "orders-1", workflows.StatusFailed))))

	waiting := progressOf(workflows.PhaseAwaitingApproval)
	waiting.Actions = []workflows.Action{{Action: workflows.PauseUpdate}}
	assert.Equal(t, []string{"approve", "reject", "resume"}, commands(waiting))
	waiting.Actions = append(waiting.Actions, workflows.Action{Action: workflows.ResumeUpdate})
	assert.Equal(t, []string{"approve", "reject"}, commands(waiting))
}

func TestOnlyWhatNeedsAPersonEndsTheWatching(t *testing.T) {
	for phase, want := range map[workflows.Phase]bool{
		workflows.PhaseHeld: true, workflows.PhaseAwaitingApproval: true, workflows.PhasePaused: true,
		workflows.PhaseRotating: false, workflows.PhaseListing: false, workflows.PhaseRecording: false, workflows.PhaseDone: false,
	} {
		a, _, _ := newTestApp()
		waiting := clusterStatusOf(progressOf(phase))
		assert.Equal(t, want, len(waiting.nextCommands(a)) > 0)
	}
}

// A rotation that waits for its ledger has ended for Ops Manager, and not for Temporal.
func TestARotationThatIsNotRecordedSaysSo(t *testing.T) {
	p := progressOf(workflows.PhaseRecording, verified("00", "orders-0", 1))
	p.Outcome, p.WaitingFor = workflows.OutcomeRotated, "the ledger to record the rotation"
	fleet := fleetAtWork()
	fleet.Phase, fleet.Outcome, fleet.WaitingFor = workflows.PhaseRecording, workflows.OutcomeRotated, p.WaitingFor
	for _, status := range []statusView{clusterStatusOf(p), fleet} {
		live := plain(frame{progress: status, now: began}.lines(size{140, 24}))
		assert.Contains(t, live, "  waiting for the ledger")
		assert.Contains(t, live, "\nwaiting for the ledger to record the rotation\n")
		assert.Contains(t, status.table(layout{}), "rotated, not recorded yet")
		assert.Contains(t, status.summary()[0], "has ended (rotated, not recorded yet): ")
		a, _, _ := newTestApp()
		assert.Empty(t, status.nextCommands(a))
	}
	assert.Equal(t, "has ended (rotated)", phaseWords(workflows.PhaseDone, workflows.OutcomeRotated))
}
