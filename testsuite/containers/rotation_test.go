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

	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

var discard = slog.New(slog.DiscardHandler)

// rotation is one of a cluster in the containers.
type rotation struct {
	project
	cluster string // its name
	run     client.WorkflowRun
	began   time.Time
}

// summary is the simulator's ledger; an error where nobody answers.
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
	r := rotation{project: p, cluster: "orders", began: time.Now()}
	if n > 0 {
		r.cluster = fmt.Sprintf("orders%d", n+1)
	}
	input := environment.Input(r.clusterID(n))
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

// clusterID is known from the program's own way to number what it is started
// with: a cluster takes one id, and each of its targets another.
func (r rotation) clusterID(n int) string {
	return fmt.Sprintf("65a1f1aa%016x", 1+n*(targets+1))
}

// rotated is how often a key of the cluster was rotated, and false where nobody
// answers.
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

// half of the targets' PUTs are answered at once. Those after them are applied,
// and their answers held back until openGate: however slow or fast the machine
// is, a fault meets the rotation in its middle, and with PUTs under way.
const half = targets / 2

// closeGate comes before the rotation that it is for.
func (p project) closeGate() {
	p.Helper()
	fault, err := json.Marshal(simulator.PutsGated("").Skipping(half))
	require.NoError(p, err)
	status, err := p.control(http.MethodPost, fault)
	require.NoError(p, err)
	require.Equal(p, http.StatusCreated, status)
}

// openGate waits for an Ops Manager that is away: one that begins anew has no
// gate.
func (p project) openGate() {
	p.Helper()
	p.await("the gate is open", func() bool {
		status, err := p.control(http.MethodDelete, nil)
		return err == nil && status == http.StatusNoContent
	})
}

// control tells the simulator something about its faults.
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

// awaitMiddle returns when half of the targets are done, and as many are in work
// as may be.
func (r rotation) awaitMiddle() {
	r.Helper()
	r.await("the rotation is in its middle", func() bool {
		times, _ := r.rotated()
		return times == half+concurrency
	})
}

// awaitTrouble returns when Temporal knows of an activity in trouble: by its
// heartbeat, or because that stays away.
func (r rotation) awaitTrouble() {
	r.Helper()
	r.await("an activity is in trouble", func() bool {
		described, err := r.temporal.DescribeWorkflowExecution(r.Context(), r.run.GetID(), "")
		return err == nil && slices.ContainsFunc(described.GetPendingActivities(), inTrouble)
	})
}

func inTrouble(pending *workflowpb.PendingActivityInfo) bool {
	notes := pending.GetHeartbeatDetails().String()
	return pending.GetAttempt() > 1 || strings.Contains(notes, "failingSince") || strings.Contains(notes, "ambiguous")
}

// requireRotated waits for the end: every target is verified, with one PUT
// applied, and what the records say is what the simulator did.
func (r rotation) requireRotated() workflows.RotateClusterResult {
	r.Helper()
	result := r.result()
	require.Equal(r, workflows.OutcomeRotated, result.Outcome)
	require.Len(r, result.Targets, targets)
	summary, err := r.summary()
	require.NoError(r, err)
	require.Zero(r, summary.PutsOnParents)
	var ledger simulator.Ledger
	for _, target := range r.targetsIn(summary) {
		ledger.Rotations = append(ledger.Rotations, target.Rotations...)
	}
	require.Len(r, ledger.Rotations, targets, "one PUT for each target")
	for _, record := range result.Targets {
		require.Equal(r, workflows.StatusVerified, record.Status, record.Name)
	}
	require.NoError(r, environment.CheckRecords(ledger, result.Targets))
	return result
}

// result waits for the rotation's end, also while Temporal is away.
func (r rotation) result() (result workflows.RotateClusterResult) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
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

// recovered is how long after a moment the first activity was completed that
// was also begun after it.
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
	require.Fail(r, "no activity was begun and completed after the fault")
	return 0
}

// workers are those that had activities of the rotation, by the names that
// Temporal shows.
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
