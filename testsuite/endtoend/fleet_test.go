package endtoend

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// fleetOf is the rotation of a stage's projects, with times that suit a test.
func fleetOf(s stage.Stage, projects ...string) workflows.RotateFleetInput {
	cluster := s.Input("")
	return workflows.RotateFleetInput{
		ProjectIDs: append(projects, s.Project),
		Rotation: workflows.FleetRotation{
			RetryTimeout: cluster.RetryTimeout, SettleTime: cluster.SettleTime, VerifyTimeout: cluster.VerifyTimeout,
		},
		Change: cluster.Change,
	}
}

// requireOnePutEach checks that every target of the simulated Ops Manager but
// those left out had exactly one PUT applied.
func requireOnePutEach(s stage.Stage, without ...string) {
	s.Helper()
	left := map[string]bool{}
	for _, id := range without {
		left[id] = true
	}
	ledger := s.OM.Ledger()
	assert.Empty(s, ledger.PutsOnParents())
	for _, c := range s.OM.Clusters() {
		if c.IsParent() {
			continue
		}
		want := 1
		if left[c.ID] {
			want = 0
		}
		assert.Len(s, ledger.Applied(c.ID), want, "%s %s", c.ClusterName, c.ReplicaSetName)
	}
}

func TestRotatesAFleet(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	other := s.AddProject()
	s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.OM.AddReplicaSet(s.Project, "orders") // may legally share the display name
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

// Every project that the key sees is meant where none is named; nothing of their
// answers, which hold a secret, is kept.
func TestAFleetOfAllProjects(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
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

func TestAFleetStopsAfterTooManyFailures(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
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
	_, err := s.FleetResult(s.StartFleet(input))
	failed := stage.RequireFailure(t, err, activities.ErrorPartialFailure)
	assert.Contains(t, failed.Message(), "set-1 (PartialFailure), set-3 (PartialFailure)")
	result, found := workflows.FleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.OutcomePartial, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 8, Rotated: 2, Failed: 2, NotStarted: 4}, result.Counts)
	require.Len(t, result.Failures, 2)
	assert.Equal(t, ids[1], result.Failures[0].ClusterID)
	assert.Equal(t, workflows.RotateClusterID("default", s.Project, ids[1]), result.Failures[0].WorkflowID)
	assert.NotEmpty(t, result.Failures[0].RunID)
	assert.Equal(t, activities.ErrorPartialFailure, result.Failures[0].Error.Type)
	assert.Contains(t, result.Failures[0].Error.Message, "KeyUnchanged")
}

// What the listing meets reaches the caller as it is, and nothing is rotated.
func TestAFleetThatCantBeListed(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	s.OM.AddReplicaSet(s.Project, "audit")
	s.StartWorker()
	unknown := "ffffffffffffffffffffffff"
	_, err := s.FleetResult(s.StartFleet(fleetOf(s, unknown)))
	failed := stage.RequireFailure(t, err, activities.ErrorNotFound)
	assert.Contains(t, failed.Message(), unknown)
	assert.Empty(t, s.OM.Ledger().Rotations)
}

func TestAFleetIsPausedResumedAndAborted(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{Latency: 50 * time.Millisecond})
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

	_, err := s.UpdateFleet(id, workflows.ResumeUpdate, workflows.ReasonRequest{By: "lee"})
	assert.ErrorContains(t, err, "not paused")
	paused, err := s.UpdateFleet(id, workflows.PauseUpdate, workflows.ReasonRequest{By: "lee", Reason: "a storm"})
	require.NoError(t, err)
	assert.Equal(t, workflows.PhasePaused, paused.Phase)
	assert.Contains(t, paused.WaitingFor, "paused by lee (a storm)")
	_, err = s.UpdateFleet(id, workflows.PauseUpdate, workflows.ReasonRequest{By: "lee"})
	assert.ErrorContains(t, err, "paused already")
	child := s.Await(cluster, func(p workflows.Progress) bool {
		return p.Phase == workflows.PhasePaused && p.Counts[workflows.StatusRotating]+p.Counts[workflows.StatusRotated] == 0
	})
	assert.Contains(t, child.WaitingFor, "paused by lee (a storm)")
	for _, c := range s.FleetProgress(id).InWork {
		// One that began with the pause keeps to it, too.
		s.Await(c.WorkflowID, func(p workflows.Progress) bool {
			return p.Phase == workflows.PhasePaused || p.Phase == workflows.PhaseDone
		})
	}

	_, err = s.UpdateFleet(id, workflows.ResumeUpdate, workflows.ReasonRequest{By: "lee"})
	require.NoError(t, err)
	s.Await(cluster, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseRotating })

	_, err = s.UpdateFleet(id, workflows.AbortUpdate, workflows.ReasonRequest{By: "lee", Reason: "enough"})
	require.NoError(t, err)
	_, err = s.FleetResult(run)
	failed := stage.RequireFailure(t, err, activities.ErrorAborted)
	assert.Contains(t, failed.Message(), "aborted by lee: enough")
	result, found := workflows.FleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.OutcomePartial, result.Outcome)
	assert.Positive(t, result.Counts.NotStarted)
	assert.Equal(t, activities.ErrorAborted, result.Failures[0].Error.Type)
	s.KeepAs(s.Temporal.GetWorkflow(t.Context(), cluster, ""), "-cluster")
	aborted := s.Progress(cluster)
	assert.Equal(t, workflows.PhaseDone, aborted.Phase)
	s.RequireTrue(aborted.Targets)
}

// While what is in work finishes, an aborted fleet takes no other command.
func TestAFleetThatIsBeingAbortedIsCommandedNoMore(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	set := s.OM.AddReplicaSet(s.Project, "audit")
	s.Detain(set.ID)
	s.StartWorker()
	input := fleetOf(s)
	input.Rotation.RetryTimeout = workflows.Duration(s.Patience)
	run := s.StartFleet(input)
	s.AwaitPut()
	for _, command := range []string{workflows.PauseUpdate, workflows.AbortUpdate} {
		_, err := s.UpdateFleet(run.GetID(), command, workflows.ReasonRequest{By: "lee"})
		require.NoError(t, err, command)
	}
	for _, command := range []string{workflows.ResumeUpdate, workflows.AbortUpdate} {
		_, err := s.UpdateFleet(run.GetID(), command, workflows.ReasonRequest{By: "lee"})
		assert.ErrorContains(t, err, "the fleet's rotation is being aborted", command)
	}
	s.OM.ClearFaults()
	_, err := s.FleetResult(run)
	stage.RequireFailure(t, err, activities.ErrorAborted)
	requireOnePutEach(s)
}

func TestCancelingAFleetAbortsIt(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.Detain(cluster.ShardIDs[0])
	s.StartWorker()
	input := fleetOf(s)
	input.Rotation.RetryTimeout = workflows.Duration(s.Patience)
	run := s.StartFleet(input)
	s.AwaitPut()
	require.NoError(t, s.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
	s.AwaitAbort(workflows.RotateClusterID(workflows.DefaultConnection, s.Project, cluster.ID))
	s.OM.ClearFaults()
	_, err := s.FleetResult(run)
	stage.RequireFailure(t, err, activities.ErrorAborted)
	result, found := workflows.FleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, 1, result.Counts.Failed)
}

// A fleet continues as new with clusters in work, one of them held all the
// while, is paused and resumed across runs, and its worker is stopped in
// between: no cluster is lost, and none is rotated twice.
func TestAFleetContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "60"}})
	s := stage.On(t, server, simulator.Options{Latency: 10 * time.Millisecond})
	held := s.OM.AddReplicaSet(s.Project, "held")
	s.OM.Inject(simulator.PutUnchanging(held.ID).Always())
	const others = 40
	for i := range others {
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	stop := s.StartWorker()
	input := fleetOf(s)
	input.ClustersAtATime = 5
	input.Rotation.OnFailure = workflows.OnFailureHold
	run := s.StartFleet(input)
	id, first := run.GetID(), run.GetRunID()
	rotated := func(n int) { s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated >= n }) }
	rotated(5)
	stop()
	s.StartWorker()
	rotated(15)
	_, err := s.UpdateFleet(id, workflows.PauseUpdate, workflows.ReasonRequest{By: "lee"})
	require.NoError(t, err)
	_, err = s.UpdateFleet(id, workflows.ResumeUpdate, workflows.ReasonRequest{By: "lee"})
	require.NoError(t, err)
	rotated(others)
	p := s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return len(p.InWork) == 1 })
	assert.Equal(t, "held", p.InWork[0].ClusterName)
	assert.Equal(t, workflows.FleetCounts{Clusters: others + 1, Rotated: others}, p.Counts)

	heldID := workflows.RotateClusterID(workflows.DefaultConnection, s.Project, held.ID)
	_, err = s.Update(heldID, workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"held"}, Reason: "retired"})
	require.NoError(t, err)
	result, err := s.FleetResult(run)
	require.NoError(t, err)
	s.KeepAs(s.Temporal.GetWorkflow(t.Context(), heldID, ""), "-reporting")
	assert.NotEqual(t, first, run.GetRunID(), "it must have been continued as new")
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: others + 1, Rotated: others + 1}, result.Counts)
	assert.Equal(t, others, result.TargetsVerified)
	requireOnePutEach(s, held.ID)
}

// A rotation that somebody waits for goes before a fleet, in the task queue and
// in the worker's limits: of the fleet's work, little more is done meanwhile
// than what the worker had begun.
func TestAFleetDoesNotStarveARotationOfItsOwn(t *testing.T) {
	t.Parallel()
	const slots, clusters, shards = 4, 20, 20
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{temporalserver.PriorityMatching: "true"}})
	s := stage.On(t, server, simulator.Options{Latency: 20 * time.Millisecond})
	fleetProject := s.AddProject()
	for i := range clusters {
		s.OM.AddShardedCluster(fleetProject, fmt.Sprintf("fleet-%d", i), shards)
	}
	single := s.OM.AddReplicaSet(s.Project, "single")
	s.StartWorkerWith(s.Temporal, environment.Client(t, s.OM), func(o *sdkworker.Options) { o.MaxConcurrentActivityExecutionSize = slots })
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
	assert.Less(t, meanwhile, clusters*shards, "a third of all that the fleet has to do")
	p := s.FleetProgress(fleet.GetID())
	assert.Equal(t, workflows.PhaseRotating, p.Phase)
}

// The worker's limits bound what it sends, challenges included, however much
// the fleet asks for; a storm of 429s costs no cluster an attempt.
func TestTheWorkersLimitsHoldOnTheWire(t *testing.T) {
	t.Parallel()
	const perSecond, inFlight = 150, 3
	s := stage.New(t, simulator.Options{Latency: 10 * time.Millisecond})
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
	input.Rotation.RetryTimeout = workflows.Duration(time.Minute)
	result, err := s.FleetResult(s.StartFleet(input))
	require.NoError(t, err)
	assert.Equal(t, 8, result.Counts.Rotated)
	requireOnePutEach(s)
	ledger := s.OM.Ledger()
	assert.LessOrEqual(t, ledger.MaxInFlight(), inFlight)
	// The first of a span may have been under way for some time when it arrives;
	// twice as many would arrive if only the requests in flight were bounded.
	assert.LessOrEqual(t, ledger.MaxPer(time.Second), perSecond+perSecond/2)
	refused := ledger.Select(func(r simulator.Request) bool { return r.Status == http.StatusTooManyRequests })
	assert.Len(t, refused, 5)
	for _, c := range s.OM.Clusters() {
		if c.IsTopLevel() {
			p := s.Progress(workflows.RotateClusterID(workflows.DefaultConnection, s.Project, c.ID))
			for _, record := range p.Targets {
				assert.Equal(t, 1, record.Attempts, record.Name)
			}
		}
	}
}

// A cap over all workers of the queue is kept to by the server.
func TestTheQueuesLimitHoldsOverAllWorkers(t *testing.T) {
	t.Parallel()
	const perSecond = 20
	s := stage.New(t, simulator.Options{})
	for i := range 30 { // one request an activity
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
	}
	for range 2 {
		s.StartWorkerWith(s.Server.NewClient(t), environment.Client(t, s.OM), func(o *sdkworker.Options) { o.TaskQueueActivitiesPerSecond = perSecond })
	}
	input := fleetOf(s)
	input.ClustersAtATime = 30
	result, err := s.FleetResult(s.StartFleet(input))
	require.NoError(t, err)
	assert.Equal(t, 30, result.Counts.Rotated)
	most := s.OM.Ledger().MaxPer(time.Second)
	t.Logf("%d requests in a second at the most, of %d", most, 1+30*4)
	assert.LessOrEqual(t, most, 2*perSecond+5, "the cap, and as much again that the queue had saved up")
}
