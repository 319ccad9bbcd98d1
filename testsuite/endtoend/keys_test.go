package endtoend

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/kmipsimulator"
	"keyturn/testsuite/support/programs"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

var (
	keyClusters  = flag.Int("key-clusters", 60, "clusters whose keys are listed")
	keySnapshots = flag.Int("key-snapshots", 20, "snapshots of each of these clusters")
	keyProcess   = flag.Bool("key-process", false, "list the keys with a worker in a process of its own, and log its memory")
)

const (
	// clustersPerProject is how many of the clusters one project has.
	clustersPerProject = 250
	// maxPayload is what Temporal takes as one payload, and maxHistory where it
	// suggests to continue as new.
	maxPayload = 2 << 20
	maxHistory = 4 << 20
)

// Payloads and histories stay within Temporal's limits, however many clusters and
// snapshots there are, and every key is found. Run it with -key-clusters 1000
// -key-snapshots 200 -key-process for the figures of docs/keys.md.
func TestListsTheKeysOfManyClusters(t *testing.T) {
	t.Parallel()
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	makeKey := func() string { return kmip.MakeKey(t, "ops-manager") }
	s := fixture.NewServer(t, simulator.Options{NewKey: func() (string, error) { return makeKey(), nil }})
	s.Unrecorded = true
	s.KMIP = kmip.EvidenceClient(t, "keyturn")
	projects := []string{s.Project}
	for range (*keyClusters - 1) / clustersPerProject {
		projects = append(projects, s.AddProject())
	}
	old := time.Now().AddDate(0, 0, -*keySnapshots).UTC().Truncate(time.Second)
	expected := map[string]workflows.Verdict{}
	for i := range *keyClusters {
		set := s.OM.AddReplicaSet(projects[i/clustersPerProject], fmt.Sprintf("set-%04d", i))
		first, second := s.OM.Key(set.ID), makeKey()
		for day := range *keySnapshots {
			if day == *keySnapshots/2 {
				s.OM.SetKey(set.ID, second)
			}
			at := old.AddDate(0, 0, day)
			s.OM.TakeSnapshot(set.ID, at, at.AddDate(1, 0, 0))
		}
		expected[first], expected[second] = workflows.VerdictNeeded, workflows.VerdictCurrent
	}
	worker := startKeyWorker(s, kmip)
	s.OM.ResetLedger()
	made := len(kmip.Requests())

	began := time.Now()
	run, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.ListKeysID(workflows.DefaultConnection, s.Project), TaskQueue: s.TaskQueue,
	}, workflows.ListKeysType, workflows.ListKeysInput{ProjectIDs: projects})
	require.NoError(t, err)
	var result workflows.ListKeysResult
	require.NoError(t, run.Get(t.Context(), &result))
	took := time.Since(began)

	assert.True(t, result.Complete, "%v", result.Reasons)
	assert.Equal(t, *keyClusters, result.Counts.Clusters)
	assert.Equal(t, *keyClusters**keySnapshots, result.Counts.Snapshots)
	largest := newKeySizes(s, run)
	found := map[string]workflows.Verdict{}
	for _, ref := range result.Pages {
		largest.add(s, s.Temporal.GetWorkflow(t.Context(), ref.WorkflowID, ref.RunID))
		var page workflows.KeyPage
		require.NoError(t, s.Temporal.GetWorkflow(t.Context(), ref.WorkflowID, ref.RunID).Get(t.Context(), &page))
		for _, key := range page.Keys {
			found[key.KeyUUID] = key.Verdict
			require.NotNil(t, key.KMIP)
			require.Equal(t, workflows.EvidenceWitnessed, key.KMIP.Outcome, key.KeyUUID)
		}
	}
	for _, project := range projects {
		largest.add(s, s.Temporal.GetWorkflow(t.Context(), run.GetID()+":"+project, ""))
	}
	assert.Equal(t, expected, found)
	assert.Less(t, largest.payload, maxPayload)
	assert.Less(t, largest.history, maxHistory)
	requests := s.OM.Ledger().Count("", "")
	assert.ElementsMatch(t, slices.Collect(maps.Keys(expected)), kmip.Asked(), "the KMIP server is asked once about each key")
	t.Logf("%d clusters with %d snapshots each in %d projects: %s, %d requests (%d challenges), %d requests to the KMIP server about %d keys, largest payload %d KiB, largest history %d KiB with %d events, %d workflows",
		*keyClusters, *keySnapshots, len(projects), took.Round(100*time.Millisecond), requests, s.OM.Ledger().Challenges(), len(kmip.Requests())-made, len(expected),
		largest.payload>>10, largest.history>>10, largest.events, 1+len(projects)+len(result.Pages))
	if worker != nil {
		t.Logf("the worker's memory: %d MiB at its peak", peakMemory(t, worker.PID())>>20)
	}
}

// A listing continues as new, as the listing of a large project does, and misses
// no key. The KMIP server is asked once about each.
func TestListingOfKeysContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "20"}})
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	maker, err := kmip.Client("ops-manager")
	require.NoError(t, err)
	s := fixture.NewServerOn(t, server, simulator.Options{NewKey: func() (string, error) { return maker.NewActiveKey(t.Context(), "") }})
	s.KMIP = kmip.EvidenceClient(t, "keyturn")
	projects := []string{s.Project}
	expected := []string{}
	for i := range 205 { // three pages
		expected = append(expected, s.OM.Key(s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%03d", i)).ID))
	}
	for range 9 {
		project := s.AddProject()
		projects = append(projects, project)
		expected = append(expected, s.OM.Key(s.OM.AddReplicaSet(project, "set").ID))
	}
	s.StartWorker()
	run, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.ListKeysID(workflows.DefaultConnection, s.Project), TaskQueue: s.TaskQueue,
	}, workflows.ListKeysType, workflows.ListKeysInput{ProjectIDs: projects})
	require.NoError(t, err)
	first := s.Temporal.GetWorkflow(t.Context(), run.GetID(), run.GetRunID())
	var result workflows.ListKeysResult
	require.NoError(t, run.Get(t.Context(), &result))
	assert.True(t, result.Complete, "%v", result.Reasons)
	assert.Equal(t, workflows.KeyListCounts{Projects: 10, Listed: 10, Clusters: 214, Snapshots: 214, Keys: 214}, result.Counts)
	var found []string
	for _, ref := range result.Pages {
		var page workflows.KeyPage
		require.NoError(t, s.Temporal.GetWorkflow(t.Context(), ref.WorkflowID, ref.RunID).Get(t.Context(), &page))
		for _, key := range page.Keys {
			found = append(found, key.KeyUUID)
			require.NotNil(t, key.KMIP)
			assert.Equal(t, workflows.EvidenceWitnessed, key.KMIP.Outcome)
		}
	}
	assert.ElementsMatch(t, expected, found)
	assert.ElementsMatch(t, expected, kmip.Asked())

	s.SaveHistory(first, "-first")
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), run.GetID(), ""), "-last")
	project := firstRun(s, run.GetID()+":"+s.Project)
	s.SaveHistory(project, "-project-first")
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), project.GetID(), ""), "-project-last")
	s.SaveHistory(s.Temporal.GetWorkflow(t.Context(), result.Pages[0].WorkflowID, result.Pages[0].RunID), "-page")
	for _, run := range []client.WorkflowRun{first, project} {
		events := s.History(run)
		assert.NotNil(t, events[len(events)-1].GetWorkflowExecutionContinuedAsNewEventAttributes(), "%s must continue as new", run.GetID())
	}
}

// firstRun is the first run of a workflow.
func firstRun(s fixture.Server, id string) client.WorkflowRun {
	s.Helper()
	described, err := s.Temporal.DescribeWorkflowExecution(s.Context(), id, "")
	require.NoError(s, err)
	return s.Temporal.GetWorkflow(s.Context(), id, described.GetWorkflowExecutionInfo().GetFirstRunId())
}

// A listing that is paused, resumed and aborted informs its children.
func TestListingOfKeysIsPausedAndAborted(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	set := s.OM.AddReplicaSet(s.Project, "orders")
	s.OM.Inject(simulator.KeyGated(set.ID))
	s.StartWorker()
	run, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.ListKeysID(workflows.DefaultConnection, s.Project), TaskQueue: s.TaskQueue,
	}, workflows.ListKeysType, workflows.ListKeysInput{ProjectIDs: []string{s.Project}})
	require.NoError(t, err)
	s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodGet, set.ID) > 0 })
	for _, update := range []string{workflows.PauseUpdate, workflows.ResumeUpdate, workflows.PauseUpdate, workflows.AbortUpdate} {
		handle, err := s.Temporal.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
			WorkflowID: run.GetID(), UpdateName: update, Args: []any{workflows.OperatorRequest{By: "dana", Reason: "test"}}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		require.NoError(t, err)
		require.NoError(t, handle.Get(t.Context(), nil))
	}
	fixture.RequireFailure(t, run.Get(t.Context(), nil), workflows.ErrorAborted)
	s.SaveHistory(run, "")
	s.SaveHistory(firstRun(s, run.GetID()+":"+s.Project), "-project")
	s.SaveHistory(firstRun(s, run.GetID()+":"+s.Project+":1"), "-page")
}

// startKeyWorker returns the worker's process where it has one of its own.
func startKeyWorker(s fixture.Server, kmip *kmipsimulator.Server) *childproc.Child {
	s.Helper()
	if !*keyProcess {
		s.StartWorker()
		return nil
	}
	program, folder := programs.Build(s, "./worker"), s.TempDir()
	caFile, certFile, keyFile, err := kmip.WriteClient(folder, "keyturn")
	require.NoError(s, err)
	log, err := os.Create(filepath.Join(folder, "log"))
	require.NoError(s, err)
	worker, err := childproc.StartWorker(program, log, []childproc.Variable{
		{Name: "TEMPORAL_ADDRESS", Value: s.TemporalServer.Address}, {Name: "TEMPORAL_NAMESPACE", Value: s.TemporalServer.Namespace},
		{Name: "KEYTURN_TASK_QUEUE", Value: s.TaskQueue}, {Name: "KEYTURN_LISTEN", Value: ""}, {Name: "OPS_MANAGER_URL", Value: s.OM.URL},
		{Name: "OPS_MANAGER_PUBLIC_KEY", Value: simulator.DefaultPublicKey}, {Name: "OPS_MANAGER_PRIVATE_KEY", Value: simulator.DefaultPrivateKey},
		{Name: "KMIP_ADDRESS", Value: kmip.Address()}, {Name: "KMIP_CA_FILE", Value: caFile},
		{Name: "KMIP_CLIENT_CERT_FILE", Value: certFile}, {Name: "KMIP_CLIENT_KEY_FILE", Value: keyFile},
	}...)
	require.NoError(s, err)
	s.Cleanup(func() {
		worker.Stop()
		if text, err := os.ReadFile(log.Name()); err == nil && s.Failed() {
			s.Logf("%s", text)
		}
		_ = log.Close()
	})
	return worker
}

func peakMemory(t *testing.T, pid int) uint64 {
	t.Helper()
	process, err := procfs.NewProc(pid)
	require.NoError(t, err)
	status, err := process.NewStatus()
	require.NoError(t, err)
	return status.VmHWM
}

// keySizes are the largest of some workflows.
type keySizes struct{ payload, history, events int }

func newKeySizes(s fixture.Server, run client.WorkflowRun) *keySizes {
	k := &keySizes{}
	k.add(s, run)
	return k
}

func (k *keySizes) add(s fixture.Server, run client.WorkflowRun) {
	s.Helper()
	events := s.History(run)
	size := proto.Size(&historypb.History{Events: events})
	for _, event := range events {
		// An event is its payload and little more.
		k.payload = max(k.payload, proto.Size(event))
	}
	k.history, k.events = max(k.history, size), max(k.events, len(events))
}
