package faultinjection

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

var (
	seedCount = flag.Int("seeds", 3, "number of randomized rotations with real processes")
	oneSeed   = flag.Uint64("seed", 0, "run only this seed; 0 = seeds from the current time")
)

// randomizedSettleTime leaves room for a busy machine.
const randomizedSettleTime = 3 * time.Second

// TestRandomizedProcessFaults generates rotations and what happens to them:
// faults of the simulator, killed processes, and operators. A seed determines
// what is generated; the effect also depends on timing.
func TestRandomizedProcessFaults(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	c := &processTest{
		server: temporalserver.StartForTest(t, temporalserver.Options{
			DatabaseFile:  filepath.Join(t.TempDir(), "temporal.db"),
			DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "45"},
		}),
		counts: map[string]int{},
	}
	t.Cleanup(func() { t.Logf("%v", c.counts) })
	for _, seed := range seeds() {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			c.run(t, seed)
		})
	}
}

func seeds() []uint64 {
	if *oneSeed != 0 {
		return []uint64{*oneSeed}
	}
	first := uint64(time.Now().UnixMilli()) // differs in each run and is short enough to type
	var all []uint64
	for i := range *seedCount {
		all = append(all, first+uint64(i))
	}
	return all
}

// processTest is shared by the randomized rotations.
type processTest struct {
	server *temporalserver.Server
	// temporalUp is locked for reading by whoever needs Temporal, and for
	// writing while Temporal is down.
	temporalUp sync.RWMutex

	mu     sync.Mutex
	counts map[string]int
}

// randomizedRotation is one randomized rotation.
type randomizedRotation struct {
	*processTest
	fixture.Server
	rng       *rand.Rand
	cluster   simulator.ShardedCluster
	input     workflows.RotateClusterInput
	workers   [2]*workerProcess
	run       workflowRun
	startedAt time.Time
}

func (c *processTest) run(t *testing.T, seed uint64) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to reproduce: go test ./testsuite/faultinjection -run TestRandomizedProcessFaults -seed %d", seed)
		}
	})
	r := &randomizedRotation{processTest: c, rng: rand.New(rand.NewPCG(seed, 0)), startedAt: time.Now()}
	c.temporalUp.RLock()
	r.Server = fixture.NewServerOn(t, c.server, simulator.Options{Latency: time.Duration(r.rng.IntN(30)) * time.Millisecond})
	c.temporalUp.RUnlock()
	r.Unrecorded = true
	r.generateRotation()
	afterReading := r.generateFaults()
	planned := r.generateDisruptions()
	for i := range r.workers {
		r.workers[i] = startProcess(r.Server)
	}
	r.withTemporal(func() { r.run = r.Start(r.input) })
	r.applyDisruptions(planned, afterReading)
	keys := r.requireAllRotatedOnce()
	if r.rng.IntN(2) == 0 {
		r.resetWorkflow()
		assert.Equal(t, keys, r.requireAllRotatedOnce(), "a reset of the finished rotation must give the same records")
	}
}

func (r *randomizedRotation) log(format string, arguments ...any) {
	r.Logf("%5.1fs "+format, slices.Insert(arguments, 0, any(time.Since(r.startedAt).Seconds()))...)
}

func (r *randomizedRotation) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

// withTemporal calls do while Temporal is up.
func (r *randomizedRotation) withTemporal(do func()) {
	r.temporalUp.RLock()
	defer r.temporalUp.RUnlock()
	do()
}

func (r *randomizedRotation) generateRotation() {
	r.cluster = r.OM.AddShardedCluster(r.Project, "orders", 1+r.rng.IntN(7))
	r.input = inputOf(r.Server, r.cluster.ID)
	r.input.Concurrency = 1 + r.rng.IntN(4)
	r.input.SettleTime = workflows.Duration(randomizedSettleTime)
	r.log("%d targets, concurrency %d", len(r.cluster.TargetIDs()), r.input.Concurrency)
}

// putFaults are the faults of a PUT. A hanging PUT ends with the worker or with
// the simulator's restart.
var putFaults = map[string]func(id string) simulator.Fault{
	"put cut, applied":     func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyBefore) },
	"put cut, not applied": func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyNo) },
	"put 500, applied":     func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) },
	"put 500 visible late": func(id string) simulator.Fault { return shownLate(simulator.PutServerError(id, simulator.ApplyBefore)) },
	"put 500 applied late": func(id string) simulator.Fault {
		return simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(settleTime / 2)
	},
	"put 500":                   func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) },
	"put 502, applied":          func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) },
	"put 502":                   func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyNo) },
	"put 409":                   func(id string) simulator.Fault { return simulator.InvalidState(http.MethodPut, id).Repeated(2) },
	"put 429":                   func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "") },
	"put 429 with retry-after":  func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "2") },
	"put visible late":          func(id string) simulator.Fault { return simulator.PutShownLate(id, settleTime/2) },
	"put delayed":               func(id string) simulator.Fault { return simulator.PutDelayed(id, settleTime) },
	"put with a stale nonce":    func(id string) simulator.Fault { return simulator.StaleNonce(http.MethodPut, id) },
	"put hanging, applied":      func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyBefore) },
	"put hanging":               func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyNo) },
	"put hanging, applied late": func(id string) simulator.Fault { return simulator.PutAppliedLate(id, settleTime/2) },
}

// getFaults are injected after the keys were read: before that, a response
// without a key fails the rotation.
var getFaults = map[string]func(id string) simulator.Fault{
	"get stale":       simulator.KeyStale,
	"get half a body": simulator.KeyHalfBody,
	"get cut":         simulator.KeyCut,
	"get cut in body": simulator.KeyCutHalfBody,
	"get garbage":     simulator.KeyGarbage,
	"get empty":       simulator.KeyEmptyObject,
	"get no id":       simulator.KeyMissing,
	"get null id":     simulator.KeyNull,
	"get 429": func(id string) simulator.Fault {
		return simulator.RateLimited(http.MethodGet, id, "1").On(simulator.KindKey)
	},
	"get stale nonce": func(id string) simulator.Fault { return simulator.StaleNonce(http.MethodGet, id).On(simulator.KindKey) },
}

// pick returns a random entry of a map. The same seed gives the same entry.
func pick[V any](rng *rand.Rand, from map[string]V) (name string, value V) {
	names := make([]string, 0, len(from))
	for name := range from {
		names = append(names, name)
	}
	slices.Sort(names)
	name = names[rng.IntN(len(names))]
	return name, from[name]
}

// generateFaults injects faults of PUTs and returns the faults that must be
// injected after the keys were read.
func (r *randomizedRotation) generateFaults() (afterReading []simulator.Fault) {
	for _, id := range r.cluster.TargetIDs() {
		if r.rng.IntN(2) == 0 {
			r.OM.Inject(r.named(pick(r.rng, putFaults))(id))
		}
		if r.rng.IntN(2) == 0 {
			afterReading = append(afterReading, r.named(pick(r.rng, getFaults))(id))
		}
	}
	return afterReading
}

func (r *randomizedRotation) named(name string, make func(string) simulator.Fault) func(string) simulator.Fault {
	r.log("fault: %s", name)
	r.count(name)
	return func(id string) simulator.Fault {
		f := make(id)
		f.Name = name
		return f
	}
}

// disruption is applied when this number of key requests was made.
type disruption struct {
	name     string
	do       func(*randomizedRotation)
	requests int
}

var disruptions = map[string]func(*randomizedRotation){
	"worker killed":        func(r *randomizedRotation) { r.killWorker(r.rng.IntN(2)) },
	"both workers killed":  func(r *randomizedRotation) { r.killWorker(0, 1) },
	"temporal killed":      (*randomizedRotation).killTemporal,
	"simulator restarted":  func(r *randomizedRotation) { r.OM.Restart() },
	"activity reset":       func(r *randomizedRotation) { r.commandActivity([]string{"reset"}) },
	"activity reset fully": func(r *randomizedRotation) { r.commandActivity([]string{"reset", "--reset-heartbeats"}) },
	"activity paused":      func(r *randomizedRotation) { r.commandActivity([]string{"pause"}, []string{"unpause"}) },
	"activity paused and reset": func(r *randomizedRotation) {
		r.commandActivity([]string{"pause"}, []string{"unpause", "--reset-attempts", "--reset-heartbeats"})
	},
	"worker killed, activity reset": func(r *randomizedRotation) {
		r.killWorker(r.rng.IntN(2))
		r.commandActivity([]string{"reset", "--reset-heartbeats"})
	},
	"workflow reset":                   (*randomizedRotation).resetWorkflow,
	"worker killed, workflow reset":    func(r *randomizedRotation) { r.killWorker(r.rng.IntN(2)); r.resetWorkflow() },
	"workflow reset, worker killed":    func(r *randomizedRotation) { r.resetWorkflow(); r.killWorker(r.rng.IntN(2)) },
	"workflow reset twice":             func(r *randomizedRotation) { r.resetWorkflow(); r.resetWorkflow() },
	"temporal and both workers killed": func(r *randomizedRotation) { r.killTemporal(); r.killWorker(0, 1) },
}

func (r *randomizedRotation) generateDisruptions() (generated []disruption) {
	maxRequests := 3 * len(r.cluster.TargetIDs())
	for range 1 + r.rng.IntN(4) {
		name, do := pick(r.rng, disruptions)
		generated = append(generated, disruption{name, do, 1 + r.rng.IntN(maxRequests)})
	}
	slices.SortStableFunc(generated, func(a, b disruption) int { return a.requests - b.requests })
	return generated
}

// applyDisruptions applies each disruption when it is due.
func (r *randomizedRotation) applyDisruptions(planned []disruption, afterReading []simulator.Fault) {
	for _, next := range append(planned, disruption{name: "the end", requests: 1 << 30}) {
		for r.keyRequests() < next.requests {
			if r.isOver() {
				return
			}
			if r.OM.Ledger().Count(http.MethodPut, "") > 0 {
				for _, f := range afterReading {
					r.OM.Inject(f)
				}
				afterReading = nil
			}
			r.endHangingPut()
			require.NoError(r, context.Cause(waiting.Context(r)))
			r.awaitRequest(250 * time.Millisecond)
		}
		r.log("disruption at request %d: %s", next.requests, next.name)
		r.count(next.name)
		next.do(r)
	}
}

func (r *randomizedRotation) keyRequests() int {
	return len(r.OM.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindKey && r.Authenticated }))
}

// awaitRequest waits for the next request, at most this long.
func (r *randomizedRotation) awaitRequest(atMost time.Duration) {
	seen := r.keyRequests()
	for deadline := time.Now().Add(atMost); r.keyRequests() == seen && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *randomizedRotation) isOver() (over bool) {
	r.withTemporal(func() { over = r.status() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING })
	return over
}

func (r *randomizedRotation) status() enumspb.WorkflowExecutionStatus {
	return r.describe().GetStatus()
}

func (r *randomizedRotation) describe() *workflowpb.WorkflowExecutionInfo {
	described, err := r.Temporal.DescribeWorkflowExecution(r.Context(), r.run.GetID(), "")
	require.NoError(r, err)
	return described.GetWorkflowExecutionInfo()
}

// endHangingPut ends a PUT that never gets a response, by killing the workers
// or by restarting the simulator.
func (r *randomizedRotation) endHangingPut() {
	hanging := r.OM.Ledger().Select(func(r simulator.Request) bool {
		return r.Outcome == simulator.OutcomeHung && r.End.IsZero()
	})
	if len(hanging) == 0 {
		return
	}
	if r.rng.IntN(2) == 0 {
		r.log("a PUT hangs: killing the workers")
		r.killWorker(0, 1)
	} else {
		r.log("a PUT hangs: restarting the simulator")
		r.OM.Restart()
	}
}

func (r *randomizedRotation) killWorker(which ...int) {
	for _, i := range which {
		r.workers[i].kill()
	}
	for _, i := range which {
		r.workers[i] = startProcess(r.Server)
	}
}

func (r *randomizedRotation) killTemporal() {
	r.temporalUp.Lock()
	defer r.temporalUp.Unlock()
	r.server.Kill()
	require.NoError(r, r.server.Restart(r.Context()))
}

// commandActivity runs commands on one pending activity, if there is one. The
// activity may complete before.
func (r *randomizedRotation) commandActivity(commands ...[]string) {
	var id string
	r.withTemporal(func() {
		described, err := r.Temporal.DescribeWorkflowExecution(r.Context(), r.run.GetID(), "")
		require.NoError(r, err)
		if pending := described.GetPendingActivities(); len(pending) > 0 {
			id = pending[r.rng.IntN(len(pending))].GetActivityId()
		}
	})
	if id == "" {
		r.log("no activity is pending")
		return
	}
	for i, arguments := range commands {
		if i > 0 {
			r.awaitRequest(time.Second)
		}
		r.withTemporal(func() {
			stderr, err := runCommand(r.Server, slices.Concat([]string{"activity"}, arguments, []string{"-w", r.run.GetID(), "--activity-id", id}))
			r.log("%v of activity %s: %v %s", arguments, id, err, stderr)
		})
	}
}

// resetWorkflow resets the latest run to any point after the keys were read, if
// there is such a point yet.
func (r *randomizedRotation) resetWorkflow() {
	r.withTemporal(func() {
		run := r.Temporal.GetWorkflow(r.Context(), r.run.GetID(), r.describe().GetExecution().GetRunId())
		points := resetPoints(r.History(run), clusterReadings)
		if len(points) == 0 {
			r.log("no reset point yet")
			return
		}
		arguments := []string{"--type", "LastWorkflowTask"}
		if r.rng.IntN(4) > 0 {
			arguments = toEvent(points[r.rng.IntN(len(points))])
		}
		_, stderr, err := r.server.CLI(r.Context(), slices.Concat([]string{"workflow", "reset", "-w", run.GetID(), "-r", run.GetRunID(), "--reason", "randomized test"}, arguments)...)
		r.log("reset %v: %v %s", arguments, err, stderr)
	})
}

// requireAllRotatedOnce waits for the end of the rotation and checks that every
// target is recorded as verified, was rotated once, and that the records match
// the ledger.
func (r *randomizedRotation) requireAllRotatedOnce() (keys []string) {
	for !r.isOver() {
		require.NoError(r, context.Cause(waiting.Context(r)))
		r.awaitRequest(100 * time.Millisecond)
		r.endHangingPut()
	}
	var result workflows.RotateClusterResult
	r.withTemporal(func() {
		result = r.RequireRotated(r.Temporal.GetWorkflow(r.Context(), r.run.GetID(), r.describe().GetExecution().GetRunId()), len(r.cluster.TargetIDs()))
	})
	ledger := r.OM.Ledger()
	for i, id := range r.cluster.TargetIDs() {
		require.Equal(r, id, result.Targets[i].ClusterID)
		require.Equal(r, workflows.StatusVerified, result.Targets[i].Status)
		require.Len(r, ledger.Applied(id), 1, result.Targets[i].Name)
	}
	return keysOf(result)
}
