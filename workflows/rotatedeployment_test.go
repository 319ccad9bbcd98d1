package workflows_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// audit is a deployment of one replica set of three members, audit-0 the primary.
var audit = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit"}}}

// twoSets is a deployment of two plain replica sets.
var twoSets = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit"}, {Name: "books"}}}

func deploymentRecords(t *testing.T, err error, errorType workflows.ErrorType) *workflows.RotateDeploymentResult {
	t.Helper()
	requireFailure(t, err, errorType)
	records, found := workflows.RotateDeploymentResultOf(err)
	require.True(t, found, "the failure must carry its records: %v", err)
	return records
}

func recordOf(t *testing.T, records []workflows.ProcessRecord, process string) workflows.ProcessRecord {
	t.Helper()
	i := slices.IndexFunc(records, func(r workflows.ProcessRecord) bool { return r.Process == process })
	require.GreaterOrEqual(t, i, 0, process)
	return records[i]
}

func processStatuses(records []workflows.ProcessRecord) map[string]string {
	found := map[string]string{}
	for _, record := range records {
		found[record.Process] = string(record.Status)
	}
	return found
}

func allAre(status workflows.Status, processes ...string) map[string]string {
	all := map[string]string{}
	for _, process := range processes {
		all[process] = string(status)
	}
	return all
}

var auditProcesses = []string{"audit-0", "audit-1", "audit-2"}

// requirePromise compares the records with the ledger: one time for each process, and
// no more keys than times; nothing else in the configuration was changed; and whoever is
// said to be rotated was.
func requirePromise(t *testing.T, d fixture.Deployed, records []workflows.ProcessRecord) {
	t.Helper()
	assert.Empty(t, d.Violations())
	times := d.RotationTimes()
	for _, record := range records {
		if record.RotateAt == nil || record.CarriedOver {
			continue
		}
		rotations := d.Rotations(record.Process)
		assert.LessOrEqual(t, len(rotations), 1, "%s", record.Process)
		if record.Status == workflows.StatusRotated || record.Status == workflows.StatusVerified {
			if assert.Len(t, rotations, 1, record.Process) {
				assert.Equal(t, `"`+opsmanager.RotationTime(*record.RotateAt)+`"`, rotations[0].Time, record.Process)
				assert.True(t, record.RotatedAt.After(*record.RotateAt), record.Process)
			}
			assert.Equal(t, `"`+opsmanager.RotationTime(*record.RotateAt)+`"`, times[record.Process], record.Process)
		}
		if record.Status == workflows.StatusVerified {
			assert.Equal(t, d.Process(record.Process).Key, record.NewKeyUUID, record.Process)
			assert.NotEmpty(t, record.SnapshotID)
			assert.NotEmpty(t, record.ProvenBy)
		} else {
			assert.Empty(t, record.NewKeyUUID, record.Process)
		}
	}
}

// published are the processes of each PUT that was applied, in order.
func published(d fixture.Deployed) (batches [][]string) {
	for _, put := range d.Puts() {
		var batch []string
		for _, change := range put.Rotations {
			batch = append(batch, change.Process)
		}
		if put.Applied {
			slices.Sort(batch)
			batches = append(batches, batch)
		}
	}
	return batches
}

func TestRotatesEveryProcess(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, simulator.DeploymentOptions{})
	env := fixture.NewDeployment(t, d)
	before := time.Now()
	result, err := env.Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, "CHG0031337", result.Change.Ticket)
	require.Len(t, result.Targets, 12)
	requirePromise(t, d, result.Targets)
	assert.Equal(t, [][]string{
		{"audit-0", "audit-1", "audit-2"}, {"orders-0-0", "orders-0-1", "orders-0-2"}, {"orders-1-0", "orders-1-1", "orders-1-2"},
		{"orders-config-0", "orders-config-1", "orders-config-2"},
	}, published(d), "one replica set after another, the config server last")
	var last time.Time
	for i, record := range result.Targets {
		assert.Equal(t, workflows.StatusRotated, record.Status)
		assert.Equal(t, record.RotateAt.Truncate(time.Second), *record.RotateAt)
		assert.False(t, record.RotateAt.Before(before.Truncate(time.Second)))
		assert.Equal(t, i%3 > 0, record.RotateAt.Equal(last), "one time for each replica set, the next one later")
		last = *record.RotateAt
	}
	assert.Equal(t, workflows.RoleConfigServer, result.Targets[11].Role)
	assert.Equal(t, "2025-06-01T03:00:00Z", recordOf(t, result.Targets, "audit-0").PreviousRotateAt+recordOf(t, result.Targets, "audit-1").PreviousRotateAt)
	p := env.Progress()
	assert.Equal(t, workflows.PhaseDone, p.Phase)
	assert.Equal(t, map[workflows.Status]int{workflows.StatusRotated: 12}, p.Counts)
}

// The first replica set goes alone, then as many as concurrency says are published at
// once.
func TestReplicaSetsGoInBatches(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "orders", Shards: 4, Members: 1}}})
	input := fixture.DeploymentInput()
	input.Concurrency = 3
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	requirePromise(t, d, result.Targets)
	assert.Equal(t, [][]string{{"orders-0-0"}, {"orders-1-0", "orders-2-0", "orders-3-0"}, {"orders-config-0"}}, published(d))
}

func TestOnlyTheNamedClustersAreRotated(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	input := fixture.DeploymentInput()
	input.ClusterIDs, input.ExpectedTargets = []string{strings.ToUpper(d.ClusterIDs[1])}, 3
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	require.Len(t, result.Targets, 3)
	assert.Equal(t, [][]string{{"books-0", "books-1", "books-2"}}, published(d))
}

// A time is later than every one that the project has, also of processes that are not
// rotated.
func TestTheTimeIsLaterThanEveryOther(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	ahead := time.Now().Add(30 * time.Second).UTC().Truncate(time.Second)
	d.Edit(simulator.SetRotationTime(ahead, "books-0"))
	input := fixture.DeploymentInput()
	input.ClusterIDs = d.ClusterIDs[:1]
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	requirePromise(t, d, result.Targets)
	assert.Equal(t, ahead.Add(time.Second), *result.Targets[0].RotateAt)
}

func TestDryRunOfADeploymentChangesNothing(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	input := fixture.DeploymentInput()
	input.DryRun, input.RequireApproval, input.Proof = true, true, workflows.ProofSnapshot
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomePlanned, result.Outcome)
	assert.Equal(t, allAre(workflows.StatusPlanned, auditProcesses...), processStatuses(result.Targets))
	assert.Equal(t, d.Process("audit-2").Key, recordOf(t, result.Targets, "audit-2").PreviousKeyUUID, "a snapshot of it names its key")
	assert.Nil(t, result.Targets[0].RotateAt)
	assert.Empty(t, d.Puts())
}

// What the activities refuse reaches the caller by its type, with nothing published.
func TestDeploymentsAreRefusedBeforeAnythingIsPublished(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]struct {
		prepare   func(d fixture.Deployed, input *workflows.RotateDeploymentInput)
		errorType workflows.ErrorType
	}{
		"pinned": {func(d fixture.Deployed, _ *workflows.RotateDeploymentInput) {
			d.Edit(simulator.SetProcessField("audit-0", `"7"`, "args2_6", "security", "kmip", "keyIdentifier"))
		}, workflows.ErrorKeyIdentifierPinned},
		"externally managed": {func(d fixture.Deployed, _ *workflows.RotateDeploymentInput) {
			d.ExternallyManaged("mongodb-enterprise-operator", 0)
		}, workflows.ErrorExternallyManaged},
		"not in goal state": {func(d fixture.Deployed, _ *workflows.RotateDeploymentInput) {
			d.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
			d.Publish("dana", simulator.SetField(`"x"`, "ldap", "bindQueryUser"))
		}, workflows.ErrorNotInGoalState},
		"member down": {func(d fixture.Deployed, _ *workflows.RotateDeploymentInput) {
			d.SetAgent("audit-1", simulator.Agent{Down: true})
		}, workflows.ErrorMemberDown},
		"too many": {func(_ fixture.Deployed, input *workflows.RotateDeploymentInput) { input.ExpectedTargets = 4 }, workflows.ErrorUnexpectedTopology},
		"completed of another": {func(_ fixture.Deployed, input *workflows.RotateDeploymentInput) {
			input.Completed = []workflows.ProcessRecord{{Process: "gone-0"}}
		}, workflows.ErrorInvalidInput},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := fixture.Deploy(t, audit)
			input := fixture.DeploymentInput()
			refused.prepare(d, &input)
			env := fixture.NewDeployment(t, d)
			_, err := env.Rotate(input)
			requireFailure(t, err, refused.errorType)
			assert.Equal(t, workflows.OutcomeNothingRotated, env.Progress().Outcome)
			assert.Empty(t, d.Puts())
		})
	}
}

func TestDeploymentInputFailsAtOnce(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	_, err := fixture.NewDeployment(t, d).Start("any id", map[string]any{"projectId": project, "clusterId": "x"})
	requireFailure(t, err, workflows.ErrorInvalidInput)
	assert.ErrorContains(t, err, `"clusterId": unknown field`)
	assert.Empty(t, d.OM.Ledger().Requests)
}

func TestADeploymentIsHandedOverToTheOneID(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	env := fixture.NewDeployment(t, d)
	var child string
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, _ converter.EncodedValues) {
		child = info.WorkflowExecution.ID
	})
	input := fixture.DeploymentInput()
	input.ProjectID = strings.ToUpper(input.ProjectID)
	result, err := env.Start("a schedule's id", input)
	require.NoError(t, err)
	assert.Equal(t, "rotate-deployment:default:"+project, child, "no spelling goes round the lock")
	requirePromise(t, d, result.Targets)
}

// A snapshot proves the key of the member that it was taken from, and with it the
// replica set. The next replica set does not wait for it.
func TestSnapshotsProveReplicaSets(t *testing.T) {
	t.Parallel()
	options := twoSets
	options.SnapshotEvery = time.Minute
	d := fixture.Deploy(t, options)
	input := fixture.DeploymentInput()
	input.Proof = workflows.ProofSnapshot
	env := fixture.NewDeployment(t, d)
	waits := ""
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotated] == 6 }, func(p workflows.DeploymentProgress) { waits = p.WaitingFor })
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	requirePromise(t, d, result.Targets)
	assert.Equal(t, map[string]string{
		"audit-0": "rotated", "audit-1": "rotated", "audit-2": "verified", "books-0": "rotated", "books-1": "rotated", "books-2": "verified",
	}, processStatuses(result.Targets))
	verified := recordOf(t, result.Targets, "books-2")
	assert.Equal(t, workflows.ProvenBySnapshot, verified.ProvenBy)
	assert.NotEqual(t, verified.PreviousKeyUUID, verified.NewKeyUUID)
	assert.NotEmpty(t, verified.PreviousKeyUUID)
	assert.True(t, recordOf(t, result.Targets, "audit-2").VerifiedAt.After(*verified.RotatedAt), "books was rotated while audit was unproven")
	assert.Empty(t, result.ReplicaSets)
	assert.Contains(t, waits, "snapshots that prove the new keys of audit, books, until ")
}

func TestRotatedUnproven(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	input := fixture.DeploymentInput()
	input.Proof, input.ProofTimeout = workflows.ProofSnapshot, workflows.Duration(26*time.Hour)
	result, err := fixture.NewDeployment(t, d).Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedUnproven, result.Outcome)
	assert.Equal(t, allAre(workflows.StatusRotated, auditProcesses...), processStatuses(result.Targets))
	require.Len(t, result.ReplicaSets, 1)
	assert.Equal(t, "audit", result.ReplicaSets[0].ReplicaSet)
	assert.Empty(t, result.ReplicaSets[0].ProvenBy)
	assert.Contains(t, result.ReplicaSets[0].Reason, "no complete snapshot of replica set audit was begun after its last member restarted")
	waited := result.FinishedAt.Sub(*result.Targets[0].RotatedAt)
	assert.Greater(t, waited, 25*time.Hour)
	assert.Less(t, waited, 27*time.Hour)
}

// What can't be read proves nothing, and fails nothing.
func TestAProofThatCannotBeReadLeavesTheReplicaSetUnproven(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	input := fixture.DeploymentInput()
	input.Proof, input.RetryTimeout = workflows.ProofSnapshot, workflows.Duration(50*time.Millisecond)
	env := fixture.NewDeployment(t, d)
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotated] == 3 }, func(workflows.DeploymentProgress) {
		refusal := simulator.AccessListRefusal(http.MethodGet, "")
		refusal.Kind = simulator.KindSnapshots
		d.OM.Inject(refusal.Always())
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedUnproven, result.Outcome)
	assert.Contains(t, result.ReplicaSets[0].Reason, "Forbidden")
}

// A snapshot of a member with its old key fails the replica set's processes, and what
// was not started does not start.
func TestAnUnchangedKeyFailsItsReplicaSet(t *testing.T) {
	t.Parallel()
	options := twoSets
	options.SnapshotEvery = time.Hour
	d := fixture.Deploy(t, options)
	d.SetAgent("audit-2", simulator.Agent{KeepsKey: true})
	input := fixture.DeploymentInput()
	input.Proof = workflows.ProofSnapshot
	_, err := fixture.NewDeployment(t, d).Rotate(input)
	records := deploymentRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, workflows.OutcomePartial, records.Outcome)
	for _, process := range auditProcesses {
		record := recordOf(t, records.Targets, process)
		require.Equal(t, workflows.StatusFailed, record.Status)
		assert.Equal(t, workflows.ErrorKeyUnchanged, record.Error.Type)
	}
	assert.Equal(t, allAre(workflows.StatusRotated, "books-0", "books-1"), processStatuses(records.Targets[3:5]))
	assert.ErrorContains(t, err, "3 of 6 targets rotated; not rotated: audit-0 failed (KeyUnchanged)")
	assert.Empty(t, d.Violations())
}

// failOn has the agent of a process fail when it is its turn.
func failOn(d fixture.Deployed, process string) {
	d.SetAgent(process, simulator.Agent{ErrorCode: 143, ErrorText: "the KMIP server cannot be reached"})
}

// whenHeld runs do once, when the rotation is held.
func whenHeld(env fixture.Deployment, do func(workflows.DeploymentProgress)) {
	env.When(fixture.DeploymentInPhase(workflows.PhaseHeld), do)
}

// An agent's error holds the rotation, also where it is to continue. A retry waits for
// the same time: nobody gets two keys.
func TestAFailedDeploymentIsHeldAndRetried(t *testing.T) {
	t.Parallel()
	for _, onFailure := range []workflows.OnFailure{workflows.OnFailureHold, workflows.OnFailureContinue} {
		t.Run(string(onFailure), func(t *testing.T) {
			t.Parallel()
			d := fixture.Deploy(t, twoSets)
			failOn(d, "audit-2")
			input := fixture.DeploymentInput()
			input.OnFailure = onFailure
			env := fixture.NewDeployment(t, d)
			var held workflows.DeploymentProgress
			whenHeld(env, func(p workflows.DeploymentProgress) {
				held = p
				d.SetAgent("audit-2", simulator.Agent{})
				env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
			})
			result, err := env.Rotate(input)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"audit-0": "failed", "audit-1": "rotated", "audit-2": "failed"}, processStatuses(held.Targets[:3]))
			failed := recordOf(t, held.Targets, "audit-2")
			assert.Equal(t, workflows.ErrorDeploymentFailed, failed.Error.Type)
			assert.Contains(t, failed.Error.Message, "the KMIP server cannot be reached")
			assert.Equal(t, allAre(workflows.StatusPending, "books-0", "books-1", "books-2"), processStatuses(held.Targets[3:]), "nothing further is started")
			assert.Contains(t, held.WaitingFor, "an operator to retry, skip or abort")

			requirePromise(t, d, result.Targets)
			after := recordOf(t, result.Targets, "audit-2")
			assert.Equal(t, failed.RotateAt, after.RotateAt, "the same time")
			assert.Equal(t, workflows.ErrorDeploymentFailed, after.FirstError.Type)
			assert.Len(t, d.Puts(), 2, "one for each replica set")
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
		})
	}
}

func TestHeldDeploymentEndsWhenNobodyDecides(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, twoSets)
	failOn(d, "audit-1")
	input := fixture.DeploymentInput()
	input.OnFailure, input.HoldTimeout = workflows.OnFailureContinue, workflows.Duration(time.Hour)
	_, err := fixture.NewDeployment(t, d).Rotate(input)
	deploymentRecords(t, err, workflows.ErrorPartialFailure)
	assert.ErrorContains(t, err, "no operator action within 1h")
}
