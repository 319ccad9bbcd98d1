package activities_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"keyturn/activities"
	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/kmipsimulator"
)

// proveInput proves the rotation of a replica set of cluster 0 that has arrived, with
// what was listed before it.
func proveInput(t *testing.T, d deployed, replicaSet string) activities.ProveRotationInput {
	t.Helper()
	before, err := list(t, d, listInput(d))
	require.NoError(t, err)
	at := rotateSet(t, d, replicaSet)
	awaited, _, err := await(t, d, activityAttempt{}, awaitInput(d, replicaSet, at))
	require.NoError(t, err)
	in := activities.ProveRotationInput{
		Scope: scope(), ReplicaSet: replicaSet, RotateAt: at, Proof: activities.ProofSnapshot, Deadline: time.Now(),
	}
	for _, keys := range before.EarlierKeys {
		if keys.ReplicaSet == replicaSet {
			in.EarlierKeys = keys.KeyUUIDs
		}
	}
	for _, p := range before.Processes {
		for _, arrived := range awaited.Processes {
			if p.Process == arrived.Process {
				in.ClusterID = p.ClusterID
				in.Members = append(in.Members, activities.MemberToProve{Process: p.Process, Host: p.Host, RestartedAt: arrived.RestartedAt, PreviousKeyUUID: p.PreviousKeyUUID, PreviousRotateAt: p.PreviousRotateAt})
			}
		}
	}
	require.Len(t, in.Members, 3)
	return in
}

func prove(t *testing.T, d deployed, a activityAttempt, in activities.ProveRotationInput) (activities.ProveRotationResult, json.RawMessage, error) {
	t.Helper()
	before := len(d.Puts())
	result, heartbeat, err := runDeployment[activities.ProveRotationResult](t, d, a, activities.ProveRotationName, in)
	assert.Len(t, d.Puts(), before, "proving publishes nothing")
	return result, heartbeat, err
}

// deployWithKMIP makes the keys of processes in a KMIP server.
func deployWithKMIP(t *testing.T, options kmipsimulator.Options) (deployed, *kmipsimulator.Server, *kmipevidence.Client) {
	t.Helper()
	kmip := kmipsimulator.StartForTest(t, options)
	maker, err := kmip.Client("mongod")
	require.NoError(t, err)
	d := deploy(t, simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "orders", Shards: 1}}},
		simulator.Options{NewKey: func() (string, error) { return maker.NewActiveKey(t.Context(), "mongod") }})
	return d, kmip, kmip.EvidenceClient(t, "keyturn")
}

// The snapshot of the member whose earlier key is known shows another key.
func TestASnapshotProvesARotation(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := proveInput(t, d, "orders-0")
	old := in.Members[2].PreviousKeyUUID
	require.NotEmpty(t, old, "the earlier snapshot was taken from the last member")
	proven, _, err := prove(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.False(t, proven.Proven)
	assert.Contains(t, proven.Reason, "no complete snapshot of replica set orders-0 was begun after")

	taken := d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-2"}})
	proven, _, err = prove(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.True(t, proven.Proven)
	assert.Equal(t, activities.ProveRotationResult{
		Proven: true, Process: "orders-0-2", Host: in.Members[2].Host, SnapshotID: taken.ID, NewKeyUUID: d.Process("orders-0-2").Key,
		PreviousKeyUUID: old, ProvenBy: activities.ProvenBySnapshot, ProvenAt: proven.ProvenAt,
	}, proven)
	assert.WithinDuration(t, time.Now(), proven.ProvenAt, 5*time.Second)

	in.Proof = activities.ProofKMIP
	proven, _, err = prove(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.False(t, proven.Proven)
	assert.Contains(t, proven.Reason, "no KMIP server is configured")
}

// What proves nothing, each with its reason.
func TestSnapshotsThatProveNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		snapshot simulator.MemberSnapshot
		change   func(*activities.ProveRotationInput)
		reason   string
	}{
		"another member, whose earlier key is not known": {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-1"}}, reason: "no earlier snapshot shows the previous key of this member"},
		"no member is named":                             {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-2"}, WithoutMachineID: true}, reason: "a member that it does not name"},
		"no key is named":                                {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-2"}, WithoutKeyID: true}, reason: "names no key"},
		"not encrypted":                                  {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-2"}, Unencrypted: true}, reason: "names no key"},
		"not complete":                                   {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-2"}, Running: true}, reason: "no complete snapshot"},
		"without the replica set":                        {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-2"}, WithoutShards: []string{"orders-0"}}, reason: "no complete snapshot of replica set"},
		"begun before the last member restarted": {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-2"}}, change: func(in *activities.ProveRotationInput) {
			in.Members[0].RestartedAt = time.Now().Add(time.Minute)
		}, reason: "no complete snapshot of replica set"},
		"a key that an earlier snapshot names": {snapshot: simulator.MemberSnapshot{From: []string{"orders-0-1"}}, change: func(in *activities.ProveRotationInput) {
			in.Members[1].PreviousKeyUUID = "another" // so that a changed key would be a proof
		}, reason: "which a snapshot from before the rotation names"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			in := proveInput(t, d, "orders-0")
			if c.change != nil {
				c.change(&in)
			}
			if strings.HasPrefix(name, "a key that") {
				in.EarlierKeys = append(in.EarlierKeys, d.Process("orders-0-1").Key)
			}
			d.TakeMemberSnapshot(in.ClusterID, c.snapshot)
			proven, _, err := prove(t, d, activityAttempt{}, in)
			require.NoError(t, err)
			assert.False(t, proven.Proven)
			assert.Contains(t, proven.Reason, c.reason)
			assert.Empty(t, proven.ProvenBy)
			assert.Empty(t, proven.NewKeyUUID)
			assert.LessOrEqual(t, len([]rune(proven.Reason)), 500)
		})
	}
}

// A later snapshot may prove what the first one does not.
func TestALaterSnapshotProvesARotation(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := proveInput(t, d, "orders-0")
	d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-1"}})
	in.Deadline, in.PollInterval = time.Now().Add(time.Minute), activities.Duration(50*time.Millisecond)
	go func() {
		_ = d.om.Await(t.Context(), func(l simulator.Ledger) bool {
			return len(l.Select(func(r simulator.Request) bool { return r.Kind == simulator.KindSnapshots })) > 5
		})
		d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-2"}})
	}()
	proven, _, err := prove(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.True(t, proven.Proven)
	assert.Equal(t, "orders-0-2", proven.Process)
}

// Snapshots that were taken since the listing, and before the rotation, show earlier
// keys, too.
func TestEarlierKeysAreReadAgain(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	before := map[string]string{}
	for _, name := range d.Members("orders-0") {
		before[name] = d.Process(name).Key
	}
	d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"orders-0-1"}, Created: time.Now().Add(-time.Minute)})
	in := proveInput(t, d, "orders-0")
	in.EarlierKeys = nil
	for i := range in.Members {
		in.Members[i].PreviousKeyUUID = ""
	}
	d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-1"}})
	proven, _, err := prove(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.True(t, proven.Proven)
	assert.Equal(t, "orders-0-1", proven.Process)
	assert.Equal(t, before["orders-0-1"], proven.PreviousKeyUUID)
}

// Somebody rotated the key after the last snapshot and before this rotation, which
// does nothing: what the next snapshot shows is the other rotation's key.
func TestTheKeyOfAnEarlierRotationIsNoProof(t *testing.T) {
	t.Parallel()
	for name, snapshotAfter := range map[string]time.Duration{"snapshot before it": -time.Hour, "snapshot while it was carried out": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			earlier := time.Now().Add(-3 * 24 * time.Hour).Truncate(time.Second)
			d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"orders-0-1"}, Created: earlier.Add(snapshotAfter)})
			d.Publish("dana", simulator.SetRotationTime(earlier, "orders-0-1"))
			require.Eventually(t, func() bool { return len(d.Rotations("orders-0-1")) == 1 }, 10*time.Second, 5*time.Millisecond)
			d.SetAgent("orders-0-1", simulator.Agent{KeepsKey: true})

			in := proveInput(t, d, "orders-0")
			assert.Empty(t, in.Members[1].PreviousKeyUUID)
			d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-1"}})
			result, _, err := prove(t, d, activityAttempt{}, in)
			require.NoError(t, err)
			assert.False(t, result.Proven)
			assert.Contains(t, result.Reason, "no earlier snapshot shows the previous key of this member")
		})
	}
}

// A member that restarted with its old key has not rotated it.
func TestASnapshotWithTheOldKey(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetAgent("orders-0-2", simulator.Agent{KeepsKey: true})
	in := proveInput(t, d, "orders-0")
	d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-2"}})
	_, _, err := prove(t, d, activityAttempt{}, in)
	appErr := requireType(t, err, activities.ErrorKeyUnchanged, false)
	for _, part := range []string{"GET /api/public/v1.0/groups/", "/snapshots", "orders-0-2", d.Process("orders-0-2").Key, "; check the mongod log"} {
		assert.Contains(t, appErr.Message(), part)
	}
}

// The KMIP server makes a new key of any member a proof.
func TestTheKMIPServerProvesARotation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		snapshot simulator.MemberSnapshot
		by       activities.ProvenBy
		process  string
	}{
		"a member whose earlier key is known": {simulator.MemberSnapshot{From: []string{"orders-0-2"}}, activities.ProvenByBoth, "orders-0-2"},
		"another member":                      {simulator.MemberSnapshot{From: []string{"orders-0-1"}}, activities.ProvenByKMIP, "orders-0-1"},
		"no member is named":                  {simulator.MemberSnapshot{WithoutMachineID: true}, activities.ProvenByKMIP, ""},
	} {
		for _, wanted := range []activities.Proof{activities.ProofSnapshot, activities.ProofKMIP} {
			t.Run(name+", "+string(wanted), func(t *testing.T) {
				t.Parallel()
				d, kmip, client := deployWithKMIP(t, kmipsimulator.Options{})
				in := proveInput(t, d, "orders-0")
				in.Proof = wanted
				in.RotateAt = in.RotateAt.Add(-2 * time.Second) // the times of keys are whole seconds
				taken := d.TakeMemberSnapshot(in.ClusterID, c.snapshot)
				proven, _, err := prove(t, d, activityAttempt{kmip: client}, in)
				require.NoError(t, err)
				assert.True(t, proven.Proven, proven.Reason)
				assert.Equal(t, c.by, proven.ProvenBy)
				assert.Equal(t, c.process, proven.Process)
				assert.Equal(t, taken.Parts[0].MasterKeyUUID, proven.NewKeyUUID)
				require.NotNil(t, proven.KMIP)
				assert.Equal(t, kmipevidence.OutcomeWitnessed, proven.KMIP.Outcome)
				assert.Equal(t, []string{proven.NewKeyUUID}, kmip.Asked(), "no other key is asked about")
			})
		}
	}
}

func TestKMIPEvidenceThatProvesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		disturb func(*testing.T, *kmipsimulator.Server, *activities.ProveRotationInput)
		reason  string
	}{
		"made before the rotation began": {func(_ *testing.T, _ *kmipsimulator.Server, in *activities.ProveRotationInput) {
			in.RotateAt = time.Now().Add(time.Second).Truncate(time.Second)
			in.EarlierKeys, in.Members[2].PreviousKeyUUID = nil, ""
		}, "not after the rotation began"},
		"a server that does not answer": {func(_ *testing.T, s *kmipsimulator.Server, _ *activities.ProveRotationInput) { s.Close() }, "the KMIP server does not say when it was made (unreachable)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, server, client := deployWithKMIP(t, kmipsimulator.Options{})
			in := proveInput(t, d, "orders-0")
			in.Proof = activities.ProofKMIP
			c.disturb(t, server, &in)
			for i := range in.Members {
				in.Members[i].RestartedAt = in.RotateAt.Add(-time.Millisecond)
			}
			time.Sleep(time.Until(in.RotateAt.Add(10 * time.Millisecond)))
			d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-2"}})
			proven, _, err := prove(t, d, activityAttempt{kmip: client}, in)
			require.NoError(t, err)
			assert.False(t, proven.Proven)
			assert.Contains(t, proven.Reason, c.reason)
		})
	}
}

// A long wait is Temporal's: an attempt ends, and says when the next one is to begin.
func TestALongWaitForASnapshotHoldsNoWorker(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := proveInput(t, d, "orders-0")
	for name, c := range map[string]struct {
		deadline time.Time
		interval time.Duration
		want     time.Duration
	}{
		"a day":              {in.RotateAt.Add(26 * time.Hour), 0, 5 * time.Minute},
		"an hour":            {in.RotateAt.Add(time.Hour), 0, 3 * time.Minute},
		"as wanted":          {in.RotateAt.Add(26 * time.Hour), time.Hour, time.Hour},
		"until the deadline": {time.Now().Add(time.Minute), time.Hour, time.Minute},
	} {
		in.Deadline, in.PollInterval = c.deadline, activities.Duration(c.interval)
		ends := activityAttempt{context: func(ctx context.Context) context.Context { // so that one that waits itself ends
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			t.Cleanup(cancel)
			return ctx
		}}
		_, _, err := prove(t, d, ends, in)
		appErr := requireType(t, err, "Interrupted", true)
		assert.InDelta(t, c.want.Seconds(), appErr.NextRetryDelay().Seconds(), 5, name)
		assert.Contains(t, appErr.Message(), "not proven yet: no complete snapshot")
	}
}

func TestTransientErrorsOfProvingAreRetried(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := proveInput(t, d, "orders-0")
	d.TakeMemberSnapshot(in.ClusterID, simulator.MemberSnapshot{From: []string{"orders-0-2"}})
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindSnapshots, Status: 503})
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindSnapshots, Status: 200, Body: "<html>", ContentType: "text/html"})
	proven, _, err := prove(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.True(t, proven.Proven)
	assert.Zero(t, d.om.FaultsLeft())
}

// A worker that shuts down leaves the waiting to another one.
func TestAStoppingWorkerProvesNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := proveInput(t, d, "orders-0")
	in.Deadline, in.PollInterval = time.Now().Add(time.Hour), activities.Duration(5*time.Second)
	stop := make(chan struct{})
	close(stop)
	_, _, err := prove(t, d, activityAttempt{stop: stop, info: func(info *activity.Info) { info.Attempt = 3 }}, in)
	requireType(t, err, "Interrupted", true)
}

func TestInputsThatAreNoProof(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	for name, in := range map[string]activities.ProveRotationInput{
		"the agent's word": {Scope: scope(), ClusterID: d.ClusterIDs[0], Proof: activities.ProofAgent, Members: []activities.MemberToProve{{Process: "x"}}},
		"no member":        {Scope: scope(), ClusterID: d.ClusterIDs[0], Proof: activities.ProofSnapshot},
	} {
		_, _, err := prove(t, d, activityAttempt{}, in)
		requireType(t, err, activities.ErrorInvalidInput, false)
		assert.NotEmpty(t, name)
	}
}

// One response holds a page of the snapshots, however many replica sets the cluster
// has.
func TestPagesOfSnapshotsFitTheCluster(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := proveInput(t, d, "orders-0")
	for parts, page := range map[int]string{0: "itemsPerPage=64", 3: "itemsPerPage=500", 1000: "itemsPerPage=2"} {
		in.Parts = parts
		_, _, err := prove(t, d, activityAttempt{}, in)
		require.NoError(t, err)
		asked := d.om.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindSnapshots && r.Authenticated })
		assert.Contains(t, asked[len(asked)-1].Path+"&", page+"&")
	}
}
