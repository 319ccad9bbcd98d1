package faultinjection

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// testedPointsOf is killPointsOf, without the flag -long: those that the kind of
// rotation tests by default.
func testedPointsOf(t *testing.T, server *temporalserver.Server, k kind) (tested []killPoint) {
	t.Helper()
	for _, p := range killPointsOf(t, server, k) {
		if *long || k.isTested(p) {
			tested = append(tested, p)
		}
	}
	return tested
}

// killPointsOf runs an undisturbed rotation and returns its points in order.
func killPointsOf(t *testing.T, server *temporalserver.Server, k kind) (points []killPoint) {
	t.Helper()
	s := newRotationFixture(t, server, k)
	g := newInterceptProxy(s.Server, nil)
	stop := g.startWorker(s.Server)
	s.requireRotated(s.start())
	stop()
	for i, m := range g.messages() {
		points = append(points, killPoint{i + 1, m.name, false}, killPoint{i + 1, m.name, true})
	}
	require.NotEmpty(t, points)
	return points
}

// indexOf returns the index of the first point of the n-th message with this
// name.
func indexOf(t *testing.T, points []killPoint, name string, n int) int {
	t.Helper()
	for i, p := range points {
		if p.name == name && !p.after {
			if n--; n == 0 {
				return i
			}
		}
	}
	require.Fail(t, "no such message", name)
	return 0
}

// durations collects measurements of parallel tests.
type durations struct {
	mu   sync.Mutex
	seen []time.Duration
}

func (d *durations) add(seen time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, seen)
}

func (d *durations) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.seen) == 0 {
		return "none"
	}
	slices.Sort(d.seen)
	shown := func(i int) string { return fmt.Sprintf("%.1fs", d.seen[i].Seconds()) }
	return fmt.Sprintf("%d, from %s, median %s, to %s", len(d.seen), shown(0), shown(len(d.seen)/2), shown(len(d.seen)-1))
}

// awaitPoint waits until a point is reached. A rotation that ends earlier had
// fewer messages than the rotation that gave the points.
func awaitPoint(s rotationFixture, run workflowRun, reached <-chan struct{}) {
	s.Helper()
	select {
	case <-reached:
		return
	case <-endOf(waiting.Context(s), s.Server, run):
	}
	select {
	case <-reached:
	case <-time.After(time.Second): // after the last message, the end may be reported first
		s.requireRotated(run)
		s.Skip("this rotation had fewer messages")
	}
}

// The worker is killed before and after each message that it sends. Another
// worker starts at that moment and continues.
func TestWorkerKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			workerExecutable(t)
			points := testedPointsOf(t, temporalserver.Shared(t), k)
			var resumedAfter durations
			t.Cleanup(func() {
				t.Logf("%d kill points; time until another worker continued: %s", len(points), &resumedAfter)
			})
			for _, p := range points {
				t.Run(p.String(), func(t *testing.T) {
					t.Parallel()
					killAt(newRotationFixture(t, temporalserver.Shared(t), k), p, &resumedAfter)
				})
			}
		})
	}
}

func killAt(s rotationFixture, p killPoint, resumedAfter *durations) {
	var first *workerProcess
	var killedAt time.Time
	started, killed := make(chan struct{}), make(chan struct{})
	g := newInterceptProxy(s.Server, func(reached killPoint) bool {
		<-started
		if reached.number > p.number { // sent at the same time; it is lost with the worker
			select {
			case <-killed:
			case <-s.Context().Done():
			}
			return true
		}
		if !reached.equals(p) {
			return false
		}
		first.kill()
		killedAt = time.Now()
		close(killed)
		return true
	})
	first = startWorkerProcess(s.Server, g.temporalAddress, g.opsManagerURL)
	close(started)
	run := s.start()
	awaitPoint(s, run, killed)

	onwards := newInterceptProxy(s.Server, nil)
	startWorkerProcess(s.Server, onwards.temporalAddress, onwards.opsManagerURL)
	rotated := s.requireRotated(run)
	name := g.messages()[p.number-1].name
	if p.after && strings.HasPrefix(name, http.MethodPut) {
		assert.True(s, rotated.isAmbiguous)
	}
	messages := onwards.messages()
	if len(messages) == 0 { // the killed worker's last message ended the rotation
		require.True(s, p.after && name == "RespondWorkflowTaskCompleted", name)
		return
	}
	took := messages[0].at.Sub(killedAt)
	resumedAfter.add(took)
	assert.Less(s, took, resumedWithin, "until %s", messages[0].name)
}

// awaitResumed waits for the first authenticated request about a target after a
// point in time, and returns how long it took.
func awaitResumed(s fixture.Server, target string, since time.Time) time.Duration {
	s.Helper()
	isLater := func(r simulator.Request) bool {
		return r.Authenticated && r.ClusterID == target && r.Start.After(since)
	}
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Select(isLater)) > 0 })
	return s.OM.Ledger().Select(isLater)[0].Start.Sub(since)
}

// A PUT hangs while its worker is killed, and is applied after that:
// immediately, or only after another worker has read the key for the first
// time.
func TestPutAppliedAfterWorkerKill(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	for name, applied := range map[string]struct{ after, settleTime time.Duration }{
		"BeforeAnotherWorkerReads":    {3 * time.Second, settleTime},
		"WhileAnotherWorkerIsReading": {14 * time.Second, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
			target := cluster.ShardIDs[1]
			s.OM.Inject(simulator.PutAppliedLate(target, applied.after))
			first := startProcess(s)
			input := inputOf(s, cluster.ID)
			input.SettleTime = workflows.Duration(applied.settleTime)
			run := s.Start(input)
			s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodPut, target) == 1 })
			first.kill()
			killedAt := time.Now()
			startProcess(s)
			took := awaitResumed(s, target, killedAt)
			t.Logf("continued after %.1fs", took.Seconds())
			assert.Less(t, took, resumedWithin)
			result := s.RequireRotated(run, 3)
			assert.True(t, result.Targets[1].Ambiguous)
		})
	}
}

// Two workers share a task queue. One of them is killed with targets in
// progress, and the other one completes them.
func TestOneOfTwoWorkersKilled(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	s := fixture.NewServer(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 11)
	for _, id := range cluster.TargetIDs()[1:] {
		s.OM.Inject(simulator.PutDelayed(id, time.Second))
	}
	killed := startProcess(s)
	startProcess(s)
	input := inputOf(s, cluster.ID)
	input.Concurrency = 6
	run := s.Start(input)
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Rotations) >= 5 })
	killed.kill()
	killedAt := time.Now()
	s.RequireRotated(run, 12)
	t.Logf("12 targets; completed %.1fs after one of two workers was killed", time.Since(killedAt).Seconds())
}

// A worker that stops while it resolves the outcome of its PUT leaves this to
// another worker.
func TestWorkerStoppedWithPendingPut(t *testing.T) {
	t.Parallel()
	for _, apply := range []simulator.Apply{simulator.ApplyBefore, simulator.ApplyNo} {
		t.Run("applied-"+string(apply), func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
			failed := simulator.PutServerError(cluster.ConfigID, apply)
			if apply == simulator.ApplyBefore {
				failed.ShowAfter = 3 * time.Second
			}
			s.OM.Inject(failed)
			stop := startWorker(s)
			input := inputOf(s, cluster.ID)
			input.SettleTime = workflows.Duration(6 * time.Second)
			run := s.Start(input)
			s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodGet, cluster.ConfigID) > 2 })
			stop()
			startWorker(s)
			result := s.RequireRotated(run, 2)
			assert.True(t, result.Targets[1].Ambiguous)
		})
	}
}
