package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

var discard = slog.New(slog.DiscardHandler)

// rotation is the rotation of a cluster in the containers.
type rotation struct {
	project
	cluster   string // its name
	run       client.WorkflowRun
	startedAt time.Time
}

// summary is the simulator's ledger; an error if it does not respond.
func (p project) summary() (s simulator.Summary, err error) {
	c := http.Client{Timeout: 5 * time.Second}
	response, err := c.Get("http://" + p.address(simulatorPort) + "/simulator/ledger")
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	return s, json.NewDecoder(response.Body).Decode(&s)
}

// rotate starts the rotation of the n-th cluster.
func (p project) rotate(n int) rotation {
	p.Helper()
	r := rotation{project: p, cluster: "orders", startedAt: time.Now()}
	if n > 0 {
		r.cluster = fmt.Sprintf("orders%d", n+1)
	}
	input := fixture.Input(r.clusterID(n))
	input.Concurrency = concurrency
	input.SettleTime = workflows.Duration(3 * time.Second)
	input.VerifyTimeout = workflows.Duration(time.Minute)
	input.RetryTimeout = workflows.Duration(5 * time.Minute)
	var err error
	r.run, err = p.temporal.ExecuteWorkflow(p.Context(), client.StartWorkflowOptions{
		ID:        workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID),
		TaskQueue: workflows.DefaultTaskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateClusterType, input)
	require.NoError(p, err)
	return r
}

// rotateDeployment rotates the keys of the simulator's deployment: the KMIP server
// has made each process one new key, and no other byte of the configuration has
// changed.
func (p project) rotateDeployment() {
	p.Helper()
	input := fixture.DeploymentInput()
	input.Proof = workflows.ProofKMIP
	input.DeployTimeout = workflows.Duration(time.Minute)
	input.ProofTimeout = workflows.Duration(2 * time.Minute)
	input.RetryTimeout = workflows.Duration(time.Minute)
	input.SettleTime = workflows.Duration(3 * time.Second)
	ctx, cancel := context.WithTimeout(p.Context(), waitTimeout)
	defer cancel()
	run, err := p.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:        workflows.RotateDeploymentID(workflows.DefaultConnection, input.ProjectID),
		TaskQueue: workflows.DefaultTaskQueue,
	}, workflows.RotateDeploymentType, input)
	require.NoError(p, err)
	var result workflows.RotateDeploymentResult
	require.NoError(p, run.Get(ctx, &result))
	require.Equal(p, workflows.OutcomeRotated, result.Outcome)
	require.Len(p, result.Targets, processes)
	summary, err := p.summary()
	require.NoError(p, err)
	require.Len(p, summary.Deployments, 1)
	require.NoError(p, invariants.CheckProcesses(summary.Deployments[0], result.Targets))
}

// requireRecorded requires that the ledger on the worker's volume is intact, and has
// the first rotation of each kind and that of the n-th cluster.
func (p project) requireRecorded(n int) {
	p.Helper()
	worker := p.containers(workerService)[0]
	output(p.T, "docker", "exec", worker, "keyturn", "ledger", "verify")
	var history struct{ Entries []ledgerentry.Entry }
	require.NoError(p, json.Unmarshal([]byte(output(p.T, "docker", "exec", worker, "keyturn", "history", "-o", "json")), &history))
	recorded := map[string]ledgerentry.Source{}
	for _, entry := range history.Entries {
		recorded[entry.WorkflowID] = entry.Source
	}
	cluster := func(n int) string {
		return workflows.RotateClusterID(workflows.DefaultConnection, fixture.DeploymentInput().ProjectID, rotation{}.clusterID(n))
	}
	deployment := workflows.RotateDeploymentID(workflows.DefaultConnection, fixture.DeploymentInput().ProjectID)
	for _, id := range []string{cluster(0), deployment, cluster(n)} {
		require.Equal(p, ledgerentry.SourceWorkflow, recorded[id], id)
	}
}

// clusterID follows the numbering of the simulator: each cluster and each
// target takes one ID.
func (r rotation) clusterID(n int) string {
	return fmt.Sprintf("65a1f1aa%016x", 1+n*(targets+1))
}

// rotated counts the applied rotations of the cluster; false if the simulator
// does not respond.
func (r rotation) rotated() (times int, known bool) {
	summary, err := r.summary()
	if err != nil {
		return 0, false
	}
	for _, target := range r.targetsIn(summary) {
		times += len(target.Rotations)
	}
	return times, true
}

func (r rotation) targetsIn(s simulator.Summary) []simulator.TargetSummary {
	return slices.DeleteFunc(s.Targets, func(t simulator.TargetSummary) bool { return t.ClusterName != r.cluster })
}

// The PUTs of half of the targets are answered immediately. The PUTs of the
// others are applied, and their responses blocked until releasePuts. So a fault
// occurs in the middle of the rotation, with pending PUTs, on a machine of any
// speed.
const half = targets / 2

// blockPuts must be called before the rotation starts.
func (p project) blockPuts() {
	p.Helper()
	fault, err := json.Marshal(simulator.PutsGated("").Skipping(half))
	require.NoError(p, err)
	status, err := p.control(http.MethodPost, fault)
	require.NoError(p, err)
	require.Equal(p, http.StatusCreated, status)
}

// releasePuts waits for an Ops Manager that is down: a restarted one has no
// faults.
func (p project) releasePuts() {
	p.Helper()
	p.await("PUTs are released", func() bool {
		status, err := p.control(http.MethodDelete, nil)
		return err == nil && status == http.StatusNoContent
	})
}

// control sends a request to the simulator's fault API.
func (p project) control(method string, body []byte) (status int, err error) {
	request, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.address(simulatorPort)+"/simulator/faults", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	c := http.Client{Timeout: 5 * time.Second}
	response, err := c.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// awaitMiddle waits until half of the targets are done, and as many as allowed
// are in progress.
func (r rotation) awaitMiddle() {
	r.Helper()
	r.await("half of the targets are done", func() bool {
		times, _ := r.rotated()
		return times == half+concurrency
	})
}

// awaitRetrying waits until an activity fails: Temporal knows from its
// heartbeat, or because the heartbeat times out.
func (r rotation) awaitRetrying() {
	r.Helper()
	r.await("an activity is retrying", func() bool {
		described, err := r.temporal.DescribeWorkflowExecution(r.Context(), r.run.GetID(), "")
		return err == nil && slices.ContainsFunc(described.GetPendingActivities(), isRetrying)
	})
}

func isRetrying(pending *workflowpb.PendingActivityInfo) bool {
	details := pending.GetHeartbeatDetails().String()
	return pending.GetAttempt() > 1 || strings.Contains(details, "failingSince") || strings.Contains(details, "ambiguous")
}

// requireRotated waits for the end of the rotation: every target is verified
// with one applied PUT, and the records match the ledger.
func (r rotation) requireRotated() workflows.RotateClusterResult {
	r.Helper()
	result := r.result()
	require.Equal(r, workflows.OutcomeRotated, result.Outcome)
	require.Len(r, result.Targets, targets)
	summary, err := r.summary()
	require.NoError(r, err)
	require.Zero(r, summary.PutsOnParents)
	var rotated simulator.Ledger
	for _, target := range r.targetsIn(summary) {
		rotated.Rotations = append(rotated.Rotations, target.Rotations...)
	}
	require.Len(r, rotated.Rotations, targets, "one PUT for each target")
	for _, record := range result.Targets {
		require.Equal(r, workflows.StatusVerified, record.Status, record.Name)
	}
	require.NoError(r, invariants.CheckRecords(rotated, result.Targets))
	return result
}

// result waits for the end of the rotation, also while Temporal is down.
func (r rotation) result() (result workflows.RotateClusterResult) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), waitTimeout)
	defer cancel()
	for {
		err := r.run.Get(ctx, &result)
		var away *serviceerror.Unavailable
		if err != nil && errors.As(err, &away) && ctx.Err() == nil {
			continue
		}
		require.NoError(r, err)
		return result
	}
}

func (r rotation) history() (events []*historypb.HistoryEvent) {
	r.Helper()
	pages := r.temporal.GetWorkflowHistory(r.Context(), r.run.GetID(), r.run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for pages.HasNext() {
		event, err := pages.Next()
		require.NoError(r, err)
		events = append(events, event)
	}
	return events
}

// recovered is the time from after until the completion of the first activity
// that was started after it.
func (r rotation) recovered(after time.Time) time.Duration {
	r.Helper()
	events := r.history()
	for _, event := range events {
		completed := event.GetActivityTaskCompletedEventAttributes()
		if completed == nil {
			continue
		}
		started := events[completed.GetStartedEventId()-1]
		if started.GetEventTime().AsTime().After(after) {
			return event.GetEventTime().AsTime().Sub(after)
		}
	}
	require.Fail(r, "no activity was started and completed after the fault")
	return 0
}

// workers counts the activities of the rotation by the identity of the worker.
func (r rotation) workers() map[string]int {
	r.Helper()
	activities := map[string]int{}
	for _, event := range r.history() {
		if started := event.GetActivityTaskStartedEventAttributes(); started != nil {
			activities[started.GetIdentity()]++
		}
	}
	return activities
}
