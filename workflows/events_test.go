package workflows_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// typesOf are the types of the events that a receiver has accepted, with the number of
// each.
func typesOf(receiver *eventreceiver.Server) map[string]int {
	types := map[string]int{}
	for _, one := range receiver.Accepted() {
		types[one.Event.Type()]++
	}
	return types
}

// The next run has not listed the targets, and knows all the same that events are sent.
func TestTheNextRunSendsEvents(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "orders")
	om.Inject(simulator.AccessListRefusal(http.MethodPut, set.ID))
	sender, receiver := fixture.NewEvents(t)
	input := fixture.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	env := fixture.NewSDK(t, om)
	env.Activities.Events = sender
	env.SetContinueAsNewSuggested(true)
	_, err := env.Rotate(input)
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	assert.Empty(t, receiver.Received())

	_, err = continueFrom(t, om, continued, input, func(env fixture.SDK) {
		env.Activities.Events = sender
		env.When(func(workflows.Progress) bool { return len(receiver.Accepted()) > 0 }, func(workflows.Progress) {
			env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
		})
	})
	require.NoError(t, err)
	assert.Equal(t, 1, typesOf(receiver)[string(activities.EventRotationHeld)])
}

func TestTheNextRunOfADeploymentSendsEvents(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	failOn(d, "audit-1")
	sender, receiver := fixture.NewEvents(t)
	env := fixture.NewDeployment(t, d)
	env.Activities.Events = sender
	env.SetContinueAsNewSuggested(true)
	_, err := env.Rotate(holdingInput())
	_, err = continueDeployment(t, d, err, func(env fixture.Deployment) {
		env.Activities.Events = sender
		env.When(func(workflows.DeploymentProgress) bool { return len(receiver.Accepted()) > 0 }, func(workflows.DeploymentProgress) {
			d.SetAgent("audit-1", simulator.Agent{})
			env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
		})
	})
	require.NoError(t, err)
	assert.Equal(t, 1, typesOf(receiver)[string(activities.EventRotationHeld)])
}

// The workers get a receiver one after the other, and the one that records the end has
// none yet.
func TestTheEndIsAnEventAlthoughAnotherWorkerRecordsIt(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	sender, receiver := fixture.NewEvents(t)
	env := fixture.NewSDK(t, om)
	env.Activities.Events = sender
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if env.Activities.Events = sender; info.ActivityType.Name == activities.RecordRotationName {
			env.Activities.Events = nil
		}
	})
	_, err := env.Rotate(fixture.Input(om.AddReplicaSet(project, "orders").ID))
	require.NoError(t, err)
	assert.Equal(t, map[string]int{string(activities.EventRotationCompleted): 1}, typesOf(receiver))
}

// What grows with a cluster stays out of an event.
func TestAnEventIsSmallForALargeCluster(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 200)
	sender, receiver := fixture.NewEvents(t)
	env := fixture.NewSDK(t, om)
	env.Activities.Events = sender
	input := fixture.Input(cluster.ID)
	input.RequireApproval = true
	env.When(func(workflows.Progress) bool { return len(receiver.Accepted()) > 0 }, func(workflows.Progress) {
		env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	requireFailure(t, err, workflows.ErrorRejected)
	for _, one := range receiver.Received() {
		assert.Less(t, len(one.Body), 3_000)
		assert.Contains(t, string(one.Body), `"counts":{"pending":201}`)
	}
}

// An event that nobody takes is given up and counted, here after the ten attempts of
// the SDK's environment.
func TestAnEventThatIsGivenUpIsCounted(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	sender, receiver := fixture.NewEvents(t)
	receiver.AnswerWith(eventreceiver.Answer{Status: http.StatusServiceUnavailable})
	env := fixture.NewSDK(t, om)
	env.Activities.Events = sender
	event, err := workflows.SchedulePausedEvent("yearly", "paused due to workflow failure: x", "scheduled", "run", time.Now())
	require.NoError(t, err)
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: event.ID, TaskQueue: workflows.DefaultTaskQueue})
	env.ExecuteWorkflow(workflows.DeliverEventType, event)
	require.Error(t, env.GetWorkflowError())
	assert.Greater(t, len(receiver.Received()), 1)
	assert.Empty(t, receiver.Accepted())
	assert.EqualValues(t, 1, env.Counts.Of()[activities.EventsEndedMetric+`{outcome="undelivered",type="keyturn.schedule.paused"}`], env.Counts.Of())
}
