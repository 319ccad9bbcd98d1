package campaign

import (
	"context"
	"fmt"
	"sync"
	"time"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// world is what one seed plays in: an Ops Manager, its clusters, two workers.
type world struct {
	plan      *plan
	om        *simulator.Server
	clusterID string
	// targets are the ids of those that must be rotated.
	targets []string
	workers [2]*activities.Activities
	tally   *tally
	crowd   crowd
	// showAfter is, by the name of a fault, how long the key of a PUT that met
	// it takes to show.
	showAfter map[string]time.Duration

	mu sync.Mutex
	// issued are all keys that a target ever had.
	issued map[string]map[string]bool
	// accusations are what was found while a rotation ran.
	accusations findings
	// tired: an activity reached the ten attempts after which the test
	// environment gives up, which a server does not.
	tired bool
}

func build(p *plan) (*world, error) {
	om, err := simulator.Listen(simulator.New(p.options), "127.0.0.1:0", nil)
	if err != nil {
		return nil, err
	}
	w := &world{plan: p, om: om, tally: newTally(), showAfter: map[string]time.Duration{}, issued: map[string]map[string]bool{}}
	w.addClusters()
	for i := range w.workers {
		if w.workers[i], err = w.newWorker(); err != nil {
			om.Close()
			return nil, err
		}
	}
	return w, nil
}

func (w *world) addClusters() {
	if w.plan.neighbour {
		w.om.AddShardedCluster(simulator.DefaultProjectID, "billing", 2)
	}
	if w.plan.shards == 0 {
		set := w.om.AddReplicaSet(simulator.DefaultProjectID, "orders")
		w.clusterID, w.targets = set.ID, []string{set.ID}
	} else {
		cluster := w.om.AddShardedCluster(simulator.DefaultProjectID, "orders", w.plan.shards)
		w.clusterID, w.targets = cluster.ID, cluster.TargetIDs()
	}
	if w.plan.twin {
		w.om.AddReplicaSet(simulator.DefaultProjectID, "orders")
	}
	for _, id := range w.targets {
		w.issued[id] = map[string]bool{w.om.Key(id): true}
	}
}

func (w *world) newWorker() (*activities.Activities, error) {
	client, err := opsmanager.New(opsmanager.Config{
		BaseURL: w.om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey,
		RequestTimeout: w.plan.pace.request,
		MaxInFlight:    w.plan.limits.inFlight, RequestsPerSecond: w.plan.limits.perSecond,
	})
	return &activities.Activities{
		Connections: map[string]*opsmanager.Client{workflows.DefaultConnection: client},
		Heartbeat: func(ctx context.Context, _ []byte, details any) error {
			return attemptOf(ctx).heartbeat(details)
		},
	}, err
}

// inject arms the faults of a rotation, and takes back those of the one before.
func (w *world) inject(faults []drawnFault) {
	w.om.ClearFaults()
	clear(w.showAfter)
	for _, f := range faults {
		if f.target != anyTarget {
			f.ClusterID = w.targets[f.target]
		}
		w.showAfter[f.Name] = f.ShowAfter
		w.om.Inject(f.Fault)
	}
}

// accuse notes what is found wrong while a rotation runs.
func (w *world) accuse(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.accusations.add(format, args...)
}

// quiet waits until nothing that was begun can still change a key.
func (w *world) quiet() {
	w.crowd.wait()
	time.Sleep(w.plan.pace.late + 5*time.Millisecond)
}

func (w *world) close() {
	w.om.Close()
	w.crowd.wait()
}

// placeOf tells which target an id is of.
func (w *world) placeOf(clusterID string) int {
	for i, id := range w.targets {
		if id == clusterID {
			return i
		}
	}
	return noTarget
}

// somebodyElseRotates gives a target another key, as a colleague would.
func (w *world) somebodyElseRotates(target int) {
	id := w.targets[target]
	w.mu.Lock()
	key := fmt.Sprintf("somebody-elses-%d", len(w.issued[id]))
	w.issued[id][key] = true
	w.mu.Unlock()
	w.om.SetKey(id, key)
}

// crowd counts those who are still at work. Unlike a sync.WaitGroup it may be
// entered while somebody waits.
type crowd struct {
	mu     sync.Mutex
	inside int
	empty  chan struct{}
}

func (c *crowd) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside++
	if c.inside == 1 {
		c.empty = make(chan struct{})
	}
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside--
	if c.inside == 0 {
		close(c.empty)
	}
}

func (c *crowd) wait() {
	c.mu.Lock()
	empty := c.empty
	c.mu.Unlock()
	if empty != nil {
		<-empty
	}
}
