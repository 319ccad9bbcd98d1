package endtoend

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// deploymentFleetOf is the input of a fleet of these projects, with durations that
// suit a test.
func deploymentFleetOf(s fixture.Server, projects []string) workflows.RotateFleetInput {
	each := s.DeploymentInput()
	return workflows.RotateFleetInput{
		Kind: workflows.FleetOfDeployments, ProjectIDs: projects, Change: each.Change,
		Rotation: workflows.FleetRotation{
			Proof: each.Proof, DeployTimeout: each.DeployTimeout, RetryTimeout: each.RetryTimeout, SettleTime: each.SettleTime,
		},
	}
}

// deployProjects adds a project for each deployment, and returns them in the order of
// their IDs.
func deployProjects(s fixture.Server, each ...simulator.DeploymentOptions) (projects []string, deployments map[string]*simulator.Deployment) {
	for range each {
		projects = append(projects, s.AddProject())
	}
	slices.Sort(projects)
	deployments = map[string]*simulator.Deployment{}
	for i, options := range each {
		options.ProjectID = projects[i]
		deployments[options.ProjectID] = s.OM.AddDeployment(options)
	}
	return projects, deployments
}

var oneMember = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "books", Members: 1}}}

func requireRotatedOnce(t *testing.T, deployments map[string]*simulator.Deployment, except ...string) {
	t.Helper()
	for project, d := range deployments {
		want := len(d.Processes())
		if slices.Contains(except, project) {
			want = 0
		}
		assert.Len(t, d.Rotations(""), want, project)
		assert.Empty(t, d.Violations(), project)
	}
}

// A fleet of projects continues as new with projects in progress, of which one is held
// and one has another rotation. It is paused and resumed. Every process is rotated once.
func TestFleetOfDeployments(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "60"}})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	const n = 20
	projects, deployments := deployProjects(s, slices.Repeat([]simulator.DeploymentOptions{oneMember}, n)...)
	held, busy := projects[0], projects[1]
	deployments[held].SetAgent("books-0", simulator.Agent{ErrorCode: 7, ErrorText: "stuck"})
	s.StartWorker()
	waiting := s.DeploymentInput()
	waiting.ProjectID, waiting.RequireApproval = busy, true
	running := s.StartDeployment(waiting)
	s.AwaitDeployment(running.GetID(), fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval))

	input := deploymentFleetOf(s, projects)
	input.ClustersAtATime, input.Rotation.OnFailure = 5, workflows.OnFailureHold
	run := s.StartFleet(input)
	id, first := run.GetID(), run.GetRunID()
	heldID := workflows.RotateDeploymentID(workflows.DefaultConnection, held)
	s.AwaitFleet(id, func(p workflows.FleetProgress) bool { return p.Counts.Rotated == n-2 && len(p.InProgress) == 1 })
	s.AwaitDeployment(heldID, fixture.DeploymentInPhase(workflows.PhaseHeld))
	_, err := s.UpdateFleet(id, workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "maintenance"})
	require.NoError(t, err)
	paused := s.AwaitDeployment(heldID, fixture.DeploymentInPhase(workflows.PhasePaused))
	assert.Contains(t, paused.WaitingFor, "paused by lee (maintenance)")
	_, err = s.UpdateFleet(id, workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	s.AwaitDeployment(heldID, fixture.DeploymentInPhase(workflows.PhaseHeld))
	assert.Equal(t, workflows.ClusterRef{ProjectID: held}, s.FleetProgress(id).InProgress[0].ClusterRef)
	deployments[held].SetAgent("books-0", simulator.Agent{})
	_, err = s.UpdateDeployment(heldID, workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	require.NoError(t, err)

	result, err := s.FleetResult(run)
	require.NoError(t, err)
	assert.NotEqual(t, first, run.GetRunID(), "the fleet must have continued as new")
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: n, Rotated: n - 1, Busy: 1}, result.Counts)
	assert.Equal(t, []workflows.ClusterLeftOut{{ClusterRef: workflows.ClusterRef{ProjectID: busy}, Reason: workflows.LeftOutBusy}}, result.LeftOut)
	assert.Equal(t, n-1, result.TargetsRotated, "also those whose end their rotation reported to a later run")
	requireRotatedOnce(t, deployments, busy)
	assert.EqualValues(t, 4, s.History(s.Temporal.GetWorkflow(t.Context(), heldID, ""))[0].GetWorkflowExecutionStartedEventAttributes().GetPriority().GetPriorityKey())
}

// A fleet that continues another one goes on from the records of a project that failed,
// and rotates no process twice. It is aborted by the fleet's abort first.
func TestFleetOfDeploymentsContinuesAnother(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	projects, deployments := deployProjects(s, oneMember, twoSets, oneMember)
	stuck := projects[1]
	deployments[stuck].SetAgent("books-0", simulator.Agent{ErrorCode: 7, ErrorText: "stuck"})
	s.StartWorker()
	input := deploymentFleetOf(s, projects)
	input.ClustersAtATime = 1
	input.Rotation.DeployTimeout = workflows.Duration(time.Minute) // agents are asked every 20th of it, or every 5 seconds
	before := s.StartFleet(input)
	_, err := s.FleetResult(before)
	fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
	first, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.FleetCounts{Clusters: 3, Rotated: 1, Failed: 1, NotStarted: 1}, first.Counts)
	assert.Equal(t, workflows.OutcomePartial, first.Outcome)
	assert.Equal(t, 1+3, first.TargetsRotated)
	remaining, complete := first.Remaining()
	assert.True(t, complete)
	assert.Len(t, remaining, 2)

	deployments[stuck].SetAgent("books-0", simulator.Agent{})
	continues := &workflows.ContinuedFleet{WorkflowID: before.GetID(), RunID: before.GetRunID(), Since: first.StartedAt}
	result, err := s.FleetResult(s.StartFleet(input, workflows.FleetContinuation{Continues: continues}))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 3, Rotated: 3, CarriedOver: 1}, result.Counts)
	assert.Equal(t, 1+1, result.TargetsRotated)
	requireRotatedOnce(t, deployments)
	again := s.AwaitDeployment(workflows.RotateDeploymentID(workflows.DefaultConnection, stuck), fixture.DeploymentInPhase(workflows.PhaseDone))
	for _, record := range again.Targets {
		assert.Equal(t, record.ReplicaSet == "audit", record.CarriedOver, record.Process)
	}
}

// An abort of the fleet ends its projects' rotations.
func TestAbortOfAFleetOfDeployments(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	projects, deployments := deployProjects(s, oneMember, oneMember)
	s.StartWorker()
	input := deploymentFleetOf(s, projects)
	input.ClustersAtATime, input.Rotation.RequireApproval = 1, true
	run := s.StartFleet(input)
	waiting := workflows.RotateDeploymentID(workflows.DefaultConnection, projects[0])
	s.AwaitFleet(run.GetID(), func(p workflows.FleetProgress) bool { return len(p.InProgress) == 1 })
	s.AwaitDeployment(waiting, fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval))
	_, err := s.UpdateFleet(run.GetID(), workflows.AbortUpdate, workflows.OperatorRequest{By: "lee", Reason: "enough"})
	require.NoError(t, err)
	_, err = s.FleetResult(run)
	fixture.RequireFailure(t, err, workflows.ErrorAborted)
	assert.ErrorContains(t, err, "aborted by lee: enough; 0 of 2 projects rotated, 1 failed, 1 not started")
	result, found := workflows.RotateFleetResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.OutcomeNothingRotated, result.Outcome)
	assert.Equal(t, workflows.ErrorAborted, result.Failures[0].Error.Type)
	requireRotatedOnce(t, deployments, projects...)
}
