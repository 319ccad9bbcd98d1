package faults

import (
	"context"
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
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// scene is a stage with the cluster that a rotation's points are taken of.
type scene struct {
	stage.Stage
	cluster simulator.ShardedCluster
}

// newScene has two targets, one after the other; in a long run three of them
// are in work at a time, after the first.
func newScene(t *testing.T, server *temporalserver.Server) scene {
	t.Helper()
	s := stage.On(t, server, simulator.Options{})
	s.Unrecorded = true
	shards := 1
	if *long {
		shards = 3
	}
	return scene{s, s.OM.AddShardedCluster(s.Project, "orders", shards)}
}

func (s scene) input() workflows.RotateClusterInput {
	input := inputOf(s.Stage, s.cluster.ID)
	input.Concurrency = 1
	if *long {
		input.Concurrency = 3
	}
	return input
}

func (s scene) requireRotated(run workflowRun) workflows.RotateClusterResult {
	s.Helper()
	return s.RequireRotated(run, len(s.cluster.TargetIDs()))
}

// pointsOf runs an undisturbed rotation and gives its points in order.
func pointsOf(t *testing.T, server *temporalserver.Server) (points []point) {
	t.Helper()
	s := newScene(t, server)
	g := newGate(s.Stage, nil)
	stop := g.startWorker(s.Stage)
	s.requireRotated(s.Start(s.input()))
	stop()
	for i, m := range g.messages() {
		points = append(points, point{i + 1, m.name, false}, point{i + 1, m.name, true})
	}
	require.NotEmpty(t, points)
	return points
}

// indexOf finds the first point of the n-th message of a name.
func indexOf(t *testing.T, points []point, name string, n int) int {
	t.Helper()
	for i, p := range points {
		if p.name == name && !p.after {
			if n--; n == 0 {
				return i
			}
		}
	}
	require.Fail(t, "there is no such message", name)
	return 0
}

// durations are figures of parallel tests.
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

// awaitPoint waits until a point is reached. A rotation that ends before it has
// had fewer messages than the one that the points were taken of.
func awaitPoint(s scene, run workflowRun, reached <-chan struct{}) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		_ = run.Get(ctx, nil)
		close(ended)
	}()
	select {
	case <-reached:
		return
	case <-ended:
	}
	select {
	case <-reached:
	case <-time.After(time.Second): // after the last message, the end is seen first
		s.requireRotated(run)
		s.Skip("this rotation had fewer messages")
	}
}

// The worker is killed before and after each message that it sends; another one
// is started at that moment, and goes on.
func TestWorkerKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	points := pointsOf(t, temporalserver.Shared(t))
	var takenUp durations
	t.Cleanup(func() {
		t.Logf("%d kill points; from a worker's death until another one is at its target: %s", len(points), &takenUp)
	})
	for _, p := range points {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			killAt(newScene(t, temporalserver.Shared(t)), p, &takenUp)
		})
	}
}

func killAt(s scene, p point, takenUp *durations) {
	var first *workerProcess
	var died time.Time
	started, killed := make(chan struct{}), make(chan struct{})
	g := newGate(s.Stage, func(reached point) bool {
		<-started
		if !reached.is(p) {
			return false
		}
		first.kill()
		died = time.Now()
		close(killed)
		return true
	})
	first = startWorkerProcess(s.Stage, g.temporalAddress, g.opsManagerURL)
	close(started)
	run := s.Start(s.input())
	awaitPoint(s, run, killed)

	onwards := newGate(s.Stage, nil)
	startWorkerProcess(s.Stage, onwards.temporalAddress, onwards.opsManagerURL)
	result := s.requireRotated(run)
	name := g.messages()[p.number-1].name
	if p.after && strings.HasPrefix(name, http.MethodPut) {
		assert.True(s, slices.ContainsFunc(result.Targets, func(t workflows.TargetRecord) bool { return t.Ambiguous }))
	}
	messages := onwards.messages()
	if len(messages) == 0 { // the killed worker's last word was the rotation's
		require.True(s, p.after && name == "RespondWorkflowTaskCompleted", name)
		return
	}
	took := messages[0].at.Sub(died)
	takenUp.add(took)
	assert.Less(s, took, takenUpWithin, "until %s", messages[0].name)
}

// takenUp waits for the first authenticated request about a target since a
// moment, other than those that were there, and tells how long it took.
func takenUp(s stage.Stage, target string, since time.Time) time.Duration {
	s.Helper()
	isLater := func(r simulator.Request) bool {
		return r.Authenticated && r.ClusterID == target && r.Start.After(since)
	}
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Select(isLater)) > 0 })
	return s.OM.Ledger().Select(isLater)[0].Start.Sub(since)
}

// A PUT hangs while its worker is killed, and takes effect after that: at once,
// or not before another worker reads the key for the first time.
func TestPutThatTakesEffectAfterItsWorkerWasKilled(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	for name, applied := range map[string]struct{ after, settleTime time.Duration }{
		"BeforeAnotherWorkerReads":    {3 * time.Second, settleTime},
		"WhileAnotherWorkerIsReading": {14 * time.Second, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage.New(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
			target := cluster.ShardIDs[1]
			s.OM.Inject(simulator.PutAppliedLate(target, applied.after))
			first := startProcess(s)
			input := inputOf(s, cluster.ID)
			input.SettleTime = workflows.Duration(applied.settleTime)
			run := s.Start(input)
			s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodPut, target) == 1 })
			first.kill()
			died := time.Now()
			startProcess(s)
			took := takenUp(s, target, died)
			t.Logf("taken up after %.1fs", took.Seconds())
			assert.Less(t, took, takenUpWithin)
			result := s.RequireRotated(run, 3)
			assert.True(t, result.Targets[1].Ambiguous)
		})
	}
}

// Two workers share a queue; one of them dies with targets in work, and the
// other one takes all of them up.
func TestOneOfTwoWorkersIsKilled(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	s := stage.New(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 11)
	for _, id := range cluster.TargetIDs()[1:] {
		s.OM.Inject(simulator.PutDelayed(id, time.Second))
	}
	doomed := startProcess(s)
	startProcess(s)
	input := inputOf(s, cluster.ID)
	input.Concurrency = 6
	run := s.Start(input)
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Rotations) >= 5 })
	doomed.kill()
	died := time.Now()
	s.RequireRotated(run, 12)
	t.Logf("12 targets; ended %.1fs after the death of one of two workers", time.Since(died).Seconds())
}

// A worker that is asked to stop in the middle of reading what became of its PUT
// leaves the answer to another one.
func TestWorkerStoppedWithAPutInTheOpen(t *testing.T) {
	t.Parallel()
	for _, apply := range []simulator.Apply{simulator.ApplyBefore, simulator.ApplyNo} {
		t.Run("applied-"+string(apply), func(t *testing.T) {
			t.Parallel()
			s := stage.New(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
			failed := simulator.PutServerError(cluster.ConfigID, apply)
			if apply == simulator.ApplyBefore {
				failed.ShowAfter = 3 * time.Second
			}
			s.OM.Inject(failed)
			stop := s.StartWorker()
			input := inputOf(s, cluster.ID)
			input.SettleTime = workflows.Duration(6 * time.Second)
			run := s.Start(input)
			s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodGet, cluster.ConfigID) > 2 })
			stop()
			s.StartWorker()
			result := s.RequireRotated(run, 2)
			assert.True(t, result.Targets[1].Ambiguous)
		})
	}
}
