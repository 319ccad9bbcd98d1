package workflows_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// rotateFleet runs RotateFleet with any arguments.
func rotateFleet(env environment.Environment, arguments ...any) (result workflows.RotateFleetResult, err error) {
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "rotate-fleet:default", TaskQueue: workflows.DefaultTaskQueue})
	env.ExecuteWorkflow(workflows.RotateFleetType, arguments...)
	if err := env.GetWorkflowError(); err != nil {
		return result, err
	}
	return result, env.GetWorkflowResult(&result)
}

func TestEveryFaultOfAFleetsInputIsNamed(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	_, err := rotateFleet(environment.New(t, om), map[string]any{
		"connection": "no spaces", "projectIds": []string{"x"}, "clusterNames": "(", "clustersAtATime": 101,
		"maxFailedClusters": -1, "clusterId": "y",
		"rotation": map[string]any{"concurrency": 65, "onFailure": "panic", "settleTime": "-1s", "completed": []any{}, "expectedTargets": 3},
		"change":   map[string]any{"ticket": "a\x00b"},
	})
	failed := requireFailure(t, err, activities.ErrorInvalidInput)
	for _, field := range []string{
		"connection:", "projectIds[0]:", "clusterNames:", "clustersAtATime:", "maxFailedClusters:", `"clusterId": unknown field`,
		"rotation.concurrency:", "rotation.onFailure:", "rotation.settleTime:", `rotation."completed": unknown field`,
		`rotation."expectedTargets": unknown field`, "change.ticket:",
	} {
		assert.Contains(t, failed.Message(), field)
	}
	assert.Zero(t, om.Ledger().Count("", ""))
}

// A zero that was asked for reaches the clusters as such, and a default of the
// fleet's goes before the clusters' own.
func TestAFleetPassesOnWhatWasAskedFor(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	env := environment.New(t, om)
	var inputs []workflows.RotateClusterInput
	env.SetOnChildWorkflowStartedListener(func(_ *workflow.Info, _ workflow.Context, arguments converter.EncodedValues) {
		var input workflows.RotateClusterInput
		assert.NoError(t, arguments.Get(&input))
		inputs = append(inputs, input)
	})
	_, err := rotateFleet(env, map[string]any{"rotation": map[string]any{"settleTime": "0s", "retryTimeout": "1m"}})
	require.NoError(t, err)
	require.Len(t, inputs, 1)
	assert.Zero(t, inputs[0].SettleTime)
	assert.Equal(t, workflows.OnFailureStop, inputs[0].OnFailure)
}

// A rotation that a run before has started, and that was terminated since, has
// no last word: it counts as failed, and is not waited for for ever.
func TestARotationThatEndsWithoutAWordIsNoticed(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	env := environment.New(t, om)
	env.SetContinuedExecutionRunID("the-run-before")
	env.OnSignalExternalWorkflow(mock.Anything, "rotate-cluster:default:gone", "", mock.Anything, mock.Anything).
		Return(errors.New("there is no such workflow"))
	_, err := rotateFleet(env, workflows.RotateFleetInput{}, map[string]any{
		"result": map[string]any{"connection": "default", "failures": []any{}, "counts": map[string]any{"clusters": 1}},
		"listed": map[string]any{"next": []any{}, "more": false},
		"inWork": []any{map[string]any{"clusterName": "audit", "workflowId": "rotate-cluster:default:gone", "runId": "r"}},
	})
	requireFailure(t, err, activities.ErrorPartialFailure)
	result, found := workflows.FleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.FleetCounts{Clusters: 1, Failed: 1}, result.Counts)
	assert.Equal(t, "Lost", result.Failures[0].Error.Type)
}

func TestASecondInputOfAFleetIsRefused(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	for name, second := range map[string]any{"carried state": map[string]any{}, "a text": "text"} {
		t.Run(name, func(t *testing.T) {
			_, err := rotateFleet(environment.New(t, om), workflows.RotateFleetInput{}, second)
			requireFailure(t, err, activities.ErrorInvalidInput)
		})
	}
	assert.Empty(t, om.Ledger().Requests)
}

// Signals may overtake each other: the newest word of the fleet counts, and one
// that is meant for another rotation of the cluster does not.
func TestTheFleetsNewestWordCounts(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := environment.Input(set.ID)
	input.RequireApproval = true
	env := environment.New(t, om)
	order := func(revision int, paused bool, firstRun string) map[string]any {
		o := map[string]any{"fleetId": "rotate-fleet:default", "firstRunId": firstRun, "revision": revision}
		if paused {
			o["paused"] = workflows.ReasonRequest{By: "lee"}
		}
		return o
	}
	env.OnSignalExternalWorkflow(mock.Anything, "rotate-fleet:default", "", "rotation-ended", mock.Anything).Return(nil)
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		const run = "" // the test environment has no other
		env.SignalWorkflow("fleet", order(2, false, run))
		env.SignalWorkflow("fleet", order(1, true, run))
		env.SignalWorkflow("fleet", order(3, true, "another-run"))
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "erin"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err, "paused by an old word, it would never end")
	requireTrue(t, om, result.Targets)
}

// A pattern that fits nothing is a mistake; a project without clusters is none.
func TestAFleetOfNothing(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	om.AddProject(simulator.Project{ID: project})
	result, err := rotateFleet(environment.New(t, om), workflows.RotateFleetInput{})
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{}, result.Counts)
	_, err = rotateFleet(environment.New(t, om), workflows.RotateFleetInput{ClusterNames: "^odrers"})
	requireFailure(t, err, activities.ErrorUnexpectedTopology)
}
