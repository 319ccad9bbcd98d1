package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// deploymentFleet is the command line for the fleet of the deployments of some projects.
type deploymentFleet struct {
	commandLine
	projects    []string // in their order
	deployments map[string]*simulator.Deployment
}

// newDeploymentFleet has the projects of newDeployments and further ones, with one
// replica set each.
func newDeploymentFleet(t *testing.T, further int) *deploymentFleet {
	t.Helper()
	first := newDeployments(t, audit)
	f := &deploymentFleet{first.commandLine, []string{first.ProjectID}, map[string]*simulator.Deployment{first.ProjectID: first.Deployment}}
	for range further {
		options := audit
		options.ProjectID = f.AddProject()
		f.projects = append(f.projects, options.ProjectID)
		f.deployments[options.ProjectID] = f.OM.AddDeployment(options)
	}
	slices.Sort(f.projects)
	return f
}

// keyturn runs a command for the fleet.
func (f *deploymentFleet) keyturn(command string, args ...string) answer {
	words := append(strings.Fields(command), "--fleet", "--deployment", "--connection", f.Connection)
	return f.run(append(words, args...)...)
}

// rotate rotates with durations that suit a test, and takes the agents' word.
func (f *deploymentFleet) rotate(args ...string) answer {
	return f.keyturn("rotate", append([]string{"--wait", "--proof", "agent", "--deploy-timeout", "20s", "--settle-time", "100ms", "--requested-by", "dana",
		"--projects", strings.Join(f.projects, ",")}, args...)...)
}

func (f *deploymentFleet) id() string { return workflows.RotateDeploymentFleetID(f.Connection) }

// project is a rotation of the fleet, as its operators name it.
func (f *deploymentFleet) project(i int) []string {
	return []string{"--deployment", "--project", f.projects[i], "--connection", f.Connection}
}

// expectRotations checks how many rotations each process of a project had.
func (f *deploymentFleet) expectRotations(i, want int) {
	f.T.Helper()
	d := f.deployments[f.projects[i]]
	for _, process := range auditProcesses {
		assert.Len(f.T, d.Rotations(process), want, "%s of project %d", process, i)
	}
	assert.Empty(f.T, d.Violations())
}

func TestAFleetOfDeploymentsIsPlannedRotatedAndReported(t *testing.T) {
	t.Parallel()
	f := newDeploymentFleet(t, 1)
	s := &f.commandLine
	projects := []string{"--projects", strings.Join(f.projects, ",")}
	s.expect(f.keyturn("watch"), exitFailed, f.id()+" does not exist", "this fleet of deployments was never rotated")
	s.expect(f.keyturn("plan", projects...), exitDone, "Rotates       deployments of projects", "2 of 2 projects planned",
		"keyturn report --fleet --deployment --connection "+f.Connection+" --plan --each-cluster -o csv")
	f.expectRotations(0, 0)

	s.expect(f.rotate("--ticket", "CHG7"), exitDone, "fleet of deployments "+f.Connection+" has ended (rotated): 2 of 2 projects rotated", "Targets       6 rotated, 0 of them verified")
	for i := range f.projects {
		f.expectRotations(i, 1)
	}
	s.expect(f.keyturn("report"), exitDone, "Projects      2 of 2 projects rotated", "Ticket        CHG7")
	result := decoded[workflows.RotateFleetResult](t, f.keyturn("report", "-o", "json"))
	assert.Equal(t, workflows.FleetOfDeployments, result.Kind)
	rows := rowsOf(t, f.keyturn("report", "--each-cluster", "-o", "csv"))
	require.Len(t, rows, 6, "the rotations of the plan are not the fleet's: %v", rows)
	for _, row := range rows {
		process := f.deployments[row["projectId"]].Process(row["process"])
		assert.Equal(t, process.Host, row["host"], "row %v", row)
		assert.Equal(t, "rotated", row["status"], "row %v", row)
		assert.Equal(t, "CHG7", row["ticket"], "row %v", row)
		assert.Equal(t, workflows.RotateDeploymentID(f.Connection, row["projectId"]), row["workflowId"], "row %v", row)
	}
	each := decoded[[]struct {
		WorkflowID, RunID, Status, Failure string
		Records                            workflows.RotateDeploymentResult
	}](t, f.keyturn("report", "--each-cluster", "-o", "json"))
	require.Len(t, each, 2)
	assert.Len(t, each[0].Records.Targets, 3)
	s.expect(f.keyturn("rotate", "--continue"), exitDone, "left no project to rotate (2 of 2 projects rotated)", "to rotate every project again")
	s.expect(s.onFleet("rotate", "--continue"), exitFailed, "none of the last", "a fleet of connection "+f.Connection)
}

// One project fails, and one is not started: the fleet that continues goes on from the
// times of the first, and does the other.
func TestAFailedFleetOfDeploymentsIsContinued(t *testing.T) {
	t.Parallel()
	f := newDeploymentFleet(t, 2)
	s := &f.commandLine
	f.deployments[f.projects[1]].SetAgent("audit-1", simulator.Agent{ErrorCode: 143, ErrorText: "the KMIP server cannot be reached"})
	s.expect(f.rotate("--clusters-at-a-time", "1"), exitFailed, "PartialFailure: 1 of 3 projects rotated, 1 failed, 1 not started",
		"project "+f.projects[1]+" failed: ", "keyturn rotate --fleet --deployment --connection "+f.Connection+" --continue --wait")
	rows := rowsOf(t, f.keyturn("report", "--each-cluster", "-o", "csv"))
	require.Len(t, rows, 6)
	f.deployments[f.projects[1]].SetAgent("audit-1", simulator.Agent{})

	continued := f.keyturn("rotate", "--continue", "--wait")
	s.expect(continued, exitDone, "continuing fleet "+f.id()+", run ", ": projects that were rotated since", "3 of 3 projects rotated (1 before)")
	for i := range f.projects {
		f.expectRotations(i, 1)
	}
	rows = rowsOf(t, f.keyturn("report", "--each-cluster", "-o", "csv"))
	require.Len(t, rows, 6)
	for _, row := range rows {
		assert.Equal(t, "agent", row["proof"], "the settings of the fleet that is continued: %v", row)
	}
}

func TestAFleetOfDeploymentsIsPausedResumedAndAborted(t *testing.T) {
	t.Parallel()
	f := newDeploymentFleet(t, 0)
	s := &f.commandLine
	s.expect(f.rotate("--wait=false", "--require-approval"), exitDone, "keyturn watch --fleet --deployment --connection "+f.Connection)
	s.expect(f.rotate(), exitFailed, "a rotation of this connection's fleet of deployments is already running: workflow ID "+f.id())
	eventually(t, "the project's wait for approval", func() bool { return s.run(append([]string{"watch"}, f.project(0)...)...).code == exitWaiting })
	s.expect(f.keyturn("pause", "--by", "erin", "--reason", "peak hour"), exitDone, "pause: accepted", "fleet of deployments "+f.Connection+" is paused: 0 of 1 projects rotated")
	s.expect(f.keyturn("watch"), exitWaiting, "keyturn resume --fleet --deployment")
	s.expect(f.keyturn("report"), exitDone, "In progress", "project "+f.projects[0])
	s.expect(f.keyturn("resume", "--by", "erin"), exitDone, "resume: accepted")
	s.expect(f.keyturn("abort", "--by", "erin", "--reason", "enough"), exitDone, "abort: accepted")
	s.expect(f.keyturn("watch"), exitFailed, "Aborted: aborted by erin: enough")
	f.expectRotations(0, 0)
}

func TestAScheduleOfAFleetOfDeployments(t *testing.T) {
	t.Parallel()
	f := newDeploymentFleet(t, 1)
	s := &f.commandLine
	s.deleteLater(f.id())
	apply := append([]string{"--proof", "agent", "--projects", f.projects[1], "--ticket", "CHG7"}, quarterly...)
	s.expect(f.keyturn("schedule apply", apply...), exitDone, "created schedule "+f.id(), "kind: deployment", "scheduled-"+f.id(),
		"Rotate the KMIP master keys of a fleet of deployments (CHG7)", "Rotates       a fleet: the deployments of 1 project, connection "+f.Connection)
	s.expect(f.keyturn("schedule apply", apply...), exitDone, "unchanged: schedule "+f.id())
	s.expect(f.keyturn("schedule trigger"), exitDone, "keyturn watch --fleet --deployment --workflow-id scheduled-"+f.id()+"-")
	record := s.shown(f.id(), "the run", hasEnded)
	assert.Equal(t, "1 of 1 projects rotated", record.LastRun.Outcome)
	f.expectRotations(0, 0)
	f.expectRotations(1, 1)
	named := []string{"--fleet", "--deployment", "--workflow-id", record.LastRun.WorkflowID}
	s.expect(s.run(append([]string{"watch"}, named...)...), exitDone, "1 of 1 projects rotated")
	require.Len(t, rowsOf(t, s.run(append([]string{"report", "--each-cluster", "-o", "csv"}, named...)...)), 3)
	s.expect(f.keyturn("schedule pause", "--by", "erin", "--reason", "freeze"), exitDone, "paused schedule "+f.id())
	s.expect(f.keyturn("schedule delete"), exitDone, "deleted schedule "+f.id(), "it rotated a fleet: the deployments of 1 project")
}
