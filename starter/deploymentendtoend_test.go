package main

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// deployments is the command line for the deployments of a project of the fixture.
type deployments struct {
	commandLine
	*simulator.Deployment
}

func newDeployments(t *testing.T, options simulator.DeploymentOptions) *deployments {
	t.Helper()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{ServiceVersion: simulator.UnservedServiceVersion})
	s.Connection = uniqueConnection(t)
	s.TaskQueue = s.Connection
	s.StartWorker()
	return &deployments{commandLine{Server: s, configFile: noProfile(t)}, s.OM.AddDeployment(options)}
}

// keyturn runs a command for the fixture's deployments.
func (d *deployments) keyturn(command string, args ...string) answer {
	words := append(strings.Fields(command), "--deployment", "--project", d.ProjectID, "--connection", d.Connection)
	return d.run(append(words, args...)...)
}

// rotate rotates with durations that suit a test, and takes the agents' word.
func (d *deployments) rotate(args ...string) answer {
	return d.keyturn("rotate", append([]string{"--wait", "--proof", "agent", "--deploy-timeout", "20s", "--settle-time", "100ms", "--requested-by", "dana"}, args...)...)
}

func (d *deployments) id() string { return workflows.RotateDeploymentID(d.Connection, d.ProjectID) }

// expectOneRotation checks that each of these processes was rotated once, and that no
// PUT changed anything else.
func (d *deployments) expectOneRotation(processes ...string) {
	d.T.Helper()
	for _, process := range processes {
		assert.Len(d.T, d.Rotations(process), 1, process)
	}
	assert.Empty(d.T, d.Violations())
}

var (
	audit   = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit"}}}
	twoSets = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit"}, {Name: "books"}}}

	auditProcesses = []string{"audit-0", "audit-1", "audit-2"}
	booksProcesses = []string{"books-0", "books-1", "books-2"}
)

func TestPlanRotateAndReportADeployment(t *testing.T) {
	t.Parallel()
	options := audit
	options.SnapshotEvery = time.Second
	d := newDeployments(t, options)
	s := &d.commandLine
	s.expect(d.keyturn("plan"), exitDone, "Outcome       planned", "audit-0", d.Process("audit-2").Key)
	assert.Empty(t, d.Puts())

	rotated := d.keyturn("rotate", "--wait", "--proof-timeout", "20s", "--ticket", "CHG7", "--requested-by", "dana")
	s.expect(rotated, exitDone, "audit-0 (1 of 3) rotated", "project "+d.ProjectID+" has ended (rotated): 1 verified, 2 rotated", "audit (proven by snapshot): member ", "Proof         snapshot: 1 of 1 replica set proven")
	assert.NotContains(t, rotated.stderr, "warning")
	d.expectOneRotation(auditProcesses...)

	s.expect(d.keyturn("watch"), exitDone, "Outcome       rotated")
	s.expect(d.keyturn("report"), exitDone, "Ticket        CHG7", d.Process("audit-2").Key)
	s.expect(d.keyturn("report", "-o", "markdown"), exitDone, "# Key rotation of the deployments of project "+d.ProjectID)
	s.expect(d.keyturn("report", "-o", "html"), exitDone, "<h1>Key rotation of the deployments of project "+d.ProjectID)
	rows, err := csv.NewReader(strings.NewReader(d.keyturn("report", "-o", "csv").stdout)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+3)
	report := decoded[workflows.RotateDeploymentResult](t, d.keyturn("report", "-o", "json"))
	assert.Equal(t, workflows.StatusVerified, report.Targets[2].Status)
	s.expect(d.keyturn("rotate", "--continue"), exitDone, "nothing is left to continue")
	s.expect(d.keyturn("pause"), exitFailed, d.id()+" has ended", "keyturn report --deployment --project "+d.ProjectID)
	d.expectOneRotation(auditProcesses...)
}

func TestADeploymentThatIsBusyOrUnknown(t *testing.T) {
	t.Parallel()
	d := newDeployments(t, audit)
	s := &d.commandLine
	s.expect(d.keyturn("watch"), exitFailed, d.id()+" does not exist", "the deployments of this project were never rotated")
	s.expect(d.rotate("--require-approval"), exitWaiting, "waiting for an operator other than dana", "keyturn approve --deployment --project "+d.ProjectID)
	s.expect(d.rotate(), exitFailed, "ClusterBusy: a rotation of this project's deployments is already running", "keyturn watch --deployment --project "+d.ProjectID)
	s.expect(d.keyturn("approve", "--by", "dana"), exitFailed, "approve refused")
	s.expect(d.keyturn("pause", "--by", "erin", "--reason", "lunch"), exitDone, "pause: accepted")
	s.expect(d.keyturn("approve", "--by", "erin"), exitDone, "approve: accepted")
	s.expect(d.keyturn("watch"), exitWaiting, "paused by erin (lunch)", "keyturn resume --deployment")
	s.expect(d.keyturn("resume", "--by", "erin"), exitDone, "resume: accepted")
	s.expect(d.keyturn("watch"), exitDone, "Approved by   erin", "Proof         agent\n", "3 rotated")
	d.expectOneRotation(auditProcesses...)
}

// A rotation of one cluster that was aborted is continued as one of this cluster, with
// the times that it has published.
func TestADeploymentIsHeldAbortedAndContinued(t *testing.T) {
	t.Parallel()
	options := twoSets
	options.Clusters = append(options.Clusters, simulator.DeployedCluster{Name: "other"})
	d := newDeployments(t, options)
	s := &d.commandLine
	d.SetAgent("audit-1", simulator.Agent{ErrorCode: 143, ErrorText: "the KMIP server cannot be reached"})
	held := d.rotate("--cluster", d.ClusterIDs[0], "--cluster", d.ClusterIDs[1])
	s.expect(held, exitWaiting, "keyturn: held: ", "the KMIP server cannot be reached", "keyturn retry --deployment --project "+d.ProjectID, "--targets audit-0,audit-1,audit-2 ")
	progress := decoded[workflows.DeploymentProgress](t, d.keyturn("watch", "-o", "json"))
	assert.Equal(t, workflows.PhaseHeld, progress.Phase)
	require.Len(t, progress.Targets, 6)
	s.expect(d.keyturn("skip", "--by", "erin", "--targets", "nobody"), exitFailed, "skip refused")
	s.expect(d.keyturn("abort", "--by", "erin", "--reason", "tomorrow"), exitDone, "abort: accepted")
	s.expect(d.keyturn("watch"), exitFailed, "Aborted: aborted by erin: tomorrow", "keyturn rotate --deployment --project "+d.ProjectID+" --connection "+d.Connection+" --continue --wait")

	d.SetAgent("audit-1", simulator.Agent{})
	file := writeFile(t, "report.json", d.keyturn("report", "-o", "json").stdout)
	s.expect(d.rotate("--continue"), exitDone, "continuing from run ", "0 of 6 processes are rotated", "a time may have been published for 3 more", "Outcome       rotated")
	d.expectOneRotation(append(auditProcesses, booksProcesses...)...)
	assert.Empty(t, d.Rotations("other-0"), "what is continued did not have this cluster")
	// The file knows nothing of books.
	s.expect(d.rotate("--continue-from", file), exitDone, "continuing from "+file, "Outcome       rotated")
	d.expectOneRotation(auditProcesses...)
	assert.Len(t, d.Rotations("books-0"), 2)
}

func TestAnUnprovenDeploymentIsContinuedToItsProof(t *testing.T) {
	t.Parallel()
	d := newDeployments(t, audit)
	s := &d.commandLine
	unproven := d.keyturn("rotate", "--wait", "--proof-timeout", "2s", "--requested-by", "dana")
	s.expect(unproven, exitDone, "Outcome       rotatedUnproven", "audit (not proven): ",
		"warning: every process is rotated", "keyturn rotate --deployment --project "+d.ProjectID+" --connection "+d.Connection+" --continue --wait\n")
	s.expect(d.keyturn("watch"), exitDone, "warning: every process is rotated")
	// A start that rotated nothing does not hide what is still to be proven.
	s.expect(d.keyturn("rotate", "--expected-targets", "13", "--wait"), exitFailed, "UnexpectedTopology")
	refused := d.keyturn("rotate", "--continue")
	s.expect(refused, exitFailed, "rotated nothing", "was left unfinished")
	_, runID, _ := strings.Cut(refused.stderr, "--run-id ")
	runID, _, _ = strings.Cut(runID, " ")
	file := writeFile(t, "report.json", d.keyturn("report", "--run-id", runID, "-o", "json").stdout)
	d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"audit-2"}})
	s.expect(d.keyturn("rotate", "--continue-from", file, "--wait"), exitDone, "3 of 3 processes are rotated", "Outcome       rotated\n", "audit (proven by snapshot)")
	d.expectOneRotation(auditProcesses...)
}

func TestARefusedDeploymentSaysWhatToDo(t *testing.T) {
	t.Parallel()
	d := newDeployments(t, audit)
	s := &d.commandLine
	d.SetAgent("audit-1", simulator.Agent{Down: true})
	refused := d.rotate()
	s.expect(refused, exitFailed, "keyturn: MemberDown: ", "audit-1")
	assert.NotContains(t, refused.stderr, "--continue", "nothing was begun")
	assert.Empty(t, d.Puts())
}

func TestAScheduledDeployment(t *testing.T) {
	t.Parallel()
	d := newDeployments(t, twoSets)
	s := &d.commandLine
	s.deleteLater(d.id())
	confirm := append([]string{"--cluster", d.ClusterIDs[1], "--proof", "agent"}, quarterly[:4]...)
	apply := append(confirm, "--requested-by", "dana")
	s.expect(d.keyturn("schedule apply", apply...), exitDone, "created schedule "+d.id(), "workflowType: RotateDeployment", "the deployments of 1 cluster of project "+d.ProjectID)
	s.expect(d.keyturn("schedule apply", apply...), exitDone, "unchanged: schedule "+d.id())
	s.expect(d.keyturn("schedule apply", confirm...), exitDone, "unchanged: schedule "+d.id()) // who confirms is not the requester
	s.expect(d.keyturn("schedule trigger"), exitDone, "triggered schedule "+d.id(), "keyturn watch --deployment --project "+d.ProjectID)
	record := s.shown(d.id(), "the run", hasEnded)
	assert.Equal(t, "rotated", record.LastRun.Status, "%+v", record.LastRun)
	assert.Equal(t, "3 rotated", record.LastRun.Outcome)
	s.expect(d.keyturn("watch"), exitDone, "Outcome       rotated")
	d.expectOneRotation(booksProcesses...)
	assert.Empty(t, d.Rotations("audit-0"))
	s.expect(d.run("schedule", "list"), exitDone, "the deployments of 1 cluster of project "+d.ProjectID)
	s.expect(d.keyturn("schedule delete"), exitDone, "deleted schedule "+d.id())
}
