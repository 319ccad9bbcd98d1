package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// versioned is workers of several versions, and the rotations that they do.
type versioned struct {
	*testing.T
	server     *temporalserver.Server
	temporal   client.Client
	om         *simulator.Server
	project    string
	deployment string
	// events are the workers' settings of events.
	events setting.Environment
}

func newVersioned(t *testing.T, server *temporalserver.Server) versioned {
	t.Helper()
	// Temporal keeps the deployments of earlier runs on the same server.
	name := t.Name() + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	s := fixture.NewServerOn(t, server, simulator.Options{})
	return versioned{t, server, s.Temporal, s.OM, s.Project, name, nil}
}

// startWorker starts a worker of a version; an empty one is none.
func (v versioned) startWorker(buildID string) *workerProcess {
	v.Helper()
	env := processEnvironment(v.T, v.server, v.deployment)
	env["OPS_MANAGER_URL"] = v.om.URL
	env["OPS_MANAGER_PUBLIC_KEY"], env["OPS_MANAGER_PRIVATE_KEY"] = simulator.DefaultPublicKey, simulator.DefaultPrivateKey
	maps.Copy(env, v.events)
	if buildID != "" {
		env["KEYTURN_DEPLOYMENT"], env["KEYTURN_BUILD_ID"] = v.deployment, buildID
	}
	worker := startWorker(v.T, env)
	worker.waitFor(v.T, "polling")
	return worker
}

// makeCurrent does what a worker's log says, as soon as Temporal knows of the
// version and its pollers.
func (v versioned) makeCurrent(worker *workerProcess) {
	v.Helper()
	_, command, found := strings.Cut(worker.stderr.String(), `makeCurrent="temporal `)
	require.True(v, found, "the log does not say how to make the version the current one:\n%s", worker.stderr.String())
	command, _, _ = strings.Cut(command, `"`)
	waiting.UntilAnswer(v, func() (bool, error) {
		_, err := v.cli(append(strings.Fields(command), "--yes")...)
		return true, err
	}, command)
}

// cli runs Temporal's CLI. Its error has what the CLI says.
func (v versioned) cli(arguments ...string) (stdout string, err error) {
	stdout, complaint, err := v.server.CLI(v.Context(), arguments...)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, complaint)
	}
	return stdout, err
}

// awaitDrainage waits for what Temporal says of a version that is no longer current. It
// keeps that in a workflow of its own, and finds no version while that continues as
// new, which the test's limit of events makes it do often.
func (v versioned) awaitDrainage(want, buildID, explanation string) {
	v.Helper()
	waiting.UntilAnswer(v, func() (bool, error) {
		text, err := v.cli("worker", "deployment", "describe-version", "--deployment-name", v.deployment, "--build-id", buildID, "--output", "json")
		if err != nil {
			return false, err
		}
		var version struct {
			DrainageInfo struct{ DrainageStatus string }
		}
		err = json.Unmarshal([]byte(text), &version)
		return version.DrainageInfo.DrainageStatus == want, err
	}, fmt.Sprintf("%s is not %s: %s", buildID, want, explanation))
}

// startHeld starts a rotation that waits for approval: under another id than its
// own, so that it is handed over to a child, which is returned.
func (v versioned) startHeld(name string, shards int) (parent client.WorkflowRun, id string) {
	v.Helper()
	cluster := v.om.AddShardedCluster(v.project, name, shards)
	input := workflows.RotateClusterInput{ProjectID: v.project, ClusterID: cluster.ID, RequireApproval: true}
	id = workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID)
	parent, err := v.temporal.ExecuteWorkflow(v.Context(), client.StartWorkflowOptions{ID: "nightly-" + id, TaskQueue: v.deployment}, workflows.RotateClusterType, input)
	require.NoError(v, err)
	v.Cleanup(func() {
		_ = v.temporal.TerminateWorkflow(context.Background(), parent.GetID(), "", "the test is over") // most have ended
		_ = v.temporal.TerminateWorkflow(context.Background(), id, "", "the test is over")
	})
	waiting.Until(v, func() bool { return v.phase(id) == workflows.PhaseAwaitingApproval }, id+" does not wait for approval")
	return parent, id
}

// phase of a rotation; empty if nobody says.
func (v versioned) phase(id string) workflows.Phase {
	var p workflows.Progress
	value, err := v.temporal.QueryWorkflow(waiting.Context(v), id, "", workflows.ProgressQuery)
	if err != nil || value.Get(&p) != nil {
		return ""
	}
	return p.Phase
}

// approveAndFinish lets a rotation go on, and waits for its end.
func (v versioned) approveAndFinish(parent client.WorkflowRun, id string) {
	v.Helper()
	ctx := waiting.Context(v)
	_, err := v.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: workflows.ApproveUpdate, Args: []any{map[string]string{"by": "lee"}}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(v, err)
	require.NoError(v, parent.Get(ctx, nil))
}

// buildIDs are those of the workers that have done the workflow tasks of a
// workflow in all its runs, each once; an empty one is a worker of no version.
func (v versioned) buildIDs(id string) (found []string, runs int) {
	v.Helper()
	run := v.describe(id, "").GetFirstRunId()
	for run != "" {
		runs++
		next := ""
		events := v.temporal.GetWorkflowHistory(v.Context(), id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(v, err)
			if task := event.GetWorkflowTaskCompletedEventAttributes(); task != nil {
				found = append(found, task.GetDeploymentVersion().GetBuildId())
			}
			if continued := event.GetWorkflowExecutionContinuedAsNewEventAttributes(); continued != nil {
				next = continued.GetNewExecutionRunId()
			}
		}
		run = next
	}
	slices.Sort(found)
	return slices.Compact(found), runs
}

func (v versioned) describe(id, run string) *workflowpb.WorkflowExecutionInfo {
	v.Helper()
	described, err := v.temporal.DescribeWorkflowExecution(v.Context(), id, run)
	require.NoError(v, err)
	return described.GetWorkflowExecutionInfo()
}

func (v versioned) requireBuildID(want, id string) (runs int) {
	v.Helper()
	found, runs := v.buildIDs(id)
	assert.Equal(v, []string{want}, found, "the versions of %s", id)
	return runs
}

// A rotation that is under way when another version becomes the current one ends
// on its own: in the workflow that was started, in the child that it was handed
// over to, and in every run that it continues as. The next one is the new
// version's.
func TestRotationEndsOnTheVersionThatItBeganWith(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{
		"limit.historyCount.suggestContinueAsNew": "40",
		// The next two are 3 minutes, else.
		"matching.wv.VersionDrainageStatusVisibilityGracePeriod": `"1s"`,
		"matching.wv.VersionDrainageStatusRefreshInterval":       `"1s"`,
	}})
	v := newVersioned(t, server)
	a := v.startWorker("1.0.0")
	v.makeCurrent(a)
	oldParent, old := v.startHeld("orders", 10)

	b := v.startWorker("1.1.0")
	v.makeCurrent(b)
	newParent, next := v.startHeld("audit", 2)
	v.approveAndFinish(newParent, next)
	v.awaitDrainage("draining", "1.0.0", "a rotation of the old version is still running")
	v.approveAndFinish(oldParent, old)
	v.awaitDrainage("drained", "1.0.0", "its workers could never be stopped")

	v.requireBuildID("1.0.0", oldParent.GetID())
	assert.GreaterOrEqual(t, v.requireBuildID("1.0.0", old), 2, "it must have continued as new")
	v.requireBuildID("1.1.0", newParent.GetID())
	v.requireBuildID("1.1.0", next)
	assert.Equal(t, enums.VERSIONING_BEHAVIOR_PINNED, v.describe(old, "").GetVersioningInfo().GetBehavior())
	assert.Len(t, v.om.Ledger().Rotations, 11+3, "one PUT for each target")
}

// The delivery of an event lasts for a day if the receiver is away. The workers of the
// version that has begun it may be gone by then.
func TestAnEventIsDeliveredByTheCurrentVersion(t *testing.T) {
	t.Parallel()
	v := newVersioned(t, temporalserver.Shared(t))
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Status: http.StatusServiceUnavailable})
	v.events = eventSettings(t, receiver)
	old := v.startWorker("1.0.0")
	v.makeCurrent(old)
	v.startHeld("orders", 1)
	waiting.Until(t, func() bool { return len(receiver.Received()) > 0 })

	v.makeCurrent(v.startWorker("1.1.0"))
	old.signal(t, syscall.SIGTERM)
	assert.Zero(t, old.exitCode(t))
	receiver.AnswerWith()
	waiting.Until(t, func() bool { return len(receiver.Accepted()) > 0 }, "the event is not delivered")
}

// Without the setting, a rotation goes on with whatever worker there is.
func TestVersioningIsOffUnlessSet(t *testing.T) {
	t.Parallel()
	v := newVersioned(t, temporalserver.Shared(t))
	a := v.startWorker("")
	parent, id := v.startHeld("orders", 1)
	v.startWorker("")
	a.signal(t, syscall.SIGTERM)
	assert.Zero(t, a.exitCode(t))
	v.approveAndFinish(parent, id)
	v.requireBuildID("", id)
	assert.Equal(t, enums.VERSIONING_BEHAVIOR_UNSPECIFIED, v.describe(id, "").GetVersioningInfo().GetBehavior())
}

// The first version takes over what workers of no version have begun, when
// those end.
func TestFirstVersionTakesOverWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	v := newVersioned(t, temporalserver.Shared(t))
	unversioned := v.startWorker("")
	parent, id := v.startHeld("orders", 2)
	v.makeCurrent(v.startWorker("1.0.0"))
	unversioned.signal(t, syscall.SIGTERM)
	assert.Zero(t, unversioned.exitCode(t))
	v.approveAndFinish(parent, id)
	found, _ := v.buildIDs(id)
	assert.Equal(t, []string{"", "1.0.0"}, found)
}

func TestBuildIDByDefaultIsAVersionOfOneSource(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.4.0": true, "v0.0.0-20261123201137-e7461340daab": true,
		"(devel)": false, "(devel) e7461340daab": false, "v0.0.0-20261123201137-e7461340daab+dirty": false,
	} {
		assert.Equal(t, want, isRelease(version), version)
	}
}
