package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/internal/kmipevidence"
	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
	"keyturn/internal/version"
	"keyturn/opsmanager"
	"keyturn/worker/metrics"
	"keyturn/worker/rotationworker"
)

// run runs the worker. It returns nil when ctx has ended and the worker is drained,
// and an error if a setting is wrong or the worker cannot continue. It logs to
// stderr.
func run(ctx context.Context, env setting.Environment, stderr io.Writer) error {
	configured, err := readSettings(env)
	if err != nil {
		return err
	}
	return configured.run(ctx, stderr)
}

func (s settings) run(ctx context.Context, stderr io.Writer) error {
	logger := s.log.logger(stderr)
	s.temporal.Logger = log.NewStructuredLogger(logger)
	s.temporal.Identity = identity()
	var counted *metrics.Metrics
	var listener net.Listener
	if s.listen != "" {
		var err error
		if listener, err = listenAt(s.listen); err != nil {
			return err
		}
		if counted, err = s.newMetrics(); err != nil {
			return err
		}
		s.temporal.MetricsHandler = counted.Handler()
	}
	logStart(logger, s)
	backgroundCtx, stopBackground := context.WithCancel(context.Background()) // also while it drains
	var background sync.WaitGroup
	background.Go(func() { s.reloadFiles(backgroundCtx, logger) })
	background.Go(func() { s.checkKMIP(backgroundCtx, logger) })
	background.Go(func() { s.ledger.check(backgroundCtx, s.monitoring, logger) })
	defer s.ledger.close(logger)
	defer background.Wait()
	defer stopBackground()
	m := newMonitor(s, logger)
	defer m.close()
	if listener != nil { // before there is a connection to Temporal, and until the worker is drained
		if err := counted.Watch(m.sources()); err != nil {
			return err
		}
		defer serve(listener, m, counted, logger).close()
	}
	return s.connectAndWork(ctx, m, logger)
}

// newMetrics makes the metrics and has them observe the connections.
func (s settings) newMetrics() (*metrics.Metrics, error) {
	counted, err := metrics.New(version.String())
	if err != nil {
		return nil, err
	}
	for _, c := range s.connections {
		if c.observer.next, err = counted.OpsManager(c.name); err != nil {
			return nil, err
		}
	}
	return counted, nil
}

// connectAndWork polls once it is connected to Temporal, and again if the files of
// the settings come to name another one.
func (s settings) connectAndWork(ctx context.Context, m *monitor, logger *slog.Logger) error {
	s, temporal, err := s.connect(ctx, logger)
	if err != nil {
		if ctx.Err() != nil {
			logger.Info("stopped before connecting to Temporal")
			return nil
		}
		return err
	}
	for temporal != nil && err == nil {
		s, temporal, err = s.workAt(ctx, temporal, m, logger)
	}
	return err
}

// workAt works at one Temporal until ctx ends, the worker cannot continue, or the
// files of the settings name another one that can be used, and drains the worker. It
// returns a client of the other one; nil = there is none to work at.
func (s settings) workAt(ctx context.Context, temporal client.Client, m *monitor, logger *slog.Logger) (next settings, other client.Client, err error) {
	defer temporal.Close()
	workCtx, stop := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { s.ledger.keep(workCtx, temporal, s, logger) })
	tasks.Go(func() {
		next, other = s.awaitOther(workCtx, m, logger)
		stop()
	})
	err = work(workCtx, temporal, s, m, logger)
	stop()
	tasks.Wait()
	if other != nil && (err != nil || ctx.Err() != nil) {
		other.Close()
		other = nil
	}
	return next, other, err
}

// work polls until ctx ends or the worker cannot continue, and drains it.
func work(ctx context.Context, temporal client.Client, configured settings, m *monitor, logger *slog.Logger) error {
	fatal := make(chan error, 1) // the SDK calls OnFatalError once at most
	worker := rotationworker.New(temporal, configured.taskQueue, configured.activities(), func(options *sdkworker.Options) {
		options.OnFatalError = func(err error) { fatal <- err }
		options.TaskQueueActivitiesPerSecond = configured.activitiesPerSecond
		options.DeploymentOptions = configured.deployment
	})
	defer m.stopChecks()
	return poll(ctx, monitored{worker, m, temporal, configured.temporalFiles}, fatal, logger)
}

// monitored is a worker that reports to the monitor when it polls and drains.
type monitored struct {
	startStopper
	monitor       *monitor
	temporal      client.Client
	temporalFiles *temporalclient.Configuration
}

func (w monitored) Start() error {
	err := w.startStopper.Start()
	if err == nil {
		w.monitor.startChecks(w.temporal, w.temporalFiles)
	}
	return err
}

func (w monitored) Stop() {
	w.monitor.enter(stateDraining)
	w.startStopper.Stop()
}

// startStopper is the part of the SDK's worker that poll needs.
type startStopper interface {
	Start() error
	Stop()
}

func poll(ctx context.Context, worker startStopper, fatal <-chan error, logger *slog.Logger) error {
	if err := worker.Start(); err != nil {
		return fmt.Errorf("starting to poll: %w", err)
	}
	logger.Info("polling")
	var failure error
	select {
	case <-ctx.Done():
		logger.Info("draining", "timeout", rotationworker.StopTimeout)
	case err := <-fatal:
		logger.Error("the worker cannot continue; draining", "timeout", rotationworker.StopTimeout, "error", err)
		failure = fmt.Errorf("the worker cannot continue: %w", err)
	}
	worker.Stop()
	logger.Info("stopped")
	return failure
}

// logStart logs the worker's configuration, without secrets.
func logStart(logger *slog.Logger, configured settings) {
	described := make([]string, 0, len(configured.connections))
	for _, connection := range configured.connections {
		described = append(described, connection.name+"="+connection.host)
	}
	logger.Info("keyturn worker", "version", version.String(), "taskQueue", configured.taskQueue,
		"namespace", configured.temporal.Namespace, "address", configured.temporal.HostPort, "connections", described)
	configured.ledger.log(logger)
	if configured.events != nil {
		logger.Info("events are sent", "receiver", configured.events.Host())
	}
	logVersioning(logger, configured.deployment)
	warnAboutSharedHosts(logger, configured.connections)
}

// warnAboutSharedHosts warns of Ops Managers that are configured twice: "one
// rotation per cluster" holds for each connection, so that a cluster reachable
// through two of them can be rotated by both at the same time.
func warnAboutSharedHosts(logger *slog.Logger, connections []connection) {
	first := map[string]string{}
	for _, connection := range connections {
		if other, shared := first[connection.host]; shared {
			logger.Warn("two connections use the same host; a cluster reachable through both can be rotated twice at the same time",
				"host", connection.host, "connection", other, "other", connection.name)
			continue
		}
		first[connection.host] = connection.name
	}
}

func (s settings) activities() *activities.Activities {
	made := &activities.Activities{
		Connections: map[string]*opsmanager.Client{}, KMIP: map[string]*kmipevidence.Client{}, Ledger: s.ledger.appender(),
	}
	for _, connection := range s.connections {
		made.Connections[connection.name] = connection.client
		if connection.kmip != nil {
			made.KMIP[connection.name] = connection.kmip.client
		}
	}
	if s.events != nil { // a nil *events.Sender would be a sender
		made.Events = s.events
	}
	return made
}

// identity returns the name that Temporal shows for this worker.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s@%d", host, os.Getpid())
}
