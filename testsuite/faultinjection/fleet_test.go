package faultinjection

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/invariants"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// A fleet is rotated while its workers are killed with SIGKILL, one after
// another, and Temporal once; it continues as new every few clusters. Every
// cluster is rotated exactly once.
func TestFleetWithKilledProcesses(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	server := temporalserver.StartForTest(t, temporalserver.Options{
		DatabaseFile:  filepath.Join(t.TempDir(), "temporal.db"),
		DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "50"},
	})
	s := fixture.NewServerOn(t, server, simulator.Options{Latency: 20 * time.Millisecond})
	targets := 0
	for i := range 24 {
		if i%4 == 0 {
			s.OM.AddShardedCluster(s.Project, fmt.Sprintf("orders-%d", i), 2)
			targets += 3
			continue
		}
		s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%d", i))
		targets++
	}
	worker := startProcess(s)
	cluster := inputOf(s, "")
	run := s.StartFleet(workflows.RotateFleetInput{
		ProjectIDs: []string{s.Project}, ClustersAtATime: 6,
		Rotation: workflows.FleetRotation{RetryTimeout: cluster.RetryTimeout, SettleTime: cluster.SettleTime, VerifyTimeout: cluster.VerifyTimeout},
	})
	first := run.GetRunID()
	for killed, rotations := range []int{5, 15, 25} {
		s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Rotations) >= rotations })
		worker.kill()
		if killed == 1 {
			server.Kill()
			require.NoError(t, server.Restart(t.Context()))
		}
		worker = startProcess(s)
	}
	result, err := s.FleetResult(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.FleetCounts{Clusters: 24, Rotated: 24}, result.Counts)
	assert.Equal(t, targets, result.TargetsVerified)
	assert.NotEqual(t, first, run.GetRunID(), "the fleet must have continued as new")
	ledger := s.OM.Ledger()
	assert.Len(t, ledger.Rotations, targets)
	for _, c := range s.OM.Clusters() {
		if c.IsTopLevel() {
			p := s.Progress(workflows.RotateClusterID(workflows.DefaultConnection, s.Project, c.ID))
			require.NoError(t, invariants.CheckRecords(ledger, p.Targets))
		}
	}
}
