package workflows

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/internal/ellipsis"
)

const inputProject = `"projectId":"5196D3628d022db4cbc26d9e"`

func TestDeploymentInputHasDefaults(t *testing.T) {
	t.Parallel()
	input, err := parseRotateDeploymentInput(rawJSON(`{`+inputProject+`}`), time.Now())
	require.NoError(t, err)
	want := RotateDeploymentInput{
		Connection: "default", ProjectID: "5196d3628d022db4cbc26d9e", Concurrency: 1, Proof: ProofSnapshot,
		DeployTimeout: Duration(2 * time.Hour), ProofTimeout: Duration(26 * time.Hour), ApprovalTimeout: Duration(72 * time.Hour),
		OnFailure: OnFailureHold, HoldTimeout: Duration(168 * time.Hour), RetryTimeout: Duration(30 * time.Minute), SettleTime: Duration(30 * time.Second),
	}
	assert.Equal(t, want, input)
	whole := `{"connection": "default", ` + inputProject + `, "clusterIds": [], "concurrency": 1, "proof": "snapshot", "deployTimeout": "2h", "proofTimeout": "26h",
 "dryRun": false, "requireApproval": false, "approvalTimeout": "72h", "expectedTargets": 0, "onFailure": "hold", "holdTimeout": "168h",
 "retryTimeout": "30m", "settleTime": "30s", "change": {}, "completed": []}`
	input, err = parseRotateDeploymentInput(rawJSON(whole), time.Now())
	require.NoError(t, err)
	want.ClusterIDs, want.Completed = []string{}, []ProcessRecord{}
	assert.Equal(t, want, input)
}

// Every fault is named, with its field, in one message.
func TestDeploymentInputIsChecked(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 4, 0, 0, 0, time.UTC)
	for text, faults := range map[string][]string{
		`{}`: {"projectId: is required"},
		`{"projectId":"x","connection":"a b","concurrency":65,"proof":"none","deployTimeout":"25h","proofTimeout":"32d","clusterId":"5196d3628d022db4cbc26d9e"}`: {
			"projectId: must be 24 hex digits", "connection: must be 1 to 64", "concurrency: must be 1 to 64", "proof: must be agent, snapshot or kmip",
			"deployTimeout: must be 1s to 1d", "proofTimeout: must be 1s to 31d", `"clusterId": unknown field`,
		},
		`{` + inputProject + `,"expectedTargets":3001,"onFailure":"x","approvalTimeout":"0s","holdTimeout":"367d","retryTimeout":"25h","settleTime":"25h"}`: {
			"expectedTargets: must be 0 to 3000", "onFailure: must be hold, continue or stop", "approvalTimeout: must be", "holdTimeout: must be", "retryTimeout: must be", "settleTime: must be",
		},
		`{` + inputProject + `,"clusterIds":["5196e5b0e4b0fca9cc88334a","","7","5196E5B0e4b0fca9cc88334a"]}`: {
			"clusterIds[1]: is required", "clusterIds[2]: must be 24 hex digits", "clusterIds[3]: is clusterIds[0], too",
		},
		`{` + inputProject + `,"completed":[{"process":"a","status":"verified"},{"process":"a","status":"gone"},{}]}`: {
			"completed[0].rotateAt: is required for a target that is verified", "completed[0].rotatedAt: is required", "completed[0].newKeyUUID: is required for a verified target",
			"completed[1].process: is the target of completed[0], too", "completed[1].status: must be one of", "completed[2].process: is required",
		},
		`{` + inputProject + `,"completed":[{"process":"a","status":"rotated","rotateAt":"2026-11-26T03:00:00.5Z","rotatedAt":"2026-11-26T03:00:00Z","previousKeyUUID":"k","newKeyUUID":"k"}]}`: {
			"completed[0].rotateAt: must be in whole seconds", "completed[0].rotatedAt: must not be before rotateAt", "completed[0].newKeyUUID: must differ from previousKeyUUID",
		},
		`{` + inputProject + `,"completed":[{"process":"a","status":"rotated","rotateAt":"2026-11-27T03:00:00Z","rotatedAt":"2026-11-27T03:00:01Z","verifiedAt":"2026-11-27T03:00:01Z"}]}`: {
			"completed[0].rotateAt: must not be in the future", "completed[0].rotatedAt: must not be in the future", "completed[0].verifiedAt: must not be in the future",
		},
		`{` + inputProject + `,"completed":[{"process":"` + strings.Repeat("x", 257) + `","host":"\u0001"}]}`: {
			"completed[0].process: must have at most 256 characters", "completed[0].host: must not contain control characters",
		},
	} {
		_, err := parseRotateDeploymentInput(rawJSON(text), now)
		require.Error(t, err, text)
		assert.Equal(t, ErrorInvalidInput, ErrorTypeOf(err))
		for _, fault := range faults {
			assert.ErrorContains(t, err, fault)
		}
		assert.Len(t, strings.Split(err.Error(), "; "), len(faults), "%v", err)
	}
}

// largestDeployment is the result of a rotation in which everything went wrong.
func largestDeployment(text string) *RotateDeploymentResult {
	at := time.Date(2026, 11, 25, 19, 39, 8, 123_000_000, time.UTC)
	cluster := largest(text)
	result := &RotateDeploymentResult{
		Connection: "default", ProjectID: cluster.ProjectID, Proof: ProofKMIP, Outcome: OutcomePartial, StartedAt: at, FinishedAt: &at,
		Change: cluster.Change, Approval: cluster.Approval, Actions: cluster.Actions, ActionsNotListed: cluster.ActionsNotListed,
	}
	for i := range maxProcesses {
		id := fmt.Sprintf("%024x", i/3)
		rotateAt := at.Truncate(time.Second)
		result.Targets = append(result.Targets, ProcessRecord{
			Process: fmt.Sprintf("orders-%d-%d", i/3, i%3), Host: fmt.Sprintf("mongo-%d-%d.example.net:27017", i/3, i%3),
			ReplicaSet: fmt.Sprintf("orders-%d", i/3), ClusterID: strings.Repeat("c", 24), ClusterName: "orders", Role: RoleShard, Status: StatusFailed,
			PreviousRotateAt: "2025-06-01T03:00:00Z", RotateAt: &rotateAt, RotatedAt: &at, VerifiedAt: &at, ProvenBy: ProvenByBoth,
			PreviousKeyUUID: "0f8b7a52-9f3c-4d0a-8b1e-" + id[:12], NewKeyUUID: "1f8b7a52-9f3c-4d0a-8b1e-" + id[:12], SnapshotID: id,
			KMIP: fullEvidence(text), Ambiguous: i%2 == 0,
			Error:      &TargetError{Type: ErrorDeploymentFailed, Message: text},
			FirstError: &TargetError{Type: ErrorUnexpectedResponse, Message: text},
		})
		if i%3 == 0 {
			result.ReplicaSets = append(result.ReplicaSets, ReplicaSetRecord{
				ClusterID: strings.Repeat("c", 24), ReplicaSet: fmt.Sprintf("orders-%d", i/3), SnapshotID: id, Reason: ellipsis.Cut(text, 500),
			})
		}
	}
	return result
}

func deploymentOf(result *RotateDeploymentResult) *deploymentRotation {
	r := &deploymentRotation{rotation: &rotation{common: result.common()}, replicaSets: result.ReplicaSets}
	r.input.Connection, r.input.ProjectID, r.input.Proof = result.Connection, result.ProjectID, result.Proof
	r.kind = r
	r.setTargets(result.Targets)
	return r
}

func TestLargestDeploymentFits(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"controls", "emoji"} {
		text := hostileTexts[name]
		t.Run(name, func(t *testing.T) {
			r := deploymentOf(largestDeployment(text))
			data, err := json.Marshal(r.records())
			require.NoError(t, err)
			assert.Less(t, len(data), maxPayload)
			var decoded RotateDeploymentResult
			require.NoError(t, json.Unmarshal(data, &decoded))
			require.Len(t, decoded.Targets, maxProcesses)
			require.Len(t, decoded.ReplicaSets, maxProcesses/3)
			for i, got := range decoded.Targets {
				want := r.processes[i]
				require.Equal(t, want.Error.Type, got.Error.Type)
				got.Error, want.Error, want.FirstError, got.FirstError, want.KMIP, got.KMIP = nil, nil, nil, nil, nil, nil
				require.Equal(t, want, got)
			}
			assert.Equal(t, text, r.processes[0].Error.Message, "the rotation's own records stay as they are")
			assert.Equal(t, fullEvidence(text), r.processes[0].KMIP)

			query, err := json.Marshal(r.currentProgress())
			require.NoError(t, err)
			assert.Less(t, len(query), temporalLimit)
			answer, err := json.Marshal(r.updateAnswer())
			require.NoError(t, err)
			assert.Less(t, len(answer), maxUpdateAnswer)
			var p DeploymentProgress
			require.NoError(t, json.Unmarshal(answer, &p))
			assert.NotEmpty(t, p.Targets)
			assert.Equal(t, maxProcesses, len(p.Targets)+p.TargetsNotListed)
			assert.Equal(t, maxProcesses, p.Counts[StatusFailed])
		})
	}
}

// Through Nexus, the details of a failure travel in Base64.
func TestDetailsOfADeploymentsFailureFitIntoBase64(t *testing.T) {
	t.Parallel()
	for _, targets := range []int{10, 2_000} {
		result := largestDeployment(strings.Repeat("<", maxText))
		result.Targets, result.ReplicaSets = result.Targets[:targets], result.ReplicaSets[:targets/3]
		err := failure(ErrorPartialFailure, deploymentOf(result).records(), "partial")
		converter := temporal.GetDefaultFailureConverter()
		records, found := RotateDeploymentResultOf(converter.FailureToError(converter.ErrorToFailure(err)))
		require.True(t, found)
		require.Len(t, records.Targets, targets)
		assert.LessOrEqual(t, base64.StdEncoding.EncodedLen(jsonBytes(records)), temporalLimit, targets)
		assert.Equal(t, ErrorDeploymentFailed, records.Targets[0].Error.Type)
	}
}

// What is counted of a record is what its JSON takes, whatever is empty in it.
func TestProcessBytesAreThoseOfTheJSON(t *testing.T) {
	t.Parallel()
	full := largestDeployment("").Targets[1]
	full.Error, full.FirstError, full.KMIP = nil, nil, nil
	empty := ProcessRecord{Process: "orders-0-0"}
	for _, record := range []ProcessRecord{full, empty} {
		for _, compact := range []bool{false, true} {
			record.compact = compact
			assert.GreaterOrEqual(t, record.bytesWithoutTexts(), jsonBytes(record)+1)
			assert.Less(t, record.bytesWithoutTexts(), jsonBytes(record)+60)
		}
	}
	set := largestDeployment("").ReplicaSets[0]
	assert.GreaterOrEqual(t, set.bytesWithoutTexts(), jsonBytes(set)+1)
}

func TestRotateDeploymentResultOf(t *testing.T) {
	t.Parallel()
	failed := func(details any) error { // as Temporal reports it
		converter := temporal.GetDefaultFailureConverter()
		return converter.FailureToError(converter.ErrorToFailure(temporal.NewApplicationErrorWithOptions("x", string(ErrorAborted), temporal.ApplicationErrorOptions{Details: []any{details}})))
	}
	result := largestDeployment("x")
	result.Targets = result.Targets[:1]
	found, ok := RotateDeploymentResultOf(failed(result))
	require.True(t, ok)
	assert.Equal(t, result.ProjectID, found.ProjectID)
	_, ok = RotateDeploymentResultOf(failed(largest("x")))
	assert.False(t, ok, "a cluster's records")
	_, ok = RotateDeploymentResultOf(failed(activities.FailureDetails{}))
	assert.False(t, ok)
	_, ok = RotateClusterResultOf(failed(result))
	assert.False(t, ok, "a deployment's records are no cluster's")
}

func TestRotateDeploymentIDs(t *testing.T) {
	t.Parallel()
	id := RotateDeploymentID("prod", "5196D3628d022db4cbc26d9e")
	assert.Equal(t, "rotate-deployment:prod:5196d3628d022db4cbc26d9e", id)
	connection, projectID, ok := ParseRotateDeploymentID(id)
	assert.True(t, ok)
	assert.Equal(t, "prod 5196d3628d022db4cbc26d9e", connection+" "+projectID)
	for _, other := range []string{"", "rotate-deployment:prod:x", strings.ToUpper(id), id + ":x", "rotate-cluster:prod:5196d3628d022db4cbc26d9e"} {
		_, _, ok := ParseRotateDeploymentID(other)
		assert.False(t, ok, other)
	}
}

// process is a record as a rotation has it whose time was published.
func process(name, set string, status Status) ProcessRecord {
	return ProcessRecord{Process: name, Host: name + ".example.net:27017", ReplicaSet: set, ClusterID: "c", Status: status}
}

func atTime(text string) *time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return &at
}

// Processes that have a time go first, all of one time; then the replica sets in
// their order, the first one alone.
func TestNextBatch(t *testing.T) {
	t.Parallel()
	r := deploymentOf(&RotateDeploymentResult{Targets: []ProcessRecord{
		process("a0", "a", StatusPending), process("a1", "a", StatusPending), process("b0", "b", StatusPending), process("b1", "b", StatusSkipped), process("c0", "c", StatusPending),
		process("d0", "d", StatusPending),
	}})
	r.input.Concurrency = 2
	next := func() (names []string) {
		for _, t := range r.nextWork() {
			names = append(names, t.label())
		}
		return names
	}
	assert.Equal(t, []string{"a0", "a1"}, next(), "the first replica set alone")
	first, second := atTime("2026-11-26T03:00:00Z"), atTime("2026-11-26T04:00:00Z")
	r.processes[0].Status, r.processes[0].RotateAt = StatusRotated, first
	assert.Equal(t, []string{"a1", "b0"}, next())
	r.processes[0].CarriedOver = true
	assert.Equal(t, []string{"a1"}, next(), "an earlier run's first replica set does not count")
	r.processes[2].RotateAt, r.processes[4].RotateAt, r.processes[5].RotateAt = second, first, second
	assert.Equal(t, []string{"b0", "d0"}, next(), "those with one time, however many replica sets")
}
