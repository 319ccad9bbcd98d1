package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// rotateFleet runs RotateFleet with any arguments.
func rotateFleet(env fixture.SDK, arguments ...any) (result workflows.RotateFleetResult, err error) {
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "rotate-fleet:default", TaskQueue: workflows.DefaultTaskQueue})
	env.ExecuteWorkflow(workflows.RotateFleetType, arguments...)
	if err := env.GetWorkflowError(); err != nil {
		return result, err
	}
	return result, env.GetWorkflowResult(&result)
}

func TestFleetInputErrorNamesEveryWrongField(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	_, err := rotateFleet(fixture.NewSDK(t, om), map[string]any{
		"connection": "no spaces", "projectIds": []string{"x"}, "excludeProjectIds": []string{"y"}, "clusterNames": "(", "clustersAtATime": 101,
		"maxFailedClusters": -1, "clusterId": "y",
		"rotation": map[string]any{"concurrency": 65, "onFailure": "panic", "settleTime": "-1s", "completed": []any{}, "expectedTargets": 3},
		"change":   map[string]any{"ticket": "a\x00b"},
	})
	failed := requireFailure(t, err, workflows.ErrorInvalidInput)
	for _, field := range []string{
		"connection:", "projectIds[0]:", "excludeProjectIds[0]:", "clusterNames:", "clustersAtATime:", "maxFailedClusters:", `"clusterId": unknown field`,
		"rotation.concurrency:", "rotation.onFailure:", "rotation.settleTime:", `rotation."completed": unknown field`,
		`rotation."expectedTargets": unknown field`, "change.ticket:",
	} {
		assert.Contains(t, failed.Message(), field)
	}
	assert.Zero(t, om.Ledger().Count("", ""))
}

// An explicit zero reaches the clusters unchanged, and the fleet's defaults win
// over the clusters' own.
func TestFleetPassesSettingsToItsClusters(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{ServiceVersion: simulator.UnservedServiceVersion})
	om.AddReplicaSet(project, "audit")
	env := fixture.NewSDK(t, om)
	var inputs []workflows.RotateClusterInput
	env.SetOnChildWorkflowStartedListener(func(_ *workflow.Info, _ workflow.Context, arguments converter.EncodedValues) {
		var input workflows.RotateClusterInput
		assert.NoError(t, arguments.Get(&input))
		inputs = append(inputs, input)
	})
	_, err := rotateFleet(env, map[string]any{"rotation": map[string]any{"settleTime": "0s", "retryTimeout": "1m", "allowUnserved": true}})
	require.NoError(t, err)
	require.Len(t, inputs, 1)
	assert.True(t, inputs[0].AllowUnserved)
	assert.Zero(t, inputs[0].SettleTime)
	assert.Equal(t, workflows.OnFailureStop, inputs[0].OnFailure)
}

// A rotation that an earlier run started, and that was terminated since, sends no
// report. It counts as failed, and the fleet does not wait for it.
func TestFleetNoticesATerminatedRotation(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	env := fixture.NewSDK(t, om)
	env.SetContinuedExecutionRunID("the-run-before")
	env.OnSignalExternalWorkflow(mock.Anything, "rotate-cluster:default:gone", "", mock.Anything, mock.Anything).
		Return(errors.New("there is no such workflow"))
	_, err := rotateFleet(env, workflows.RotateFleetInput{}, map[string]any{
		"result": map[string]any{"connection": "default", "failures": []any{}, "counts": map[string]any{"clusters": 1}},
		"listed": map[string]any{"next": []any{}, "more": false},
		"inWork": []any{map[string]any{"clusterName": "audit", "workflowId": "rotate-cluster:default:gone", "runId": "r"}},
	})
	requireFailure(t, err, workflows.ErrorPartialFailure)
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.FleetCounts{Clusters: 1, Failed: 1}, result.Counts)
	assert.EqualValues(t, "Lost", result.Failures[0].Error.Type)
}

// An update may come with the workflow task in which the history has become long. A
// run that continued as new at once would cancel the signals that the update sends.
func TestFleetSignalsAResumeBeforeItContinuesAsNew(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	env := fixture.NewSDK(t, om)
	env.SetContinuedExecutionRunID("the-run-before")
	const delivery = time.Second
	env.OnSignalExternalWorkflow(mock.Anything, "rotate-cluster:default:audit", "", "fleet", mock.Anything).After(delivery).Return(nil)
	var resumed time.Time
	env.RegisterDelayedCallback(func() {
		env.SetContinueAsNewSuggested(true)
		resumed = env.Now()
		env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	}, time.Minute)
	_, err := rotateFleet(env, workflows.RotateFleetInput{}, map[string]any{
		"result": map[string]any{"connection": "default", "failures": []any{}, "counts": map[string]any{"clusters": 1}},
		"listed": map[string]any{"next": []any{}, "more": false}, "paused": map[string]any{"by": "lee"}, "revision": 1,
		"inWork": []any{map[string]any{"clusterName": "audit", "workflowId": "rotate-cluster:default:audit", "runId": "r"}},
	})
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	assert.Equal(t, delivery, env.Now().Sub(resumed))
}

func TestFleetRefusesASecondInput(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	for name, second := range map[string]any{"carried state": map[string]any{}, "a text": "text"} {
		t.Run(name, func(t *testing.T) {
			_, err := rotateFleet(fixture.NewSDK(t, om), workflows.RotateFleetInput{}, second)
			requireFailure(t, err, workflows.ErrorInvalidInput)
		})
	}
	assert.Empty(t, om.Ledger().Requests)
}

// Signals may overtake each other: the newest one of the fleet counts, and one for
// another rotation of the cluster does not.
func TestTheFleetsNewestSignalCounts(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := fixture.Input(set.ID)
	input.RequireApproval = true
	env := fixture.NewSDK(t, om)
	signal := func(revision int, paused bool, firstRun string) map[string]any {
		s := map[string]any{"fleetId": "rotate-fleet:default", "firstRunId": firstRun, "revision": revision}
		if paused {
			s["paused"] = workflows.OperatorRequest{By: "lee"}
		}
		return s
	}
	env.OnSignalExternalWorkflow(mock.Anything, "rotate-fleet:default", "", "rotation-ended", mock.Anything).Return(nil)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		const run = "" // the test environment has no other
		env.SignalWorkflow("fleet", signal(2, false, run))
		env.SignalWorkflow("fleet", signal(1, true, run))
		env.SignalWorkflow("fleet", signal(3, true, "another-run"))
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "erin"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err, "paused by an old signal, it would never end")
	requireTrue(t, om, result.Targets)
}

// A fleet that continues as new may ask for a report when the rotation has nothing
// left to do. The request then comes with the last result, in one workflow task.
func TestARequestForAReportMayComeWithTheEnd(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := fixture.Input(set.ID)
	input.DryRun = true // so that it ends with its first reading
	env := fixture.NewSDK(t, om)
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name == activities.ReadKeysName {
			env.SignalWorkflowSkippingWorkflowTask("fleet", map[string]any{"fleetId": "rotate-fleet:default", "firstRunId": "", "report": true})
		}
	})
	reports := 0
	env.OnSignalExternalWorkflow(mock.Anything, "rotate-fleet:default", "", "rotation-ended", mock.Anything).
		Run(func(mock.Arguments) { reports++ }).Return(nil)
	_, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, 1, reports)
}

// A fleet that selects no cluster is a mistake, and not rotated.
func TestFleetWithoutClustersFails(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	empty := addProject(om, 1)
	for name, input := range map[string]workflows.RotateFleetInput{
		"an empty project":       {ProjectIDs: []string{empty}},
		"every project left out": {ExcludeProjectIDs: []string{empty, project}},
		"another name":           {ClusterNames: "^odrers"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rotateFleet(fixture.NewSDK(t, om), input)
			failed := requireFailure(t, err, workflows.ErrorUnexpectedTopology)
			assert.Contains(t, failed.Message(), "nothing was rotated")
		})
	}
}

// addProject adds a project whose ID is larger than the default one's, and grows
// with n.
func addProject(om *simulator.Server, n int) string {
	id := fmt.Sprintf("6196d3628d022db4cbc2%04x", n)
	om.AddProject(simulator.Project{ID: id})
	return id
}

// fleetInput has durations that suit a test.
func fleetInput() workflows.RotateFleetInput {
	cluster := fixture.Input("")
	return workflows.RotateFleetInput{Rotation: workflows.FleetRotation{
		RetryTimeout: workflows.Duration(200 * time.Millisecond), SettleTime: cluster.SettleTime, VerifyTimeout: cluster.VerifyTimeout,
	}}
}

func requireFleetRecords(t *testing.T, err error) *workflows.RotateFleetResult {
	t.Helper()
	requireFailure(t, err, workflows.ErrorPartialFailure)
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found, "the failure must have records: %v", err)
	return result
}

// A cluster that is removed after the fleet was listed is left out. It is the same
// for a sharded cluster, a replica set, and a whole project.
func TestFleetLeavesOutClustersThatAreGone(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	first := om.AddReplicaSet(project, "first")
	set := om.AddReplicaSet(project, "set")
	orders := om.AddShardedCluster(project, "orders", 2)
	last := om.AddReplicaSet(project, "last")
	env := fixture.NewSDK(t, om)
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, _ converter.EncodedValues) {
		if info.WorkflowExecution.ID == workflows.RotateClusterID("default", project, first.ID) {
			for _, id := range append(orders.TargetIDs(), orders.ID, set.ID) {
				om.RemoveCluster(id)
			}
		}
	})
	input := fleetInput()
	input.ClustersAtATime = 1
	result, err := rotateFleet(env, input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 4, Rotated: 2, Gone: 2}, result.Counts)
	assert.ElementsMatch(t, []workflows.ClusterLeftOut{
		{ClusterRef: workflows.ClusterRef{ProjectID: project, ClusterID: set.ID, ClusterName: "set"}, Reason: workflows.LeftOutGone},
		{ClusterRef: workflows.ClusterRef{ProjectID: project, ClusterID: orders.ID, ClusterName: "orders"}, Reason: workflows.LeftOutGone},
	}, result.LeftOut)
	assert.Zero(t, result.LeftOutNotListed)
	assert.Empty(t, result.Failures)
	assert.Len(t, om.Ledger().Applied(last.ID), 1)
}

// The same is true of a cluster that is removed after its targets were listed, but
// not of a shard that is removed.
func TestFleetLeavesOutClustersThatGoWhileTheirKeysAreRead(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		removed func(simulator.ShardedCluster) []string
		want    workflows.FleetCounts
	}{
		"cluster": {func(c simulator.ShardedCluster) []string { return append(c.TargetIDs(), c.ID) }, workflows.FleetCounts{Clusters: 1, Gone: 1}},
		"shard":   {func(c simulator.ShardedCluster) []string { return c.ShardIDs[1:] }, workflows.FleetCounts{Clusters: 1, Failed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			orders := om.AddShardedCluster(project, "orders", 2)
			env := fixture.NewSDK(t, om)
			removed := false
			env.SetOnActivityCompletedListener(func(info *activity.Info, _ converter.EncodedValue, _ error) {
				if info.ActivityType.Name == activities.ListTargetsName && !removed {
					removed = true
					for _, id := range test.removed(orders) {
						om.RemoveCluster(id)
					}
				}
			})
			result, err := rotateFleet(env, fleetInput())
			if err != nil {
				result = *requireFleetRecords(t, err)
			}
			assert.Equal(t, test.want, result.Counts)
			assert.Empty(t, om.Ledger().Rotations)
		})
	}
}

// An address that is not the API's does not make a cluster gone.
func TestFleetCountsAPathThatIsNotFoundAsFailed(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	om.Inject(simulator.APIError(http.MethodGet, "", http.StatusNotFound, "RESOURCE_NOT_FOUND", "").On(simulator.KindClusters).Skipping(1).Always())
	_, err := rotateFleet(fixture.NewSDK(t, om), fleetInput())
	result := requireFleetRecords(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: 1, Failed: 1}, result.Counts)
	assert.Equal(t, workflows.ErrorNotFound, result.Failures[0].Error.Type)
}

// A project that cannot be listed is one failure, and does not keep the clusters
// of the others from being rotated within maxFailedClusters.
func TestFleetCountsAProjectThatCannotBeListedAsOneFailure(t *testing.T) {
	t.Parallel()
	html := simulator.ProxyError(http.MethodGet, "", http.StatusOK, simulator.ApplyNo)
	for name, test := range map[string]struct {
		fault simulator.Fault
		want  workflows.ErrorType
	}{
		"401":    {simulator.Unauthorized(http.MethodGet, ""), workflows.ErrorUnauthorized},
		"403":    {simulator.AccessListRefusal(http.MethodGet, ""), workflows.ErrorForbidden},
		"404":    {simulator.APIError(http.MethodGet, "", http.StatusNotFound, "GROUP_NOT_FOUND", ""), workflows.ErrorNotFound},
		"500":    {simulator.ServerError(http.MethodGet, "", simulator.ApplyNo), workflows.ErrorOpsManagerUnavailable},
		"a page": {html, workflows.ErrorUnexpectedResponse},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			om.AddReplicaSet(project, "first")
			middle, last := addProject(om, 1), addProject(om, 2)
			om.AddReplicaSet(middle, "hidden")
			om.AddReplicaSet(last, "last")
			fault := test.fault.On(simulator.KindClusters).Always()
			fault.ProjectID = middle
			om.Inject(fault)
			input := fleetInput()
			input.ProjectIDs = []string{last, middle, project}

			_, err := rotateFleet(fixture.NewSDK(t, om), input)
			result := requireFleetRecords(t, err)
			assert.Equal(t, workflows.FleetCounts{Clusters: 3, Failed: 1, FailedProjects: 1, NotStarted: 2}, result.Counts)
			assert.Equal(t, workflows.OutcomeNothingRotated, result.Outcome)
			require.Len(t, result.LeftOut, 2)
			assert.Equal(t, workflows.LeftOutNotStarted, result.LeftOut[0].Reason)
			assert.Zero(t, result.LeftOutNotListed)

			input.MaxFailedClusters = 1
			_, err = rotateFleet(fixture.NewSDK(t, om), input)
			result = requireFleetRecords(t, err)
			assert.Equal(t, workflows.FleetCounts{Clusters: 3, Rotated: 2, Failed: 1, FailedProjects: 1}, result.Counts)
			assert.Equal(t, workflows.OutcomePartial, result.Outcome)
			require.Len(t, result.Failures, 1)
			failed := result.Failures[0]
			assert.Equal(t, workflows.ClusterRef{ProjectID: middle}, failed.ClusterRef)
			assert.Empty(t, failed.WorkflowID)
			assert.Equal(t, test.want, failed.Error.Type, failed.Error.Message)
			assert.Contains(t, err.Error(), "project "+middle+" ("+string(test.want)+")")
		})
	}
}

// If no project can be listed, the fleet ends with that error.
func TestFleetOfProjectsThatCannotBeListedFails(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	input := fleetInput()
	for i := range 6 {
		input.ProjectIDs = append(input.ProjectIDs, addProject(om, i))
	}
	input.MaxFailedClusters = 100
	om.Inject(simulator.Unauthorized(http.MethodGet, "").On(simulator.KindClusters).Always())
	_, err := rotateFleet(fixture.NewSDK(t, om), input)
	failed := requireFailure(t, err, workflows.ErrorUnauthorized)
	assert.Contains(t, failed.Message(), "none of 6 projects can be listed")
}

func TestFleetLeavesOutProjects(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	other := addProject(om, 1)
	excluded := om.AddReplicaSet(other, "audit")
	input := fleetInput()
	input.ExcludeProjectIDs = []string{strings.ToUpper(other)}
	result, err := rotateFleet(fixture.NewSDK(t, om), input)
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: 1, Rotated: 1}, result.Counts)
	assert.Empty(t, om.Ledger().Applied(excluded.ID))
}

// The records do not grow with the number of clusters that are left out, and one
// reason does not displace another.
func TestFleetListsALimitedNumberOfClustersLeftOut(t *testing.T) {
	t.Parallel()
	const clusters = 310
	om := simulator.Start(t, simulator.Options{})
	for i := range clusters {
		om.Inject(simulator.KeyNull(om.AddReplicaSet(project, fmt.Sprintf("plain-%d", i)).ID).Always())
	}
	failing := om.AddReplicaSet(project, "failing")
	om.Inject(simulator.AccessListRefusal(http.MethodGet, failing.ID).On(simulator.KindKey).Always())
	for i := range 3 {
		om.AddReplicaSet(project, fmt.Sprintf("last-%d", i))
	}
	input := fleetInput()
	input.ClustersAtATime = 1
	_, err := rotateFleet(fixture.NewSDK(t, om), input)
	result := requireFleetRecords(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: clusters + 4, NotEncrypted: clusters, Failed: 1, NotStarted: 3}, result.Counts)
	assert.Len(t, result.LeftOut, 300+3)
	assert.Equal(t, clusters-300, result.LeftOutNotListed)
	assert.Equal(t, "last-2", result.LeftOut[302].ClusterName)
	assert.Equal(t, workflows.OutcomeNothingRotated, result.Outcome)
	remaining, complete := result.Remaining()
	assert.True(t, complete, "clusters without encryption are not to be rotated")
	require.Len(t, remaining, 4)
	assert.Equal(t, failing.ID, remaining[0].ClusterID)
}

// A project that cannot be listed counts before clusters start, however far ahead
// it is in the list.
func TestFleetStartsNothingIfAProjectAheadCannotBeListed(t *testing.T) {
	t.Parallel()
	const clusters = 401
	om := simulator.Start(t, simulator.Options{})
	for i := range clusters {
		om.AddReplicaSet(project, fmt.Sprintf("set-%d", i))
	}
	hidden := addProject(om, 1)
	fault := simulator.AccessListRefusal(http.MethodGet, "").On(simulator.KindClusters).Always()
	fault.ProjectID = hidden
	om.Inject(fault)
	_, err := rotateFleet(fixture.NewSDK(t, om), fleetInput())
	result := requireFleetRecords(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: clusters + 1, Failed: 1, FailedProjects: 1, NotStarted: clusters}, result.Counts)
	assert.Equal(t, hidden, result.Failures[0].ProjectID)
	assert.Len(t, result.LeftOut, 200)
	assert.Equal(t, clusters-200, result.LeftOutNotListed)
	_, complete := result.Remaining()
	assert.False(t, complete)
	assert.Zero(t, om.Ledger().Count(http.MethodPut, ""))
}
