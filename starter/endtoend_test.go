package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/worker/rotationworker"
	"keyturn/workflows"
)

// patience is how long a test waits for what takes a moment.
const patience = 30 * time.Second

// stage is a cluster of a simulated Ops Manager, with a command line that rotates
// it by a real Temporal server. The connection's name, and the task queue's, are
// the test's own: that makes the workflow ids the test's own, too.
type stage struct {
	t          *testing.T
	om         *simulator.Server
	cluster    simulator.ShardedCluster
	server     *temporalserver.Server
	client     client.Client
	connection string
	configFile string
}

func newStage(t *testing.T, shards int) *stage {
	t.Helper()
	return newStageAt(t, temporalserver.Shared(t), shards)
}

func newStageAt(t *testing.T, server *temporalserver.Server, shards int) *stage {
	t.Helper()
	om := simulator.Start(t, simulator.Options{})
	return &stage{
		t: t, om: om, cluster: om.AddShardedCluster(testProject, "orders", shards),
		server: server, client: server.NewClient(t),
		connection: t.Name() + "-" + strconv.FormatInt(time.Now().UnixNano(), 36), configFile: filepath.Join(t.TempDir(), "none.toml"),
	}
}

// startWorker runs a worker until the test ends, or until it is stopped.
func (s *stage) startWorker() sdkworker.Worker {
	s.t.Helper()
	opsManager, err := opsmanager.New(opsmanager.Config{BaseURL: s.om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey})
	if err != nil {
		s.t.Fatal(err)
	}
	worker := rotationworker.New(s.client, s.connection, &activities.Activities{Connections: map[string]*opsmanager.Client{s.connection: opsManager}})
	if err := worker.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(worker.Stop)
	return worker
}

// answer is what a command line gives.
type answer struct {
	code           int
	stdout, stderr string
}

// starter runs a command for the stage's cluster.
func (s *stage) starter(command string, args ...string) answer {
	return s.starterSaying(s.t.Context(), "", func() {}, command, args...)
}

// starterSaying calls then when the command has said something on standard
// output, or has ended.
func (s *stage) starterSaying(ctx context.Context, something string, then func(), command string, args ...string) answer {
	words := append(strings.Fields(command), "--project", s.cluster.ProjectID, "--cluster", s.cluster.ID, "--connection", s.connection)
	return s.runSaying(ctx, something, then, append(words, args...)...)
}

// run runs a command line that names its cluster itself, if it is about one.
func (s *stage) run(words ...string) answer {
	return s.runSaying(s.t.Context(), "", func() {}, words...)
}

func (s *stage) runSaying(ctx context.Context, something string, then func(), words ...string) answer {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	stdout, stderr := listener{waitsFor: something, then: sync.OnceFunc(then)}, bytes.Buffer{}
	code := run(ctx, words, s.environment(), strings.NewReader(""), &stdout, &stderr)
	stdout.then() // nobody shall wait for what was never said
	return answer{code, stdout.String(), stderr.String()}
}

// listener calls then when it has heard what it waits for.
type listener struct {
	bytes.Buffer
	waitsFor string
	then     func()
}

func (l *listener) Write(text []byte) (int, error) {
	n, err := l.Buffer.Write(text)
	if strings.Contains(l.String(), l.waitsFor) {
		l.then()
	}
	return n, err
}

func (s *stage) environment() []string {
	return []string{
		"TEMPORAL_ADDRESS=" + s.server.Address, "TEMPORAL_NAMESPACE=" + s.server.Namespace,
		"TEMPORAL_CONFIG_FILE=" + s.configFile, "KEYTURN_TASK_QUEUE=" + s.connection,
	}
}

func (s *stage) id() string {
	return workflows.RotateClusterID(s.connection, s.cluster.ProjectID, s.cluster.ID)
}

// expect checks an exit code and what must have been said.
func (s *stage) expect(got answer, code int, saying ...string) {
	s.t.Helper()
	if got.code != code {
		s.t.Fatalf("exit code %d, want %d; standard output:\n%s\nstandard error:\n%s", got.code, code, got.stdout, got.stderr)
	}
	for _, want := range saying {
		if !strings.Contains(got.stdout+got.stderr, want) {
			s.t.Errorf("%q is missing; standard output:\n%s\nstandard error:\n%s", want, got.stdout, got.stderr)
		}
	}
}

func decoded[T any](t *testing.T, got answer) (value T) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(got.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%v in\n%s\nstandard error:\n%s", err, got.stdout, got.stderr)
	}
	if decoder.More() {
		t.Fatalf("more than one JSON value in\n%s", got.stdout)
	}
	return value
}

// failPut lets PUTs of a target fail for good until clearFaults.
func (s *stage) failPut(clusterID string) {
	s.om.Inject(simulator.APIError(http.MethodPut, clusterID, http.StatusNotFound, "BACKUP_CONFIG_NOT_FOUND", simulator.ApplyNo).Always())
}

func (s *stage) applied() int { return len(s.om.Ledger().Applied("")) }

func TestPlanRotateAndReport(t *testing.T) {
	s := newStage(t, 3)
	s.startWorker()

	s.expect(s.starter("plan"), exitDone, "Outcome       planned", "orders-2", s.om.Key(s.cluster.ShardIDs[2]))
	plan := decoded[workflows.RotateClusterResult](t, s.starter("plan", "-o", "json"))
	if plan.Outcome != workflows.OutcomePlanned || len(plan.Targets) != 4 || s.applied() != 0 {
		t.Fatalf("plan %+v with %d rotations", plan, s.applied())
	}

	rotated := s.starter("rotate", "--wait", "--ticket", "CHG7", "--requested-by", "dana", "--reason", "quarterly")
	s.expect(rotated, exitDone, "orders is done: 4 verified", "verified: key "+plan.Targets[0].PreviousKeyUUID+" -> "+s.om.Key(s.cluster.ShardIDs[0]), "Outcome       rotated")
	if s.applied() != 4 {
		t.Errorf("%d rotations, want 4", s.applied())
	}

	s.expect(s.starter("watch"), exitDone, "Outcome       rotated")
	s.expect(s.starter("report"), exitDone, "Requested by  dana", "Ticket        CHG7", s.om.Key(s.cluster.ConfigID))
	s.expect(s.starter("report", "-o", "markdown"), exitDone, "# Key rotation of orders", "- **Reason:** quarterly", "| orders-config |")
	rows, err := csv.NewReader(strings.NewReader(s.starter("report", "-o", "csv").stdout)).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Errorf("CSV: %v, %q", err, rows)
	}
	report := decoded[workflows.RotateClusterResult](t, s.starter("report", "-o", "json"))
	if report.Outcome != workflows.OutcomeRotated || report.Targets[3].NewKeyUUID != s.om.Key(s.cluster.ConfigID) {
		t.Errorf("report %+v", report)
	}
	s.expect(s.starter("pause"), exitFailed, "the rotation is over", s.id(), "starter report --project")
	s.expect(s.starter("rotate", "--resume"), exitFailed, "nothing to go on with")
}

func TestStartingTellsWhereToLook(t *testing.T) {
	s := newStage(t, 1)
	started := decoded[map[string]string](t, s.starter("rotate", "-o", "json"))
	if started["workflowId"] != s.id() || started["runId"] == "" {
		t.Errorf("got %v", started)
	}
	busy := s.starter("rotate")
	s.expect(busy, exitFailed, "starter: ClusterBusy: ", s.id(), started["runId"], "starter watch --project "+s.cluster.ProjectID)
	if busy.stdout != "" {
		t.Errorf("standard output has %q", busy.stdout)
	}
	s.expect(s.starter("plan"), exitFailed, "ClusterBusy")
	s.expect(s.starter("rotate", "--resume"), exitFailed, "ClusterBusy")

	described, err := s.client.DescribeWorkflow(t.Context(), s.id(), "")
	if err != nil {
		t.Fatal(err)
	}
	if summary, err := described.GetStaticSummary(); err != nil || !strings.Contains(summary, s.cluster.ID) {
		t.Errorf("static summary %q, %v", summary, err)
	}
}

func TestWithoutAWorker(t *testing.T) {
	s := newStage(t, 1)
	s.expect(s.starter("rotate"), exitDone, "started", "starter watch --project")
	s.expect(s.starter("report"), exitFailed, `is a worker running on task queue "`+s.connection+`"?`)
	ctx, cancel := context.WithCancel(t.Context())
	s.expect(s.starterSaying(ctx, "Still trying", cancel, "watch"), exitFailed, `is a worker running on task queue "`+s.connection+`"?`, "Still trying", "the rotation goes on", "starter watch --project")
	// What was asked in vain has done no harm.
	s.startWorker()
	s.expect(s.starter("watch"), exitDone, "Outcome       rotated")
}

func TestHeldPausedAndRetried(t *testing.T) {
	s := newStage(t, 3)
	s.startWorker()
	s.failPut(s.cluster.ShardIDs[1])

	held := s.starter("rotate", "--wait", "--requested-by", "dana", "--settle-time", "100ms")
	s.expect(held, exitWaiting, "none yet: held", "starter: held: waiting for an operator", "starter retry --project", "--targets orders-1", "starter abort --project")
	s.expect(s.starter("watch"), exitWaiting, "starter: held")
	progress := decoded[workflows.Progress](t, s.starter("watch", "-o", "json"))
	if progress.Phase != workflows.PhaseHeld || progress.Counts[workflows.StatusFailed] != 1 {
		t.Errorf("progress %+v", progress)
	}
	running := decoded[workflows.RotateClusterResult](t, s.starter("report", "-o", "json"))
	if running.Outcome != "" || len(running.Targets) != 4 {
		t.Errorf("the report of a running rotation is %+v", running)
	}

	refused := s.starter("approve", "--by", "erin")
	s.expect(refused, exitFailed, "starter: approve refused: the rotation does not wait for approval")
	if strings.Count(refused.stderr, "\n") != 1 {
		t.Errorf("a refusal is one line, not %q", refused.stderr)
	}
	s.expect(s.starter("skip", "--by", "erin", "--targets", "orders-9"), exitFailed, "skip refused: targets: there is no")
	s.expect(s.starter("pause", "--by", "erin", "--reason", "lunch"), exitDone, "pause: done", "orders: paused", "paused by erin (lunch)")
	s.expect(s.starter("pause", "--by", "erin"), exitFailed, "pause refused: the rotation is paused already")

	s.om.ClearFaults()
	retried := decoded[workflows.Progress](t, s.starter("retry", "--by", "erin", "--targets", "orders-1", "-o", "json"))
	if retried.Phase != workflows.PhasePaused || retried.Counts[workflows.StatusFailed] != 0 {
		t.Errorf("progress %+v", retried)
	}
	s.expect(s.starter("resume", "--by", "erin"), exitDone, "resume: done")
	s.expect(s.starter("watch"), exitDone, "Outcome       rotated")
	if applied := len(s.om.Ledger().Applied(s.cluster.ShardIDs[1])); applied != 1 {
		t.Errorf("orders-1 was rotated %d times", applied)
	}
}

func TestWatchingThroughAHold(t *testing.T) {
	s := newStage(t, 2)
	s.startWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.starter("rotate", "--wait"), exitWaiting)

	var watched answer
	var watching sync.WaitGroup
	held := make(chan struct{})
	watching.Go(func() {
		watched = s.starterSaying(t.Context(), "orders is held", func() { close(held) }, "watch", "--until-held=false")
	})
	<-held
	s.expect(s.starter("skip", "--by", "erin", "--targets", "orders-1", "--reason", "retired"), exitDone, "skip: done")
	watching.Wait()
	s.expect(watched, exitDone, "Outcome       rotatedWithSkips", "orders-1 (skipped): Skipped: skipped by erin: retired")
}

func TestApproval(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	waiting := s.starter("rotate", "--wait", "--require-approval", "--requested-by", "dana")
	s.expect(waiting, exitWaiting, "starter: awaitingApproval: waiting for somebody other than dana", "starter approve --project", "starter reject --project")
	s.expect(s.starter("approve", "--by", "Dana"), exitFailed, "approve refused: Dana requested the rotation")
	approved := s.starter("approve", "--by", "erin", "--comment", "seen")
	s.expect(approved, exitDone, "approve: done")
	if strings.Contains(approved.stdout, workflows.PhaseAwaitingApproval) {
		t.Errorf("an approved rotation is said to wait for approval:\n%s", approved.stdout)
	}
	s.expect(s.starter("watch"), exitDone, "Approved by   erin at ", ": seen")
}

func TestRejectionIsAFailure(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	s.expect(s.starter("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.starter("reject", "--by", "erin", "--reason", "freeze"), exitDone, "reject: done")
	s.expect(s.starter("watch"), exitFailed, "starter: Rejected: rejected by erin: freeze")
	if s.applied() != 0 {
		t.Errorf("%d rotations of a rejected plan", s.applied())
	}
}

func TestResumeAfterAFailure(t *testing.T) {
	s := newStage(t, 3)
	s.startWorker()
	s.expect(s.starter("rotate", "--resume"), exitFailed, "there is no workflow "+s.id())
	s.failPut(s.cluster.ShardIDs[2])
	failed := s.starter("rotate", "--wait", "--on-failure", "stop", "--concurrency", "1", "-o", "json")
	s.expect(failed, exitFailed, "starter: PartialFailure: 2 of 4 targets verified")
	records := decoded[workflows.RotateClusterResult](t, failed)
	if records.Outcome != workflows.OutcomePartial {
		t.Errorf("records %+v", records)
	}
	s.expect(s.starter("report"), exitDone, "Failure       PartialFailure: 2 of 4", "orders-2 (failed): NotFound: ")

	s.om.ClearFaults()
	s.expect(s.starter("plan"), exitDone) // no run to resume from
	s.expect(s.starter("rotate", "--resume", "--wait"), exitDone, "resuming from run ", "2 of 4 targets are verified", "Outcome       rotated", "orders-0 (verified): verified by an earlier run")
	if s.applied() != 4 {
		t.Errorf("%d rotations, want each target's one", s.applied())
	}

	file := writeFile(t, "report.json", failed.stdout)
	s.expect(s.starter("rotate", "--resume-from", file, "--wait", "--expected-targets", "4"), exitDone, "resuming from "+file, "Outcome       rotated")
	if s.applied() != 4+2 {
		t.Errorf("%d rotations, want those of the two targets that the file lacks, too", s.applied())
	}
}

func TestResumeAfterAnAbort(t *testing.T) {
	s := newStage(t, 3)
	s.startWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.starter("rotate", "--wait", "--concurrency", "1"), exitWaiting)
	s.expect(s.starter("abort", "--by", "erin", "--reason", "goes on tomorrow"), exitDone, "abort: done")
	s.expect(s.starter("watch"), exitFailed, "starter: Aborted: aborted by erin: goes on tomorrow; 1 of 4 targets verified")
	s.expect(s.starter("abort", "--by", "erin"), exitFailed, "the rotation is over")
	saved := s.starter("report", "-o", "json")
	if statuses := decoded[workflows.RotateClusterResult](t, saved).Targets; statuses[0].Status != workflows.StatusVerified || statuses[2].Status != workflows.StatusPending {
		t.Errorf("records %+v", statuses)
	}

	s.om.ClearFaults()
	file := writeFile(t, "report.json", saved.stdout)
	s.expect(s.starter("rotate", "--resume-from", file, "--wait"), exitDone, "resuming from "+file, "1 of 4 targets are verified", "Outcome       rotated")
	if applied := len(s.om.Ledger().Applied(s.cluster.ShardIDs[0])); applied != 1 || s.applied() != 4 {
		t.Errorf("%d rotations of the verified target, %d in all; want 1 and 4", applied, s.applied())
	}

	s.failPut(s.cluster.ConfigID)
	s.expect(s.starter("rotate", "--wait"), exitWaiting)
	s.expect(s.starter("abort"), exitDone)
	s.om.ClearFaults()
	s.expect(s.starter("rotate", "--resume", "--wait"), exitDone, "3 of 4 targets are verified", "Outcome       rotated")
	if s.applied() != 8 {
		t.Errorf("%d rotations, want 8", s.applied())
	}
}

func TestAFailureWithoutRecordsIsToldByItsType(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	s.om.RemoveAPIKey(simulator.DefaultPublicKey)
	failed := s.starter("rotate", "--wait")
	s.expect(failed, exitFailed, "starter: Unauthorized: ")
	s.expect(s.starter("rotate", "--resume"), exitFailed, "has no records to go on from", "Unauthorized", "--resume-from")
}

func TestATerminatedRotationKeepsItsRecords(t *testing.T) {
	s := newStage(t, 2)
	s.startWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.starter("rotate", "--wait"), exitWaiting)
	if err := s.client.TerminateWorkflow(t.Context(), s.id(), "", "test"); err != nil {
		t.Fatal(err)
	}
	s.expect(s.starter("watch"), exitFailed, "starter: Terminated: ", s.om.Key(s.cluster.ShardIDs[0]))
	s.om.ClearFaults()
	s.expect(s.starter("rotate", "--resume", "--wait"), exitDone, "2 of 3 targets are verified", "Outcome       rotated")
	if s.applied() != 3 {
		t.Errorf("%d rotations, want 3", s.applied())
	}
}

func TestWhatDoesNotExist(t *testing.T) {
	s := newStage(t, 1)
	s.expect(s.starter("watch"), exitFailed, "there is no workflow "+s.id())
	s.expect(s.starter("abort"), exitFailed, "there is no workflow "+s.id())
	s.expect(s.starter("report", "--run-id", "01a2093d-97c1-7cd5-86d0-e38265e51de0"), exitFailed, "there is no workflow "+s.id()+" with run 01a2093d")
	for _, command := range []string{"rotate", "plan", "watch", "report", "pause"} {
		s.expect(s.starter(command, "--namespace", "nowhere"), exitFailed, `starter: namespace "nowhere" does not exist at `+s.server.Address)
	}
}

// TestARotationThatWasHandedOver looks at the one id, however it was started.
func TestARotationThatWasHandedOver(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	started, err := s.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "elsewhere-" + s.connection, TaskQueue: s.connection},
		workflows.RotateClusterType, workflows.RotateClusterInput{Connection: s.connection, ProjectID: s.cluster.ProjectID, ClusterID: s.cluster.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := started.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.expect(s.starter("watch"), exitDone, "Outcome       rotated")
}

// TestARotationThatContinuesAsNew is followed from run to run.
func TestARotationThatContinuesAsNew(t *testing.T) {
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "20"}})
	s := newStageAt(t, server, 7)
	started := decoded[map[string]string](t, s.starter("rotate", "-o", "json", "--concurrency", "1"))
	s.startWorker()
	s.expect(s.starter("watch"), exitDone, "Outcome       rotated", "Targets       8 verified")
	described, err := s.client.DescribeWorkflowExecution(t.Context(), s.id(), "")
	if err != nil || described.GetWorkflowExecutionInfo().GetExecution().GetRunId() == started["runId"] {
		t.Fatalf("the rotation did not continue as new: %v, %v", described, err)
	}
	s.expect(s.starter("report", "--run-id", started["runId"]), exitDone, "Outcome       rotated", "Targets       8 verified")
}
