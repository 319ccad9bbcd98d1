package endtoend

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// These rotations take the paths that are behind versions, so that their
// histories are recorded. See CONTRIBUTING.md, "a golden history".

// A rotation that waits for approval continues as new. A key that it carries over
// changes meanwhile, and is approved again.
func TestVersionedPathsBeforeApproval(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, shortHistories(t), simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.StartWorker()
	earlier, carried := cluster.ShardIDs[0], cluster.ShardIDs[1]
	input := s.Input(cluster.ID)
	input.RequireApproval = true
	input.Completed = []workflows.TargetRecord{
		{Target: workflows.Target{ClusterID: earlier}, Status: workflows.StatusRotating, PreviousKeyUUID: "before"},
		{Target: workflows.Target{ClusterID: carried}, Status: workflows.StatusVerified, PreviousKeyUUID: "before", NewKeyUUID: s.OM.Key(carried)},
	}
	run := s.Start(input)
	id, first := run.GetID(), run.GetRunID()
	awaiting := func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval }
	s.Await(id, awaiting)
	for range 10 {
		for _, command := range []string{workflows.PauseUpdate, workflows.ResumeUpdate} {
			_, err := s.Update(id, command, workflows.OperatorRequest{By: "lee"})
			require.NoError(t, err)
		}
	}
	s.OM.SetKey(carried, "changed-outside")
	for range 2 {
		_, err := s.Update(id, workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		require.NoError(t, err)
		s.Await(id, func(p workflows.Progress) bool {
			return awaiting(p) && p.Approval == nil || p.Phase == workflows.PhaseDone
		})
	}
	result, err := s.Result(run)
	require.NoError(t, err)
	saveEarlierRuns(s, id, first)
	assert.NotEqual(t, first, run.GetRunID(), "the rotation must have continued as new")
	assert.True(t, result.Targets[0].CarriedOver)
	assert.Equal(t, "before", result.Targets[0].PreviousKeyUUID)
	assert.Equal(t, "changed-outside", result.Targets[1].PreviousKeyUUID)
	assert.Empty(t, s.OM.Ledger().Applied(earlier))
	assert.Len(t, s.OM.Ledger().Rotations, 3)
}

// saveEarlierRuns saves the histories of all runs but the last.
func saveEarlierRuns(s fixture.Server, id, first string) {
	s.Helper()
	for n, runID := 1, first; ; n++ {
		run := s.Temporal.GetWorkflow(s.Context(), id, runID)
		events := s.History(run)
		continued := events[len(events)-1].GetWorkflowExecutionContinuedAsNewEventAttributes()
		if continued == nil {
			return
		}
		s.SaveHistory(run, fmt.Sprintf("-run-%d", n))
		runID = continued.GetNewExecutionRunId()
	}
}

// More than a hundred keys are read by one activity.
func TestVersionedPathsOfALargeCluster(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 101)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.DryRun, input.Concurrency = true, 32
	result, err := s.Result(s.Start(input))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomePlanned, result.Outcome)
	assert.Len(t, result.Targets, 102)
}

// A target that is not found is listed again, and a fleet without clusters fails.
func TestVersionedPathsOfWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.StartWorker()
	input := fleetOf(s)
	input.ProjectIDs = []string{s.AddProject()}
	_, err := s.FleetResult(s.StartFleet(input))
	fixture.RequireFailure(t, err, workflows.ErrorUnexpectedTopology)
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.OM.Inject(simulator.KeyNotFound(cluster.ConfigID).Always()) // it is read last
	run := s.Start(s.Input(cluster.ID))
	err = run.Get(t.Context(), nil)
	fixture.RequireFailure(t, err, workflows.ErrorNotFound)
	s.SaveHistory(run, "-target")
	assert.Empty(t, s.OM.Ledger().Rotations)
}
