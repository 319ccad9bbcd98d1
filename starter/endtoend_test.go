package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// commandLine is the command line for a cluster of the fixture. The name of the
// connection is unique to the test, and so are the workflow IDs.
type commandLine struct {
	fixture.Server
	cluster    simulator.ShardedCluster
	configFile string
	settings   []string // further environment variables
}

func newFixture(t *testing.T, shards int) *commandLine {
	t.Helper()
	return newFixtureAt(t, temporalserver.Shared(t), shards)
}

func newFixtureAt(t *testing.T, server *temporalserver.Server, shards int) *commandLine {
	t.Helper()
	s := fixture.NewServerOn(t, server, simulator.Options{})
	s.Connection = uniqueConnection(t)
	s.TaskQueue = s.Connection
	return &commandLine{Server: s, cluster: s.OM.AddShardedCluster(testProject, "orders", shards), configFile: noProfile(t)}
}

func uniqueConnection(t *testing.T) string {
	return strings.ReplaceAll(t.Name(), "/", "-") + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
}

// answer is what a command line gives.
type answer struct {
	code           int
	stdout, stderr string
}

// keyturn runs a command for the fixture's cluster.
func (s *commandLine) keyturn(command string, args ...string) answer {
	return s.keyturnUntil(s.T.Context(), "", func() {}, command, args...)
}

// keyturnUntil calls then when the command has written something, or has ended.
func (s *commandLine) keyturnUntil(ctx context.Context, something string, then func(), command string, args ...string) answer {
	words := append(strings.Fields(command), "--project", s.cluster.ProjectID, "--cluster", s.cluster.ID, "--connection", s.Connection)
	return s.runUntil(ctx, something, then, append(words, args...)...)
}

// run runs a command line that names its cluster itself, if it is about one.
func (s *commandLine) run(words ...string) answer {
	return s.runUntil(s.T.Context(), "", func() {}, words...)
}

func (s *commandLine) runUntil(ctx context.Context, something string, then func(), words ...string) answer {
	limit, _ := waiting.Context(s).Deadline()
	ctx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	then = sync.OnceFunc(then)
	stdout, stderr := outputWatcher{waitsFor: something, then: then}, outputWatcher{waitsFor: something, then: then}
	code := run(ctx, words, s.environment(), strings.NewReader(""), &stdout, &stderr)
	then() // it must not wait for output that never came
	return answer{code, stdout.String(), stderr.String()}
}

// outputWatcher calls then when the output contains what it waits for.
type outputWatcher struct {
	bytes.Buffer
	waitsFor string
	then     func()
}

func (l *outputWatcher) Write(text []byte) (int, error) {
	n, err := l.Buffer.Write(text)
	if strings.Contains(l.String(), l.waitsFor) {
		l.then()
	}
	return n, err
}

func (s *commandLine) environment() []string {
	return append([]string{
		"TEMPORAL_ADDRESS=" + s.TemporalServer.Address, "TEMPORAL_NAMESPACE=" + s.TemporalServer.Namespace,
		"TEMPORAL_CONFIG_FILE=" + s.configFile, "KEYTURN_TASK_QUEUE=" + s.Connection,
	}, s.settings...)
}

func (s *commandLine) id() string {
	return workflows.RotateClusterID(s.Connection, s.cluster.ProjectID, s.cluster.ID)
}

// expect checks an exit code and what the output must contain.
func (s *commandLine) expect(got answer, code int, saying ...string) {
	s.T.Helper()
	require.Equal(s.T, code, got.code)
	for _, want := range saying {
		assert.Contains(s.T, got.stdout+got.stderr, want, "%q is missing; standard output:\n%s\nstandard error:\n%s", want, got.stdout, got.stderr)
	}
}

func decoded[T any](t *testing.T, got answer) (value T) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(got.stdout))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&value), "standard error:\n%s", got.stderr)
	require.False(t, decoder.More(), "more than one JSON value in\n%s", got.stdout)
	return value
}

// failPut lets PUTs of a target fail for good until clearFaults.
func (s *commandLine) failPut(clusterID string) {
	s.OM.Inject(simulator.APIError(http.MethodPut, clusterID, http.StatusNotFound, "BACKUP_CONFIG_NOT_FOUND", simulator.ApplyNo).Always())
}

func (s *commandLine) applied() int { return len(s.OM.Ledger().Applied("")) }

func TestPlanRotateAndReport(t *testing.T) {
	s := newFixture(t, 3)
	s.StartWorker()

	s.expect(s.keyturn("plan"), exitDone, "Outcome       planned", "orders-2", s.OM.Key(s.cluster.ShardIDs[2]))
	plan := decoded[workflows.RotateClusterResult](t, s.keyturn("plan", "-o", "json"))
	require.Equal(t, workflows.OutcomePlanned, plan.Outcome)
	require.Len(t, plan.Targets, 4)
	require.Equal(t, 0, s.applied())

	rotated := s.keyturn("rotate", "--wait", "--ticket", "CHG7", "--requested-by", "dana", "--reason", "quarterly")
	s.expect(rotated, exitDone, "orders has ended (rotated): 4 verified", "verified: key "+plan.Targets[0].PreviousKeyUUID+" -> "+s.OM.Key(s.cluster.ShardIDs[0]), "Outcome       rotated")
	assert.Equal(t, 4, s.applied())

	s.expect(s.keyturn("watch"), exitDone, "Outcome       rotated")
	s.expect(s.keyturn("report"), exitDone, "Requested by  dana", "Ticket        CHG7", s.OM.Key(s.cluster.ConfigID))
	s.expect(s.keyturn("report", "-o", "markdown"), exitDone, "# Key rotation of orders", "- **Reason:** quarterly", "| orders-config |")
	rows, err := csv.NewReader(strings.NewReader(s.keyturn("report", "-o", "csv").stdout)).ReadAll()
	require.NoError(t, err, "CSV: %v, %q", err, rows)
	require.Len(t, rows, 5, "CSV: %v, %q", err, rows)
	report := decoded[workflows.RotateClusterResult](t, s.keyturn("report", "-o", "json"))
	assert.Equal(t, workflows.OutcomeRotated, report.Outcome, "report %+v", report)
	assert.Equal(t, s.OM.Key(s.cluster.ConfigID), report.Targets[3].NewKeyUUID, "report %+v", report)
	s.expect(s.keyturn("pause"), exitFailed, s.id()+" has ended", "keyturn report --project")
	s.expect(s.keyturn("rotate", "--continue"), exitDone, "nothing is left to continue")
	again := decoded[workflows.RotateClusterResult](t, s.keyturn("rotate", "--continue", "--wait", "-o", "json"))
	assert.Equal(t, report, again)
	assert.Equal(t, 4, s.applied())

	// A plan is a run of the same workflow: the report shows the rotation before it,
	// unless the plan is asked for.
	runID := func() string {
		described, err := s.Temporal.DescribeWorkflowExecution(t.Context(), s.id(), "")
		require.NoError(t, err)
		return described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	}
	rotation := runID()
	s.expect(s.keyturn("report"), exitDone, "Workflow ID   "+s.id(), "Run ID        "+rotation)
	s.expect(s.keyturn("plan"), exitDone, "Outcome       planned")
	planned := s.keyturn("report", "--plan")
	s.expect(planned, exitDone, "Outcome       planned", "Run ID        "+runID())
	assert.Empty(t, planned.stderr)
	eventually(t, "the rotation in Temporal's list", func() bool {
		report := s.keyturn("report")
		require.NotContains(t, report.stdout, "planned", "it is the report of the plan")
		return strings.Contains(report.stdout, "Run ID        "+rotation)
	})
	s.expect(s.keyturn("report"), exitDone, "a plan was made after this rotation", "Outcome       rotated")
	s.expect(s.keyturn("report", "-o", "csv"), exitDone, s.id()+","+rotation+"\n")
	named := s.keyturn("report", "--run-id", rotation)
	s.expect(named, exitDone, "Outcome       rotated")
	assert.Empty(t, named.stderr)
}

func TestStartingSaysWhereToLook(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	started := decoded[map[string]string](t, s.keyturn("rotate", "-o", "json"))
	assert.Equal(t, s.id(), started["workflowId"])
	assert.NotEmpty(t, started["runId"])
	busy := s.keyturn("rotate")
	s.expect(busy, exitFailed, "keyturn: ClusterBusy: ", s.id(), started["runId"], "keyturn watch --project "+s.cluster.ProjectID)
	assert.Empty(t, busy.stdout, "standard output has %q", busy.stdout)
	s.expect(s.keyturn("plan"), exitFailed, "ClusterBusy")
	s.expect(s.keyturn("rotate", "--continue"), exitFailed, "ClusterBusy")

	described, err := s.Temporal.DescribeWorkflow(t.Context(), s.id(), "")
	require.NoError(t, err)
	summary, err := described.GetStaticSummary()
	require.NoError(t, err, "static summary %q, %v", summary, err)
	assert.Contains(t, summary, s.cluster.ID, "static summary %q, %v", summary, err)
}

func TestWithoutAWorker(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.expect(s.keyturn("rotate"), exitDone, "started", "keyturn watch --project")
	s.expect(s.keyturn("report"), exitFailed, `start a worker on task queue "`+s.Connection+`"`)
	ctx, cancel := context.WithCancel(t.Context())
	s.expect(s.keyturnUntil(ctx, "still trying", cancel, "watch"), exitFailed, `start a worker on task queue "`+s.Connection+`"`, "still trying", "the rotation continues", "keyturn watch --project")
	// What was asked in vain has done no harm.
	s.StartWorker()
	s.expect(s.keyturn("watch"), exitDone, "Outcome       rotated")
}

func TestHeldPausedAndRetried(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 3)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])

	held := s.keyturn("rotate", "--wait", "--requested-by", "dana", "--settle-time", "100ms")
	s.expect(held, exitWaiting, "none yet: held", "keyturn: held: waiting for an operator", "keyturn retry --project", "--targets orders-1", "keyturn abort --project")
	s.expect(s.keyturn("watch"), exitWaiting, "keyturn: held")
	progress := decoded[workflows.Progress](t, s.keyturn("watch", "-o", "json"))
	assert.Equal(t, workflows.PhaseHeld, progress.Phase, "progress %+v", progress)
	assert.Equal(t, 1, progress.Counts[workflows.StatusFailed], "progress %+v", progress)
	running := decoded[workflows.RotateClusterResult](t, s.keyturn("report", "-o", "json"))
	assert.Empty(t, running.Outcome, "the report of a running rotation is %+v", running)
	require.Len(t, running.Targets, 4, "the report of a running rotation is %+v", running)

	refused := s.keyturn("approve", "--by", "erin")
	s.expect(refused, exitFailed, "keyturn: approve refused: the rotation is not waiting for approval")
	assert.Equal(t, 1, strings.Count(refused.stderr, "\n"), "a refusal is one line, not %q", refused.stderr)
	s.expect(s.keyturn("skip", "--by", "erin", "--targets", "orders-9"), exitFailed, "skip refused: targets: no target is named")
	s.expect(s.keyturn("pause", "--by", "erin", "--reason", "lunch"), exitDone, "pause: accepted", "orders is paused", "paused by erin (lunch)")
	s.expect(s.keyturn("pause", "--by", "erin"), exitFailed, "pause refused: the rotation is already paused")

	s.OM.ClearFaults()
	retried := decoded[workflows.Progress](t, s.keyturn("retry", "--by", "erin", "--targets", "orders-1", "-o", "json"))
	assert.Equal(t, workflows.PhasePaused, retried.Phase, "progress %+v", retried)
	assert.Equal(t, 0, retried.Counts[workflows.StatusFailed], "progress %+v", retried)
	s.expect(s.keyturn("resume", "--by", "erin"), exitDone, "resume: accepted")
	s.expect(s.keyturn("watch"), exitDone, "Outcome       rotated")
	require.Len(t, s.OM.Ledger().Applied(s.cluster.ShardIDs[1]), 1)
}

func TestWatchingThroughAHold(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.keyturn("rotate", "--wait"), exitWaiting)

	var watched answer
	var watching sync.WaitGroup
	held := make(chan struct{})
	watching.Go(func() {
		watched = s.keyturnUntil(t.Context(), "orders is held", func() { close(held) }, "watch", "--until-held=false")
	})
	<-held
	s.expect(s.keyturn("skip", "--by", "erin", "--targets", "orders-1", "--reason", "retired"), exitDone, "skip: accepted")
	watching.Wait()
	s.expect(watched, exitDone, "Outcome       rotatedWithSkips", "orders-1 (skipped): Skipped: skipped by erin: retired")
}

func TestApproval(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	waiting := s.keyturn("rotate", "--wait", "--require-approval", "--requested-by", "dana")
	s.expect(waiting, exitWaiting, "keyturn: waiting for an operator other than dana", "orders is waiting for approval: ", "keyturn approve --project", "keyturn reject --project")
	s.expect(s.keyturn("approve", "--by", "Dana"), exitFailed, "approve refused: Dana requested the rotation")
	approved := s.keyturn("approve", "--by", "erin", "--comment", "seen")
	s.expect(approved, exitDone, "approve: accepted")
	assert.NotContains(t, approved.stdout, "waiting for approval")
	s.expect(s.keyturn("watch"), exitDone, "Approved by   erin at ", ": seen")
}

func TestRejectionIsAFailure(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	s.expect(s.keyturn("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.keyturn("reject", "--by", "erin", "--reason", "freeze"), exitDone, "reject: accepted")
	s.expect(s.keyturn("watch"), exitFailed, "keyturn: Rejected: rejected by erin: freeze")
	assert.Equal(t, 0, s.applied())
}

func TestResumeAfterAFailure(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 3)
	s.StartWorker()
	s.expect(s.keyturn("rotate", "--continue"), exitFailed, "workflow "+s.id()+" does not exist")
	s.failPut(s.cluster.ShardIDs[2])
	failed := s.keyturn("rotate", "--wait", "--on-failure", "stop", "--concurrency", "1", "-o", "json")
	s.expect(failed, exitFailed, "keyturn: PartialFailure: 2 of 4 targets verified")
	records := decoded[workflows.RotateClusterResult](t, failed)
	assert.Equal(t, workflows.OutcomePartial, records.Outcome, "records %+v", records)
	s.expect(s.keyturn("report"), exitDone, "Failure       PartialFailure: 2 of 4", "orders-2 (failed): NotFound: ")

	s.OM.ClearFaults()
	s.expect(s.keyturn("plan"), exitDone) // no run to resume from
	s.expect(s.keyturn("rotate", "--continue", "--wait"), exitDone, "continuing from run ", "2 of 4 targets are verified", "Outcome       rotated", "orders-0, orders-1 (verified): verified in an earlier run")
	assert.Equal(t, 4, s.applied())

	file := writeFile(t, "report.json", failed.stdout)
	s.expect(s.keyturn("rotate", "--continue-from", file, "--wait", "--expected-targets", "4"), exitDone, "continuing from "+file, "Outcome       rotated")
	assert.Equal(t, 4+2, s.applied())
}

func TestResumeAfterAnAbort(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 3)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.keyturn("rotate", "--wait", "--concurrency", "1"), exitWaiting)
	s.expect(s.keyturn("abort", "--by", "erin", "--reason", "continues tomorrow"), exitDone, "abort: accepted")
	s.expect(s.keyturn("watch"), exitFailed, "keyturn: Aborted: aborted by erin: continues tomorrow; 1 of 4 targets verified",
		"fix the cause, then continue with:\n  keyturn rotate --project "+s.cluster.ProjectID+" --cluster "+s.cluster.ID+" --connection "+s.Connection+" --continue --wait\n")
	s.expect(s.keyturn("abort", "--by", "erin"), exitFailed, " has ended")
	saved := s.keyturn("report", "-o", "json")
	assert.Equal(t, workflows.StatusVerified, decoded[workflows.RotateClusterResult](t, saved).Targets[0].Status)
	assert.Equal(t, workflows.StatusPending, decoded[workflows.RotateClusterResult](t, saved).Targets[2].Status)

	s.OM.ClearFaults()
	file := writeFile(t, "report.json", saved.stdout)
	s.expect(s.keyturn("rotate", "--continue-from", file, "--wait"), exitDone, "continuing from "+file, "1 of 4 targets are verified", "Outcome       rotated")
	require.Len(t, s.OM.Ledger().Applied(s.cluster.ShardIDs[0]), 1)
	assert.Equal(t, 4, s.applied())

	s.failPut(s.cluster.ConfigID)
	s.expect(s.keyturn("rotate", "--wait"), exitWaiting)
	s.expect(s.keyturn("abort"), exitDone)
	s.expect(s.keyturn("watch"), exitFailed, "3 of 4 targets verified")
	s.OM.ClearFaults()
	s.expect(s.keyturn("rotate", "--continue", "--wait"), exitDone, "3 of 4 targets are verified", "Outcome       rotated")
	assert.Equal(t, 8, s.applied())
}

func TestAFailureWithoutRecordsIsReportedByItsType(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	s.OM.RemoveAPIKey(simulator.DefaultPublicKey)
	failed := s.keyturn("rotate", "--wait")
	s.expect(failed, exitFailed, "keyturn: Unauthorized: ")
	assert.NotContains(t, failed.stderr, "--continue", "nothing was begun")
	s.expect(s.keyturn("rotate", "--continue"), exitFailed, "has no records (Unauthorized: ", "Unauthorized", "--continue-from")
}

func TestATerminatedRotationKeepsItsRecords(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.keyturn("rotate", "--wait"), exitWaiting)
	require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), s.id(), "", "test"))
	s.expect(s.keyturn("watch"), exitFailed, "keyturn: Terminated: ", s.OM.Key(s.cluster.ShardIDs[0]), "--continue --wait")
	s.OM.ClearFaults()
	s.expect(s.keyturn("rotate", "--continue", "--wait"), exitDone, "2 of 3 targets are verified", "Outcome       rotated")
	assert.Equal(t, 3, s.applied())
}

func TestWhatDoesNotExist(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.expect(s.keyturn("watch"), exitFailed, "workflow "+s.id()+" does not exist", "this cluster was never rotated (for the keys of its project's deployments, give --deployment and --project), or ")
	s.expect(s.keyturn("abort"), exitFailed, "workflow "+s.id()+" does not exist")
	s.expect(s.keyturn("report", "--run-id", "01a2093d-97c1-7cd5-86d0-e38265e51de0"), exitFailed, "workflow "+s.id()+" has no run 01a2093d")
	for _, command := range []string{"rotate", "plan", "watch", "report", "pause"} {
		s.expect(s.keyturn(command, "--namespace", "nowhere"), exitFailed, `keyturn: namespace "nowhere" does not exist at `+s.TemporalServer.Address)
	}
}

// TestARotationThatWasHandedOver looks at the one id, however it was started.
func TestARotationThatWasHandedOver(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	started, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "elsewhere-" + s.Connection, TaskQueue: s.Connection},
		workflows.RotateClusterType, workflows.RotateClusterInput{Connection: s.Connection, ProjectID: s.cluster.ProjectID, ClusterID: s.cluster.ID})
	require.NoError(t, err)
	require.NoError(t, started.Get(t.Context(), nil))
	s.expect(s.keyturn("watch"), exitDone, "Outcome       rotated")
}

// TestARotationThatContinuesAsNew is followed from run to run.
func TestARotationThatContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "20"}})
	s := newFixtureAt(t, server, 7)
	started := decoded[map[string]string](t, s.keyturn("rotate", "-o", "json", "--concurrency", "1"))
	s.StartWorker()
	s.expect(s.keyturn("watch"), exitDone, "Outcome       rotated", "Targets       8 verified")
	described, err := s.Temporal.DescribeWorkflowExecution(t.Context(), s.id(), "")
	require.NoError(t, err, "the rotation did not continue as new: %v, %v", described, err)
	require.NotEqual(t, started["runId"], described.GetWorkflowExecutionInfo().GetExecution().GetRunId(), "the rotation did not continue as new: %v, %v", described, err)
	s.expect(s.keyturn("report", "--run-id", started["runId"]), exitDone, "Outcome       rotated", "Targets       8 verified")
}

// A reset terminates the run that is watched; a new run carries on.
func TestWatchingFollowsAReset(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.failPut(s.cluster.ShardIDs[0])
	s.StartWorker()
	s.expect(s.keyturn("rotate", "--wait", "--requested-by", "dana"), exitWaiting)

	var watched answer
	var watching sync.WaitGroup
	held := make(chan struct{})
	watching.Go(func() {
		watched = s.keyturnUntil(t.Context(), "orders is held", func() { close(held) }, "watch", "--until-held=false")
	})
	<-held
	s.OM.ClearFaults()
	described, err := s.Temporal.DescribeWorkflowExecution(t.Context(), s.id(), "")
	require.NoError(t, err)
	_, err = s.Temporal.ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace: s.TemporalServer.Namespace, WorkflowExecution: described.GetWorkflowExecutionInfo().GetExecution(), Reason: "test", RequestId: uuid.NewString(),
		WorkflowTaskFinishEventId: 3,
	})
	require.NoError(t, err)
	watching.Wait()
	s.expect(watched, exitDone, "Outcome       rotated")
	assert.NotContains(t, watched.stdout+watched.stderr, "Terminated")
}

// Whatever waits for a person ends the watching, with the commands to continue.
func TestWatchingAPausedRotation(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	s.expect(s.keyturn("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.keyturn("pause", "--by", "erin"), exitDone)
	s.expect(s.keyturn("approve", "--by", "erin"), exitDone)
	s.expect(s.keyturn("watch"), exitWaiting, "keyturn: paused: waiting for", "keyturn resume --project", "keyturn abort --project")
	s.expect(s.keyturn("resume", "--by", "erin"), exitDone)
	s.expect(s.keyturn("watch"), exitDone, "Outcome       rotated")
}

// A start that rotated nothing does not hide an unfinished rotation: continuing
// would rotate its verified targets again.
func TestContinueRefusesToGuessAfterAFailedStart(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.keyturn("rotate", "--on-failure", "continue", "--wait"), exitFailed, "Outcome       partial")
	s.OM.ClearFaults()
	applied := s.applied()
	s.expect(s.keyturn("rotate", "--expected-targets", "13", "--wait"), exitFailed, "expected 13 targets")
	s.expect(s.keyturn("rotate", "--continue"), exitFailed, "rotated nothing", "was left unfinished", "keyturn report --run-id")
	assert.Equal(t, applied, s.applied())
}
