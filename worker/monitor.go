package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/opsmanager"
	"keyturn/worker/metrics"
)

// monitorTimes are how often a monitor looks, and how long it believes.
type monitorTimes struct {
	// ask is how long Ops Manager may have been left alone before it is asked
	// something, and askAgain the pause after an answer that was none.
	ask, askAgain time.Duration
	// fresh is how long an answer of Ops Manager counts.
	fresh time.Duration
	// polling is the pause between two looks at the task queue's pollers.
	polling time.Duration
	// census is the pause between two looks at the open rotations.
	census time.Duration
	// patience is how long one look at an Ops Manager or the pollers may take.
	patience time.Duration
}

var usualTimes = monitorTimes{
	ask: 30 * time.Second, askAgain: 10 * time.Second, fresh: 90 * time.Second,
	polling: 15 * time.Second, census: time.Minute, patience: 20 * time.Second,
}

// pollerAge is how old a poller's last sign of life may be: a poll lasts a
// minute.
const pollerAge = 2 * time.Minute

// What a worker is doing.
const (
	stateStarting = "starting" // Temporal isn't reached yet
	statePolling  = "polling"
	stateDraining = "draining"
)

// monitor knows how the worker is doing. Whoever asks it gets what it knows: no
// question leads to a request to Temporal or Ops Manager.
type monitor struct {
	settings settings
	logger   *slog.Logger
	ends     context.Context
	end      context.CancelFunc
	looking  sync.WaitGroup

	mu          sync.Mutex
	state       string
	temporal    check
	opsManagers map[string]check // by connection
	census      census
}

// check is the outcome of one look.
type check struct {
	// problem is empty where all is well.
	problem string
	// refused: no waiting mends it.
	refused bool
	at      time.Time
}

// newMonitor begins to look at the Ops Managers.
func newMonitor(s settings, logger *slog.Logger) *monitor {
	m := &monitor{settings: s, logger: logger, state: stateStarting, opsManagers: map[string]check{}}
	m.temporal.problem = "Temporal is not reached yet"
	m.ends, m.end = context.WithCancel(context.Background())
	for _, c := range s.connections {
		m.opsManagers[c.name] = check{problem: "Ops Manager has not answered yet"}
		m.looking.Go(func() { m.watchOpsManager(c) })
	}
	return m
}

// close ends all looking.
func (m *monitor) close() {
	m.end()
	m.looking.Wait()
}

// polls begins to look at Temporal, where the worker polls from now on.
func (m *monitor) polls(temporal client.Client) {
	m.enter(statePolling)
	times := m.settings.monitoring
	m.looking.Go(func() {
		m.every(times.polling, times.patience, func(ctx context.Context) bool { return m.lookAtPollers(ctx, temporal) })
	})
	m.looking.Go(func() {
		m.every(times.census, max(times.census, times.patience), func(ctx context.Context) bool { return m.takeCensus(ctx, temporal) })
	})
}

func (m *monitor) enter(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	if state == statePolling {
		m.temporal.problem = "Temporal does not tell of this worker's polling yet"
	}
}

// every looks at once and then again and again: sooner where it did not go well.
func (m *monitor) every(pause, patience time.Duration, look func(context.Context) bool) {
	for m.ends.Err() == nil {
		ctx, cancel := context.WithTimeout(m.ends, patience)
		wentWell := look(ctx)
		cancel()
		if wentWell {
			m.sleep(pause)
		} else {
			m.sleep(pause / 10)
		}
	}
}

func (m *monitor) sleep(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.ends.Done():
	}
}

// watchOpsManager asks an Ops Manager that has been left alone for a while: what
// rotations read of it tells as much, and costs nothing.
func (m *monitor) watchOpsManager(c connection) {
	for m.ends.Err() == nil {
		if left := m.settings.monitoring.ask - time.Since(c.watch.read()); left > 0 {
			m.sleep(left)
			continue
		}
		ctx, cancel := context.WithTimeout(m.ends, m.settings.monitoring.patience)
		err := c.client.CheckAccess(ctx)
		cancel()
		m.noteOpsManager(c.name, err)
		if err != nil {
			m.sleep(m.settings.monitoring.askAgain)
		}
	}
}

func (m *monitor) noteOpsManager(name string, err error) {
	if m.ends.Err() != nil {
		return
	}
	now := check{at: time.Now()}
	if apiError, ok := opsmanager.AsError(err); ok {
		now.problem = err.Error()
		now.refused = apiError.Kind == opsmanager.Unauthorized || apiError.Kind == opsmanager.Forbidden
	}
	m.mu.Lock()
	before := m.opsManagers[name]
	m.opsManagers[name] = now
	m.mu.Unlock()
	switch {
	case now.problem != "" && now.problem != before.problem:
		m.logger.Warn("Ops Manager can't be read", "connection", name, "error", now.problem)
	case now.problem == "" && before.problem != "":
		m.logger.Info("Ops Manager can be read", "connection", name)
	}
}

// lookAtPollers asks Temporal whether this worker is among the task queue's
// pollers.
func (m *monitor) lookAtPollers(ctx context.Context, temporal client.Client) bool {
	var problems []string
	for _, kind := range []enumspb.TaskQueueType{enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY} {
		described, err := temporal.DescribeTaskQueue(ctx, m.settings.taskQueue, kind)
		if err != nil {
			problems = append(problems, fmt.Sprintf("Temporal does not describe the task queue: %v", err))
			break
		}
		polls := false
		for _, poller := range described.GetPollers() {
			polls = polls || poller.GetIdentity() == m.settings.temporal.Identity && time.Since(poller.GetLastAccessTime().AsTime()) < pollerAge
		}
		if !polls {
			problems = append(problems, "this worker does not poll for tasks of kind "+kind.String())
		}
	}
	if m.ends.Err() != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.temporal.problem = strings.Join(problems, "; ")
	return len(problems) == 0
}

// readiness is what /readyz answers.
type readiness struct {
	Ready bool `json:"ready"`
	// State is starting, polling or draining.
	State  string              `json:"state"`
	Checks map[string]answered `json:"checks"`
}

// answered is a check as /readyz tells it.
type answered struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	// LastRead is when Ops Manager last answered an authenticated read.
	LastRead *time.Time `json:"lastRead,omitempty"`
}

// readiness is put together from what is known.
func (m *monitor) readiness() readiness {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := readiness{State: m.state, Ready: m.state == statePolling, Checks: map[string]answered{
		"temporal": {OK: m.temporal.problem == "", Problem: m.temporal.problem},
	}}
	for _, c := range m.settings.connections {
		r.Checks["opsManager."+c.name] = m.judge(m.opsManagers[c.name], c.watch.read())
	}
	for _, c := range r.Checks {
		r.Ready = r.Ready && c.OK
	}
	return r
}

// judge forgives an Ops Manager that does not answer for a while, but not one
// that refuses the credentials.
func (m *monitor) judge(last check, lastRead time.Time) answered {
	refused := last.refused && last.at.After(lastRead)
	a := answered{OK: !refused && time.Since(lastRead) < m.settings.monitoring.fresh}
	if !lastRead.IsZero() {
		at := lastRead.UTC().Truncate(time.Millisecond)
		a.LastRead = &at
	}
	if !a.OK {
		a.Problem = cmp.Or(last.problem, "Ops Manager has not answered lately")
	}
	return a
}

// sources are what the metrics ask.
func (m *monitor) sources() metrics.Sources {
	return metrics.Sources{Ready: func() bool { return m.readiness().Ready }, Open: m.open}
}
