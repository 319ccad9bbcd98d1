package workflows_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

func rotationError(t *testing.T, om *simulator.Server, input any) error {
	t.Helper()
	env := fixture.NewSDK(t, om)
	_, err := env.Start("any-id", input)
	require.Error(t, err)
	assert.Equal(t, workflows.ErrorInvalidInput, workflows.ErrorTypeOf(err), "%v", err)
	assert.Empty(t, om.Ledger().Rotations)
	return err
}

// Records that no rotation can have written are refused, each with its field.
func TestCompletedRecordsAreChecked(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(fixture.Project, "orders")
	future, past := time.Now().Add(24*time.Hour), time.Now().Add(-time.Hour)
	record := func(change func(*workflows.TargetRecord)) workflows.TargetRecord {
		r := workflows.TargetRecord{
			Target: workflows.Target{ClusterID: set.ID, Name: "orders"}, Status: workflows.StatusVerified,
			PreviousKeyUUID: "old", NewKeyUUID: om.Key(set.ID), RotatedAt: &past, VerifiedAt: &past, Attempts: 1,
		}
		change(&r)
		return r
	}
	for problem, completed := range map[string][]workflows.TargetRecord{
		"completed[0].newKeyUUID: must differ from previousKeyUUID": {record(func(r *workflows.TargetRecord) { r.PreviousKeyUUID = r.NewKeyUUID })},
		"completed[0].attempts: must not be negative":               {record(func(r *workflows.TargetRecord) { r.Attempts = -7 })},
		"completed[0].verifiedAt: must not be in the future":        {record(func(r *workflows.TargetRecord) { r.VerifiedAt = &future })},
		"completed[0].rotatedAt: must not be in the future":         {record(func(r *workflows.TargetRecord) { r.RotatedAt = &future })},
		"completed[0].status: must be one of":                       {record(func(r *workflows.TargetRecord) { r.Status = "done" })},
		"completed[0].previousKeyUUID: is required for a target to which a PUT may have been sent": {
			record(func(r *workflows.TargetRecord) {
				r.Status, r.PreviousKeyUUID, r.NewKeyUUID = workflows.StatusFailed, "", ""
			}),
		},
		"completed[1].clusterId: is the target of completed[0], too": {
			record(func(*workflows.TargetRecord) {}),
			record(func(r *workflows.TargetRecord) { r.ClusterID = strings.ToUpper(r.ClusterID) }),
		},
	} {
		input := fixture.Input(set.ID)
		input.Completed = completed
		assert.ErrorContains(t, rotationError(t, om, input), problem)
	}
}

func TestCompletedRecordsOfAnotherClusterAreRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set, other := om.AddReplicaSet(fixture.Project, "orders"), om.AddReplicaSet(fixture.Project, "audit")
	input := fixture.Input(set.ID)
	input.Completed = []workflows.TargetRecord{{
		Target: workflows.Target{ClusterID: other.ID, Name: "audit"}, Status: workflows.StatusVerified, PreviousKeyUUID: "old", NewKeyUUID: om.Key(other.ID),
	}}
	env := fixture.NewSDK(t, om)
	_, err := env.Rotate(input)
	require.Error(t, err)
	assert.Equal(t, workflows.ErrorInvalidInput, workflows.ErrorTypeOf(err))
	assert.ErrorContains(t, err, "completed[0].clusterId: "+other.ID+" is not a target of cluster orders")
	assert.Empty(t, om.Ledger().Rotations)
}

// The deadlock detector of the SDK ends a workflow task that takes a second.
func TestManyUnknownFieldsAreRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	var text strings.Builder
	text.WriteString("{")
	for i := 0; text.Len() < 2<<20-100; i++ {
		fmt.Fprintf(&text, `"field%d":%d,`, i, i)
	}
	text.WriteString(`"last":0}`)
	err := rotationError(t, om, rawJSON(text.String()))
	assert.ErrorContains(t, err, "unknown field")
	assert.Regexp(t, `; and \d{5,} more`, err.Error())
	assert.Less(t, len(err.Error()), 5_000)
}

func rawJSON(text string) converter.RawValue {
	return converter.NewRawValue(&commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(converter.MetadataEncodingJSON)}, Data: []byte(text),
	})
}

// So do a million entries of a list, which are not even decoded.
func TestVeryLongListsAreRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	for entry, n := range map[string]int{"0": 1_000_000, "{}": 600_000, `{"x":0}`: 200_000} {
		err := rotationError(t, om, rawJSON(`{"completed":[`+strings.Repeat(entry+",", n)+entry+`]}`))
		assert.ErrorContains(t, err, "completed: must have at most 5000 entries")
	}
}

// A request may name one target very often, and very many targets.
func TestManyNamesOfTargetsAreTaken(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(fixture.Project, "orders", 2_000)
	env := fixture.NewSDK(t, om)
	input := fixture.Input(cluster.ID)
	input.RequireApproval, input.Concurrency = true, 64
	names := slices.Concat(cluster.ShardIDs, slices.Repeat([]string{cluster.ConfigID}, 3_000))
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: append(names, names[0])}, "targets: must have at most 5000 entries")
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{names[0], ""}}, `no target is named ""`)
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: names})
		env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	records := requireRecords(t, err, workflows.ErrorRejected)
	require.Len(t, records.Targets, 2_001)
	for _, target := range records.Targets {
		require.Equal(t, workflows.StatusSkipped, target.Status)
	}
}

func TestEncryptedInputIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	err := rotationError(t, simulator.Start(t, simulator.Options{}), converter.NewRawValue(&commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte("binary/encrypted")}, Data: []byte("secret"),
	}))
	assert.ErrorContains(t, err, `"binary/encrypted"`)
	assert.NotContains(t, err.Error(), "projectId")
}

// A shard and the config server may have one name.
func TestAmbiguousTargetNamesAreRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	add := func(shard, set, typeName string) string {
		return om.AddCluster(simulator.Cluster{ProjectID: fixture.Project, ClusterName: "orders", ShardName: shard, ReplicaSetName: set, TypeName: typeName}).ID
	}
	parent := add("", "", simulator.TypeShardedReplicaSet)
	shard, config := add("orders", "orders", simulator.TypeReplicaSet), add("", "orders", simulator.TypeConfigServerReplicaSet)
	env := fixture.NewSDK(t, om)
	input := fixture.Input(parent)
	input.RequireApproval = true
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders"}}, "2 targets are named \"orders\"; use one of the IDs "+shard+", "+config)
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{config}})
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	assert.Empty(t, om.Ledger().Applied(config))
}

// The requester cannot approve under a name that only looks different.
func TestRequesterCannotApproveInDisguise(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(fixture.Project, "orders")
	env := fixture.NewSDK(t, om)
	input := fixture.Input(set.ID)
	input.RequireApproval = true
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		for _, by := range []string{"Dana", " dana\t", "da\u200bna", "\uff44\uff41\uff4e\uff41", "da\u034fna", "dana\u3164", "dana\u2800", "dana\u00a0"} {
			env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: by}, "another person must approve it")
		}
		for _, by := range []string{"\u200b\u2060", "\u3164", "\u2800"} {
			env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: by}, "by: is required")
		}
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	require.NoError(t, err)
}

// Spaces between the words of a name are not seen to be two, or a no-break space.
func TestRequesterCannotApproveWithOtherSpaces(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(fixture.Project, "orders")
	env := fixture.NewSDK(t, om)
	input := fixture.Input(set.ID)
	input.RequireApproval, input.Change.RequestedBy = true, "Dana Scully"
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		for _, by := range []string{"dana  scully", "dana\u00a0scully", "dana\u2003\tscully"} {
			env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: by}, "another person must approve it")
		}
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "DanaScully"})
	})
	_, err := env.Rotate(input)
	require.NoError(t, err)
}
