package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/encryption"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/waiting"
	"keyturn/worker/metrics"
	"keyturn/workflows"
)

// A worker records rotations, adds those of before, and shows the age of keys, and
// the heads of the chains, also after a restart.
func TestWorkerKeepsItsLedger(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "audit")
	stop := s.StartWorker() // without a ledger
	s.RequireRotated(s.Start(s.Input(cluster.ID)), 1)
	stop()
	env := monitoredEnvironment(s)
	url := "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	env[ledger.URLVariable] = url
	showsAge := func(w *monitoredWorker) {
		waiting.Until(t, func() bool {
			_, page := get(w.address, metricsPath)
			return strings.Contains(page, workflows.LastVerifiedMetric+`{cluster="`+cluster.ID+`"`)
		})
		waiting.Until(t, func() bool {
			status, heads := get(w.address, headsPath)
			return status == http.StatusOK && strings.Contains(heads, ledgerentry.Chain("default", s.Project, cluster.ID))
		})
	}
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, func(r readiness) bool { return r.Ready && r.Checks["ledger"].OK })
	showsAge(w)
	w.stop()
	entries := fixture.Entries(t, fixture.LedgerAt(t, url, ledger.Options{}).Open)
	require.Len(t, entries, 1)
	assert.Equal(t, ledgerentry.SourceReconciled, entries[0].Source)

	again := startMonitored(t, env, oftenLooking)
	showsAge(again)
	assert.Contains(t, again.log.String(), entries[0].Hash)
	assert.Len(t, fixture.Entries(t, fixture.LedgerAt(t, url, ledger.Options{}).Open), 1)
}

// The age of keys is that of the ledger, whichever workers stop and start. A cluster
// that was rotated only in part has none, and does not stay unknown.
func TestAgeOfKeysOutlivesTheWorkers(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	whole, skipped := s.OM.AddShardedCluster(s.Project, "orders", 2), s.OM.AddShardedCluster(s.Project, "users", 2)
	s.OM.AddReplicaSet(s.Project, "untouched")
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, skipped.ShardIDs[1]))
	env := monitoredEnvironment(s)
	env[ledger.URLVariable] = "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, isReady)
	rotated := s.RequireRotated(s.Start(s.Input(whole.ID)), 3)
	oldest := slices.MinFunc(rotated.Targets, func(a, b workflows.TargetRecord) int { return a.VerifiedAt.Compare(*b.VerifiedAt) })
	held := s.Input(skipped.ID)
	held.OnFailure = workflows.OnFailureHold
	run := s.Start(held)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseHeld })
	_, err := s.Update(run.GetID(), workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"users-1"}})
	require.NoError(t, err)
	result, err := s.Result(run)
	require.NoError(t, err)
	require.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	w.stop()

	again := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, again.address, isReady)
	agesOf := func(f families) map[string]float64 {
		shown := map[string]float64{}
		for _, series := range f[workflows.LastVerifiedMetric].GetMetric() {
			of := map[string]string{}
			for _, label := range series.GetLabel() {
				of[label.GetName()] = label.GetValue()
			}
			if of[workflows.ProjectLabel] == s.Project {
				shown[of[workflows.ClusterLabel]] = series.GetGauge().GetValue()
			}
		}
		return shown
	}
	waiting.Until(t, func() bool {
		status, _ := get(again.address, headsPath)
		return status == http.StatusOK
	}, "the ledger is read: ages first, then the heads")
	assert.Equal(t, map[string]float64{
		whole.ID:   float64(oldest.VerifiedAt.Unix()),
		skipped.ID: 0, // a rotation that skipped a target proves nothing about its key
	}, agesOf(scrape(t, again.address)))

	rest := s.Input(skipped.ID)
	rest.Completed = result.Targets
	s.RequireRotated(s.Start(rest), 3)
	awaitScrape(t, again.address, "the age of the keys that are now all rotated", func(f families) bool { return agesOf(f)[skipped.ID] > 0 })
}

// Only clusters and deployments that were rotated lately, and never as a whole, show 0.
func TestClustersThatWereNeverRotatedAsAWhole(t *testing.T) {
	const project, cluster, gone = "5196d3628d022db4cbc26d9e", "65a1f1aa0000000000000001", "65a1f1aa0000000000000002"
	l, err := fixture.LedgerAt(t, "sqlite://"+filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{}).Open(t.Context())
	require.NoError(t, err)
	add := func(kind ledgerentry.Kind, clusterID string, outcome workflows.Outcome, age time.Duration) {
		record := ledgerentry.Record{
			Key: string(kind) + clusterID + string(outcome), Kind: kind, Source: ledgerentry.SourceWorkflow, Connection: "default", ProjectID: project,
			WorkflowID: "w", RunID: "r", Outcome: string(outcome), Body: json.RawMessage(`{"result": {}}`),
			StartedAt: time.Now().Add(-age - time.Minute), FinishedAt: time.Now().Add(-age),
		}
		switch kind {
		case ledgerentry.KindCluster:
			record.Clusters = []ledgerentry.Cluster{{ID: clusterID}}
		case ledgerentry.KindFleet:
			record.ProjectID = ""
		}
		_, err := l.Append(t.Context(), record)
		require.NoError(t, err)
	}
	add(ledgerentry.KindCluster, cluster, workflows.OutcomeNothingRotated, lastVerifiedAge-time.Hour)
	add(ledgerentry.KindCluster, gone, workflows.OutcomePartial, lastVerifiedAge+time.Hour)
	add(ledgerentry.KindDeployment, "", workflows.OutcomeRotatedUnproven, time.Hour)
	add(ledgerentry.KindFleet, "", workflows.OutcomePartial, time.Hour)
	m, err := metrics.New("v0.0.0-test")
	require.NoError(t, err)
	require.NoError(t, showLastVerified(t.Context(), l, m.Handler()))
	recorder := httptest.NewRecorder()
	m.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, metricsPath, nil))
	var shown []string
	for line := range strings.Lines(recorder.Body.String()) {
		if strings.HasPrefix(line, workflows.LastVerifiedMetric+"{") {
			shown = append(shown, strings.TrimSpace(line))
		}
	}
	labels := `",connection="default",project="` + project + `"} 0`
	assert.ElementsMatch(t, []string{
		workflows.LastVerifiedMetric + `{cluster="` + cluster + labels, workflows.LastVerifiedMetric + `{cluster="` + workflows.DeploymentsLabel + labels,
	}, shown)
}

func TestWorkerWithoutItsLedgerIsNotReady(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	env := monitoredEnvironment(s)
	env[ledger.URLVariable] = "postgres://keyturn@" + freeAddress(t) + "/keyturn"
	w := startMonitored(t, env, shortTimeouts)
	awaitReadiness(t, w.address, func(r readiness) bool {
		return !r.Ready && strings.HasPrefix(r.Checks["ledger"].Problem, ledger.URLVariable)
	})
	_, page := get(w.address, metricsPath)
	assert.Contains(t, page, "\nkeyturn_ledger_last_answer_timestamp_seconds ", "the worker's start: it must alert")
}

func TestLedgerSettings(t *testing.T) {
	_, err := readLedger(setting.Environment{ledger.URLVariable: "mysql://h/d"})
	require.ErrorContains(t, err, "KEYTURN_LEDGER: must be ")
	keeper, err := readLedger(setting.Environment{})
	require.NoError(t, err)
	assert.Nil(t, keeper)
	assert.Nil(t, keeper.appender())
}

// Records that are encoded are a rotation that is missing in the ledger: the worker
// says which one, and adds the others.
func TestEncodedRecordsAreMissingInTheLedger(t *testing.T) {
	s := fixture.NewServer(t, simulator.Options{})
	encoding, err := client.Dial(encryption.Options(client.Options{HostPort: s.TemporalServer.Address, Namespace: s.TemporalServer.Namespace}))
	require.NoError(t, err)
	defer encoding.Close()
	worker := sdkworker.New(encoding, s.TaskQueue, sdkworker.Options{})
	worker.RegisterWorkflowWithOptions(func(workflow.Context, converter.RawValue) (*workflows.RotateClusterResult, error) {
		return &workflows.RotateClusterResult{Outcome: workflows.OutcomeRotated}, nil
	}, workflow.RegisterOptions{Name: workflows.RotateClusterType})
	require.NoError(t, worker.Start())
	encoded := s.OM.AddReplicaSet(s.Project, "encoded")
	ids := map[string]client.Client{"result": s.Temporal, "input": encoding}
	for name, by := range ids {
		id := workflows.RotateClusterID(name, s.Project, encoded.ID)
		run, err := by.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: s.TaskQueue}, workflows.RotateClusterType,
			workflows.RotateClusterInput{Connection: name, ProjectID: s.Project, ClusterID: encoded.ID})
		require.NoError(t, err)
		require.NoError(t, encoding.GetWorkflow(t.Context(), id, run.GetRunID()).Get(t.Context(), nil))
	}
	worker.Stop()
	stop := s.StartWorker() // without a ledger
	refused, err := encoding.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.RotateClusterID("refused", s.Project, encoded.ID), TaskQueue: s.TaskQueue,
	}, workflows.RotateClusterType, s.Input(encoded.ID))
	require.NoError(t, err)
	fixture.RequireFailure(t, refused.Get(t.Context(), nil), workflows.ErrorInvalidInput)
	s.RequireRotated(s.Start(s.Input(s.OM.AddReplicaSet(s.Project, "audit").ID)), 1)
	stop()

	env := monitoredEnvironment(s)
	env[ledger.URLVariable] = "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	w := startMonitored(t, env, oftenLooking)
	for name := range ids {
		waitForText(t, &w.log, "its records are encoded, and the worker has no codec\" workflowID="+workflows.RotateClusterID(name, s.Project, encoded.ID))
	}
	waitForText(t, &w.log, "added a closed rotation to the ledger")
	w.stop()
	assert.NotContains(t, w.log.String(), workflows.RotateClusterID("refused", s.Project, encoded.ID), "nothing was rotated")
	assert.Equal(t, 2, strings.Count(w.log.String(), "its records are encoded"), "each is reported once")
}
