package faults

import (
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
)

// Temporal is killed with -9 when many rotations are each at another point: one
// before and one after each message. It is started again on its database file.
func TestTemporalKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DatabaseFile: filepath.Join(t.TempDir(), "temporal.db")})
	points := pointsOf(t, server)
	back := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(back) })
	var reached atomic.Int32
	rotations := make([]func(), len(points))
	for i, p := range points {
		s := newScene(t, server)
		s.TaskQueue += "-" + p.String()
		g := newGate(s.Stage, func(at point) bool {
			if at.is(p) {
				reached.Add(1)
				<-back
			}
			return false
		})
		g.startWorker(s.Stage)
		run := s.Start(s.input())
		rotations[i] = func() { s.requireRotated(run) }
	}
	t.Cleanup(goOn)
	// One that had fewer messages than the one before does not come to the last point.
	require.Eventually(t, func() bool { return int(reached.Load()) >= len(points)-2 }, patience, 10*time.Millisecond)
	server.Kill()
	require.NoError(t, server.Restart(t.Context()))
	goOn()
	for _, requireRotated := range rotations {
		requireRotated()
	}
	t.Logf("%d rotations went on, each from another point", reached.Load())
}

// Histories grow beyond what is suggested at every few targets, so that a
// rotation goes through many runs, in trouble. A reset of the last one is a copy
// of it, for which no earlier run vouches.
func TestContinuedAsNewInTrouble(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "25"}})
	s := stage.On(t, server, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 11)
	for i, id := range cluster.TargetIDs() {
		s.OM.Inject([]simulator.Fault{
			simulator.PutCut(id, simulator.ApplyBefore),
			simulator.PutServerError(id, simulator.ApplyNo),
			simulator.RateLimited(http.MethodPut, id, "1"),
			simulator.StaleNonce(http.MethodPut, id),
		}[i%4])
	}
	s.StartWorker()
	run := s.Start(inputOf(s, cluster.ID))
	first := run.GetRunID()
	keys := keysOf(s.RequireRotated(run, 12))
	require.NotEqual(t, first, run.GetRunID(), "it must have been continued as new")
	assert.Zero(t, s.OM.FaultsLeft())

	s.Unrecorded = true
	points := resetPoints(s.History(run))
	require.NotEmpty(t, points)
	again := s.RequireRotated(reset(s, run, toEvent(points[0])...), 12)
	assert.Equal(t, keys, keysOf(again), "a copy of the last run has the same records")
}

// The worker is killed at every point of a rotation that is continued as new
// after nearly each target.
func TestWorkerKilledWhileContinuingAsNew(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "18"}})
	points := pointsOf(t, server)
	var takenUp durations
	t.Cleanup(func() { t.Logf("%d kill points; taken up: %s", len(points), &takenUp) })
	if !*long {
		points = points[indexOf(t, points, "PUT encryptionKey", 1):]
	}
	for _, p := range points {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			killAt(newScene(t, server), p, &takenUp)
		})
	}
}
