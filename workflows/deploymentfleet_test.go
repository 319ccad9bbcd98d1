package workflows_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// deploymentFleetInput has durations that suit a test, and takes the agents' word.
func deploymentFleetInput() workflows.RotateFleetInput {
	each := fixture.DeploymentInput()
	return workflows.RotateFleetInput{Kind: workflows.FleetOfDeployments, Change: each.Change, Rotation: workflows.FleetRotation{
		Proof: each.Proof, DeployTimeout: each.DeployTimeout, ProofTimeout: each.ProofTimeout, RetryTimeout: each.RetryTimeout, SettleTime: each.SettleTime,
	}}
}

var smallDeployment = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "books", Members: 1}}}

// addDeployment adds a project with a deployment to that of a test.
func addDeployment(d fixture.Deployed, n int, options simulator.DeploymentOptions) fixture.Deployed {
	options.ProjectID = addProject(d.OM, n)
	return fixture.Deployed{Deployment: d.OM.AddDeployment(options), OM: d.OM, Clock: d.Clock}
}

func projectRef(id string) workflows.ClusterRef { return workflows.ClusterRef{ProjectID: id} }

// Every project that the key sees is rotated under its own ID, and those that have
// nothing to rotate are left out.
func TestFleetOfDeployments(t *testing.T) {
	t.Parallel()
	first := fixture.Deploy(t, audit)
	second := addDeployment(first, 1, smallDeployment)
	plain := addDeployment(first, 2, smallDeployment)
	plain.Edit(simulator.SetProcessField("books-0", `false`, "args2_6", "security", "enableEncryption"))
	manual := addProject(first.OM, 3) // Ops Manager's automation knows none of its processes
	first.OM.AddReplicaSet(manual, "set")
	excluded := addDeployment(first, 4, smallDeployment)
	env := fixture.NewDeployment(t, first)
	ids := map[string]workflows.RotateDeploymentInput{}
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, arguments converter.EncodedValues) {
		var input workflows.RotateDeploymentInput
		assert.NoError(t, arguments.Get(&input))
		ids[info.WorkflowExecution.ID] = input
	})
	input := deploymentFleetInput()
	input.ExcludeProjectIDs = []string{excluded.ProjectID}
	result, err := rotateFleet(env.SDK, input)
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetOfDeployments, result.Kind)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 4, Rotated: 2, NotEncrypted: 2}, result.Counts)
	assert.ElementsMatch(t, []workflows.ClusterLeftOut{
		{ClusterRef: projectRef(plain.ProjectID), Reason: workflows.LeftOutNotEncrypted}, {ClusterRef: projectRef(manual), Reason: workflows.LeftOutNotEncrypted},
	}, result.LeftOut)
	assert.Equal(t, 4, result.TargetsRotated)
	assert.Zero(t, result.TargetsVerified)
	for _, d := range []fixture.Deployed{first, second} {
		id := workflows.RotateDeploymentID("default", d.ProjectID)
		require.Contains(t, ids, id)
		assert.Equal(t, workflows.OnFailureStop, ids[id].OnFailure)
		assert.Equal(t, workflows.ProofAgent, ids[id].Proof)
		assert.Zero(t, ids[id].Concurrency, "a field that is left out has the default of a project's rotation")
		assert.Equal(t, "CHG0031337", ids[id].Change.Ticket)
		assert.Len(t, d.Rotations(""), len(d.Processes()))
		assert.Empty(t, d.Violations())
	}
	assert.Empty(t, excluded.Puts())
	remaining, complete := result.Remaining()
	assert.Empty(t, remaining)
	assert.True(t, complete)
}

// The fields of the other kind are refused, and so is a selection of clusters.
func TestFleetInputIsCheckedByItsKind(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	for name, test := range map[string]struct {
		input map[string]any
		want  []string
	}{
		"deployment": {
			map[string]any{"kind": "deployment", "clusterNames": "^orders", "rotation": map[string]any{
				"proof": "word", "deployTimeout": "0s", "proofTimeout": "32d", "verifyTimeout": "1m", "allowUnserved": false, "clusterIds": []any{},
			}},
			[]string{"clusterNames: does not apply to a fleet of kind deployment", "rotation.proof: must be agent, snapshot or kmip", "rotation.deployTimeout: must be",
				"rotation.proofTimeout: must be", "rotation.verifyTimeout: applies to a fleet of kind cluster only", "rotation.allowUnserved: applies", `rotation."clusterIds": unknown field`},
		},
		"cluster": {
			map[string]any{"kind": "cluster", "rotation": map[string]any{"proof": "agent", "deployTimeout": "1h", "proofTimeout": "1h"}},
			[]string{"rotation.proof: applies to a fleet of kind deployment only", "rotation.deployTimeout: applies", "rotation.proofTimeout: applies"},
		},
		"no kind": {map[string]any{"rotation": map[string]any{"proof": "agent"}}, []string{"rotation.proof: applies"}},
		"another": {map[string]any{"kind": "host"}, []string{"kind: must be cluster or deployment"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := rotateFleet(fixture.NewSDK(t, om), test.input)
			failed := requireFailure(t, err, workflows.ErrorInvalidInput)
			for _, want := range test.want {
				assert.Contains(t, failed.Message(), want)
			}
		})
	}
	assert.Empty(t, om.Ledger().Requests)
}

// A field that is null is left out, whatever the kind.
func TestFleetTakesNullAsLeftOut(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, smallDeployment)
	_, err := rotateFleet(fixture.NewDeployment(t, d).SDK, map[string]any{"kind": "deployment", "rotation": map[string]any{
		"dryRun": true, "proof": nil, "verifyTimeout": nil, "allowUnserved": nil,
	}})
	require.NoError(t, err)
}

func TestPlanOfAFleetOfDeployments(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, smallDeployment)
	input := deploymentFleetInput()
	input.Rotation.DryRun = true
	result, err := rotateFleet(fixture.NewDeployment(t, d).SDK, input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomePlanned, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 1, Planned: 1}, result.Counts)
	assert.Empty(t, d.Puts())
}

// A project of which only a part is encrypted has keys that were not rotated: it is
// not left out. No other project starts.
func TestFleetStopsAtAProjectThatFails(t *testing.T) {
	t.Parallel()
	first := fixture.Deploy(t, audit)
	first.Edit(simulator.SetProcessField("audit-1", `false`, "args2_6", "security", "enableEncryption"))
	second := addDeployment(first, 1, smallDeployment)
	input := deploymentFleetInput()
	input.ClustersAtATime = 1
	_, err := rotateFleet(fixture.NewDeployment(t, first).SDK, input)
	result := requireFleetRecords(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: 2, Failed: 1, NotStarted: 1}, result.Counts)
	assert.Equal(t, workflows.OutcomeNothingRotated, result.Outcome)
	require.Len(t, result.Failures, 1)
	assert.Equal(t, workflows.ErrorEncryptionOff, result.Failures[0].Error.Type)
	assert.Equal(t, workflows.RotateDeploymentID("default", project), result.Failures[0].WorkflowID)
	assert.ErrorContains(t, err, "0 of 2 projects rotated, 1 failed, 1 not started; failed: project "+project+" (EncryptionOff)")
	assert.Equal(t, []workflows.ClusterLeftOut{{ClusterRef: projectRef(second.ProjectID), Reason: workflows.LeftOutNotStarted}}, result.LeftOut)
	remaining, complete := result.Remaining()
	assert.Equal(t, []workflows.ClusterRef{projectRef(project), projectRef(second.ProjectID)}, remaining)
	assert.True(t, complete)
	assert.Empty(t, second.Puts())
}

// A project that was deleted since it was listed is gone. One that the input names was
// not listed: it may never have been there.
func TestFleetLeavesOutProjectsThatAreGone(t *testing.T) {
	t.Parallel()
	for _, kind := range []simulator.Kind{simulator.KindAutomationConfig, simulator.KindAutomationStatus, simulator.KindHosts, simulator.KindClusters} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			first := fixture.Deploy(t, smallDeployment)
			gone := addProject(first.OM, 1)
			fault := simulator.APIError(http.MethodGet, "", http.StatusNotFound, "GROUP_NOT_FOUND", "").On(kind).Always()
			fault.ProjectID = gone
			first.OM.Inject(fault)
			input := deploymentFleetInput()
			result, err := rotateFleet(fixture.NewDeployment(t, first).SDK, input)
			require.NoError(t, err)
			assert.Equal(t, workflows.FleetCounts{Clusters: 2, Rotated: 1, Gone: 1}, result.Counts)
			assert.Equal(t, []workflows.ClusterLeftOut{{ClusterRef: projectRef(gone), Reason: workflows.LeftOutGone}}, result.LeftOut)

			input.ProjectIDs = []string{gone}
			_, err = rotateFleet(fixture.NewDeployment(t, first).SDK, input)
			named := requireFleetRecords(t, err)
			assert.Equal(t, workflows.FleetCounts{Clusters: 1, Failed: 1}, named.Counts)
			assert.Equal(t, workflows.ErrorNotFound, named.Failures[0].Error.Type)
		})
	}
}

func TestFleetWithoutProjectsFails(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	input := deploymentFleetInput()
	input.ExcludeProjectIDs = []string{project}
	_, err := rotateFleet(fixture.NewSDK(t, om), input)
	failed := requireFailure(t, err, workflows.ErrorUnexpectedTopology)
	assert.Contains(t, failed.Message(), "there are no projects")
}

// A fleet has more projects than one list.
func TestFleetListsAllProjects(t *testing.T) {
	t.Parallel()
	const projects = 205
	om := simulator.Start(t, simulator.Options{})
	for i := range projects {
		addProject(om, i)
	}
	input := deploymentFleetInput()
	input.ClustersAtATime = 50
	result, err := rotateFleet(fixture.NewSDK(t, om), input)
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: projects, NotEncrypted: projects}, result.Counts)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
}

// A project that no snapshot proves counts as rotated, and the fleet says so.
func TestFleetOfDeploymentsThatStayUnproven(t *testing.T) {
	t.Parallel()
	options := smallDeployment
	options.SnapshotEvery = time.Hour
	proven := fixture.Deploy(t, options)
	addDeployment(proven, 1, smallDeployment)
	input := deploymentFleetInput()
	input.Rotation.Proof = workflows.ProofSnapshot
	result, err := rotateFleet(fixture.NewDeployment(t, proven).SDK, input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedUnproven, result.Outcome)
	assert.Equal(t, workflows.FleetCounts{Clusters: 2, Rotated: 2, Unproven: 1}, result.Counts)
	assert.Equal(t, "2 of 2 projects rotated (1 unproven)", result.Counts.Text(result.Kind))
	assert.Equal(t, 2, result.TargetsRotated)
	assert.Equal(t, 1, result.TargetsVerified)
}
