package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/client"

	"keyturn/activities"
	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/internal/setting"
	"keyturn/internal/version"
	"keyturn/workflows"
)

// ledgerKeeper is what the worker does for its ledger besides recording rotations:
// it checks whether the ledger answers, adds the rotations that closed without an
// entry, and shows the age of keys and the heads of the chains. A nil keeper is
// that of a worker without a ledger.
type ledgerKeeper struct {
	handle *ledger.Handle

	startedAt time.Time

	mu    sync.Mutex
	last  checkResult
	files reloadLog
	// filesProblem is why the newest contents of its files are not in use; empty = they are.
	filesProblem string
	answers      time.Time // when it last answered
	anchor       *ledger.Anchor
}

func readLedger(env setting.Environment) (*ledgerKeeper, error) {
	s, err := ledger.ReadSettings(env, ledger.Options{ProgramVersion: version.String()})
	if err != nil || !s.Configured() {
		return nil, err
	}
	return &ledgerKeeper{handle: ledger.NewHandle(s), startedAt: time.Now(), last: checkResult{problem: "the ledger has not answered yet"}}, nil
}

// log logs what it means to have a ledger, or none.
func (k *ledgerKeeper) log(logger *slog.Logger) {
	if k == nil {
		logger.Warn("no ledger: the records of rotations are gone when Temporal's retention ends; set " + ledger.URLVariable + " to keep them")
		return
	}
	logger.Info("rotations are recorded in the ledger, and wait for it before they close")
}

// appender is for activities; nil = there is no ledger.
func (k *ledgerKeeper) appender() ledgerentry.Appender {
	if k == nil {
		return nil
	}
	return k.handle
}

// check checks whether the ledger answers, until ctx ends.
func (k *ledgerKeeper) check(ctx context.Context, times monitorTimes, logger *slog.Logger) {
	if k == nil {
		return
	}
	ping := func(ctx context.Context) error {
		opened, err := k.handle.Open(ctx)
		if err != nil {
			return err
		}
		if err := opened.Ping(ctx); err != nil {
			return err
		}
		k.recordFiles(opened.FilesProblem(), logger)
		return nil
	}
	times.checkRepeatedly(ctx, ping, func(err error) { k.recordCheck(err, logger) })
}

// recordFiles records why the newest contents of its files are not in use.
func (k *ledgerKeeper) recordFiles(problem error, logger *slog.Logger) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files.logger == nil {
		k.files = reloadLog{logger: logger, of: "the ledger's settings"}
	}
	k.filesProblem = k.files.log(0, problem)
}

func (k *ledgerKeeper) recordCheck(err error, logger *slog.Logger) {
	now := checkResult{at: time.Now()}
	if err != nil {
		now.problem = err.Error()
		now.refused = errors.Is(err, ledger.ErrSettings) || errors.Is(err, ledger.ErrNewerSchema)
	}
	k.mu.Lock()
	before := k.last
	k.last = now
	if err == nil {
		k.answers = now.at
	}
	k.mu.Unlock()
	switch {
	case err != nil && now.problem != before.problem:
		logger.Warn("the ledger does not answer; rotations that end wait for it", "error", now.problem)
	case err == nil && before.problem != "":
		logger.Info("the ledger answers")
	}
}

// status tolerates a ledger that does not answer for a while, as that of an Ops
// Manager does.
func (k *ledgerKeeper) status(maxAge time.Duration) checkStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.last.refused && time.Since(k.answers) < maxAge {
		return checkStatus{OK: true, Warning: k.filesProblem}
	}
	return checkStatus{Problem: k.last.problem, Warning: k.filesProblem}
}

// answeredAt is when the ledger last answered, or when the worker started: an alert
// must also fire for a ledger that has never answered. It is zero without a ledger.
func (k *ledgerKeeper) answeredAt() time.Time {
	if k == nil {
		return time.Time{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answers.IsZero() {
		return k.startedAt
	}
	return k.answers
}

// keep reconciles the ledger with Temporal and shows what it holds, until ctx ends.
func (k *ledgerKeeper) keep(ctx context.Context, temporal client.Client, s settings, logger *slog.Logger) {
	if k == nil {
		return
	}
	metrics := s.temporal.MetricsHandler
	if metrics == nil {
		metrics = client.MetricsNopHandler
	}
	reconciler := &workflows.Reconciler{Client: temporal, TaskQueue: s.taskQueue, Logger: logger}
	for ctx.Err() == nil {
		found, err := k.reconcile(ctx, reconciler)
		metrics.WithTags(map[string]string{activities.SourceLabel: string(ledgerentry.SourceReconciled)}).Counter(activities.LedgerEntriesMetric).Inc(int64(found.Added))
		metrics.WithTags(map[string]string{activities.ErrorLabel: string(activities.ErrorLedgerRefused)}).Counter(activities.LedgerFailuresMetric).Inc(int64(found.Refused))
		if err == nil {
			err = k.show(ctx, metrics, logger)
		}
		pause := s.monitoring.reconcile
		if err != nil && ctx.Err() == nil {
			logger.Warn("cannot reconcile the ledger with Temporal; it is tried again", "error", err)
			pause = s.monitoring.retry
		}
		sleep(ctx, pause)
	}
}

func (k *ledgerKeeper) reconcile(ctx context.Context, reconciler *workflows.Reconciler) (workflows.Reconciliation, error) {
	opened, err := k.handle.Open(ctx)
	if err != nil {
		return workflows.Reconciliation{}, err
	}
	return reconciler.Reconcile(ctx, opened)
}

// show sets the gauges of the keys' age, and logs the heads of the chains that have
// changed: a log that is kept elsewhere is an anchor.
func (k *ledgerKeeper) show(ctx context.Context, metrics client.MetricsHandler, logger *slog.Logger) error {
	opened, err := k.handle.Open(ctx)
	if err != nil {
		return err
	}
	if err := showLastVerified(ctx, opened, metrics); err != nil {
		return err
	}
	anchor, err := opened.Anchor(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	before := k.anchor
	k.anchor = &anchor
	k.mu.Unlock()
	known := map[ledger.Head]bool{}
	if before != nil {
		for _, head := range before.Heads {
			known[head] = true
		}
	}
	for _, head := range anchor.Heads {
		if !known[head] {
			logger.Info("head of a chain of the ledger", "chain", head.Chain, "sequence", head.Sequence, "hash", head.Hash)
		}
	}
	return nil
}

// lastVerifiedAge is the age up to which clusters show, as in deploy/alerts.yml: one
// that is gone must not alert for ever.
const lastVerifiedAge = 400 * 24 * time.Hour

// showLastVerified shows when the oldest key of each cluster was verified. One that
// was rotated, and never as a whole, shows 0: nothing else would say that it has keys
// which are too old.
func showLastVerified(ctx context.Context, l *ledger.Ledger, metrics client.MetricsHandler) error {
	kinds := []ledgerentry.Kind{ledgerentry.KindCluster, ledgerentry.KindDeployment}
	attempted := map[string]map[string]string{} // labels by chain
	// These first: a rotation that is recorded in between is then among the others.
	for entry, err := range l.Latest(ctx, ledger.Filter{Kinds: kinds, Since: time.Now().Add(-lastVerifiedAge), WithoutBodies: true}) {
		if err != nil {
			return err
		}
		if labels, known := workflows.LastVerifiedLabels(entry); known {
			attempted[entry.Chain] = labels
		}
	}
	for entry, err := range l.Latest(ctx, ledger.Filter{Kinds: kinds, Outcomes: []string{string(workflows.OutcomeRotated)}}) {
		if err != nil {
			return err
		}
		delete(attempted, entry.Chain)
		at, known := workflows.LastVerified(entry)
		if labels, named := workflows.LastVerifiedLabels(entry); known && named {
			metrics.WithTags(labels).Gauge(workflows.LastVerifiedMetric).Update(float64(at.Unix()))
		}
	}
	for _, labels := range attempted {
		metrics.WithTags(labels).Gauge(workflows.LastVerifiedMetric).Update(0)
	}
	return nil
}

// heads are those of the last time that they were read; nil = none was yet.
func (k *ledgerKeeper) heads() *ledger.Anchor {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.anchor
}

// close closes the ledger.
func (k *ledgerKeeper) close(logger *slog.Logger) {
	if k == nil {
		return
	}
	if err := k.handle.Close(); err != nil {
		logger.Warn("closing the ledger", "error", err)
	}
}
