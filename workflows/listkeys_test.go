package workflows_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

const keyListID = "list-keys:default:test"

// keyListing is one run of ListKeys in the SDK's environment.
type keyListing struct {
	result workflows.ListKeysResult
	err    error
	pages  []workflows.KeyPage
	// keys are the records of all pages, merged by project and key.
	keys map[string]workflows.KeyRecord
}

func listKeys(t *testing.T, env fixture.SDK, input any) keyListing {
	t.Helper()
	l := keyListing{keys: map[string]workflows.KeyRecord{}}
	var mu sync.Mutex
	env.SetOnChildWorkflowCompletedListener(func(info *workflow.Info, result converter.EncodedValue, err error) {
		if info.WorkflowType.Name != workflows.ListKeyPageType || err != nil {
			return
		}
		var page workflows.KeyPage
		if assert.NoError(t, result.Get(&page)) {
			mu.Lock()
			defer mu.Unlock()
			l.pages = append(l.pages, page)
			assert.Len(t, page.ClusterIDs, page.Clusters, "each cluster is named, whether it has keys or not")
		}
	})
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: keyListID, TaskQueue: workflows.DefaultTaskQueue})
	env.ExecuteWorkflow(workflows.ListKeysType, input)
	require.True(t, env.IsWorkflowCompleted())
	if l.err = env.GetWorkflowError(); l.err == nil {
		require.NoError(t, env.GetWorkflowResult(&l.result))
	}
	for _, page := range l.pages {
		for _, record := range page.Keys {
			id := record.ProjectID + "/" + record.KeyUUID
			if known, found := l.keys[id]; found {
				record = workflows.MergeKeyRecords(known, record)
			}
			l.keys[id] = record
		}
	}
	return l
}

func (l keyListing) key(uuid string) workflows.KeyRecord { return l.keys[project+"/"+uuid] }

func (l keyListing) reasons() (codes []string) {
	for _, reason := range l.result.Reasons {
		codes = append(codes, string(reason.Reason))
	}
	return codes
}

var (
	day1 = time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	day2 = day1.AddDate(0, 0, 1)
	next = day1.AddDate(1, 0, 0)
	late = day1.AddDate(2, 0, 0)
)

// After a rotation, the old key is needed until the last snapshot under it
// expires, and the new one is current, named by a snapshot or not.
func TestAnOldKeyIsNeededUntilItsLastSnapshotExpires(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 2)
	shard, other := orders.ShardIDs[0], orders.ShardIDs[1]
	old := om.Key(shard)
	om.TakeSnapshot(orders.ID, day1, late)
	om.TakeSnapshot(orders.ID, day2, next)
	om.SetKey(shard, "rotated-key")
	om.TakeSnapshot(orders.ID, day2.AddDate(0, 0, 1), late.AddDate(1, 0, 0))

	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.NoError(t, l.err)
	assert.True(t, l.result.Complete, "%v", l.result.Reasons)
	assert.Empty(t, l.result.Reasons)
	assert.Equal(t, workflows.KeyListCounts{Projects: 1, Listed: 1, Clusters: 1, Snapshots: 3, Keys: 4}, l.result.Counts)
	require.Len(t, l.result.Pages, 1)
	assert.Equal(t, keyListID+":"+project+":1", l.result.Pages[0].WorkflowID)
	assert.Equal(t, workflows.KeyRecord{
		KeyUUID: old, Verdict: workflows.VerdictNeeded, NeededUntil: &late, Snapshots: 2, OldestSnapshot: &day1, NewestSnapshot: &day2,
		ProjectID: project, ClusterIDs: []string{orders.ID}, ClusterNames: []string{"orders"}, ReplicaSets: []string{"orders-0"}, Hosts: []string{},
	}, l.key(old))
	rotated := l.key("rotated-key")
	assert.Equal(t, workflows.VerdictCurrent, rotated.Verdict)
	assert.Nil(t, rotated.NeededUntil, "no date is known for a key that is in force")
	assert.Equal(t, 1, rotated.Snapshots)
	assert.Equal(t, workflows.VerdictCurrent, l.key(om.Key(other)).Verdict)
	assert.Equal(t, 3, l.key(om.Key(other)).Snapshots)
}

// A snapshot without an end, and a restore job that has not ended, keep a key
// without an end.
func TestWhatHasNoEndKeepsAKeyWithoutEnd(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	snapshot := func(key string, change func(*simulator.Snapshot)) simulator.Snapshot {
		s := simulator.Snapshot{ClusterID: set.ID, Created: day1, Expires: next, Parts: []simulator.SnapshotPart{{
			ClusterID: set.ID, ReplicaSetName: "audit", TypeName: simulator.TypeReplicaSet, EncryptionEnabled: new(true), MasterKeyUUID: key,
		}}}
		change(&s)
		return om.AddSnapshot(s)
	}
	snapshot("kept", func(s *simulator.Snapshot) { s.DoNotDelete = true })
	snapshot("kept", func(*simulator.Snapshot) {})
	snapshot("noExpiry", func(s *simulator.Snapshot) { s.Expires = time.Time{} })
	snapshot("running", func(s *simulator.Snapshot) { s.Running, s.Expires = true, time.Time{} })
	snapshot("ends", func(*simulator.Snapshot) {})
	restored := snapshot("restoring", func(*simulator.Snapshot) {})
	om.AddRestoreJob(simulator.RestoreJob{ClusterID: set.ID, SnapshotID: restored.ID, StatusName: "IN_PROGRESS"})
	om.AddRestoreJob(simulator.RestoreJob{ClusterID: set.ID, StatusName: "FINISHED", MasterKeyUUID: "ends"})
	om.AddRestoreJob(simulator.RestoreJob{ClusterID: set.ID, StatusName: "FINISHED", MasterKeyUUID: "onlyJob"})

	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{"projectIds": []string{project}})
	require.NoError(t, l.err)
	assert.True(t, l.result.Complete, "%v", l.result.Reasons)
	for uuid, until := range map[string]*time.Time{"kept": nil, "noExpiry": nil, "running": nil, "restoring": nil, "onlyJob": nil, "ends": &next} {
		assert.Equal(t, workflows.VerdictNeeded, l.key(uuid).Verdict, uuid)
		assert.Equal(t, until, l.key(uuid).NeededUntil, uuid)
	}
	assert.Equal(t, 1, l.key("restoring").RestoreJobs)
	assert.Equal(t, 2, l.key("kept").Snapshots)
	assert.Equal(t, 3, l.result.Counts.RestoreJobs)
}

// Each member of a deployment has a key of its own: the newest snapshot of each
// member shows the one in force.
func TestADeploymentsKeysAreCurrentByMember(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.DisableEncryption(set.ID)
	take := func(at time.Time, host, key string) {
		om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Created: at, Expires: late, Parts: []simulator.SnapshotPart{{
			ClusterID: set.ID, ReplicaSetName: "audit", MachineID: host, FCV: "8.0", EncryptionEnabled: new(true), MasterKeyUUID: key,
		}}})
	}
	take(day1, "a:27017", "a-old")
	take(day2, "a:27017", "a-new")
	take(day1, "b:27017", "b-only")

	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.NoError(t, l.err)
	assert.True(t, l.result.Complete, "%v", l.result.Reasons)
	assert.Equal(t, workflows.VerdictNeeded, l.key("a-old").Verdict)
	assert.Equal(t, workflows.VerdictCurrent, l.key("a-new").Verdict)
	assert.Equal(t, workflows.VerdictCurrent, l.key("b-only").Verdict)
	assert.Equal(t, []string{"b:27017"}, l.key("b-only").Hosts)
}

// Older backups have the key that Ops Manager shows, whatever the newest snapshot
// is under.
func TestANewestSnapshotOfAnOlderBackupDecidesNothing(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	old := om.Key(set.ID)
	om.TakeSnapshot(set.ID, day1, next)
	om.SetKey(set.ID, "rotated")
	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.NoError(t, l.err)
	assert.Equal(t, workflows.VerdictNeeded, l.key(old).Verdict)
	assert.Equal(t, workflows.VerdictCurrent, l.key("rotated").Verdict)
}

// Every status of a backup is read. The key of one that is over is not in force.
func TestBackupsOfEveryStatus(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	verdictOf := map[string]workflows.Verdict{}
	for status, verdict := range map[string]workflows.Verdict{
		simulator.StatusStarted: workflows.VerdictCurrent, simulator.StatusProvisioning: workflows.VerdictCurrent,
		simulator.StatusStopped: workflows.VerdictCurrent, "": workflows.VerdictCurrent, "NEW_STATUS": workflows.VerdictCurrent,
		simulator.StatusInactive: workflows.VerdictNamedByNoSnapshot, simulator.StatusTerminating: workflows.VerdictNamedByNoSnapshot,
	} {
		set := om.AddReplicaSet(project, "set-"+status)
		om.SetBackupConfig(simulator.BackupConfig{ClusterID: set.ID, StatusName: status})
		om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Created: day1, Expires: next, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
		verdictOf[om.Key(set.ID)] = verdict
	}
	// A shard may be INACTIVE under a parent that is STARTED.
	orders := om.AddShardedCluster(project, "orders", 1)
	om.SetBackupConfig(simulator.BackupConfig{ClusterID: orders.ShardIDs[0], StatusName: simulator.StatusInactive})
	verdictOf[om.Key(orders.ShardIDs[0])] = workflows.VerdictCurrent
	none := om.AddReplicaSet(project, "none")
	om.RemoveBackupConfig(none.ID)

	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.NoError(t, l.err)
	assert.True(t, l.result.Complete, "%v", l.result.Reasons)
	for uuid, verdict := range verdictOf {
		assert.Equal(t, verdict, l.key(uuid).Verdict, uuid)
	}
	assert.Equal(t, 9, l.result.Counts.Clusters)
	assert.NotContains(t, l.keys, project+"/"+om.Key(none.ID))
}

// Whatever cannot be read, or names no key, is reported, and hides nothing else.
func TestWhatMakesAListingIncomplete(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		arrange func(om *simulator.Server, set simulator.Cluster)
		reason  activities.IncompleteCode
		says    string
		verdict workflows.Verdict // of the set's own key; "" = it cannot be read
	}{
		{"a shard is missing", func(om *simulator.Server, set simulator.Cluster) {
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, MissingShards: []string{"orders-7"}, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
		}, activities.IncompleteMissingShards, "lacks shard orders-7", workflows.VerdictCurrent},
		{"an encrypted part has no id", func(om *simulator.Server, set simulator.Cluster) {
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(true), ReplicaSetName: "audit"}}})
		}, activities.IncompleteNoKeyID, "names no key for audit", workflows.VerdictCurrent},
		{"a part may be encrypted", func(om *simulator.Server, set simulator.Cluster) {
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Parts: []simulator.SnapshotPart{{ReplicaSetName: "audit"}}})
		}, activities.IncompleteNoKeyID, "names no key for audit", workflows.VerdictCurrent},
		{"a snapshot without parts", func(om *simulator.Server, set simulator.Cluster) {
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID})
		}, activities.IncompleteNoKeyID, "names no part", workflows.VerdictCurrent},
		{"a restore in progress names no key", func(om *simulator.Server, set simulator.Cluster) {
			om.AddRestoreJob(simulator.RestoreJob{ClusterID: set.ID, StatusName: "IN_PROGRESS"})
		}, activities.IncompleteNoKeyID, "restore job", workflows.VerdictCurrent},
		{"the snapshots are refused", func(om *simulator.Server, set simulator.Cluster) {
			om.SetBackupConfig(simulator.BackupConfig{ClusterID: set.ID, StatusName: simulator.StatusTerminating})
			om.Inject(simulator.Unauthorized(http.MethodGet, set.ID).On(simulator.KindSnapshots).Always())
		}, activities.IncompleteUnreadable, "the snapshots cannot be read", workflows.VerdictUnknown},
		{"the restore jobs are refused", func(om *simulator.Server, set simulator.Cluster) {
			om.SetBackupConfig(simulator.BackupConfig{ClusterID: set.ID, StatusName: simulator.StatusTerminating})
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
			om.Inject(simulator.AccessListRefusal(http.MethodGet, set.ID).On(simulator.KindRestoreJobs).Always())
		}, activities.IncompleteUnreadable, "the restore jobs cannot be read", workflows.VerdictUnknown},
		{"the key is refused", func(om *simulator.Server, set simulator.Cluster) {
			om.Inject(simulator.Unauthorized(http.MethodGet, set.ID).On(simulator.KindKey).Always())
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
		}, activities.IncompleteUnreadable, "the key of audit cannot be read", ""},
		{"an encrypted backup shows no key", func(om *simulator.Server, set simulator.Cluster) {
			om.Inject(simulator.KeyNull(set.ID).Always())
			om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
		}, activities.IncompleteNoKeyID, "shows no key", ""},
		{"a cluster is not listed", func(om *simulator.Server, set simulator.Cluster) {
			om.UpdateCluster(set.ID, func(c *simulator.Cluster) { c.Hidden = true })
		}, activities.IncompleteNotListed, "does not list the cluster", workflows.VerdictCurrent},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			other := om.AddReplicaSet(project, "other")
			c.arrange(om, set)
			l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
			require.NoError(t, l.err)
			assert.False(t, l.result.Complete)
			require.Equal(t, []string{string(c.reason)}, l.reasons(), "%v", l.result.Reasons)
			assert.Contains(t, l.result.Reasons[0].Message, c.says)
			assert.Equal(t, set.ID, l.result.Reasons[0].ClusterID)
			assert.False(t, l.pages[0].Complete && c.reason != activities.IncompleteNotListed)
			assert.Equal(t, c.verdict, l.key(om.Key(set.ID)).Verdict)
			assert.Equal(t, workflows.VerdictCurrent, l.key(om.Key(other.ID)).Verdict)
		})
	}
}

// Of many snapshots with one fault, the first is reported and the others counted.
func TestReasonsDoNotGrowWithSnapshots(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	for range 50 {
		om.AddSnapshot(simulator.Snapshot{ClusterID: set.ID, MissingShards: []string{"x"}, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
	}
	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.Len(t, l.result.Reasons, 1)
	assert.Contains(t, l.result.Reasons[0].Message, "and 49 more of this kind")
}

// A project that cannot be read is a reason; the others are listed.
func TestAProjectThatCannotBeRead(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	const missing, excluded = "65a1f0c2d3e4b5a697880009", "65a1f0c2d3e4b5a69788000a"
	om.AddReplicaSet(excluded, "left-out")
	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{
		"projectIds": []string{strings.ToUpper(project), missing, excluded}, "excludeProjectIds": []string{strings.ToUpper(excluded)},
	})
	require.NoError(t, l.err)
	assert.False(t, l.result.Complete)
	require.Len(t, l.result.Reasons, 1)
	assert.Equal(t, missing, l.result.Reasons[0].ProjectID)
	assert.Contains(t, l.result.Reasons[0].Message, "GROUP_NOT_FOUND")
	assert.Equal(t, 2, l.result.Counts.Projects)
	assert.Len(t, l.keys, 1)
}

func TestAListingThatCannotStartFails(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.Inject(simulator.Unauthorized(http.MethodGet, "").Always())
	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	requireFailure(t, l.err, workflows.ErrorUnauthorized)
	l = listKeys(t, fixture.NewSDK(t, om), map[string]any{"connection": "other"})
	requireFailure(t, l.err, workflows.ErrorUnknownConnection)
	l = listKeys(t, fixture.NewSDK(t, om), map[string]any{"connection": "a b", "projectIds": []string{"x"}, "excludeProjectIds": []string{"y"}, "clusterId": 1})
	failed := requireFailure(t, l.err, workflows.ErrorInvalidInput)
	for _, field := range []string{"connection:", "projectIds[0]:", "excludeProjectIds[0]:", `"clusterId": unknown field`} {
		assert.Contains(t, failed.Message(), field)
	}
}

// One listing of a project serves all of its clusters, over as many pages and
// batches as there are, and a key that many clusters use is one record.
func TestOneListingServesAllClustersOfAProject(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 500})
	const clusters = 130
	for i := range clusters {
		set := om.AddReplicaSet(project, fmt.Sprintf("set-%03d", i))
		om.SetKey(set.ID, "pinned")
	}
	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.NoError(t, l.err)
	assert.True(t, l.result.Complete, "%v", l.result.Reasons)
	assert.Equal(t, clusters, l.result.Counts.Clusters)
	require.Len(t, l.result.Pages, 2)
	assert.Equal(t, workflows.VerdictCurrent, l.key("pinned").Verdict)
	assert.Len(t, l.key("pinned").ClusterIDs, 50)
	assert.True(t, l.key("pinned").NamesLeftOut)
	listings := om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.Kind == simulator.KindClusters })
	assert.Len(t, listings, 1)
	configs := om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.Kind == simulator.KindBackupConfigs })
	assert.Len(t, configs, 1)
}

// A cluster with more keys than fit into one activity's result, and into one
// page, is continued, and no key is lost.
func TestAClusterWithVeryManyKeysIsContinued(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	first, huge := om.AddReplicaSet(project, "first"), om.AddReplicaSet(project, "huge")
	const keys = 4_000
	for i := range 40 {
		s := simulator.Snapshot{ClusterID: huge.ID, Created: day1, Expires: next}
		for j := range keys / 40 {
			s.Parts = append(s.Parts, simulator.SnapshotPart{ReplicaSetName: fmt.Sprintf("rs-%d", j), MasterKeyUUID: fmt.Sprintf("key-%05d", i*keys/40+j), EncryptionEnabled: new(true)})
		}
		om.AddSnapshot(s)
	}
	env := fixture.NewSDK(t, om)
	largest := 0
	env.SetOnActivityCompletedListener(func(_ *activity.Info, result converter.EncodedValue, _ error) {
		var read activities.ListClusterKeysResult
		if result.Get(&read) == nil {
			largest = max(largest, read.Size)
		}
	})
	l := listKeys(t, env, map[string]any{})
	require.NoError(t, l.err)
	assert.Len(t, l.keys, keys+2)
	assert.Equal(t, workflows.VerdictCurrent, l.key(om.Key(first.ID)).Verdict)
	assert.Greater(t, len(l.result.Pages), 1)
	assert.Equal(t, 2, l.result.Counts.Clusters)
	assert.Equal(t, 41, l.result.Counts.Snapshots, "each counts once")
	assert.LessOrEqual(t, largest, 400<<10)
}

// Transient errors are retried, and what goes on failing is a reason.
func TestTransientErrorsOfAListingAreRetried(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.RateLimited(http.MethodGet, set.ID, "").On(simulator.KindSnapshots))
	om.Inject(simulator.ServerError(http.MethodGet, set.ID, "").On(simulator.KindRestoreJobs))
	om.Inject(simulator.KeyGarbage(set.ID))
	l := listKeys(t, fixture.NewSDK(t, om), map[string]any{})
	require.NoError(t, l.err)
	assert.True(t, l.result.Complete, "%v", l.result.Reasons)
}

// A pause reaches what is in progress: nothing more is read until it is resumed.
func TestAListingIsPausedAndResumed(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	for i := range 45 {
		om.AddReplicaSet(project, fmt.Sprintf("set-%d", i))
	}
	env := fixture.NewSDK(t, om)
	var progress workflows.ListKeysProgress
	paused := false
	env.SetOnActivityCompletedListener(func(info *activity.Info, _ converter.EncodedValue, _ error) {
		if info.ActivityType.Name != activities.ListKeyClustersName || paused {
			return
		}
		paused = true
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "maintenance"})
		env.Refused(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"}, "already paused")
		env.RegisterDelayedCallback(func() {
			value, err := env.QueryWorkflow(workflows.ProgressQuery)
			if assert.NoError(t, err) && assert.NoError(t, value.Get(&progress)) {
				env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
			}
		}, time.Hour)
	})
	l := listKeys(t, env, map[string]any{})
	require.NoError(t, l.err)
	assert.Equal(t, workflows.PhasePaused, progress.Phase)
	assert.Contains(t, progress.WaitingFor, "paused by lee (maintenance)")
	require.Len(t, progress.InProgress, 1)
	assert.Less(t, progress.Counts.Clusters, 45)
	assert.Equal(t, 45, l.result.Counts.Clusters)
	assert.True(t, l.result.Complete)
}

// An abort, and a cancellation, end the children and keep what was found.
func TestAListingIsAborted(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(env fixture.SDK){
		"abort": func(env fixture.SDK) {
			env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee", Reason: "enough"})
		},
		"cancel": func(env fixture.SDK) { env.CancelWorkflow() },
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			for i := range 6 {
				om.AddReplicaSet(fmt.Sprintf("65a1f0c2d3e4b5a6978800%02d", i), "set")
			}
			env := fixture.NewSDK(t, om)
			ended := false
			env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, _ converter.EncodedValues) {
				if info.WorkflowType.Name == workflows.ListKeyPageType && !ended {
					ended = true
					end(env)
				}
			})
			l := listKeys(t, env, map[string]any{})
			failed := requireFailure(t, l.err, workflows.ErrorAborted)
			result, found := workflows.ListKeysResultOf(failed)
			require.True(t, found)
			assert.False(t, result.Complete)
			assert.Positive(t, result.Counts.NotStarted)
			assert.NotNil(t, result.FinishedAt)
		})
	}
}
