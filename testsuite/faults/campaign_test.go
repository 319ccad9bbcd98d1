package faults

import (
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
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

var (
	campaignSeeds = flag.Int("campaign-seeds", 6, "rotations of the campaign with real processes")
	campaignSeed  = flag.Uint64("campaign-seed", 0, "this rotation of the campaign only; 0 = draw")
)

// campaignSettleTime leaves room for a machine that is busy with the campaign.
const campaignSettleTime = 3 * time.Second

// TestProcessCampaign draws rotations and what befalls them: the simulator's
// faults, and everything that can be done to the processes and by operators.
// What is drawn depends on the seed alone; what comes of it, on timing as well.
func TestProcessCampaign(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	c := &campaign{
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
	if *campaignSeed != 0 {
		return []uint64{*campaignSeed}
	}
	first := uint64(time.Now().UnixMilli()) // another one each time, and short enough to be typed
	var all []uint64
	for i := range *campaignSeeds {
		all = append(all, first+uint64(i))
	}
	return all
}

// campaign is what its rotations share.
type campaign struct {
	server *temporalserver.Server
	// up is held for reading by who needs Temporal, and for writing while it is
	// down.
	up sync.RWMutex

	mu     sync.Mutex
	counts map[string]int
}

// voyage is one rotation of the campaign.
type voyage struct {
	*campaign
	stage.Stage
	rng     *rand.Rand
	cluster simulator.ShardedCluster
	input   workflows.RotateClusterInput
	workers [2]*workerProcess
	run     workflowRun
	began   time.Time
}

func (c *campaign) run(t *testing.T, seed uint64) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to run this again: go test ./testsuite/faults -run TestProcessCampaign -campaign-seed %d", seed)
		}
	})
	v := &voyage{campaign: c, rng: rand.New(rand.NewPCG(seed, 0)), began: time.Now()}
	c.up.RLock()
	v.Stage = stage.On(t, c.server, simulator.Options{Latency: time.Duration(v.rng.IntN(30)) * time.Millisecond})
	c.up.RUnlock()
	v.Patience, v.Unrecorded = 4*time.Minute, true
	v.drawRotation()
	afterReading := v.drawFaults()
	troubles := v.drawTroubles()
	for i := range v.workers {
		v.workers[i] = startProcess(v.Stage)
	}
	v.withTemporal(func() { v.run = v.Start(v.input) })
	v.undergo(troubles, afterReading)
	keys := v.requireAllRotatedOnce()
	if v.rng.IntN(2) == 0 {
		v.resetWorkflow()
		assert.Equal(t, keys, v.requireAllRotatedOnce(), "a reset of the finished rotation must give the same records")
	}
}

func (v *voyage) log(format string, arguments ...any) {
	v.Logf("%5.1fs "+format, slices.Insert(arguments, 0, any(time.Since(v.began).Seconds()))...)
}

func (v *voyage) count(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.counts[what]++
}

// withTemporal does something while nobody takes Temporal down.
func (v *voyage) withTemporal(do func()) {
	v.up.RLock()
	defer v.up.RUnlock()
	do()
}

func (v *voyage) drawRotation() {
	v.cluster = v.OM.AddShardedCluster(v.Project, "orders", 1+v.rng.IntN(7))
	v.input = inputOf(v.Stage, v.cluster.ID)
	v.input.Concurrency = 1 + v.rng.IntN(4)
	v.input.SettleTime = workflows.Duration(campaignSettleTime)
	v.log("%d targets, %d at a time", len(v.cluster.TargetIDs()), v.input.Concurrency)
}

// faultsOfAPut are what a PUT may meet. A hanging one waits for the worker's
// death or the simulator's restart.
var faultsOfAPut = map[string]func(id string) simulator.Fault{
	"put cut after its effect":  func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyBefore) },
	"put cut before its effect": func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyNo) },
	"put 500 after its effect":  func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) },
	"put 500 shown late":        func(id string) simulator.Fault { return shownLate(simulator.PutServerError(id, simulator.ApplyBefore)) },
	"put 500 taking effect late": func(id string) simulator.Fault {
		return simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(settleTime / 2)
	},
	"put 500":                      func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) },
	"put 502 after its effect":     func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) },
	"put 502":                      func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyNo) },
	"put 409":                      func(id string) simulator.Fault { return simulator.InvalidState(http.MethodPut, id).Repeated(2) },
	"put 429":                      func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "") },
	"put 429 with retry-after":     func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "2") },
	"put shown late":               func(id string) simulator.Fault { return simulator.PutShownLate(id, settleTime/2) },
	"put answered late":            func(id string) simulator.Fault { return simulator.PutDelayed(id, settleTime) },
	"put with a stale nonce":       func(id string) simulator.Fault { return simulator.StaleNonce(http.MethodPut, id) },
	"put hanging after its effect": func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyBefore) },
	"put hanging":                  func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyNo) },
	"put hanging, effect late":     func(id string) simulator.Fault { return simulator.PutAppliedLate(id, settleTime/2) },
}

// faultsOfAGet are met after the keys were read: before that, an answer without
// a key is a reason not to begin.
var faultsOfAGet = map[string]func(id string) simulator.Fault{
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

// draw picks one of a map, the same one for the same seed.
func draw[V any](rng *rand.Rand, from map[string]V) (name string, value V) {
	names := make([]string, 0, len(from))
	for name := range from {
		names = append(names, name)
	}
	slices.Sort(names)
	name = names[rng.IntN(len(names))]
	return name, from[name]
}

// drawFaults injects faults of PUTs, and gives those that are to follow when the
// keys were read.
func (v *voyage) drawFaults() (afterReading []simulator.Fault) {
	for _, id := range v.cluster.TargetIDs() {
		if v.rng.IntN(2) == 0 {
			v.OM.Inject(v.named(draw(v.rng, faultsOfAPut))(id))
		}
		if v.rng.IntN(2) == 0 {
			afterReading = append(afterReading, v.named(draw(v.rng, faultsOfAGet))(id))
		}
	}
	return afterReading
}

func (v *voyage) named(name string, make func(string) simulator.Fault) func(string) simulator.Fault {
	v.log("fault: %s", name)
	v.count(name)
	return func(id string) simulator.Fault {
		f := make(id)
		f.Name = name
		return f
	}
}

// trouble begins when so many requests of keys were made.
type trouble struct {
	name     string
	do       func(*voyage)
	requests int
}

var troubles = map[string]func(*voyage){
	"worker killed":        func(v *voyage) { v.killWorker(v.rng.IntN(2)) },
	"both workers killed":  func(v *voyage) { v.killWorker(0, 1) },
	"temporal killed":      (*voyage).killTemporal,
	"simulator restarted":  func(v *voyage) { v.OM.Restart() },
	"activity reset":       func(v *voyage) { v.commandActivity([]string{"reset"}) },
	"activity reset fully": func(v *voyage) { v.commandActivity([]string{"reset", "--reset-heartbeats"}) },
	"activity paused":      func(v *voyage) { v.commandActivity([]string{"pause"}, []string{"unpause"}) },
	"activity paused and reset": func(v *voyage) {
		v.commandActivity([]string{"pause"}, []string{"unpause", "--reset-attempts", "--reset-heartbeats"})
	},
	"worker killed, activity reset": func(v *voyage) {
		v.killWorker(v.rng.IntN(2))
		v.commandActivity([]string{"reset", "--reset-heartbeats"})
	},
	"workflow reset":                 (*voyage).resetWorkflow,
	"worker killed, workflow reset":  func(v *voyage) { v.killWorker(v.rng.IntN(2)); v.resetWorkflow() },
	"workflow reset, worker killed":  func(v *voyage) { v.resetWorkflow(); v.killWorker(v.rng.IntN(2)) },
	"workflow reset twice":           func(v *voyage) { v.resetWorkflow(); v.resetWorkflow() },
	"temporal and both workers dead": func(v *voyage) { v.killTemporal(); v.killWorker(0, 1) },
}

func (v *voyage) drawTroubles() (drawn []trouble) {
	most := 3 * len(v.cluster.TargetIDs())
	for range 1 + v.rng.IntN(4) {
		name, do := draw(v.rng, troubles)
		drawn = append(drawn, trouble{name, do, 1 + v.rng.IntN(most)})
	}
	slices.SortStableFunc(drawn, func(a, b trouble) int { return a.requests - b.requests })
	return drawn
}

// undergo lets the troubles happen when it is their time.
func (v *voyage) undergo(troubles []trouble, afterReading []simulator.Fault) {
	for _, next := range append(troubles, trouble{name: "the end", requests: 1 << 30}) {
		for v.keyRequests() < next.requests {
			if v.isOver() {
				return
			}
			if v.OM.Ledger().Count(http.MethodPut, "") > 0 {
				for _, f := range afterReading {
					v.OM.Inject(f)
				}
				afterReading = nil
			}
			v.endHanging()
			require.Less(v, time.Since(v.began), v.Patience, "the rotation takes too long")
			v.awaitRequest(250 * time.Millisecond)
		}
		v.log("trouble: %s, at request %d", next.name, next.requests)
		v.count(next.name)
		next.do(v)
	}
}

func (v *voyage) keyRequests() int {
	return len(v.OM.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindKey && r.Authenticated }))
}

// awaitRequest waits for the next request, but not for long.
func (v *voyage) awaitRequest(atMost time.Duration) {
	seen := v.keyRequests()
	for deadline := time.Now().Add(atMost); v.keyRequests() == seen && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

func (v *voyage) isOver() (over bool) {
	v.withTemporal(func() { over = v.status() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING })
	return over
}

func (v *voyage) status() enumspb.WorkflowExecutionStatus {
	return v.describe().GetStatus()
}

func (v *voyage) describe() *workflowpb.WorkflowExecutionInfo {
	described, err := v.Temporal.DescribeWorkflowExecution(v.Context(), v.run.GetID(), "")
	require.NoError(v, err)
	return described.GetWorkflowExecutionInfo()
}

// endHanging ends the waiting for a PUT that will never be answered, by the
// death of those who wait, or of the one that is waited for.
func (v *voyage) endHanging() {
	hanging := v.OM.Ledger().Select(func(r simulator.Request) bool {
		return r.Outcome == simulator.OutcomeHung && r.End.IsZero()
	})
	if len(hanging) == 0 {
		return
	}
	if v.rng.IntN(2) == 0 {
		v.log("a PUT hangs: the workers are killed")
		v.killWorker(0, 1)
	} else {
		v.log("a PUT hangs: the simulator is restarted")
		v.OM.Restart()
	}
}

func (v *voyage) killWorker(which ...int) {
	for _, i := range which {
		v.workers[i].kill()
	}
	for _, i := range which {
		v.workers[i] = startProcess(v.Stage)
	}
}

func (v *voyage) killTemporal() {
	v.up.Lock()
	defer v.up.Unlock()
	v.server.Kill()
	require.NoError(v, v.server.Restart(v.Context()))
}

// commandActivity gives commands to one pending activity, if there is one. They
// may come too late for it.
func (v *voyage) commandActivity(commands ...[]string) {
	var id string
	v.withTemporal(func() {
		described, err := v.Temporal.DescribeWorkflowExecution(v.Context(), v.run.GetID(), "")
		require.NoError(v, err)
		if pending := described.GetPendingActivities(); len(pending) > 0 {
			id = pending[v.rng.IntN(len(pending))].GetActivityId()
		}
	})
	if id == "" {
		v.log("no activity is pending")
		return
	}
	for i, arguments := range commands {
		if i > 0 {
			v.awaitRequest(time.Second)
		}
		v.withTemporal(func() {
			_, stderr, err := v.server.CLI(v.Context(), slices.Concat([]string{"activity"}, arguments, []string{"-w", v.run.GetID(), "--activity-id", id})...)
			v.log("%v of activity %s: %v %s", arguments, id, err, stderr)
		})
	}
}

// resetWorkflow resets the latest run to any point after the keys were read, if
// there is one by now.
func (v *voyage) resetWorkflow() {
	v.withTemporal(func() {
		run := v.Temporal.GetWorkflow(v.Context(), v.run.GetID(), v.describe().GetExecution().GetRunId())
		points := resetPoints(v.History(run))
		if len(points) == 0 {
			v.log("nothing to reset to")
			return
		}
		arguments := []string{"--type", "LastWorkflowTask"}
		if v.rng.IntN(4) > 0 {
			arguments = toEvent(points[v.rng.IntN(len(points))])
		}
		_, stderr, err := v.server.CLI(v.Context(), slices.Concat([]string{"workflow", "reset", "-w", run.GetID(), "-r", run.GetRunID(), "--reason", "a campaign"}, arguments)...)
		v.log("reset %v: %v %s", arguments, err, stderr)
	})
}

// requireAllRotatedOnce waits for the end and checks that every target is
// recorded, was rotated once, and nothing is claimed that is not so.
func (v *voyage) requireAllRotatedOnce() (keys []string) {
	for !v.isOver() {
		require.Less(v, time.Since(v.began), v.Patience, "the rotation takes too long")
		v.awaitRequest(100 * time.Millisecond)
		v.endHanging()
	}
	var result workflows.RotateClusterResult
	v.withTemporal(func() {
		result = v.RequireRotated(v.Temporal.GetWorkflow(v.Context(), v.run.GetID(), v.describe().GetExecution().GetRunId()), len(v.cluster.TargetIDs()))
	})
	ledger := v.OM.Ledger()
	for i, id := range v.cluster.TargetIDs() {
		require.Equal(v, id, result.Targets[i].ClusterID)
		require.Equal(v, workflows.StatusVerified, result.Targets[i].Status)
		require.Len(v, ledger.Applied(id), 1, result.Targets[i].Name)
	}
	return keysOf(result)
}
