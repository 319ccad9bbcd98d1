package endtoend

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

func typesOf(received []event.Event) (types []activities.EventType) {
	for _, e := range received {
		types = append(types, activities.EventType(e.Type()))
	}
	return types
}

func TestEventsOfARotation(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[0]))
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval, input.OnFailure = true, workflows.OnFailureHold
	run := s.Start(input)
	events := s.AwaitEvents(receiver, 1)
	require.Equal(t, activities.EventRotationAwaitingApproval, activities.EventType(events[0].Type()))

	_, err := s.Update(run.GetID(), workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	require.NoError(t, err)
	events = s.AwaitEvents(receiver, 2)
	require.Equal(t, activities.EventRotationHeld, activities.EventType(events[1].Type()))

	_, err = s.Update(run.GetID(), workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	require.NoError(t, err)
	s.RequireRotated(run, 3)
	events = s.AwaitEvents(receiver, 3)
	assert.Equal(t, []activities.EventType{
		activities.EventRotationAwaitingApproval, activities.EventRotationHeld, activities.EventRotationCompleted,
	}, typesOf(events))
	ids := map[string]bool{}
	for _, e := range events {
		ids[e.ID()] = true
		assert.Equal(t, cluster.ID, e.Subject())
		assert.WithinDuration(t, time.Now(), e.Time(), waiting.Limit)
		fields := map[string]any{}
		require.NoError(t, json.Unmarshal(e.Data(), &fields))
		assert.Equal(t, fixture.EventsWebUI+"/namespaces/"+s.TemporalServer.Namespace+"/workflows/"+run.GetID()+"/"+run.GetRunID()+"/history", fields["url"])
		assert.NotContains(t, fields, "targets")
		assert.NotContains(t, fields, "error")
		assert.Equal(t, input.Change.Ticket, fields["change"].(map[string]any)["ticket"])
		assert.Equal(t, "orders", fields["clusterName"])
	}
	assert.Len(t, ids, 3)
	assert.Contains(t, string(events[0].Data()), `"phase":"awaitingApproval"`)
	assert.Contains(t, string(events[1].Data()), "an operator to retry, skip or abort")
	assert.Contains(t, string(events[2].Data()), `"outcome":"rotated"`)
	assert.Contains(t, string(events[2].Data()), `"counts":{"verified":3}`)
}

func TestEventsOfRotationsThatFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request func(s fixture.Server, id string)
		want    activities.EventType
		error   workflows.ErrorType
	}{
		"aborted": {func(s fixture.Server, id string) {
			_, err := s.Update(id, workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
			require.NoError(s, err)
		}, activities.EventRotationAborted, workflows.ErrorAborted},
		"canceled": {func(s fixture.Server, id string) {
			require.NoError(s, s.Temporal.CancelWorkflow(s.Context(), id, ""))
		}, activities.EventRotationAborted, workflows.ErrorAborted},
		"rejected": {func(s fixture.Server, id string) {
			_, err := s.Update(id, workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
			require.NoError(s, err)
		}, activities.EventRotationFailed, workflows.ErrorRejected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
			input := s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID)
			input.RequireApproval = true
			s.StartWorker()
			run := s.Start(input)
			s.AwaitEvents(receiver, 1)
			c.request(s, run.GetID())
			_, err := s.Result(run)
			fixture.RequireFailure(t, err, c.error)
			events := s.AwaitEvents(receiver, 2)
			assert.Equal(t, c.want, activities.EventType(events[1].Type()))
			assert.Contains(t, string(events[1].Data()), `"error":{"type":"`+string(c.error)+`"`)
		})
	}
}

// The history of a large cluster is long when its keys have been read: the run that
// waits for approval continues as new at once.
func TestALongHistoryLosesNoRequestForApproval(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "12"}})
	s, receiver := fixture.NewServerOn(t, server, simulator.Options{}).ReceivingEvents()
	s.Unrecorded = true
	input := s.Input(s.OM.AddShardedCluster(s.Project, "orders", 3).ID)
	input.RequireApproval = true
	s.StartWorker()
	run := s.Start(input)
	first := run.GetRunID()
	events := s.AwaitEvents(receiver, 1)
	assert.Equal(t, []activities.EventType{activities.EventRotationAwaitingApproval}, typesOf(events))
	_, err := s.Update(run.GetID(), workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	_, err = s.Result(run)
	fixture.RequireFailure(t, err, workflows.ErrorRejected)
	assert.NotEqual(t, first, run.GetRunID(), "it has continued as new")
	assert.Len(t, s.AwaitEvents(receiver, 2), 2)
}

// The time that an operator has to decide runs while the rotation is paused, too. A
// pause begins no new waiting.
func TestAFailureWhilePausedIsAnEvent(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	s.BlockRotation(cluster.ID)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.OnFailure = workflows.OnFailureHold
	run := s.Start(input)
	s.AwaitPut()
	request := func(name string) {
		_, err := s.Update(run.GetID(), name, workflows.OperatorRequest{By: "lee"})
		require.NoError(t, err)
	}
	request(workflows.PauseUpdate)
	s.OM.ClearFaults()
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ID).Always())
	events := s.AwaitEvents(receiver, 1)
	assert.Equal(t, []activities.EventType{activities.EventRotationHeld}, typesOf(events))
	assert.Contains(t, string(events[0].Data()), "an operator to resume: paused by lee (no reason given); and for an operator to retry, skip or abort, until")

	request(workflows.ResumeUpdate)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseHeld })
	request(workflows.AbortUpdate)
	_, err := s.Result(run)
	fixture.RequireFailure(t, err, workflows.ErrorAborted)
	assert.Equal(t, []activities.EventType{activities.EventRotationHeld, activities.EventRotationAborted}, typesOf(s.AwaitEvents(receiver, 2)))
}

// The targets could not be listed: only the end says whether events are sent.
func TestARotationThatFailsAtOnceIsAnEvent(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	_, err := s.Result(s.Start(s.Input("5196e5b0e4b0fca9cc88334c")))
	require.Error(t, err)
	assert.Equal(t, []activities.EventType{activities.EventRotationFailed}, typesOf(s.AwaitEvents(receiver, 1)))
}

func TestEventsOfAFleet(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	s.OM.AddReplicaSet(s.Project, "orders")
	s.OM.Inject(simulator.KeyNull(s.OM.AddReplicaSet(s.Project, "plain").ID).Always())
	s.StartWorker()
	run := s.StartFleet(fleetOf(s))
	_, err := s.FleetResult(run)
	require.NoError(t, err)
	events := s.AwaitEvents(receiver, 2)
	assert.ElementsMatch(t, []activities.EventType{activities.EventRotationCompleted, activities.EventFleetCompleted}, typesOf(events))
	fleet := events[slices.IndexFunc(events, func(e event.Event) bool { return e.Type() == string(activities.EventFleetCompleted) })]
	assert.Equal(t, run.GetID(), fleet.Subject())
	assert.Contains(t, string(fleet.Data()), `"notEncrypted":1`)
}

func TestEventsOfADeployment(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	s.Deploy(twoSets)
	s.StartWorker()
	_, err := s.DeploymentResult(s.StartDeployment(s.DeploymentInput()))
	require.NoError(t, err)
	events := s.AwaitEvents(receiver, 1)
	assert.Equal(t, []activities.EventType{activities.EventRotationCompleted}, typesOf(events))
	assert.Equal(t, s.Project, events[0].Subject())
	assert.Contains(t, string(events[0].Data()), `"outcome":"rotated"`)
	assert.NotContains(t, string(events[0].Data()), `"targets"`)
	assert.NotContains(t, string(events[0].Data()), `"replicaSets"`)
}

// A copy that a reset made waits and ends for itself: its events name the copy.
func TestEventsOfAResetCopy(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	input := s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID)
	s.StartWorker()
	run := s.Start(input)
	s.RequireRotated(run, 1)
	s.AwaitEvents(receiver, 1)
	copied := resetTo(s, run, afterFirstReading(t, s.History(run)))
	_, err := s.Result(copied)
	require.NoError(t, err)
	events := s.AwaitEvents(receiver, 2)
	assert.Equal(t, []activities.EventType{activities.EventRotationCompleted, activities.EventRotationCompleted}, typesOf(events))
	assert.Contains(t, string(events[0].Data()), run.GetRunID())
	assert.Contains(t, string(events[1].Data()), copied.GetRunID())
}

// A worker without a receiver leaves nothing of events in the history.
func TestNoEventsWithoutAReceiver(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.StartWorker()
	run := s.Start(s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID))
	s.RequireRotated(run, 1)
	for _, event := range s.History(run) {
		assert.NotEqual(t, enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED, event.GetEventType())
		assert.NotContains(t, event.String(), "send-events")
	}
}

// Where the task queue or the workers are at their limit, rotations go before events,
// also those of a fleet, whose priority key is 4: a smaller key goes first.
func TestRotationsGoBeforeEvents(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	s.RequireRotated(s.Start(s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID)), 1)
	paused, err := workflows.SchedulePausedEvent("yearly", "paused due to workflow failure", "scheduled", "run-of-"+s.Project, time.Now())
	require.NoError(t, err)
	require.NoError(t, workflows.StartDelivery(t.Context(), s.Temporal, s.TaskQueue, paused))
	for _, event := range s.AwaitEvents(receiver, 2) {
		history := s.History(s.Temporal.GetWorkflow(t.Context(), event.ID(), ""))
		assert.EqualValues(t, 5, history[0].GetWorkflowExecutionStartedEventAttributes().GetPriority().GetPriorityKey(), event.Type())
	}
}

// A receiver that is down keeps no rotation open, and gets the event later.
func TestAReceiverThatIsDown(t *testing.T) {
	t.Parallel()
	s, receiver := fixture.NewServer(t, simulator.Options{}).ReceivingEvents()
	receiver.AnswerWith(eventreceiver.Answer{Status: http.StatusInternalServerError, Times: 2})
	s.StartWorker()
	s.RequireRotated(s.Start(s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID)), 1)
	assert.Empty(t, receiver.Accepted())
	delivery := s.AwaitEvents(receiver, 1)[0].ID()
	assert.Len(t, receiver.Received(), 3)
	for _, event := range s.History(s.Temporal.GetWorkflow(t.Context(), delivery, "")) {
		if started := event.GetWorkflowExecutionStartedEventAttributes(); started != nil {
			assert.EqualValues(t, 5, started.GetPriority().GetPriorityKey(), "rotations go first")
		}
		if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
			assert.Equal(t, 24*time.Hour, scheduled.GetScheduleToCloseTimeout().AsDuration())
			assert.Equal(t, 5*time.Minute, scheduled.GetRetryPolicy().GetMaximumInterval().AsDuration())
			assert.Zero(t, scheduled.GetRetryPolicy().GetMaximumAttempts())
		}
	}
}
