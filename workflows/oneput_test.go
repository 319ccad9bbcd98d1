package workflows_test

import (
	"context"
	"net/http"
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

// requestsOn are the methods of the requests for a target's key.
func requestsOn(om *simulator.Server, id string) (methods []string) {
	for _, r := range om.Ledger().Select(func(r simulator.Request) bool {
		return r.Authenticated && r.Kind == simulator.KindKey && r.ClusterID == id
	}) {
		methods = append(methods, r.Method)
	}
	return methods
}

// No reset falls between the readings of two targets, however many there are.
func TestOneActivityReadsAllKeys(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 249)
	env := fixture.NewSDK(t, om)
	var readings [][]string
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, arguments converter.EncodedValues) {
		if info.ActivityType.Name == activities.ReadKeysName {
			var input activities.ReadKeysInput
			assert.NoError(t, arguments.Get(&input))
			readings = append(readings, input.ClusterIDs)
		}
	})
	input := fixture.Input(cluster.ID)
	input.DryRun, input.Concurrency = true, 32
	result, err := env.Rotate(input)
	require.NoError(t, err)
	require.Len(t, readings, 1)
	assert.Equal(t, cluster.TargetIDs(), readings[0])
	for _, record := range result.Targets {
		assert.Equal(t, om.Key(record.ClusterID), record.PreviousKeyUUID)
	}
}

// pausedFor pauses a rotation before its first target, for a time that the test
// environment skips.
func pausedFor(env fixture.SDK, pause time.Duration, meanwhile func()) {
	env.RegisterDelayedCallback(func() {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
	}, 0)
	env.RegisterDelayedCallback(func() {
		meanwhile()
		env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	}, pause)
}

func TestAKeyReplacedDuringAPause(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	first := om.Key(cluster.ShardIDs[1])
	env := fixture.NewSDK(t, om)
	pausedFor(env, 72*time.Hour, func() { om.SetKey(cluster.ShardIDs[1], "someone-elses") })
	result, err := env.Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
	assert.Equal(t, first, result.Targets[1].ReplacedOutside)
	assert.Equal(t, "someone-elses", result.Targets[1].PreviousKeyUUID)
	assert.False(t, result.Targets[1].Ambiguous)
	for _, i := range []int{0, 2} {
		assert.Empty(t, result.Targets[i].ReplacedOutside)
		assert.Equal(t, []string{"GET", "GET", "PUT", "GET"}, requestsOn(om, result.Targets[i].ClusterID), "read once more, as the reading is old")
	}
}

func TestAKeyReplacedTwiceIsRecordedAsFirstRead(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	first := om.Key(set.ID)
	env := fixture.NewSDK(t, om)
	pausedFor(env, 72*time.Hour, func() {
		om.SetKey(set.ID, "second")
		env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
			om.SetKey(set.ID, "third")
			env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
		})
	})
	om.Inject(simulator.AccessListRefusal(http.MethodPut, set.ID))
	input := fixture.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	result, err := env.Rotate(input)
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
	assert.Equal(t, first, result.Targets[0].ReplacedOutside)
	assert.Equal(t, "third", result.Targets[0].PreviousKeyUUID)
}

// A PUT was refused, and the rotation was held for three days: a key that is
// another one then is someone else's work, and not the rotation's.
func TestAKeyReplacedWhileHeld(t *testing.T) {
	t.Parallel()
	env, cluster, input := held(t)
	first := env.OM.Key(cluster.ShardIDs[1])
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.RegisterDelayedCallback(func() {
			env.OM.SetKey(cluster.ShardIDs[1], "someone-elses")
			env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
		}, 72*time.Hour)
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	requireTrue(t, env.OM, result.Targets)
	assert.Equal(t, first, result.Targets[1].ReplacedOutside)
	assert.Equal(t, "someone-elses", result.Targets[1].PreviousKeyUUID)
	assert.Len(t, env.OM.Ledger().Applied(cluster.ShardIDs[1]), 1)
}

// What a run guarantees is guaranteed by the one that it continues as, with the
// time of the reading.
func TestReadingsAreCarriedOver(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := fixture.NewSDK(t, om)
	env.SetContinueAsNewSuggested(true)
	_, err := env.Rotate(fixture.Input(cluster.ID))
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	var arguments []any
	for _, p := range continued.Input.Payloads {
		arguments = append(arguments, converter.NewRawValue(p))
	}
	next := fixture.NewSDK(t, om)
	next.SetContinuedExecutionRunID("default-test-run-id")
	result, err := next.Start(workflows.RotateClusterID("default", project, cluster.ID), arguments...)
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
	for _, record := range result.Targets {
		assert.Equal(t, []string{"GET", "PUT", "GET"}, requestsOn(om, record.ClusterID))
		assert.False(t, record.Ambiguous)
	}
}

// failedToVerify is a rotation of two shards whose second one's PUT was accepted
// and could not be read back.
func failedToVerify(t *testing.T, om *simulator.Server, cluster simulator.ShardedCluster, put simulator.Fault) *workflows.RotateClusterResult {
	t.Helper()
	om.Inject(put)
	om.Inject(simulator.KeyGarbage(cluster.ShardIDs[1]).Skipping(1).Always())
	input := fixture.Input(cluster.ID)
	input.Concurrency, input.OnFailure = 1, workflows.OnFailureContinue
	_, err := fixture.NewSDK(t, om).Rotate(input)
	om.ClearFaults()
	return requireRecords(t, err, workflows.ErrorPartialFailure)
}

// A PUT of an earlier rotation that could not be verified then is verified by
// the first reading of the next one.
func TestAnEarlierPutIsVerifiedByReading(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(id string) simulator.Fault{
		"accepted":  func(id string) simulator.Fault { return simulator.PutEmptyObject(id) },
		"ambiguous": func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) },
	} {
		for _, approval := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				om := simulator.Start(t, simulator.Options{})
				cluster := om.AddShardedCluster(project, "orders", 2)
				first := failedToVerify(t, om, cluster, put(cluster.ShardIDs[1]))
				record := first.Targets[1]
				require.Equal(t, workflows.StatusFailed, record.Status)

				input := fixture.Input(cluster.ID)
				input.Completed, input.RequireApproval = first.Targets, approval
				env := fixture.NewSDK(t, om)
				if approval {
					env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
						env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
					})
				}
				result, err := env.Rotate(input)
				require.NoError(t, err)
				again := result.Targets[1]
				assert.Equal(t, workflows.StatusVerified, again.Status)
				assert.True(t, again.CarriedOver)
				assert.Nil(t, again.Error)
				assert.Equal(t, record.PreviousKeyUUID, again.PreviousKeyUUID)
				assert.Equal(t, om.Key(cluster.ShardIDs[1]), again.NewKeyUUID)
				if record.RotatedAt != nil {
					assert.Equal(t, record.RotatedAt, again.RotatedAt)
				}
				require.NotNil(t, again.RotatedAt)
				require.NotNil(t, again.VerifiedAt)
				assert.WithinRange(t, *again.VerifiedAt, result.StartedAt, *result.FinishedAt)
				assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 1)
			})
		}
	}
}

// An earlier rotation's PUT that has not taken effect yet may still do so: it is
// given the settle time before another one, also where approval comes between.
func TestAnEarlierPutIsGivenTheSettleTime(t *testing.T) {
	t.Parallel()
	for _, approval := range []bool{false, true} {
		om := simulator.Start(t, simulator.Options{})
		cluster := om.AddShardedCluster(project, "orders", 2)
		first := failedToVerify(t, om, cluster, simulator.PutUnchanging(cluster.ShardIDs[1]))
		require.NotNil(t, first.Targets[1].RotatedAt)
		before := len(requestsOn(om, cluster.ShardIDs[1]))

		input := fixture.Input(cluster.ID)
		input.Completed, input.RequireApproval = first.Targets, approval
		input.SettleTime = workflows.Duration(200 * time.Millisecond)
		env := fixture.NewSDK(t, om)
		if approval {
			env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
				env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
			})
		}
		result, err := env.Rotate(input)
		require.NoError(t, err)
		assert.False(t, result.Targets[1].CarriedOver)
		requests := requestsOn(om, cluster.ShardIDs[1])[before:]
		readings := map[bool]int{false: 1, true: 2}[approval]
		assert.Greater(t, len(requests), readings+2+2, "several readings settle it: %v", requests)
		assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 1)
	}
}

// What an operator skips while the keys are read stays skipped.
func TestATargetSkippedDuringTheReadingStaysSkipped(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	input := fixture.Input(cluster.ID)
	first, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)

	om.Inject(simulator.KeyGated(cluster.ShardIDs[1]))
	input.Completed = first.Targets
	env := fixture.NewSDK(t, om)
	env.RegisterDelayedCallback(func() {
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-1"}})
		env.RegisterDelayedCallback(om.ClearFaults, time.Millisecond)
	}, 300*time.Millisecond)
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"orders-0": "verified", "orders-1": "skipped", "orders-config": "verified"}, statusesOf(result.Targets))
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
}

// Whatever clock an activity has, a record's times lie within the rotation's.
func TestTimesLieWithinTheRotation(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-3 * time.Minute, 3 * time.Minute} {
		om := simulator.Start(t, simulator.Options{})
		cluster := om.AddShardedCluster(project, "orders", 2)
		env := fixture.NewSDK(t, om)
		env.Clock.Ahead = ahead
		result, err := env.Rotate(fixture.Input(cluster.ID))
		require.NoError(t, err)
		for _, record := range result.Targets {
			assert.WithinRange(t, *record.RotatedAt, result.StartedAt, *result.FinishedAt)
			assert.WithinRange(t, *record.VerifiedAt, *record.RotatedAt, *result.FinishedAt)
		}
	}
}

// A PUT that may still take effect is known to every rotation that continues, also
// where one in between ended before it came to the target.
func TestEvidenceOfAPutOutlivesARotationThatDidNotSettleIt(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	previous, past := om.Key(cluster.ShardIDs[1]), time.Now().Add(-time.Minute)
	input := fixture.Input(cluster.ID)
	input.RequireApproval = true
	input.Completed = []workflows.TargetRecord{{
		Target: workflows.Target{ClusterID: cluster.ShardIDs[1]}, Status: workflows.StatusFailed, PreviousKeyUUID: previous, RotatedAt: &past, Attempts: 1,
	}}
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	rejected := requireRecords(t, err, workflows.ErrorRejected)
	require.NoError(t, fixture.Client(t, om).RotateEncryptionKey(t.Context(), project, cluster.ShardIDs[1], nil)) // it takes effect

	input = fixture.Input(cluster.ID)
	input.Completed = workflows.RecordsToContinue(rejected.Targets)
	result, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 1)
	assert.Equal(t, previous, result.Targets[1].PreviousKeyUUID)
	assert.True(t, result.Targets[1].CarriedOver)
}

// So is a PUT that was accepted and changed nothing in time, where the rotation was
// ended before it tried again.
func TestEvidenceOfAnUnchangedKeyOutlivesARetryThatDidNotStart(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "orders")
	previous := om.Key(set.ID)
	om.Inject(simulator.PutUnchanging(set.ID))
	input := fixture.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	aborted := requireRecords(t, err, workflows.ErrorAborted)
	require.NoError(t, fixture.Client(t, om).RotateEncryptionKey(t.Context(), project, set.ID, nil)) // it takes effect

	input.Completed = workflows.RecordsToContinue(aborted.Targets)
	result, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	assert.Len(t, om.Ledger().Applied(set.ID), 1)
	assert.Equal(t, previous, result.Targets[0].PreviousKeyUUID)
}
