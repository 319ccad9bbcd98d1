package workflows_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

func lastVerified(input workflows.RotateClusterInput) string {
	return `keyturn_cluster_last_verified_timestamp_seconds{cluster="` + input.ClusterID + `",connection="default",project="` + input.ProjectID + `"}`
}

func TestEndsAreCounted(t *testing.T) {
	t.Parallel()
	type prepare = func(*simulator.Server, simulator.ShardedCluster, *workflows.RotateClusterInput, fixture.SDK)
	const (
		verified = `keyturn_targets_ended_total{error="none",status="verified"}`
		failed   = `keyturn_rotation_duration_seconds{outcome="failed"}`
	)
	for name, test := range map[string]struct {
		prepare prepare
		want    map[string]int64
	}{
		"rotated": {
			func(*simulator.Server, simulator.ShardedCluster, *workflows.RotateClusterInput, fixture.SDK) {
			},
			map[string]int64{
				`keyturn_rotations_ended_total{error="none",outcome="rotated"}`: 1, `keyturn_rotation_duration_seconds{outcome="rotated"}`: 1,
				verified: 3, "last verified": 1,
			},
		},
		"planned": {
			func(_ *simulator.Server, _ simulator.ShardedCluster, input *workflows.RotateClusterInput, _ fixture.SDK) {
				input.DryRun = true
			},
			map[string]int64{
				`keyturn_rotations_ended_total{error="none",outcome="planned"}`: 1, `keyturn_rotation_duration_seconds{outcome="planned"}`: 1,
				`keyturn_targets_ended_total{error="none",status="planned"}`: 3,
			},
		},
		"failed, with a PUT in the open": {
			func(om *simulator.Server, cluster simulator.ShardedCluster, _ *workflows.RotateClusterInput, _ fixture.SDK) {
				om.Inject(simulator.PutCut(cluster.ShardIDs[0], simulator.ApplyNo))
				om.Inject(simulator.KeyNotFound(cluster.ShardIDs[0]).Skipping(1).Always())
			},
			map[string]int64{
				`keyturn_rotations_ended_total{error="PartialFailure",outcome="failed"}`: 1, failed: 1,
				`keyturn_targets_ended_total{error="NotFound",status="failed"}`: 1, `keyturn_targets_ambiguous_total{status="failed"}`: 1,
			},
		},
		"an ambiguous PUT that was settled, and a retry": {
			func(om *simulator.Server, cluster simulator.ShardedCluster, _ *workflows.RotateClusterInput, _ fixture.SDK) {
				om.Inject(simulator.PutCut(cluster.ShardIDs[0], simulator.ApplyBefore))
				om.Inject(simulator.ServerError(http.MethodGet, cluster.ConfigID, ""))
			},
			map[string]int64{
				`keyturn_rotations_ended_total{error="none",outcome="rotated"}`: 1, `keyturn_rotation_duration_seconds{outcome="rotated"}`: 1,
				verified: 3, "last verified": 1, `keyturn_targets_ambiguous_total{status="verified"}`: 1,
				`keyturn_retries_total{error="OpsManagerUnavailable"}`: 1,
			},
		},
		"aborted": {
			func(_ *simulator.Server, _ simulator.ShardedCluster, input *workflows.RotateClusterInput, env fixture.SDK) {
				input.RequireApproval = true
				env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
					env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
				})
			},
			map[string]int64{`keyturn_rotations_ended_total{error="Aborted",outcome="failed"}`: 1, failed: 1},
		},
		"skipped": {
			func(om *simulator.Server, cluster simulator.ShardedCluster, input *workflows.RotateClusterInput, env fixture.SDK) {
				input.OnFailure = workflows.OnFailureHold
				om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
				env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
					env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-1"}})
				})
			},
			map[string]int64{
				`keyturn_rotations_ended_total{error="none",outcome="rotatedWithSkips"}`: 1, `keyturn_rotation_duration_seconds{outcome="rotatedWithSkips"}`: 1,
				verified: 2, `keyturn_targets_ended_total{error="Forbidden",status="failed"}`: 1, `keyturn_targets_ended_total{error="none",status="skipped"}`: 1,
			},
		},
		"refused": {
			func(_ *simulator.Server, _ simulator.ShardedCluster, input *workflows.RotateClusterInput, _ fixture.SDK) {
				input.Concurrency = -1
			},
			map[string]int64{`keyturn_rotations_ended_total{error="InvalidInput",outcome="failed"}`: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			cluster := om.AddShardedCluster(project, "orders", 2)
			env := fixture.NewSDK(t, om)
			input := fixture.Input(cluster.ID)
			test.prepare(om, cluster, &input, env)
			_, _ = env.Rotate(input) // how it ended is what is counted
			if test.want["last verified"] > 0 {
				delete(test.want, "last verified")
				test.want[lastVerified(input)] = 1
			}
			assert.Equal(t, test.want, env.Counts.Of())
		})
	}
}

func TestContinuingIsNoEnd(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := fixture.NewSDK(t, om)
	env.SetContinueAsNewSuggested(true)
	_, err := env.Rotate(fixture.Input(cluster.ID))
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	assert.Empty(t, env.Counts.Of())
}

// A key whose age no record shows must not look new.
func TestAKeyOfUnknownAgeIsNotReportedAsVerified(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	first, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	for _, known := range []bool{true, false} {
		env := fixture.NewSDK(t, om)
		input := fixture.Input(cluster.ID)
		input.Completed = slices.Clone(first.Targets)
		if !known {
			input.Completed[1].VerifiedAt = nil
		}
		result, err := env.Rotate(input)
		require.NoError(t, err)
		assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
		_, reported := env.Counts.Of()[lastVerified(input)]
		assert.Equal(t, known, reported)
	}
}

// A plan verifies nothing, also where an earlier run has verified all keys.
func TestAPlanIsNotReportedAsVerified(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	first, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	env := fixture.NewSDK(t, om)
	input := fixture.Input(cluster.ID)
	input.Completed, input.DryRun = first.Targets, true
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomePlanned, result.Outcome)
	assert.NotContains(t, env.Counts.Of(), lastVerified(input))
}
