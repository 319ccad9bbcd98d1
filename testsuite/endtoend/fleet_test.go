package endtoend

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// briefly is a timeout that has to pass.
const briefly = workflows.Duration(300 * time.Millisecond)

// fleetOf is the input for the fixture's projects, with durations that suit a
// test.
func fleetOf(s fixture.Server, projects ...string) workflows.RotateFleetInput {
	cluster := s.Input("")
	return workflows.RotateFleetInput{
		ProjectIDs: append(projects, s.Project),
		Rotation: workflows.FleetRotation{
			RetryTimeout: cluster.RetryTimeout, SettleTime: cluster.SettleTime, VerifyTimeout: cluster.VerifyTimeout,
		},
		Change: cluster.Change,
	}
}

// requireOnePutEach checks that exactly one PUT was applied to every target
// except those in without, which had none.
func requireOnePutEach(s fixture.Server, without ...string) {
	s.Helper()
	excluded := map[string]bool{}
	for _, id := range without {
		excluded[id] = true
	}
	ledger := s.OM.Ledger()
	assert.Empty(s, ledger.PutsOnParents())
	for _, c := range s.OM.Clusters() {
		if c.IsParent() {
			continue
		}
		want := 1
		if excluded[c.ID] {
			want = 0
		}
		assert.Len(s, ledger.Applied(c.ID), want, "%s %s", c.ClusterName, c.ReplicaSetName)
	}
}

func TestRotateFleet(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	other := s.AddProject()
	s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.OM.AddReplicaSet(s.Project, "orders") // clusters may share a display name
	s.OM.AddShardedCluster(other, "orders", 2)
	s.OM.AddReplicaSet(other, "audit")
	plain := s.OM.AddReplicaSet(s.Project, "plain")
	s.OM.Inject(simulator.KeyNull(plain.ID).Always())
	none := s.OM.AddShardedCluster(other, "none", 2)
	for _, id := range none.TargetIDs() {
		s.OM.Inject(simulator.KeyNotFound(id).Always())
	}
	busy := s.OM.AddReplicaSet(s.Project, "busy")
	excluded := s.OM.AddReplicaSet(s.Project, "left-out")
	s.StartWorker()

	waiting := s.Input(busy.ID)
	waiting.RequireApproval = true
	running := s.Start(waiting)
	s.Await(running.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })

	input := fleetOf(s, other)
	input.ClusterNames = "^(orders|audit|plain|none|busy)$"
	run := s.StartFleet(input)
	result, err := s.FleetResult(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 7, Rotated: 4, Busy: 1, NotEncrypted: 2}, result.Counts)
	assert.Equal(t, 4+1+3+1, result.TargetsVerified)
	assert.Empty(t, result.Failures)
	assert.Equal(t, "CHG0031337", result.Change.Ticket)
	requireOnePutEach(s, append(none.TargetIDs(), plain.ID, busy.ID, excluded.ID)...)

	p := s.FleetProgress(run.GetID())
	assert.Equal(t, workflows.PhaseDone, p.Phase)
	assert.Equal(t, result, p.RotateFleetResult)
}

// Without project IDs, the fleet has every project that the API key can access.
// The responses about projects contain a secret, and nothing of them is stored.
func TestFleetOfAllProjects(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	for range 3 {
		s.OM.AddReplicaSet(s.AddProject(), "audit")
	}
	s.StartWorker()
	input := fleetOf(s)
	input.ProjectIDs = nil
	input.Rotation.DryRun = true
	run := s.StartFleet(input)
	result, err := s.FleetResult(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomePlanned, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 3, Planned: 3}, result.Counts)
	assert.Zero(t, len(s.OM.Ledger().Rotations))
	for _, event := range s.History(run) {
		assert.NotContains(t, event.String(), simulator.PlantedSecret)
	}
}

func TestFleetStopsAfterTooManyFailures(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	var ids []string
	for i := range 8 {
		set := s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
		ids = append(ids, set.ID)
		if i == 1 || i == 3 {
			s.OM.Inject(simulator.PutUnchanging(set.ID).Always())
		}
	}
	s.StartWorker()
	input := fleetOf(s)
	input.ClustersAtATime, input.MaxFailedClusters = 1, 1
	input.Rotation.VerifyTimeout = briefly
	_, err := s.FleetResult(s.StartFleet(input))
	failed := fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
	assert.Contains(t, failed.Message(), "set-1 (PartialFailure), set-3 (PartialFailure)")
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.OutcomePartial, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 8, Rotated: 2, Failed: 2, NotStarted: 4}, result.Counts)
	require.Len(t, result.Failures, 2)
	assert.Equal(t, ids[1], result.Failures[0].ClusterID)
	assert.Equal(t, workflows.RotateClusterID("default", s.Project, ids[1]), result.Failures[0].WorkflowID)
	assert.NotEmpty(t, result.Failures[0].RunID)
	assert.Equal(t, workflows.ErrorPartialFailure, result.Failures[0].Error.Type)
	assert.Contains(t, result.Failures[0].Error.Message, "KeyUnchanged")
}

// A project that does not exist is a failure of its own. With no other project,
// the fleet fails with its error.
func TestFleetListingFails(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.OM.AddReplicaSet(s.Project, "audit")
	s.StartWorker()
	unknown := "ffffffffffffffffffffffff"
	_, err := s.FleetResult(s.StartFleet(fleetOf(s, unknown)))
	failed := fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
	assert.Contains(t, failed.Message(), "project "+unknown+" (NotFound)")
	assert.Empty(t, s.OM.Ledger().Rotations)

	input := fleetOf(s)
	input.ProjectIDs = []string{unknown}
	_, err = s.FleetResult(s.StartFleet(input))
	failed = fixture.RequireFailure(t, err, workflows.ErrorNotFound)
	assert.Contains(t, failed.Message(), unknown)
}

// A fleet that is reset to its first task starts no second round, whether its
// clusters have been rotated or are in progress.
func TestResetFleetStartsNoSecondRound(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	const done = 3
	for i := range done {
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	blocked := s.OM.AddReplicaSet(s.Project, "zz-blocked")
	s.BlockRotation(blocked.ID)
	s.StartWorker()
	input := fleetOf(s)
	run := s.StartFleet(input)
	id := run.GetID()
	s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated == done && len(p.InProgress) == 1 })

	s.CLI("workflow", "reset", "--workflow-id", id, "--run-id", run.GetRunID(), "--type", "FirstWorkflowTask", "--reason", "test")
	result, err := s.FleetResult(s.Temporal.GetWorkflow(t.Context(), id, ""))
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: done + 1, Busy: done + 1}, result.Counts)
	require.Len(t, result.LeftOut, done+1)
	assert.Equal(t, workflows.LeftOutBusy, result.LeftOut[0].Reason)
	s.OM.ClearFaults()
	s.RequireRotated(s.Temporal.GetWorkflow(t.Context(), workflows.RotateClusterID(workflows.DefaultConnection, s.Project, blocked.ID), ""), 1)
	requireOnePutEach(s)
}

// The rotations of a fleet share the list of their project, which has a dozen pages
// here. It is read again only as often as it gets a minute old.
func TestFleetReadsTheListOfAProjectOnce(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{MaxItemsPerPage: 8})
	const clusters, entries, pages, clustersAtATime = 24, 4, 12, 4
	for i := range clusters {
		s.OM.AddShardedCluster(s.Project, fmt.Sprintf("orders-%d", i), entries-2)
	}
	s.StartWorker()
	input := fleetOf(s)
	input.ClustersAtATime = clustersAtATime
	started := time.Now()
	result, err := s.FleetResult(s.StartFleet(input))
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: clusters, Rotated: clusters}, result.Counts)
	requireOnePutEach(s)

	lists := 1 + int(time.Since(started)/time.Minute)
	requested := s.OM.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.Kind == simulator.KindClusters })
	assert.LessOrEqual(t, len(requested), clusters+lists*(2*pages+clustersAtATime), "one request for each cluster, and two passes for each list")
}

// A fleet that is reset to its last task waits for the clusters that it had
// started before, and counts each once.
func TestResetFleetWaitsForClustersInProgress(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.OM.AddReplicaSet(s.Project, "audit")
	blocked := s.OM.AddReplicaSet(s.Project, "blocked")
	s.BlockRotation(blocked.ID)
	s.StartWorker()
	input := fleetOf(s)
	run := s.StartFleet(input)
	id := run.GetID()
	s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated == 1 && len(p.InProgress) == 1 })
	s.CLI("workflow", "reset", "--workflow-id", id, "--run-id", run.GetRunID(), "--type", "LastWorkflowTask", "--reason", "test")
	s.OM.ClearFaults()
	result, err := s.FleetResult(s.Temporal.GetWorkflow(t.Context(), id, ""))
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: 2, Rotated: 2}, result.Counts)
	requireOnePutEach(s)
}

// Clusters that are gone, projects that cannot be listed and clusters without
// encryption are each counted once, over several runs of the fleet.
func TestFleetCountsOnceAcrossRuns(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "60"}})
	s := fixture.NewServerOn(t, server, simulator.Options{Latency: 10 * time.Millisecond})
	const sets, gone, plain, hidden = 40, 10, 5, 3
	var projects []string
	for range hidden {
		id := s.AddProject()
		projects = append(projects, id)
		fault := simulator.AccessListRefusal(http.MethodGet, "").On(simulator.KindClusters).Always()
		fault.ProjectID = id
		s.OM.Inject(fault)
	}
	var ids, unrotated []string
	for i := range sets {
		ids = append(ids, s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i)).ID)
	}
	for _, id := range ids[20 : 20+plain] {
		s.OM.Inject(simulator.KeyNull(id).Always())
		unrotated = append(unrotated, id)
	}
	s.StartWorker()
	input := fleetOf(s, projects...)
	input.MaxFailedClusters = hidden
	input.ClustersAtATime = 3
	run := s.StartFleet(input)
	id, first := run.GetID(), run.GetRunID()
	s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated >= 2 })
	for _, id := range ids[sets-gone:] {
		s.OM.RemoveCluster(id)
	}
	_, err := s.FleetResult(run)
	fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.NotEqual(t, first, run.GetRunID(), "the fleet must have continued as new")
	assert.Equal(t, workflows.FleetCounts{
		Clusters: sets + hidden, Rotated: sets - gone - plain, Gone: gone, NotEncrypted: plain, Failed: hidden, FailedProjects: hidden,
	}, result.Counts)
	assert.Len(t, result.Failures, hidden)
	assert.Len(t, result.LeftOut, gone+plain)
	assert.Zero(t, result.LeftOutNotListed)
	requireOnePutEach(s, unrotated...)
}

func TestFleetPauseResumeAbort(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{Latency: 50 * time.Millisecond})
	first := s.OM.AddShardedCluster(s.Project, "first", 80)
	for i := range 5 {
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	s.StartWorker()
	input := fleetOf(s)
	input.ClustersAtATime = 2
	run := s.StartFleet(input)
	id := run.GetID()
	cluster := workflows.RotateClusterID(workflows.DefaultConnection, s.Project, first.ID)
	s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated >= 1 })

	_, err := s.UpdateFleet(id, workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	assert.ErrorContains(t, err, "not paused")
	paused, err := s.UpdateFleet(id, workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "maintenance"})
	require.NoError(t, err)
	assert.Equal(t, workflows.PhasePaused, paused.Phase)
	assert.Contains(t, paused.WaitingFor, "paused by lee (maintenance)")
	_, err = s.UpdateFleet(id, workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
	assert.ErrorContains(t, err, "already paused")
	child := s.Await(cluster, func(p workflows.Progress) bool {
		return p.Phase == workflows.PhasePaused && p.Counts[workflows.StatusRotating]+p.Counts[workflows.StatusRotated] == 0
	})
	assert.Contains(t, child.WaitingFor, "paused by lee (maintenance)")
	for _, c := range s.FleetProgress(id).InProgress {
		// A cluster that was started during the pause is paused, too.
		s.Await(c.WorkflowID, func(p workflows.Progress) bool {
			return p.Phase == workflows.PhasePaused || p.Phase == workflows.PhaseDone
		})
	}

	_, err = s.UpdateFleet(id, workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	s.Await(cluster, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseRotating })

	_, err = s.UpdateFleet(id, workflows.AbortUpdate, workflows.OperatorRequest{By: "lee", Reason: "enough"})
	require.NoError(t, err)
	_, err = s.FleetResult(run)
	failed := fixture.RequireFailure(t, err, workflows.ErrorAborted)
	assert.Contains(t, failed.Message(), "aborted by lee: enough")
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.OutcomePartial, result.Outcome)
	assert.Positive(t, result.Counts.NotStarted)
	assert.Equal(t, workflows.ErrorAborted, result.Failures[0].Error.Type)
	var actions []string
	for _, action := range result.Actions {
		actions = append(actions, action.Action+" "+action.By)
	}
	assert.Equal(t, []string{"pause lee", "resume lee", "abort lee"}, actions)
	assert.Len(t, result.LeftOut, result.Counts.NotStarted)
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), cluster, ""), "-cluster")
	aborted := s.Progress(cluster)
	assert.Equal(t, workflows.PhaseDone, aborted.Phase)
	s.RequireMatchesLedger(aborted.Targets)
}

// While the targets in progress finish, an aborting fleet rejects all other
// updates.
func TestAbortingFleetRejectsUpdates(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	set := s.OM.AddReplicaSet(s.Project, "audit")
	s.BlockRotation(set.ID)
	s.StartWorker()
	input := fleetOf(s)
	run := s.StartFleet(input)
	s.AwaitPut()
	for _, command := range []string{workflows.PauseUpdate, workflows.AbortUpdate} {
		_, err := s.UpdateFleet(run.GetID(), command, workflows.OperatorRequest{By: "lee"})
		require.NoError(t, err, command)
	}
	for _, command := range []string{workflows.ResumeUpdate, workflows.AbortUpdate} {
		_, err := s.UpdateFleet(run.GetID(), command, workflows.OperatorRequest{By: "lee"})
		assert.ErrorContains(t, err, "the fleet rotation is being aborted", command)
	}
	s.OM.ClearFaults()
	_, err := s.FleetResult(run)
	fixture.RequireFailure(t, err, workflows.ErrorAborted)
	requireOnePutEach(s)
}

func TestFleetCancellationAborts(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.BlockRotation(cluster.ShardIDs[0])
	s.StartWorker()
	input := fleetOf(s)
	run := s.StartFleet(input)
	s.AwaitPut()
	require.NoError(t, s.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
	s.AwaitAbort(workflows.RotateClusterID(workflows.DefaultConnection, s.Project, cluster.ID))
	s.OM.ClearFaults()
	_, err := s.FleetResult(run)
	fixture.RequireFailure(t, err, workflows.ErrorAborted)
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, 1, result.Counts.Failed)
}

// A fleet continues as new with clusters in progress, of which one is held all
// the time. It is paused and resumed across runs, and its worker is restarted.
// Every cluster is rotated exactly once.
func TestFleetContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "60"}})
	s := fixture.NewServerOn(t, server, simulator.Options{Latency: 10 * time.Millisecond})
	held := s.OM.AddReplicaSet(s.Project, "held")
	s.OM.Inject(simulator.PutUnchanging(held.ID).Always())
	const others = 40
	for i := range others {
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	stop := s.StartWorker()
	input := fleetOf(s)
	input.ClustersAtATime = 5
	input.Rotation.OnFailure, input.Rotation.VerifyTimeout = workflows.OnFailureHold, briefly
	run := s.StartFleet(input)
	id, first := run.GetID(), run.GetRunID()
	rotated := func(n int) { s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated >= n }) }
	rotated(5)
	stop()
	s.StartWorker()
	rotated(15)
	_, err := s.UpdateFleet(id, workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	_, err = s.UpdateFleet(id, workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	rotated(others)
	p := s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return len(p.InProgress) == 1 })
	assert.Equal(t, "held", p.InProgress[0].ClusterName)
	assert.Equal(t, workflows.FleetCounts{Clusters: others + 1, Rotated: others}, p.Counts)

	heldID := workflows.RotateClusterID(workflows.DefaultConnection, s.Project, held.ID)
	_, err = s.Update(heldID, workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"held"}, Reason: "retired"})
	require.NoError(t, err)
	result, err := s.FleetResult(run)
	require.NoError(t, err)
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), heldID, ""), "-reporting")
	assert.NotEqual(t, first, run.GetRunID(), "the fleet must have continued as new")
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: others + 1, Rotated: others + 1}, result.Counts)
	assert.Equal(t, others, result.TargetsVerified)
	requireOnePutEach(s, held.ID)
}

// A single rotation has priority over a fleet, in the task queue and in the
// worker's limits: while it runs, the fleet does little more than what the
// worker had already started.
func TestFleetDoesNotStarveSingleRotation(t *testing.T) {
	t.Parallel()
	const slots, clusters, shards = 4, 20, 20
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{temporalserver.PriorityMatching: "true"}})
	s := fixture.NewServerOn(t, server, simulator.Options{Latency: 20 * time.Millisecond})
	fleetProject := s.AddProject()
	for i := range clusters {
		s.OM.AddShardedCluster(fleetProject, fmt.Sprintf("fleet-%d", i), shards)
	}
	single := s.OM.AddReplicaSet(s.Project, "single")
	s.StartWorkerWith(s.Temporal, s.Client(), func(o *sdkworker.Options) { o.MaxConcurrentActivityExecutionSize = slots })
	input := fleetOf(s)
	input.ProjectIDs = []string{fleetProject}
	input.ClustersAtATime, input.Rotation.Concurrency = clusters, shards
	fleet := s.StartFleet(input)
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Rotations) >= clusters*2 })

	before := s.OM.Ledger()
	s.RequireRotated(s.Start(s.Input(single.ID)), 1)
	after := s.OM.Ledger()
	meanwhile := len(after.Requests) - len(before.Requests)
	t.Logf("%d requests of the fleet while the single rotation was done, by %d slots", meanwhile, slots)
	assert.Less(t, meanwhile, clusters*shards, "a third of the requests of the fleet")
	p := s.FleetProgress(fleet.GetID())
	assert.Equal(t, workflows.PhaseRotating, p.Phase)
}

// The worker's limits apply to all its requests, challenges included, whatever
// the fleet asks for. Many 429 responses cost no cluster an attempt.
func TestWorkerRequestLimits(t *testing.T) {
	t.Parallel()
	const perSecond, inFlight = 150, 3
	s := fixture.NewServer(t, simulator.Options{Latency: 10 * time.Millisecond})
	for i := range 8 {
		s.OM.AddShardedCluster(s.Project, fmt.Sprintf("cluster-%d", i), 3)
	}
	s.OM.Inject(simulator.RateLimited(http.MethodPut, "", "").Repeated(3))
	s.OM.Inject(simulator.RateLimited(http.MethodGet, "", "1").On(simulator.KindKey).Repeated(2))
	om, err := opsmanager.New(opsmanager.Config{
		BaseURL: s.OM.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey,
		RequestsPerSecond: perSecond, MaxInFlight: inFlight,
	})
	require.NoError(t, err)
	s.StartWorkerWith(s.Temporal, om)
	input := fleetOf(s)
	input.ClustersAtATime, input.Rotation.Concurrency = 8, 8
	result, err := s.FleetResult(s.StartFleet(input))
	require.NoError(t, err)
	assert.Equal(t, 8, result.Counts.Rotated)
	requireOnePutEach(s)
	ledger := s.OM.Ledger()
	assert.LessOrEqual(t, ledger.MaxInFlight(), inFlight)
	// The first request in a span may have been pending for some time when it
	// arrives. If only the number of concurrent requests were limited, twice as
	// many would arrive.
	assert.LessOrEqual(t, ledger.MaxPer(time.Second), perSecond+perSecond/2)
	refused := ledger.Select(func(r simulator.Request) bool { return r.Status == http.StatusTooManyRequests })
	assert.Len(t, refused, 5)
	for _, c := range s.OM.Clusters() {
		if c.IsTopLevel() {
			// An attempt goes on after a 429.
			repeatedAttempts(s, s.Temporal.GetWorkflow(t.Context(), workflows.RotateClusterID(workflows.DefaultConnection, s.Project, c.ID), ""))
		}
	}
}

// The server enforces the rate limit for all workers of the task queue.
func TestTaskQueueRateLimit(t *testing.T) {
	t.Parallel()
	const perSecond = 20
	s := fixture.NewServer(t, simulator.Options{})
	for i := range 30 { // one request an activity
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	for range 2 {
		s.StartWorkerWith(s.TemporalServer.NewClient(t), s.Client(), func(o *sdkworker.Options) { o.TaskQueueActivitiesPerSecond = perSecond })
	}
	input := fleetOf(s)
	input.ClustersAtATime = 30
	result, err := s.FleetResult(s.StartFleet(input))
	require.NoError(t, err)
	assert.Equal(t, 30, result.Counts.Rotated)
	most := s.OM.Ledger().MaxPer(time.Second)
	t.Logf("at most %d requests in a second, %d in total", most, 1+30*4)
	assert.LessOrEqual(t, most, 2*perSecond+5, "the limit, plus as much again that the queue had accumulated")
}

// A fleet that continues another one, over several runs, rotates only what that
// one has left: neither its finished clusters, nor the verified shards of a
// cluster that failed.
func TestFleetContinuesAnotherFleet(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "60"}})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	const sets = 30
	for i := range sets / 2 {
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	partial := s.OM.AddShardedCluster(s.Project, "partial", 3)
	s.OM.Inject(simulator.PutUnchanging(partial.ConfigID).Always())
	for i := range sets / 2 {
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", sets/2+i))
	}
	s.StartWorker()
	input := fleetOf(s)
	input.ClustersAtATime, input.Rotation.VerifyTimeout = 3, briefly
	before := s.StartFleet(input)
	_, err := s.FleetResult(before)
	fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
	first, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	require.Positive(t, first.Counts.Rotated)
	require.Positive(t, first.Counts.NotStarted)
	s.OM.ClearFaults()

	continues := &workflows.ContinuedFleet{WorkflowID: before.GetID(), RunID: before.GetRunID(), Since: first.StartedAt}
	run := s.StartFleet(input, workflows.FleetContinuation{Continues: continues})
	started := run.GetRunID()
	result, err := s.FleetResult(run)
	require.NoError(t, err)
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), run.GetID(), started), "-first-run")
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), workflows.RotateClusterID(workflows.DefaultConnection, s.Project, partial.ID), ""), "-cluster")
	assert.NotEqual(t, started, run.GetRunID(), "the fleet must have continued as new")
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: sets + 1, Rotated: sets + 1, CarriedOver: first.Counts.Rotated}, result.Counts)
	require.NotNil(t, result.Continues)
	assert.Equal(t, before.GetID(), result.Continues.WorkflowID)
	requireOnePutEach(s)
}

// A second argument is only taken from a caller that continues a fleet.
func TestFleetRefusesToContinueWhatIsNoFleet(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.Unrecorded = true
	s.OM.AddReplicaSet(s.Project, "audit")
	s.StartWorker()
	for want, second := range map[string]any{
		"expected one argument, got two":  map[string]any{"result": map[string]any{"startedAt": time.Now()}},
		"continues.since: is required":    workflows.FleetContinuation{Continues: &workflows.ContinuedFleet{}},
		"continues.since: must not be in": workflows.FleetContinuation{Continues: &workflows.ContinuedFleet{Since: time.Now().Add(time.Hour)}},
	} {
		_, err := s.FleetResult(s.StartFleet(fleetOf(s), second))
		assert.Contains(t, fixture.RequireFailure(t, err, workflows.ErrorInvalidInput).Message(), want)
	}
	assert.Empty(t, s.OM.Ledger().Requests)
}
