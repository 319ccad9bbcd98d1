package changemanagement

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

	"github.com/nexus-rpc/sdk-go/nexus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/parallel"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

func TestMain(m *testing.M) {
	parallel.Tests(8)
	temporalserver.Main(m)
}

// changesNamespace is the namespace of a pipeline outside the namespace of
// rotations.
const changesNamespace = "changes"

// pipelineFixture is a pipeline beside keyturn's worker.
type pipelineFixture struct {
	fixture.Server
	cluster simulator.ShardedCluster
	// changes is a client for the pipeline's namespace.
	changes client.Client
	rotator Rotator
	tickets *Tickets
}

func TestChild(t *testing.T) {
	t.Parallel()
	testVariant(t, temporalserver.Shared(t), func(s *pipelineFixture) { s.rotator = Child{TaskQueue: s.TaskQueue} })
}

func TestByName(t *testing.T) {
	t.Parallel()
	testVariant(t, temporalserver.Shared(t), func(s *pipelineFixture) { s.rotator = ByName{TaskQueue: s.TaskQueue} })
}

func TestNexus(t *testing.T) {
	t.Parallel()
	testVariant(t, nexusServer(t), (*pipelineFixture).setNexus)
}

// nexusServer has the namespaces of rotations and of changes.
func nexusServer(t *testing.T) *temporalserver.Server {
	t.Helper()
	return temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{"default", changesNamespace}})
}

func (s *pipelineFixture) setNexus() {
	s.Helper()
	endpoint := "rotations-" + s.Project
	s.CLI("operator", "nexus", "endpoint", "create", "--name", endpoint,
		"--target-namespace", s.TemporalServer.Namespace, "--target-task-queue", s.TaskQueue)
	s.rotator = Nexus{Endpoint: endpoint}
	var err error
	s.changes, err = client.NewClientFromExistingWithContext(s.Context(), s.Temporal, client.Options{
		Namespace: changesNamespace, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(s, err)
	s.Cleanup(s.changes.Close)
}

// If the response is lost, Temporal starts the operation again. That does not
// start a second rotation, and the first one is no obstacle.
func TestNexusResponseLost(t *testing.T) {
	t.Parallel()
	s := newPipelineFixture(t, nexusServer(t), (*pipelineFixture).setNexus)
	s.OM.Inject(simulator.RateLimited(http.MethodPut, s.cluster.ShardIDs[0], "1").Always())
	starts := &lostResponse{onSecondStart: s.OM.ClearFaults}
	s.StartWorkerWith(s.Temporal, s.Client(), func(o *sdkworker.Options) {
		o.Interceptors = append(o.Interceptors, starts)
	})
	run := s.startPipeline(s.request())
	require.NoError(s, s.approve(run, "lee"))
	var ticket Ticket
	require.NoError(s, s.end(run, &ticket))
	assert.Equal(s, int32(2), starts.times.Load())
	s.requireRecorded(s.records(ticket), 4)
}

// lostResponse loses the response to the first start of an operation.
type lostResponse struct {
	interceptor.WorkerInterceptorBase
	times atomic.Int32
	// onSecondStart is called when the operation is started again.
	onSecondStart func()
}

func (l *lostResponse) InterceptNexusOperation(_ context.Context, next interceptor.NexusOperationInboundInterceptor) interceptor.NexusOperationInboundInterceptor {
	return &lostStart{interceptor.NexusOperationInboundInterceptorBase{Next: next}, l}
}

type lostStart struct {
	interceptor.NexusOperationInboundInterceptorBase
	*lostResponse
}

func (l *lostStart) StartOperation(ctx context.Context, input interceptor.NexusStartOperationInput) (nexus.HandlerStartOperationResult[any], error) {
	result, err := l.Next.StartOperation(ctx, input)
	if err == nil && l.times.Add(1) == 1 {
		return nil, nexus.NewHandlerErrorf(nexus.HandlerErrorTypeUnavailable, "the response is lost")
	}
	l.onSecondStart()
	return result, err
}

// ByName must not depend on keyturn packages.
func TestByNameSharesNothingButJSON(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "byname.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, imported := range file.Imports {
		assert.False(t, strings.HasPrefix(strings.Trim(imported.Path.Value, `"`), "keyturn"), "imports %s", imported.Path.Value)
	}
}

// testVariant tests one variant of the pipeline.
func testVariant(t *testing.T, server *temporalserver.Server, set func(*pipelineFixture)) {
	for name, test := range map[string]func(pipelineFixture){
		"ClosedWithTheRecords": testClosedWithTheRecords,
		"RotationFailsHalfway": testRotationFailsHalfway,
		"ClusterIsBusy":        testClusterIsBusy,
		"InputIsRefused":       testInputIsRefused,
		"PipelineIsCanceled":   testPipelineIsCanceled,
		"CanceledUnapproved":   testCanceledBeforeApproval,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newPipelineFixture(t, server, set)
			s.StartWorker()
			test(s)
		})
	}
}

// newPipelineFixture has everything except keyturn's worker.
func newPipelineFixture(t *testing.T, server *temporalserver.Server, set func(*pipelineFixture)) pipelineFixture {
	t.Helper()
	s := pipelineFixture{Server: fixture.NewServerOn(t, server, simulator.Options{}), tickets: &Tickets{}}
	s.changes = s.Temporal
	s.cluster = s.OM.AddShardedCluster(s.Project, "orders", 3)
	set(&s)
	s.startPipelineWorker()
	return s
}

func testClosedWithTheRecords(s pipelineFixture) {
	run := s.startPipeline(s.request())
	require.ErrorContains(s, s.approve(run, "dana"), "the requester cannot approve")
	assert.Empty(s, s.OM.Ledger().Requests, "no request to Ops Manager before the approval")
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
	s.requireRecorded(records, 4)
}

func testRotationFailsHalfway(s pipelineFixture) {
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, s.cluster.ShardIDs[1]))
	ticket := s.failedChange(s.request(), workflows.ErrorPartialFailure)
	assert.Contains(s, ticket.Failure, "orders-1 failed (Forbidden)")
	records := s.records(ticket)
	assert.Equal(s, workflows.OutcomePartial, records.Outcome)
	assert.Equal(s, workflows.StatusFailed, records.Targets[1].Status)
	s.requireRecorded(records, len(s.OM.Ledger().Rotations))
}

func testClusterIsBusy(s pipelineFixture) {
	input := s.Input(s.cluster.ID)
	input.RequireApproval = true
	running := s.Start(input)
	ticket := s.failedChange(s.request(), workflows.ErrorClusterBusy)
	assert.Contains(s, ticket.Failure, running.GetID())
	assert.JSONEq(s, "null", string(ticket.Records))

	// The other rotation continues undisturbed.
	s.Await(running.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	_, err := s.Update(running.GetID(), workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	require.NoError(s, err)
	s.RequireRotated(running, 4)
}

func testInputIsRefused(s pipelineFixture) {
	request := s.request()
	request.ProjectID, request.ClusterID = "", "orders"
	ticket := s.failedChange(request, workflows.ErrorInvalidInput)
	assert.Contains(s, ticket.Failure, "projectId: is required; clusterId: must be 24 hex digits")
	assert.JSONEq(s, "null", string(ticket.Records))
	assert.Empty(s, s.OM.Ledger().Requests)
}

func testPipelineIsCanceled(s pipelineFixture) {
	s.BlockRotation(s.cluster.ShardIDs[0])
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
	assert.Contains(s, ticket.Failure, string(workflows.ErrorAborted)+": ")
	s.requireRecorded(s.records(ticket), 1)
	assert.Len(s, s.OM.Ledger().Rotations, 1, "targets in progress are completed, no others are started")
}

func testCanceledBeforeApproval(s pipelineFixture) {
	run := s.startPipeline(s.request())
	waiting.Until(s, func() bool { _, opened := s.tickets.Ticket(ticketID); return opened })
	require.NoError(s, s.changes.CancelWorkflow(s.Context(), run.GetID(), ""))
	s.requireCanceled(run)
	assert.Equal(s, StatusFailed, s.ticket().Status)
	assert.Empty(s, s.OM.Ledger().Requests)
}

func (s pipelineFixture) startPipelineWorker() {
	s.Helper()
	w := sdkworker.New(s.changes, s.pipelineQueue(), sdkworker.Options{DisableRegistrationAliasing: true})
	Register(w, Pipeline{Rotator: s.rotator}, s.tickets)
	require.NoError(s, w.Start())
	s.Cleanup(w.Stop)
}

func (s pipelineFixture) pipelineQueue() string { return s.TaskQueue + "-changes" }

func (s pipelineFixture) request() Request {
	return Request{RequestedBy: "dana", ProjectID: s.Project, ClusterID: s.cluster.ID}
}

func (s pipelineFixture) startPipeline(request Request) client.WorkflowRun {
	s.Helper()
	run, err := s.changes.ExecuteWorkflow(s.Context(), client.StartWorkflowOptions{
		ID: "change-" + s.Project, TaskQueue: s.pipelineQueue(),
	}, ManageChangeType, request)
	require.NoError(s, err)
	s.Cleanup(func() {
		_ = s.changes.TerminateWorkflow(context.Background(), run.GetID(), "", "test ended")
	})
	return run
}

func (s pipelineFixture) approve(run client.WorkflowRun, by string) error {
	s.Helper()
	handle, err := s.changes.UpdateWorkflow(s.Context(), client.UpdateWorkflowOptions{
		WorkflowID: run.GetID(), UpdateName: ApproveUpdate, Args: []any{Approval{By: by}},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(s, err)
	return handle.Get(s.Context(), nil)
}

func (s pipelineFixture) end(run client.WorkflowRun, ticket *Ticket) error {
	s.Helper()
	return run.Get(waiting.Context(s), ticket)
}

// failedChange approves a change that must fail with this error type, and
// returns its ticket.
func (s pipelineFixture) failedChange(request Request, errorType workflows.ErrorType) Ticket {
	s.Helper()
	run := s.startPipeline(request)
	require.NoError(s, s.approve(run, "lee"))
	fixture.RequireFailure(s, s.end(run, nil), errorType)
	ticket := s.ticket()
	assert.Equal(s, StatusFailed, ticket.Status)
	assert.True(s, strings.HasPrefix(ticket.Failure, string(errorType)+": "), ticket.Failure)
	return ticket
}

func (s pipelineFixture) requireCanceled(run client.WorkflowRun) {
	s.Helper()
	err := s.end(run, nil)
	require.True(s, temporal.IsCanceledError(err), "%v", err)
}

// ticketID is the ID of the first ticket.
const ticketID = "CHG0000001"

func (s pipelineFixture) ticket() Ticket {
	s.Helper()
	ticket, found := s.tickets.Ticket(ticketID)
	require.True(s, found)
	return ticket
}

func (s pipelineFixture) records(ticket Ticket) (records workflows.RotateClusterResult) {
	s.Helper()
	require.NoError(s, json.Unmarshal(ticket.Records, &records))
	require.Len(s, records.Targets, 4)
	return records
}

// requireRecorded checks that the records match the simulator's ledger, and
// that everything that was rotated is recorded.
func (s pipelineFixture) requireRecorded(records workflows.RotateClusterResult, verified int) {
	s.Helper()
	s.RequireMatchesLedger(records.Targets)
	recorded := 0
	for _, record := range records.Targets {
		if record.Status == workflows.StatusVerified {
			recorded++
		}
	}
	assert.Equal(s, verified, recorded)
	assert.Len(s, s.OM.Ledger().Rotations, verified)
}
