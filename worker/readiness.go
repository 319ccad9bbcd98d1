package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/reload"
	"keyturn/internal/temporalclient"
	"keyturn/opsmanager"
	"keyturn/worker/metrics"
)

// monitorTimes are how often a monitor checks, and how long a result counts.
type monitorTimes struct {
	// check is how long ago the last read of Ops Manager may be before the monitor
	// reads something itself; retry is the pause after a failed check.
	check, retry time.Duration
	// maxAge is how long a response of Ops Manager counts.
	maxAge time.Duration
	// pollers is the pause between two checks of the task queue's pollers.
	pollers time.Duration
	// openRotations is the pause between two snapshots of the open rotations.
	openRotations time.Duration
	// reconcile is the pause between two comparisons of the ledger with Temporal.
	reconcile time.Duration
	// timeout is how long one check of an Ops Manager or the pollers may take.
	timeout time.Duration
	// reload is the pause between two readings of the files of connections and events.
	reload time.Duration
	// now is this machine's clock.
	now func() time.Time
}

var defaultTimes = monitorTimes{
	check: 30 * time.Second, retry: 10 * time.Second, maxAge: 90 * time.Second,
	pollers: 15 * time.Second, openRotations: time.Minute, timeout: 20 * time.Second,
	reconcile: 20 * time.Minute,
	reload:    reload.Interval, now: time.Now,
}

// What a worker is doing.
const (
	stateStarting = "starting" // Temporal isn't reached yet
	statePolling  = "polling"
	stateDraining = "draining"
)

// monitor checks what the worker depends on. It answers from the results of the
// last checks: no question causes a request to Temporal or Ops Manager.
type monitor struct {
	settings settings
	logger   *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	checks   sync.WaitGroup

	pollers   map[enumspb.TaskQueueType]*poller // of checkPollers alone
	schedules scheduleWatch

	// The checks of the Temporal that the worker polls at.
	temporalFiles *temporalclient.Configuration
	stopTemporal  context.CancelFunc
	ofTemporal    sync.WaitGroup

	mu          sync.Mutex
	state       string
	temporal    checkResult
	files       string                 // why the files of Temporal's settings are not in force; empty = they are
	opsManagers map[string]checkResult // by connection
	open        snapshot
}

// checkResult is the outcome of one check.
type checkResult struct {
	// problem is empty if all is well.
	problem string
	// warning is what is wrong without being a problem.
	warning string
	// refused reports whether waiting does not help.
	refused bool
	at      time.Time
}

// newMonitor starts to check the Ops Managers.
func newMonitor(s settings, logger *slog.Logger) *monitor {
	m := &monitor{settings: s, logger: logger, state: stateStarting, opsManagers: map[string]checkResult{}}
	m.temporal.problem = "not connected to Temporal yet"
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, c := range s.connections {
		m.opsManagers[c.name] = checkResult{problem: "Ops Manager has not answered yet"}
		m.checks.Go(func() { m.checkOpsManager(c) })
	}
	return m
}

// close stops all checks.
func (m *monitor) close() {
	m.cancel()
	m.checks.Wait()
}

// startChecks starts to check Temporal, where the worker polls from now on, until
// stopChecks.
func (m *monitor) startChecks(temporal client.Client, files *temporalclient.Configuration) {
	m.enter(statePolling)
	var ctx context.Context
	ctx, m.stopTemporal = context.WithCancel(m.ctx)
	m.temporalFiles, m.pollers = files, nil
	times := m.settings.monitoring
	m.ofTemporal.Go(func() {
		every(ctx, times.pollers, times.timeout, func(ctx context.Context) bool { return m.checkPollers(ctx, temporal) })
	})
	check := m.refresh
	switch {
	case m.settings.listen != "":
	case m.settings.events != nil:
		check = m.watchSchedules
	default:
		return // nobody asks for the open rotations
	}
	m.ofTemporal.Go(func() {
		every(ctx, times.openRotations, max(times.openRotations, times.timeout), func(ctx context.Context) bool { return check(ctx, temporal) })
	})
}

func (m *monitor) stopChecks() {
	if m.stopTemporal != nil {
		m.stopTemporal()
		m.ofTemporal.Wait()
	}
}

// recordFiles records why the files of Temporal's settings are not in force.
func (m *monitor) recordFiles(problem string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = problem
}

func (m *monitor) enter(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	if state == statePolling {
		m.temporal.problem = "Temporal does not list this worker as a poller yet"
	}
}

// every runs a check at once and then repeatedly, sooner after one that failed.
func every(ctx context.Context, pause, timeout time.Duration, check func(context.Context) bool) {
	for ctx.Err() == nil {
		checkCtx, cancel := context.WithTimeout(ctx, timeout)
		ok := check(checkCtx)
		cancel()
		if ok {
			sleep(ctx, pause)
		} else {
			sleep(ctx, pause/10)
		}
	}
}

func (m *monitor) sleep(pause time.Duration) { sleep(m.ctx, pause) }

// sleep returns when the pause is over or ctx ends.
func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// checkRepeatedly checks a server, now and until ctx ends, sooner after a check that
// failed, and records each result.
func (t monitorTimes) checkRepeatedly(ctx context.Context, check func(context.Context) error, record func(error)) {
	for ctx.Err() == nil {
		checkCtx, cancel := context.WithTimeout(ctx, t.timeout)
		err := check(checkCtx)
		cancel()
		if ctx.Err() != nil {
			return
		}
		record(err)
		pause := t.check
		if err != nil {
			pause = t.retry
		}
		sleep(ctx, pause)
	}
}

// checkOpsManager reads something of an Ops Manager that no rotation has read from
// for a while.
func (m *monitor) checkOpsManager(c connection) {
	for m.ctx.Err() == nil {
		if left := m.settings.monitoring.check - time.Since(c.observer.lastReadAt()); left > 0 {
			m.sleep(left)
			continue
		}
		ctx, cancel := context.WithTimeout(m.ctx, m.settings.monitoring.timeout)
		err := c.client.CheckAccess(ctx)
		cancel()
		m.recordAccess(c, err)
		if err != nil {
			m.sleep(m.settings.monitoring.retry)
		}
	}
}

func (m *monitor) recordAccess(c connection, err error) {
	if m.ctx.Err() != nil {
		return
	}
	now := checkResult{at: time.Now()}
	if apiError, ok := opsmanager.AsError(err); ok {
		now.problem = c.describe(apiError)
		now.refused = apiError.Kind == opsmanager.Unauthorized || apiError.Kind == opsmanager.Forbidden
	}
	m.mu.Lock()
	before := m.opsManagers[c.name]
	m.opsManagers[c.name] = now
	m.mu.Unlock()
	switch {
	case now.problem != "" && now.problem != before.problem:
		m.logger.Warn("cannot read from Ops Manager", "connection", c.name, "error", now.problem)
	case now.problem == "" && before.problem != "":
		m.logger.Info("Ops Manager answers", "connection", c.name)
	}
}

// readiness is the response of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// State is starting, polling or draining.
	State  string                 `json:"state"`
	Checks map[string]checkStatus `json:"checks"`
}

// checkStatus is a check as /readyz reports it.
type checkStatus struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	// Warning does not make the worker unready.
	Warning string `json:"warning,omitempty"`
	// LastRead is when Ops Manager last answered an authenticated read.
	LastRead *time.Time `json:"lastRead,omitempty"`
}

// readiness returns the results of the last checks.
func (m *monitor) readiness() readiness {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := readiness{State: m.state, Ready: m.state == statePolling, Checks: map[string]checkStatus{
		"temporal": {OK: m.temporal.problem == "", Problem: m.temporal.problem, Warning: allOf(m.temporal.warning, m.files)},
	}}
	for _, c := range m.settings.connections {
		status := m.connectionStatus(m.opsManagers[c.name], c.observer.lastReadAt())
		if problem := c.files.Problem(); problem != nil {
			status.Warning = problem.Error()
		}
		r.Checks["opsManager."+c.name] = status
		if c.kmip != nil {
			r.Checks["kmip."+c.name] = checkStatus{OK: true, Warning: c.kmip.warning()}
		}
	}
	if k := m.settings.ledger; k != nil {
		r.Checks["ledger"] = k.status(m.settings.monitoring.maxAge)
	}
	if sender := m.settings.events; sender != nil {
		r.Checks["events"] = eventStatus(sender)
	}
	for _, c := range r.Checks {
		r.Ready = r.Ready && c.OK
	}
	return r
}

// connectionStatus tolerates an Ops Manager that does not answer for a while, but
// not one that refuses the credentials.
func (m *monitor) connectionStatus(last checkResult, lastRead time.Time) checkStatus {
	refused := last.refused && last.at.After(lastRead)
	a := checkStatus{OK: !refused && time.Since(lastRead) < m.settings.monitoring.maxAge}
	if !lastRead.IsZero() {
		at := lastRead.UTC().Truncate(time.Millisecond)
		a.LastRead = &at
	}
	if !a.OK {
		a.Problem = cmp.Or(last.problem, "Ops Manager has not answered recently")
	}
	return a
}

// allOf joins the texts that are not empty.
func allOf(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), "; ")
}

// sources returns what the metrics read.
func (m *monitor) sources() metrics.Sources {
	return metrics.Sources{Ready: func() bool { return m.readiness().Ready }, InTemporal: m.inTemporal, LedgerAnswered: m.settings.ledger.answeredAt}
}
