package workflows_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

func TestRotatesEveryTarget(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 11)
	om.AddReplicaSet(project, "orders") // may legally share the display name
	env := fixture.NewSDK(t, om)

	result, err := env.Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)

	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, "orders", result.ClusterName)
	assert.Equal(t, "CHG0031337", result.Change.Ticket)
	require.Len(t, result.Targets, 12)
	assert.Equal(t, "orders-2", result.Targets[2].Name, "natural order")
	assert.Equal(t, "orders-10", result.Targets[10].Name, "natural order")
	assert.Equal(t, workflows.RoleConfigServer, result.Targets[11].Role, "the config server last")
	requireTrue(t, om, result.Targets)
	for _, record := range result.Targets {
		assert.Equal(t, workflows.StatusVerified, record.Status)
		assert.Equal(t, 1, record.Attempts)
		assert.False(t, record.Ambiguous)
	}
	p := env.Progress()
	assert.Equal(t, workflows.PhaseDone, p.Phase)
	assert.Equal(t, map[workflows.Status]int{workflows.StatusVerified: 12}, p.Counts)
}

func TestRotatesAPlainReplicaSet(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	result, err := fixture.NewSDK(t, om).Rotate(fixture.Input(set.ID))
	require.NoError(t, err)
	require.Len(t, result.Targets, 1)
	assert.Equal(t, workflows.RoleReplicaSet, result.Targets[0].Role)
	requireTrue(t, om, result.Targets)
}

func TestUndisturbedTargetCostsThreeRequests(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 8)
	result, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	ledger := om.Ledger()
	for _, record := range result.Targets {
		assert.Equal(t, 2, ledger.Count(http.MethodGet, record.ClusterID), record.Name)
		assert.Equal(t, 1, ledger.Count(http.MethodPut, record.ClusterID), record.Name)
	}
}

func TestEveryKeyIsReadBeforeTheFirstPut(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 120)
	input := fixture.Input(cluster.ID)
	input.Concurrency = 32
	_, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	read := map[string]bool{}
	for _, request := range om.Ledger().Requests {
		if request.Kind != simulator.KindKey || !request.Authenticated {
			continue
		}
		if request.Method == http.MethodPut {
			break
		}
		read[request.ClusterID] = true
	}
	assert.Len(t, read, 121)
}

// The canary goes alone, then as many as concurrency says are in progress: shown by
// a barrier that opens only when so many PUTs are under way at once.
func TestCanaryGoesAloneThenConcurrencyHolds(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{Latency: 30 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 13)
	input := fixture.Input(cluster.ID)
	input.Concurrency = 5
	_, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	canary := cluster.ShardIDs[0]
	touched := om.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindKey && r.Authenticated })
	puts := slices.IndexFunc(touched, func(r simulator.Request) bool { return r.Method == http.MethodPut })
	assert.Equal(t, []string{"PUT " + canary, "GET " + canary}, []string{
		touched[puts].Method + " " + touched[puts].ClusterID, touched[puts+1].Method + " " + touched[puts+1].ClusterID,
	})
	inFlight := om.Ledger().MaxConcurrent(func(r simulator.Request) bool { return r.Method == http.MethodPut })
	assert.Equal(t, 5, inFlight)
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 3)
	input := fixture.Input(cluster.ID)
	input.DryRun, input.RequireApproval = true, true
	result, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomePlanned, result.Outcome)
	for _, record := range result.Targets {
		assert.Equal(t, workflows.StatusPlanned, record.Status)
		assert.Equal(t, om.Key(record.ClusterID), record.PreviousKeyUUID)
		assert.Empty(t, record.NewKeyUUID)
	}
	assert.Zero(t, om.Ledger().Count(http.MethodPut, ""))
}

func TestInvalidInputNamesEveryFault(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	long := strings.Repeat("x", 3000)
	for name, c := range map[string]struct {
		input any
		names []string
	}{
		"nothing":          {map[string]any{}, []string{"projectId: is required", "clusterId: is required"}},
		"malformed ids":    {map[string]any{"projectId": "../x", "clusterId": "5196E5B0E4B0FCA9CC88334Z"}, []string{"projectId:", "clusterId:"}},
		"wrong types":      {map[string]any{"projectId": 7, "clusterId": []int{1}, "concurrency": "4", "dryRun": "yes", "settleTime": 30, "change": "x", "completed": map[string]any{}}, []string{"projectId: must be a string", "clusterId: must be a string", "concurrency: must be a whole number", "dryRun: must be true or false", "settleTime: must be a duration", "change: must be an object", "completed: must be a list"}},
		"out of range":     {map[string]any{"concurrency": 65, "expectedTargets": -1, "onFailure": "panic", "retryTimeout": "-1s", "settleTime": "25h", "verifyTimeout": "0s", "holdTimeout": "9999h", "approvalTimeout": "0s", "connection": "../x"}, []string{"concurrency:", "expectedTargets:", "onFailure:", "retryTimeout:", "settleTime:", "verifyTimeout:", "holdTimeout:", "approvalTimeout:", "connection:"}},
		"a fraction":       {map[string]any{"concurrency": 1.5}, []string{"concurrency: must be a whole number"}},
		"unknown fields":   {map[string]any{"url": "http://x", "change": map[string]any{"tickets": "x"}}, []string{`"url": unknown field`, `change."tickets": unknown field`}},
		"other spelling":   {map[string]any{"ProjectId": project}, []string{`"ProjectId": unknown field`}},
		"hostile text":     {map[string]any{"change": map[string]any{"ticket": "a\x1b[31m", "reason": long}}, []string{"change.ticket: must not contain control", "change.reason: must have"}},
		"faulty record":    {map[string]any{"completed": []any{map[string]any{"clusterId": "x", "status": "verified", "verifiedAt": "yesterday", "role": 1}}}, []string{"completed[0].clusterId:", "completed[0].newKeyUUID: is required", "completed[0].verifiedAt: must be a time", "completed[0].role: must be a string"}},
		"a list":           {[]string{"x"}, []string{"input: must be an object"}},
		"a number":         {7, []string{"input: must be an object"}},
		"bytes":            {[]byte("{}"), []string{"input: must be a JSON object"}},
		"not JSON":         {payload(`{"projectId":`), []string{"input: is not valid JSON"}},
		"repeated field":   {payload(`{"projectId":"a","projectId":"b"}`), []string{"projectId: duplicate field"}},
		"a megabyte":       {payload(`{"` + strings.Repeat("y", 1<<20) + `":1}`), []string{"unknown field"}},
		"every field":      {everyFieldWrong(), everyField},
		"many wrong names": {payload(manyFields(500)), []string{`"f99": unknown field; `, " more"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fixture.NewSDK(t, om).Start("anything", c.input)
			appErr := requireFailure(t, err, workflows.ErrorInvalidInput)
			for _, want := range c.names {
				assert.Contains(t, appErr.Message(), want)
			}
			assert.Less(t, len(appErr.Message()), 4000)
			assert.NotContains(t, appErr.Message(), "\x1b")
			assert.NotContains(t, appErr.Message(), "projectId: must be a string; projectId: is required")
		})
	}
	assert.Empty(t, om.Ledger().Requests)
}

func payload(text string) converter.RawValue {
	p, err := converter.GetDefaultDataConverter().ToPayload(json.RawMessage("{}"))
	if err != nil {
		panic(err)
	}
	p.Data = []byte(text)
	return converter.NewRawValue(p)
}

// everyField names what an input can have, records of an earlier run included.
var everyField = []string{
	"connection:", "projectId:", "clusterId:", "concurrency:", "dryRun:", "requireApproval:", "approvalTimeout:", "expectedTargets:", "allowUnserved:",
	"onFailure:", "holdTimeout:", "retryTimeout:", "settleTime:", "verifyTimeout:", "change.ticket:", "change.requestedBy:", "change.reason:",
	"completed[0].clusterId:", "completed[0].name:", "completed[0].role:", "completed[0].status:", "completed[0].previousKeyUUID:",
	"completed[0].newKeyUUID:", "completed[0].replacedOutside:", "completed[0].rotatedAt:", "completed[0].verifiedAt:", "completed[0].attempts:", "completed[0].ambiguous:",
	"completed[0].carriedOver:", "completed[0].error.type:", "completed[0].error.message:",
}

// everyFieldWrong has an object where each of them should be.
func everyFieldWrong() map[string]any {
	wrong := map[string]any{}
	for _, path := range everyField {
		in := wrong
		names := strings.Split(strings.TrimSuffix(path, ":"), ".")
		for _, name := range names[:len(names)-1] {
			in = nested(in, name)
		}
		in[names[len(names)-1]] = map[string]any{}
	}
	return wrong
}

// nested gives the object of that name in another one; of name[0], the list's one.
func nested(in map[string]any, name string) map[string]any {
	list, isList := strings.CutSuffix(name, "[0]")
	if in[list] == nil {
		in[list] = map[string]any{}
		if isList {
			in[list] = []any{map[string]any{}}
		}
	}
	if isList {
		return in[list].([]any)[0].(map[string]any)
	}
	return in[list].(map[string]any)
}

func manyFields(n int) string {
	var fields []string
	for i := range n {
		fields = append(fields, fmt.Sprintf(`"f%d":1`, i))
	}
	return "{" + strings.Join(fields, ",") + "}"
}

func TestDefaultsAreTheContracts(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(workflows.DefaultRotateClusterInput())
	require.NoError(t, err)
	assert.JSONEq(t, `{"connection":"default","projectId":"","clusterId":"","concurrency":4,"approvalTimeout":"72h0m0s",
		"onFailure":"hold","holdTimeout":"168h0m0s","retryTimeout":"30m0s","settleTime":"30s","verifyTimeout":"15m0s"}`, string(data))
}

func TestASecondInputIsRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	for name, second := range map[string]any{
		"carried state": map[string]any{"untouchedIn": "default-test-run-id"},
		"a text":        "text",
		"a list":        []string{"x"},
		"not JSON":      payload(`{"result":`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fixture.NewSDK(t, om).Start(workflows.RotateClusterID("default", project, set.ID), fixture.Input(set.ID), second)
			requireFailure(t, err, workflows.ErrorInvalidInput)
		})
	}
	assert.Empty(t, om.Ledger().Requests)
}

// A cron schedule or a retry policy starts a run with the arguments of the one
// before: only the state of the run that this one continues is taken up.
func TestStateOfAnotherRunIsNotTakenUp(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	env := fixture.NewSDK(t, om)
	env.SetContinueAsNewSuggested(true)
	_, err := env.Rotate(fixture.Input(set.ID))
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)

	env = fixture.NewSDK(t, om)
	env.SetContinuedExecutionRunID("a run of a cron schedule")
	result, err := env.Start(workflows.RotateClusterID("default", project, set.ID), argumentsOf(continued)...)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, 3, om.Ledger().Count(http.MethodGet, set.ID), "the key is read again")

	for name, writer := range map[string]any{
		"another workflow's state": map[string]any{"runId": "default-test-run-id", "firstRunId": "another run"},
		"no JSON object":           7,
	} {
		t.Run(name, func(t *testing.T) {
			env := fixture.NewSDK(t, om)
			env.SetContinuedExecutionRunID("default-test-run-id")
			forged := map[string]any{"result": map[string]any{"targets": []any{}}, "writer": writer}
			_, err := env.Start(workflows.RotateClusterID("default", project, set.ID), fixture.Input(set.ID), forged)
			requireFailure(t, err, workflows.ErrorInvalidInput)
		})
	}
	assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
}

func TestHandsOverToTheOneID(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := fixture.NewSDK(t, om)
	var child string
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, _ converter.EncodedValues) {
		child = info.WorkflowExecution.ID
	})
	input := fixture.Input(cluster.ID)
	input.ClusterID = strings.ToUpper(cluster.ID)
	result, err := env.Start("a schedule's id", input)
	require.NoError(t, err)
	assert.Equal(t, "rotate-cluster:default:"+project+":"+cluster.ID, child, "no spelling goes round the lock")
	requireTrue(t, om, result.Targets)
}

func TestHandOverReturnsTheFailureAsItIs(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
	_, err := fixture.NewSDK(t, om).Start("a schedule's id", fixture.Input(cluster.ID))
	records := requireRecords(t, err, workflows.ErrorPartialFailure)
	assert.Len(t, records.Targets, 3)
}

func TestPermanentErrorsEndTheRotationAtOnce(t *testing.T) {
	t.Parallel()
	for errorType, c := range map[workflows.ErrorType]struct {
		fault    func(id string) simulator.Fault
		mentions string
	}{
		workflows.ErrorUnauthorized:       {func(id string) simulator.Fault { return simulator.Unauthorized(http.MethodGet, id).Always() }, "USER_UNAUTHORIZED"},
		workflows.ErrorForbidden:          {func(id string) simulator.Fault { return simulator.AccessListRefusal(http.MethodGet, id).Always() }, "IP_ADDRESS_NOT_ON_ACCESS_LIST"},
		workflows.ErrorNotFound:           {simulator.KeyNotFound, "BACKUP_CONFIG_NOT_FOUND"},
		workflows.ErrorEncryptionOff:      {simulator.KeyMissing, "encrypt"},
		workflows.ErrorUnexpectedResponse: {func(id string) simulator.Fault { return simulator.KeyGarbage(id).Always() }, "JSON"},
	} {
		t.Run(string(errorType), func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			cluster := om.AddShardedCluster(project, "orders", 2)
			om.Inject(c.fault(cluster.ShardIDs[1]).On(simulator.KindKey))
			started := time.Now()
			_, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
			appErr := requireFailure(t, err, errorType)
			assert.Contains(t, appErr.Message(), c.mentions)
			assert.Contains(t, appErr.Message(), "GET /api/public/v1.0/")
			assert.Less(t, time.Since(started), 5*time.Second)
			assert.Empty(t, om.Ledger().Rotations)
		})
	}
}

func TestUnknownConnection(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := fixture.Input(set.ID)
	input.Connection = "emea"
	_, err := fixture.NewSDK(t, om).Rotate(input)
	appErr := requireFailure(t, err, workflows.ErrorUnknownConnection)
	assert.Contains(t, appErr.Message(), `"emea"`)
}

func TestExpectedTargetsAreChecked(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	input := fixture.Input(cluster.ID)
	input.ExpectedTargets = 4
	_, err := fixture.NewSDK(t, om).Rotate(input)
	appErr := requireFailure(t, err, workflows.ErrorUnexpectedTopology)
	assert.Contains(t, appErr.Message(), "expectedTargets: expected 4 targets, but Ops Manager lists 3")
	assert.Empty(t, om.Ledger().Rotations)

	input.ExpectedTargets = 3
	_, err = fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
}

func TestAnEndpointThatServesNoBackupIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version string
		refused bool
	}{
		"before 8.0":    {"versionString=7.0.15.500.20250401T1200Z", false},
		"8.0":           {simulator.UnservedServiceVersion, true},
		"later":         {"10.1.0.500", true},
		"Cloud Manager": {"gitHash=4c1f0d2e9b; versionString=v20250401", false},
		"no version":    {"gitHash=4c1f0d2e9b", false},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{ServiceVersion: c.version})
			cluster := om.AddShardedCluster(project, "orders", 1)
			for _, dryRun := range []bool{true, false} {
				input := fixture.Input(cluster.ID)
				input.DryRun = dryRun
				_, err := fixture.NewSDK(t, om).Rotate(input)
				if !c.refused {
					require.NoError(t, err)
					continue
				}
				failed := requireFailure(t, err, workflows.ErrorNotServed)
				assert.Contains(t, failed.Message(), "keyturn rotate --deployment --project "+project+" (workflow RotateDeployment)")
				assert.Contains(t, failed.Message(), "allowUnserved")
				assert.Empty(t, om.Ledger().Rotations)
				for _, request := range om.Ledger().Requests {
					assert.NotEqual(t, simulator.KindKey, request.Kind, "no key is read either")
				}
			}
			if !c.refused {
				return
			}
			input := fixture.Input(cluster.ID)
			input.AllowUnserved = true
			result, err := fixture.NewSDK(t, om).Rotate(input)
			require.NoError(t, err)
			requireTrue(t, om, result.Targets)
		})
	}
}

// A worker that does not look at the version may have started the rotation.
func TestAHistoryFromBeforeTheRefusalIsNotRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{ServiceVersion: simulator.UnservedServiceVersion})
	set := om.AddReplicaSet(project, "audit")
	env := fixture.NewSDK(t, om)
	env.OnGetVersion("refuse-unserved-endpoint", workflow.DefaultVersion, 1).Return(workflow.DefaultVersion)
	result, err := env.Rotate(fixture.Input(set.ID))
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
}

func TestFailureStopsOrContinues(t *testing.T) {
	t.Parallel()
	for onFailure, want := range map[workflows.OnFailure]map[string]string{
		workflows.OnFailureStop:     {"orders-0": "verified", "orders-1": "failed", "orders-2": "pending", "orders-config": "pending"},
		workflows.OnFailureContinue: {"orders-0": "verified", "orders-1": "failed", "orders-2": "verified", "orders-config": "verified"},
	} {
		t.Run(string(onFailure), func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			cluster := om.AddShardedCluster(project, "orders", 3)
			om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
			input := fixture.Input(cluster.ID)
			input.OnFailure, input.Concurrency = onFailure, 1
			_, err := fixture.NewSDK(t, om).Rotate(input)
			records := requireRecords(t, err, workflows.ErrorPartialFailure)
			assert.Equal(t, want, statusesOf(records.Targets))
			assert.Equal(t, workflows.ErrorForbidden, records.Targets[1].Error.Type)
			requireTrue(t, om, records.Targets)
		})
	}
}

func TestFailedCanaryIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{Latency: 10 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 4)
	om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[0]))
	input := fixture.Input(cluster.ID)
	input.OnFailure = workflows.OnFailureContinue
	_, err := fixture.NewSDK(t, om).Rotate(input)
	records := requireRecords(t, err, workflows.ErrorPartialFailure)
	requireTrue(t, om, records.Targets)
	puts := om.Ledger().Select(func(r simulator.Request) bool { return r.Method == http.MethodPut && r.Authenticated })
	verified := om.Ledger().Select(func(r simulator.Request) bool {
		return r.Method == http.MethodGet && r.Kind == simulator.KindKey && r.ClusterID == cluster.ShardIDs[1] && r.Authenticated
	})
	assert.Equal(t, cluster.ShardIDs[1], puts[1].ClusterID)
	assert.True(t, puts[2].Start.After(verified[1].End), "the third starts when the second is verified")
}

func TestAcceptedButNeverChanging(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.PutUnchanging(set.ID))
	_, err := fixture.NewSDK(t, om).Rotate(fixture.Input(set.ID))
	records := requireRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, workflows.ErrorKeyUnchanged, records.Targets[0].Error.Type)
	assert.Contains(t, records.Targets[0].Error.Message, "FCV")
	assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
}

func TestContinuesAsNewWithEveryRecord(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 5)
	env := fixture.NewSDK(t, om)
	env.SetContinueAsNewSuggested(true)
	input := fixture.Input(cluster.ID)
	_, err := env.Rotate(input)
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	assert.Empty(t, om.Ledger().Rotations)

	result, err := continueFrom(t, om, continued, input)
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
	assert.Len(t, result.Targets, 6)
	assert.Equal(t, 6, om.Ledger().Count(http.MethodPut, ""))
}

func TestCompletedTargetsAreReadAndNotRotatedAgain(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 3)
	om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[2]))
	input := fixture.Input(cluster.ID)
	input.Concurrency = 1
	_, err := fixture.NewSDK(t, om).Rotate(input)
	first := requireRecords(t, err, workflows.ErrorPartialFailure)
	om.SetKey(cluster.ShardIDs[1], "someone-elses")

	input.Completed = first.Targets
	result, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	assert.True(t, result.Targets[0].CarriedOver)
	assert.Equal(t, first.Targets[0].NewKeyUUID, result.Targets[0].NewKeyUUID)
	assert.Equal(t, first.Targets[0].VerifiedAt, result.Targets[0].VerifiedAt)
	assert.False(t, result.Targets[1].CarriedOver, "its key is another one now")
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[0]), 1)
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 2)
	assert.Equal(t, "someone-elses", result.Targets[1].PreviousKeyUUID)
}

// Records that someone else's program has passed on may have the times of its
// own zone.
func TestTimesOfCompletedTargetsAreReportedInUTC(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := fixture.Input(set.ID)
	first, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	done := first.Targets[0]
	abroad := done.VerifiedAt.In(time.FixedZone("CET", 3600))
	done.RotatedAt, done.VerifiedAt = &abroad, &abroad
	input.Completed = []workflows.TargetRecord{done}
	result, err := fixture.NewSDK(t, om).Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, first.Targets[0].VerifiedAt, result.Targets[0].VerifiedAt)
	assert.Equal(t, first.Targets[0].VerifiedAt, result.Targets[0].RotatedAt)
}

// A field that is explicitly zero stays so through a hand-over and a
// continue-as-new, and doesn't turn into its default.
func TestExplicitZeroIsHandedOver(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.InvalidState(http.MethodGet, set.ID).Always())
	started := time.Now()
	_, err := fixture.NewSDK(t, om).Start("another id", map[string]any{"projectId": project, "clusterId": set.ID, "retryTimeout": "0s"})
	appErr := requireFailure(t, err, workflows.ErrorOpsManagerUnavailable)
	assert.Contains(t, appErr.Message(), "gave up after retrying for 0s")
	assert.Less(t, time.Since(started), 5*time.Second)
}

func TestLostAnswerIsSettledByReading(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	om.Inject(simulator.PutCut(cluster.ShardIDs[1], simulator.ApplyBefore))
	om.Inject(simulator.PutServerError(cluster.ConfigID, simulator.ApplyNo))
	result, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
	assert.False(t, result.Targets[0].Ambiguous)
	assert.True(t, result.Targets[1].Ambiguous)
	assert.Equal(t, 1, result.Targets[1].Attempts)
	assert.True(t, result.Targets[2].Ambiguous)
	assert.Equal(t, 2, result.Targets[2].Attempts)
}
