package workflows_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

var twoMembers = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit", Members: 1}, {Name: "books", Members: 1}}}

// copied is a rotation that a reset has copied from a run after its plan. The test
// environment makes no copies: a run that is paused after its plan continues as one that
// is a copy, as a copy that continues as new says.
type copied struct {
	fixture.Deployed
	env       fixture.Deployment
	id        string
	arguments []any
}

func newCopy(t *testing.T, options simulator.DeploymentOptions, input workflows.RotateDeploymentInput) copied {
	t.Helper()
	d := fixture.Deploy(t, options)
	env := fixture.NewDeployment(t, d)
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name != activities.ListProcessesName {
			return
		}
		env.RegisterDelayedCallback(func() { // before the plan is there
			env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
			env.SetContinueAsNewSuggested(true)
		}, 0)
	})
	_, err := env.Rotate(input)
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	arguments := argumentsOf(continued)
	var state map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(arguments[1].(converter.RawValue).Payload().GetData(), &state))
	state["isCopy"] = json.RawMessage("true")
	arguments[1] = state
	again := fixture.NewDeployment(t, d)
	again.SetContinuedExecutionRunID("default-test-run-id")
	return copied{d, again, workflows.RotateDeploymentID("default", project), arguments}
}

// rotate lets the run before act, some time after the plan, before the copy goes on.
func (c copied) rotate(before func(), hasActed func() bool) (workflows.RotateDeploymentResult, error) {
	paused := fixture.DeploymentInPhase(workflows.PhasePaused)
	c.env.When(paused, func(workflows.DeploymentProgress) {
		c.env.RegisterDelayedCallback(func() {
			before()
			c.env.When(func(workflows.DeploymentProgress) bool { return hasActed() }, func(workflows.DeploymentProgress) {
				c.env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
			})
		}, 3*time.Second)
	})
	return c.env.Start(c.id, c.arguments...)
}

func atOnce() bool { return true }

// now is the time that the run before publishes.
func (c copied) now() time.Time { return c.Clock.Now().UTC().Truncate(time.Second) }

// The agents are busy with what the run before has published: the copy waits for them,
// and takes that time over.
func TestACopyWaitsForWhatTheRunBeforePublished(t *testing.T) {
	t.Parallel()
	options := twoMembers
	options.MemberTime = 5 * time.Second
	c := newCopy(t, options, fixture.DeploymentInput())
	var at time.Time
	result, err := c.rotate(func() {
		at = c.now()
		c.Publish("the run before", simulator.SetRotationTime(at, "audit-0"))
	}, atOnce)
	require.NoError(t, err)
	assert.Equal(t, at, *result.Targets[0].RotateAt)
	requirePromise(t, c.Deployed, result.Targets)
}

// The PUT of the run before takes effect after the copy has looked for its times.
func TestACopyTakesOverATimeThatShowsLate(t *testing.T) {
	t.Parallel()
	c := newCopy(t, twoMembers, fixture.DeploymentInput())
	var at time.Time
	result, err := c.rotate(func() {
		at = c.now()
		c.OM.Inject(simulator.RivalAtRead(project, simulator.Rival{
			When: simulator.RivalBefore, Change: simulator.RivalSetsTimes, Processes: []string{"audit-0"}, Time: at,
		}).Skipping(1)) // the copy's listing
	}, atOnce)
	require.NoError(t, err)
	assert.Equal(t, at, *result.Targets[0].RotateAt)
	requirePromise(t, c.Deployed, result.Targets)
}

// Snapshots that were taken since the plan may name keys that the run before has made:
// no record has one as its previous key, and no proof takes one for an earlier key.
func TestACopyTakesNoNewKeyForAnEarlierOne(t *testing.T) {
	t.Parallel()
	input := fixture.DeploymentInput()
	input.Proof = workflows.ProofSnapshot
	c := newCopy(t, twoMembers, input)
	planned := map[string]string{"audit-0": c.Process("audit-0").Key, "books-0": c.Process("books-0").Key}
	earlier := map[string][]string{}
	c.env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, args converter.EncodedValues) {
		var in activities.ProveRotationInput
		if info.ActivityType.Name == activities.ProveRotationName && args.Get(&in) == nil {
			earlier[in.ReplicaSet] = in.EarlierKeys
		}
	})
	result, err := c.rotate(func() {
		c.Publish("the run before", simulator.SetRotationTime(c.now(), "audit-0", "books-0"))
	}, func() bool {
		c.Version() // the agents go on when they are looked at
		if len(c.Rotations("")) < 2 {
			return false
		}
		for i, process := range []string{"audit-0", "books-0"} {
			c.TakeMemberSnapshot(c.ClusterIDs[i], simulator.MemberSnapshot{From: []string{process}})
		}
		return true
	})
	require.NoError(t, err)
	require.Len(t, earlier, 2)
	for _, record := range result.Targets {
		assert.Equal(t, planned[record.Process], record.PreviousKeyUUID, record.Process)
		assert.NotContains(t, earlier[record.ReplicaSet], c.Process(record.Process).Key)
	}
}

// A process whose time of the run before is gone again is rotated again. Its previous
// key is the plan's.
func TestACopyKeepsThePreviousKeyOfThePlan(t *testing.T) {
	t.Parallel()
	input := fixture.DeploymentInput()
	input.Proof, input.ProofTimeout = workflows.ProofSnapshot, workflows.Duration(time.Second)
	c := newCopy(t, twoMembers, input)
	planned, before := c.Process("audit-0").Key, c.RotationTimes()["audit-0"]
	result, err := c.rotate(func() {
		c.Publish("the run before", simulator.SetRotationTime(c.now(), "audit-0"))
	}, func() bool {
		c.Version() // the agents go on when they are looked at
		if len(c.Rotations("")) < 1 {
			return false
		}
		c.TakeMemberSnapshot(c.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"audit-0"}})
		c.Edit(simulator.SetProcessField("audit-0", before, "lastKmipMasterKeyRotation"))
		return true
	})
	require.NoError(t, err)
	assert.Len(t, c.Rotations("audit-0"), 2)
	assert.Equal(t, planned, result.Targets[0].PreviousKeyUUID)
}
