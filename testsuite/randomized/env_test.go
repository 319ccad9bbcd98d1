package randomized

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// env is the environment of one seed: an Ops Manager, its clusters and two
// workers.
type env struct {
	plan      *plan
	om        *simulator.Server
	clusterID string
	// targets are the IDs of the targets to rotate.
	targets  []string
	workers  [2]*activities.Activities
	counters *counters
	running  waitGroup
	// showAfter is, by the name of a fault, the time until the key of a PUT
	// that met the fault is visible.
	showAfter map[string]time.Duration

	// skipped is how far the clock of Temporal and its workers is ahead of the
	// real one, as days passed.
	skipped atomic.Int64
	// thawed is when Ops Manager, which had stood still, went on.
	thawed atomic.Pointer[time.Time]

	mu sync.Mutex
	// issued are all keys that each target has had.
	issued map[string]map[string]bool
	// violations were found while a rotation was running.
	violations violations
	// attemptLimitReached: an activity reached the ten attempts after which the
	// test environment, unlike a server, stops retrying.
	attemptLimitReached bool
}

func newEnv(p *plan) (*env, error) {
	om, err := simulator.Listen(simulator.New(p.options), "127.0.0.1:0", nil)
	if err != nil {
		return nil, err
	}
	e := &env{plan: p, om: om, counters: newCounters(), showAfter: map[string]time.Duration{}, issued: map[string]map[string]bool{}}
	e.addClusters()
	for i := range e.workers {
		if e.workers[i], err = e.newWorker(); err != nil {
			om.Close()
			return nil, err
		}
	}
	return e, nil
}

func (e *env) addClusters() {
	if e.plan.otherCluster {
		e.om.AddShardedCluster(simulator.DefaultProjectID, "billing", 2)
	}
	if e.plan.shards == 0 {
		set := e.om.AddReplicaSet(simulator.DefaultProjectID, "orders")
		e.clusterID, e.targets = set.ID, []string{set.ID}
	} else {
		cluster := e.om.AddShardedCluster(simulator.DefaultProjectID, "orders", e.plan.shards)
		e.clusterID, e.targets = cluster.ID, cluster.TargetIDs()
	}
	if e.plan.duplicateName {
		e.om.AddReplicaSet(simulator.DefaultProjectID, "orders")
	}
	for _, id := range e.targets {
		e.issued[id] = map[string]bool{e.om.Key(id): true}
	}
}

func (e *env) newWorker() (*activities.Activities, error) {
	client, err := opsmanager.New(opsmanager.Config{
		BaseURL: e.om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey,
		RequestTimeout: e.plan.timing.request,
		MaxInFlight:    e.plan.limits.inFlight, RequestsPerSecond: e.plan.limits.perSecond,
	})
	return &activities.Activities{
		Connections: map[string]*opsmanager.Client{workflows.DefaultConnection: client},
		Heartbeat: func(ctx context.Context, _ []byte, details any) error {
			return attemptOf(ctx).heartbeat(details)
		},
	}, err
}

// now is the time of Temporal and its workers.
func (e *env) now() time.Time { return time.Now().Add(e.offset()) }

func (e *env) offset() time.Duration { return time.Duration(e.skipped.Load()) }

// thaw lets an Ops Manager that stands still go on, once two reads of the key wait
// for it or the rotation has ended.
func (e *env) thaw(ctx context.Context) {
	_ = e.om.Await(ctx, func(l simulator.Ledger) bool {
		return len(l.Select(func(r simulator.Request) bool { return faultKind(r.Fault) == simulator.KeyGated("").Name })) >= 2
	})
	now := time.Now()
	e.thawed.Store(&now)
	e.om.ClearFaults()
}

// inject injects the faults of a rotation and removes those of the previous
// one.
func (e *env) inject(faults []plannedFault) {
	e.om.ClearFaults()
	clear(e.showAfter)
	for _, f := range faults {
		if f.target != anyTarget {
			f.ClusterID = e.targets[f.target]
		}
		e.showAfter[f.Name] = f.ShowAfter
		e.om.Inject(f.Fault)
	}
}

// addViolation records a violation that is found while a rotation is running.
func (e *env) addViolation(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.violations.add(format, args...)
}

// waitUntilIdle returns when nothing that was started can change a key any
// more.
func (e *env) waitUntilIdle() {
	e.running.wait()
	time.Sleep(e.plan.timing.late + 5*time.Millisecond)
}

func (e *env) close() {
	e.om.Close()
	e.running.wait()
}

// targetIndex returns the index of the target with this ID, or noTarget.
func (e *env) targetIndex(clusterID string) int {
	for i, id := range e.targets {
		if id == clusterID {
			return i
		}
	}
	return noTarget
}

// rotateExternally gives a target another key without keyturn.
func (e *env) rotateExternally(target int) {
	id := e.targets[target]
	e.mu.Lock()
	key := fmt.Sprintf("external-%d", len(e.issued[id]))
	e.issued[id][key] = true
	e.mu.Unlock()
	e.om.SetKey(id, key)
}

// waitGroup counts running goroutines. Unlike a sync.WaitGroup, it allows add
// while another goroutine waits.
type waitGroup struct {
	mu    sync.Mutex
	n     int
	empty chan struct{}
}

func (c *waitGroup) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.n == 1 {
		c.empty = make(chan struct{})
	}
}

func (c *waitGroup) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	if c.n == 0 {
		close(c.empty)
	}
}

func (c *waitGroup) wait() {
	c.mu.Lock()
	empty := c.empty
	c.mu.Unlock()
	if empty != nil {
		<-empty
	}
}
