package faultinjection

import (
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
)

// Temporal is killed with SIGKILL while many rotations of each kind are each at a
// different point: one before and one after each message. It is restarted on its
// database file.
func TestTemporalKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DatabaseFile: filepath.Join(t.TempDir(), "temporal.db")})
	up := make(chan struct{})
	release := sync.OnceFunc(func() { close(up) })
	t.Cleanup(release)
	var rotations []*rotationAtPoint
	for _, k := range kinds {
		for _, p := range testedPointsOf(t, server, k) {
			rotations = append(rotations, startUntil(newRotationFixture(t, server, k), p, up))
		}
	}
	count := func(is func(*rotationAtPoint) bool) (n int) {
		for _, r := range rotations {
			if is(r) {
				n++
			}
		}
		return n
	}
	// The messages of parallel targets change their order, and there may be fewer.
	isReached := func(r *rotationAtPoint) bool { return r.reached.Load() }
	isMissed := func(r *rotationAtPoint) bool { return r.missed.Load() && !r.reached.Load() }
	waiting.Until(t, func() bool { return count(isReached)+count(isMissed) >= len(rotations) },
		"each rotation must reach its point, or end without it")
	require.LessOrEqual(t, count(isMissed), len(rotations)/5, "rotations that ended without reaching their points")
	server.Kill()
	require.NoError(t, server.Restart(t.Context()))
	release()
	for _, r := range rotations {
		r.requireRotated(r.run)
	}
	t.Logf("%d rotations continued, each from a different point", count(isReached))
}

// rotationAtPoint is a rotation that waits at a point.
type rotationAtPoint struct {
	rotationFixture
	run workflowRun
	// reached: it waits there, or has; missed: it has ended.
	reached, missed atomic.Bool
}

// startUntil starts a rotation that waits at a point until a channel is closed.
func startUntil(s rotationFixture, p killPoint, until <-chan struct{}) *rotationAtPoint {
	r := &rotationAtPoint{rotationFixture: s}
	g := newInterceptProxy(s.Server, func(at killPoint) bool {
		if at.equals(p) {
			r.reached.Store(true)
			<-until
		}
		return false
	})
	g.startWorker(s.Server)
	r.run = s.start()
	s.Cleanup(func() {
		if s.Failed() && !r.reached.Load() {
			s.Logf("not reached: %s", p)
		}
	})
	ended := endOf(s.Context(), s.Server, r.run)
	go func() { // ends early where the rotation has no such message
		if err := <-ended; err == nil {
			r.missed.Store(true)
		}
	}()
	return r
}

// Histories exceed the suggested size every few targets, so that a rotation
// with faults has many runs. A reset of the last run is a copy for which the
// first attempts cannot rely on an earlier run.
func TestContinueAsNewWithFaults(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "25"}})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 11)
	for i, id := range cluster.TargetIDs() {
		s.OM.Inject([]simulator.Fault{
			simulator.PutCut(id, simulator.ApplyBefore),
			simulator.PutServerError(id, simulator.ApplyNo),
			simulator.RateLimited(http.MethodPut, id, "1"),
			simulator.StaleNonce(http.MethodPut, id),
		}[i%4])
	}
	startWorker(s)
	run := s.Start(inputOf(s, cluster.ID))
	first := run.GetRunID()
	keys := keysOf(s.RequireRotated(run, 12))
	require.NotEqual(t, first, run.GetRunID(), "the rotation must have continued as new")
	assert.Zero(t, s.OM.FaultsLeft())

	s.Unrecorded = true
	points := resetPoints(s.History(run), clusterReadings)
	require.NotEmpty(t, points)
	again := s.RequireRotated(reset(s, run, toEvent(points[0])...), 12)
	assert.Equal(t, keys, keysOf(again), "a reset of the last run must have the same records")
}

// The worker is killed at points of a rotation that continues as new after nearly
// every target; with -long at every point, in the first run, too.
func TestWorkerKilledDuringContinueAsNew(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if k.continuesRarely && !*long {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			workerExecutable(t)
			server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "18"}})
			points := killPointsOf(t, server, k)
			if !*long {
				points = points[indexOf(t, points, k.change, 1):]
				points = slices.DeleteFunc(points, func(p killPoint) bool { return !k.isTested(p) })
			}
			var resumedAfter durations
			t.Cleanup(func() { t.Logf("%d kill points; time until another worker continued: %s", len(points), &resumedAfter) })
			for _, p := range points {
				t.Run(p.String(), func(t *testing.T) {
					t.Parallel()
					killAt(newRotationFixture(t, server, k), p, &resumedAfter)
				})
			}
		})
	}
}
