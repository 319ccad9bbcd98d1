package main

import (
	"encoding/csv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"

	"keyturn/workflows"
)

// listed is a workflow as Temporal lists it, with a memo if it has one.
func listed(t *testing.T, id, workflowType string, ended enumspb.WorkflowExecutionStatus, memo *workflows.Memo) *workflowpb.WorkflowExecutionInfo {
	t.Helper()
	info := &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: "6f1c1a52-8a3f-4d5c-9c0b-3a53a8a2f001"}, Type: &commonpb.WorkflowType{Name: workflowType},
		StartTime: timestamppb.New(began), Status: ended,
	}
	if ended != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		info.CloseTime = timestamppb.New(*at(90))
	}
	if memo != nil {
		payload, err := converter.GetDefaultDataConverter().ToPayload(memo)
		require.NoError(t, err)
		info.Memo = &commonpb.Memo{Fields: map[string]*commonpb.Payload{workflows.MemoKey: payload}}
	}
	return info
}

const (
	running    = enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	completed  = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	terminated = enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
)

// listedWorkflows has a rotation of each kind and state.
func listedWorkflows(t *testing.T) []*workflowpb.WorkflowExecutionInfo {
	clusterID := func(last string) string {
		return workflows.RotateClusterID("default", testProject, testCluster[:23]+last)
	}
	memo := func(last, name string, change workflows.Memo) *workflows.Memo {
		change.Connection, change.ProjectID, change.ClusterID, change.Clusters = "default", testProject, testCluster[:23]+last, []string{name}
		change.Ticket, change.RequestedBy, change.Targets = "CHG0031337", "dana", 3
		return &change
	}
	return []*workflowpb.WorkflowExecutionInfo{
		listed(t, clusterID("1"), workflows.RotateClusterType, running, memo("1", "orders", workflows.Memo{Phase: workflows.PhaseRotating, Since: *at(3)})),
		listed(t, clusterID("2"), workflows.RotateClusterType, running, memo("2", "billing", workflows.Memo{
			Phase: workflows.PhaseAwaitingApproval, Since: *at(5), WaitingFor: "an operator other than dana to approve or reject the plan",
		})),
		listed(t, workflows.RotateDeploymentID("emea", testProject), workflows.RotateDeploymentType, running, &workflows.Memo{
			Connection: "emea", ProjectID: testProject, Clusters: []string{"orders", "a-cluster-with-a-very-long-display-name"}, ClustersNotListed: 3,
			Ticket: "CHG0031338", Targets: 40, Phase: workflows.PhaseHeld, Since: *at(7), WaitingFor: "an operator to retry, skip or abort, until 2026-03-08T12:00:07Z: mongod-7 failed (DeploymentFailed)",
		}),
		listed(t, "nightly", workflows.RotateFleetType, running, &workflows.Memo{
			FleetOf: workflows.FleetOfClusters, Connection: "default", Targets: 200, Phase: workflows.PhasePaused, Since: *at(8), WaitingFor: "an operator to resume: paused by kim (lunch)",
		}),
		listed(t, "weekly", workflows.RotateClusterType, running, &workflows.Memo{Connection: "default", HandedOverTo: clusterID("1")}),
		listed(t, clusterID("3"), workflows.RotateClusterType, completed, memo("3", "audit", workflows.Memo{Phase: workflows.PhaseDone, Since: *at(89), Outcome: workflows.OutcomeRotated})),
		listed(t, clusterID("4"), workflows.RotateClusterType, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, memo("4", "a\x1b[31mb|c", workflows.Memo{
			Phase: workflows.PhaseDone, Since: *at(89), Outcome: workflows.OutcomeNothingRotated, Error: workflows.ErrorRejected,
		})),
		listed(t, clusterID("5"), workflows.RotateClusterType, terminated, memo("5", "legacy", workflows.Memo{Phase: workflows.PhaseHeld, Since: *at(9), WaitingFor: "an operator"})),
	}
}

// viewOf is what is shown of these workflows.
func viewOf(t *testing.T, f *listFlags, infos []*workflowpb.WorkflowExecutionInfo) *listView {
	t.Helper()
	a, _, _ := newTestApp()
	require.NoError(t, f.check(began))
	l := &rotationList{flags: f, reads: t.Context()}
	for _, info := range infos {
		if r, isOne := rotationListed(info); isOne && f.mayBeOfInterest(r.name, r.Connection) && f.isOfInterest(r) {
			l.found = append(l.found, r)
		}
	}
	l.sort()
	return l.view(a)
}

func TestListPutsWhatWaitsFirstWithTheCommandToContinue(t *testing.T) {
	v := viewOf(t, &listFlags{}, listedWorkflows(t))
	expectOnTerminal(t, "list", v.table)
	assert.Contains(t, v.table(layout{}), "deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea)", "nothing is cut for a pipe")
}

func TestListAsDataHasEveryField(t *testing.T) {
	v := viewOf(t, &listFlags{}, listedWorkflows(t))
	rows, err := csv.NewReader(strings.NewReader(v.csv())).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 8)
	assert.Equal(t, []string{
		"waiting for approval", "2026-03-01T12:00:05Z", "an operator other than dana to approve or reject the plan", "cluster", "default", testProject, testCluster[:23] + "2",
		"billing", "CHG0031337", "dana", "false", "3", "", "", "Running", "2026-03-01T12:00:00Z", "", workflows.RotateClusterID("default", testProject, testCluster[:23]+"2"),
		"6f1c1a52-8a3f-4d5c-9c0b-3a53a8a2f001", "keyturn approve --project " + testProject + " --cluster " + testCluster[:23] + "2 --by SOMEONE-ELSE",
	}, rows[2])
	text, err := jsonText(v, "")
	require.NoError(t, err)
	for _, want := range []string{`"waiting": 3`, `"open": 4`, `"phase": "awaitingApproval"`, `"kind": "fleet"`, `"outcome": "nothingRotated"`, `"error": "Rejected"`, `"status": "Terminated"`} {
		assert.Contains(t, text, want)
	}
	markdown := v.markdown()
	assert.Contains(t, markdown, "| held |  | 2026-03-01T12:00:07Z | deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea) |")
	assert.Contains(t, markdown, "```sh\nkeyturn resume --fleet --workflow-id nightly --by dana\n```")
	assert.NotContains(t, markdown+v.table(layout{})+v.csv(), "\x1b", "names are other people's")
}

func TestListFiltersRotations(t *testing.T) {
	for name, c := range map[string]struct {
		flags listFlags
		want  []string
	}{
		"waiting":    {listFlags{waiting: true}, []string{"deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea)", "billing", "fleet default"}},
		"a ticket":   {listFlags{filterFlags: filterFlags{ticket: "CHG0031338"}}, []string{"deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea)"}},
		"connection": {listFlags{filterFlags: filterFlags{connection: "emea"}}, []string{"deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea)"}},
		"a name":     {listFlags{filterFlags: filterFlags{cluster: "orders"}}, []string{"deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea)", "orders"}},
		"an ID":      {listFlags{filterFlags: filterFlags{cluster: strings.ToUpper(testCluster[:23] + "3"), project: strings.ToUpper(testProject)}}, []string{"audit"}},
		"a limit":    {listFlags{filterFlags: filterFlags{limit: 2}}, []string{"deployments: orders, a-cluster-with-a-very-long-display-name, and 3 more (emea)", "billing"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := viewOf(t, &c.flags, listedWorkflows(t))
			var got []string
			for _, r := range v.Rotations {
				got = append(got, r.subject())
			}
			assert.Equal(t, c.want, got)
			assert.Equal(t, name == "a limit", v.More)
			if v.More {
				assert.Contains(t, v.summary(), "3 waiting for a person, 1 in progress", "what is not listed is counted")
				assert.Contains(t, v.summary(), "only the first 2 are listed")
			}
		})
	}
}

func TestListUsage(t *testing.T) {
	for _, wrong := range [][]string{
		{"--project", "x"}, {"--connection", "no spaces"}, {"--limit", "-1"}, {"--since", "yesterday"}, {"--open", "--ended"}, {"--fleet", "--cluster", "x"}, {"more"},
	} {
		code, _, stderr := runHere(t, nil, strings.NewReader(""), append([]string{"list"}, wrong...)...)
		assert.Equal(t, exitUsage, code, "%v: %s", wrong, stderr)
	}
}
