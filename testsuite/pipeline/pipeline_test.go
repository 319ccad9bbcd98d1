package pipeline

import (
	"context"
	"encoding/json"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

// changesNamespace is the one of a pipeline that has another than rotations.
const changesNamespace = "changes"

// scene is a pipeline beside the rotation's worker.
type scene struct {
	stage.Stage
	cluster simulator.ShardedCluster
	// changes is a client of the pipeline's namespace.
	changes client.Client
	rotator Rotator
	tickets *Tickets
}

func TestChild(t *testing.T) {
	play(t, temporalserver.Shared(t), func(s *scene) { s.rotator = Child{TaskQueue: s.TaskQueue} })
}

func TestByName(t *testing.T) {
	play(t, temporalserver.Shared(t), func(s *scene) { s.rotator = ByName{TaskQueue: s.TaskQueue} })
}

func TestNexus(t *testing.T) {
	play(t, nexusServer(t), (*scene).setNexus)
}

// nexusServer has the namespaces of rotations and of changes.
func nexusServer(t *testing.T) *temporalserver.Server {
	t.Helper()
	return temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{"default", changesNamespace}})
}

func (s *scene) setNexus() {
	s.Helper()
	endpoint := "rotations-" + s.Project
	s.CLI("operator", "nexus", "endpoint", "create", "--name", endpoint,
		"--target-namespace", s.Server.Namespace, "--target-task-queue", s.TaskQueue)
	s.rotator = Nexus{Endpoint: endpoint}
	var err error
	s.changes, err = client.NewClientFromExistingWithContext(s.Context(), s.Temporal, client.Options{
		Namespace: changesNamespace, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(s, err)
	s.Cleanup(s.changes.Close)
}

// Temporal asks for the operation again when it gets no answer: that is no
// second rotation, and the first one is not in its way.
func TestNexusAnswerIsLost(t *testing.T) {
	s := newScene(t, nexusServer(t), (*scene).setNexus)
	s.OM.Inject(simulator.RateLimited(http.MethodPut, s.cluster.ShardIDs[0], "1").Always())
	asked := &answersLost{again: s.OM.ClearFaults}
	s.StartWorkerWith(s.Temporal, environment.Client(t, s.OM), func(o *sdkworker.Options) {
		o.Interceptors = append(o.Interceptors, asked)
	})
	run := s.startPipeline(s.request())
	require.NoError(s, s.approve(run, "lee"))
	var ticket Ticket
	require.NoError(s, s.end(run, &ticket))
	assert.Equal(s, int32(2), asked.times.Load())
	s.requireTold(s.records(ticket), 4)
}

// answersLost loses the answer to the first start of an operation.
type answersLost struct {
	interceptor.WorkerInterceptorBase
	times atomic.Int32
	// again is called when an operation has been started again.
	again func()
}

func (l *answersLost) InterceptNexusOperation(_ context.Context, next interceptor.NexusOperationInboundInterceptor) interceptor.NexusOperationInboundInterceptor {
	return &losingStart{interceptor.NexusOperationInboundInterceptorBase{Next: next}, l}
}

type losingStart struct {
	interceptor.NexusOperationInboundInterceptorBase
	*answersLost
}

func (l *losingStart) StartOperation(ctx context.Context, input interceptor.NexusStartOperationInput) (nexus.HandlerStartOperationResult[any], error) {
	result, err := l.Next.StartOperation(ctx, input)
	if err == nil && l.times.Add(1) == 1 {
		return nil, nexus.NewHandlerErrorf(nexus.HandlerErrorTypeUnavailable, "the answer is lost")
	}
	l.again()
	return result, err
}

// The pipeline that shares nothing but JSON must show that this is enough.
func TestByNameSharesNothingButJSON(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "byname.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, imported := range file.Imports {
		assert.False(t, strings.HasPrefix(strings.Trim(imported.Path.Value, `"`), "keyturn"), "imports %s", imported.Path.Value)
	}
}

// play plays all that may come of a change with one variant of the pipeline.
func play(t *testing.T, server *temporalserver.Server, set func(*scene)) {
	for name, test := range map[string]func(scene){
		"ClosedWithTheRecords": testClosedWithTheRecords,
		"RotationFailsHalfway": testRotationFailsHalfway,
		"ClusterIsBusy":        testClusterIsBusy,
		"InputIsRefused":       testInputIsRefused,
		"PipelineIsCanceled":   testPipelineIsCanceled,
		"CanceledUnapproved":   testCanceledBeforeApproval,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, server, set)
			s.StartWorker()
			test(s)
		})
	}
}

// newScene has all but the rotation's worker.
func newScene(t *testing.T, server *temporalserver.Server, set func(*scene)) scene {
	t.Helper()
	s := scene{Stage: stage.On(t, server, simulator.Options{}), tickets: &Tickets{}}
	s.changes = s.Temporal
	s.cluster = s.OM.AddShardedCluster(s.Project, "orders", 3)
	set(&s)
	s.startPipelineWorker()
	return s
}

func testClosedWithTheRecords(s scene) {
	run := s.startPipeline(s.request())
	require.ErrorContains(s, s.approve(run, "dana"), "somebody else must approve")
	assert.Empty(s, s.OM.Ledger().Requests, "nothing is asked of Ops Manager before the approval")
	require.NoError(s, s.approve(run, "lee"))

	var ticket Ticket
	require.NoError(s, s.end(run, &ticket))
	assert.Equal(s, s.ticket(), ticket)
	assert.Equal(s, Ticket{
		ID: ticket.ID, Status: StatusClosed, RequestedBy: "dana", ApprovedBy: "lee", Records: ticket.Records,
	}, ticket)
	records := s.records(ticket)
	assert.Equal(s, workflows.OutcomeRotated, records.Outcome)
	assert.Equal(s, workflows.Change{Ticket: ticket.ID, RequestedBy: "dana"}, records.Change)
	s.requireTold(records, 4)
}

func testRotationFailsHalfway(s scene) {
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, s.cluster.ShardIDs[1]))
	ticket := s.failedChange(s.request(), activities.ErrorPartialFailure)
	assert.Contains(s, ticket.Failure, "orders-1 failed (Forbidden)")
	records := s.records(ticket)
	assert.Equal(s, workflows.OutcomePartial, records.Outcome)
	assert.Equal(s, workflows.StatusFailed, records.Targets[1].Status)
	s.requireTold(records, len(s.OM.Ledger().Rotations))
}

func testClusterIsBusy(s scene) {
	input := s.Input(s.cluster.ID)
	input.RequireApproval = true
	running := s.Start(input)
	ticket := s.failedChange(s.request(), activities.ErrorClusterBusy)
	assert.Contains(s, ticket.Failure, running.GetID())
	assert.JSONEq(s, "null", string(ticket.Records))

	// It has neither hurt the other rotation nor been attached to it.
	s.Await(running.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	_, err := s.Update(running.GetID(), workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	require.NoError(s, err)
	s.RequireRotated(running, 4)
}

func testInputIsRefused(s scene) {
	request := s.request()
	request.ProjectID, request.ClusterID = "", "orders"
	ticket := s.failedChange(request, activities.ErrorInvalidInput)
	assert.Contains(s, ticket.Failure, "projectId: is required; clusterId: must be 24 hex digits")
	assert.JSONEq(s, "null", string(ticket.Records))
	assert.Empty(s, s.OM.Ledger().Requests)
}

func testPipelineIsCanceled(s scene) {
	s.Detain(s.cluster.ShardIDs[0])
	run := s.startPipeline(s.request())
	require.NoError(s, s.approve(run, "lee"))
	s.AwaitPut()
	require.NoError(s, s.changes.CancelWorkflow(s.Context(), run.GetID(), ""))
	rotation := workflows.RotateClusterID(workflows.DefaultConnection, s.Project, s.cluster.ID)
	s.AwaitAbort(rotation)
	s.OM.ClearFaults()

	s.requireCanceled(run)
	ticket := s.ticket()
	assert.Equal(s, StatusFailed, ticket.Status)
	assert.Contains(s, ticket.Failure, activities.ErrorAborted+": ")
	s.requireTold(s.records(ticket), 1)
	assert.Len(s, s.OM.Ledger().Rotations, 1, "what is in work is finished, nothing else begun")
}

func testCanceledBeforeApproval(s scene) {
	run := s.startPipeline(s.request())
	require.Eventually(s, func() bool { _, opened := s.tickets.Ticket(ticketID); return opened }, time.Minute, time.Millisecond)
	require.NoError(s, s.changes.CancelWorkflow(s.Context(), run.GetID(), ""))
	s.requireCanceled(run)
	assert.Equal(s, StatusFailed, s.ticket().Status)
	assert.Empty(s, s.OM.Ledger().Requests)
}

func (s scene) startPipelineWorker() {
	s.Helper()
	w := sdkworker.New(s.changes, s.pipelineQueue(), sdkworker.Options{DisableRegistrationAliasing: true})
	Register(w, Pipeline{Rotator: s.rotator}, s.tickets)
	require.NoError(s, w.Start())
	s.Cleanup(w.Stop)
}

func (s scene) pipelineQueue() string { return s.TaskQueue + "-changes" }

func (s scene) request() Request {
	return Request{RequestedBy: "dana", ProjectID: s.Project, ClusterID: s.cluster.ID}
}

func (s scene) startPipeline(request Request) client.WorkflowRun {
	s.Helper()
	run, err := s.changes.ExecuteWorkflow(s.Context(), client.StartWorkflowOptions{
		ID: "change-" + s.Project, TaskQueue: s.pipelineQueue(),
	}, ManageChangeType, request)
	require.NoError(s, err)
	s.Cleanup(func() {
		_ = s.changes.TerminateWorkflow(context.Background(), run.GetID(), "", "the test has ended")
	})
	return run
}

func (s scene) approve(run client.WorkflowRun, by string) error {
	s.Helper()
	handle, err := s.changes.UpdateWorkflow(s.Context(), client.UpdateWorkflowOptions{
		WorkflowID: run.GetID(), UpdateName: ApproveUpdate, Args: []any{Approval{By: by}},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(s, err)
	return handle.Get(s.Context(), nil)
}

func (s scene) end(run client.WorkflowRun, ticket *Ticket) error {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.Patience)
	defer cancel()
	return run.Get(ctx, ticket)
}

// failedChange approves a change that must fail with this type, and gives its
// ticket.
func (s scene) failedChange(request Request, errorType string) Ticket {
	s.Helper()
	run := s.startPipeline(request)
	require.NoError(s, s.approve(run, "lee"))
	stage.RequireFailure(s, s.end(run, nil), errorType)
	ticket := s.ticket()
	assert.Equal(s, StatusFailed, ticket.Status)
	assert.True(s, strings.HasPrefix(ticket.Failure, errorType+": "), ticket.Failure)
	return ticket
}

func (s scene) requireCanceled(run client.WorkflowRun) {
	s.Helper()
	err := s.end(run, nil)
	require.True(s, temporal.IsCanceledError(err), "%v", err)
}

// ticketID is that of the first ticket, which the test's pipeline opens.
const ticketID = "CHG0000001"

func (s scene) ticket() Ticket {
	s.Helper()
	ticket, found := s.tickets.Ticket(ticketID)
	require.True(s, found)
	return ticket
}

func (s scene) records(ticket Ticket) (records workflows.RotateClusterResult) {
	s.Helper()
	require.NoError(s, json.Unmarshal(ticket.Records, &records))
	require.Len(s, records.Targets, 4)
	return records
}

// requireTold compares records with the simulator's ledger, in both directions:
// they are true, and tell of everything that was rotated.
func (s scene) requireTold(records workflows.RotateClusterResult, verified int) {
	s.Helper()
	s.RequireTrue(records.Targets)
	told := 0
	for _, record := range records.Targets {
		if record.Status == workflows.StatusVerified {
			told++
		}
	}
	assert.Equal(s, verified, told)
	assert.Len(s, s.OM.Ledger().Rotations, verified)
}
