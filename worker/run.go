package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/internal/version"
	"keyturn/opsmanager"
	"keyturn/worker/metrics"
	"keyturn/worker/rotationworker"
)

// run is the worker's whole life: it returns nil when ctx has ended and the
// worker is drained, and an error if a setting is wrong or the worker could not
// go on. It logs to stderr.
func run(ctx context.Context, env environment, stderr io.Writer) error {
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
	if s.listen == "" {
		announce(logger, s)
		return s.connectAndWork(ctx, nil, logger)
	}
	listener, err := listenAt(s.listen)
	if err != nil {
		return err
	}
	announce(logger, s)
	return s.runMonitored(ctx, listener, logger)
}

// runMonitored answers probes and scrapes from before Temporal is reached until
// the worker is drained.
func (s settings) runMonitored(ctx context.Context, listener net.Listener, logger *slog.Logger) error {
	counted, err := s.count()
	if err != nil {
		return err
	}
	s.temporal.MetricsHandler = counted.Handler()
	m := newMonitor(s, logger)
	defer m.close()
	if err := counted.Watch(m.sources()); err != nil {
		return err
	}
	defer open(listener, m, counted, logger).close()
	return s.connectAndWork(ctx, m, logger)
}

// count makes the metrics and has the connections counted.
func (s settings) count() (*metrics.Metrics, error) {
	counted, err := metrics.New(version.String())
	if err != nil {
		return nil, err
	}
	for _, c := range s.connections {
		if c.watch.counts, err = counted.OpsManager(c.name); err != nil {
			return nil, err
		}
	}
	return counted, nil
}

// connectAndWork polls as soon as Temporal is reached; m may be nil.
func (s settings) connectAndWork(ctx context.Context, m *monitor, logger *slog.Logger) error {
	temporal, err := connect(ctx, s.temporal, logger)
	if err != nil {
		if ctx.Err() != nil {
			logger.Info("stopped before Temporal was reached")
			return nil
		}
		return err
	}
	defer temporal.Close()
	return work(ctx, temporal, s, m, logger)
}

// work polls until ctx ends or the worker can't go on, and drains it.
func work(ctx context.Context, temporal client.Client, configured settings, m *monitor, logger *slog.Logger) error {
	fatal := make(chan error, 1) // the SDK calls OnFatalError once at most
	var worker startStopper = rotationworker.New(temporal, configured.taskQueue, configured.activities(), func(options *sdkworker.Options) {
		options.OnFatalError = func(err error) { fatal <- err }
		options.TaskQueueActivitiesPerSecond = configured.activitiesPerSecond
		options.DeploymentOptions = configured.deployment
	})
	if m != nil {
		worker = monitored{worker, m, temporal}
	}
	return poll(ctx, worker, fatal, logger)
}

// monitored is a worker whose monitor learns when it polls and when it drains.
type monitored struct {
	startStopper
	monitor  *monitor
	temporal client.Client
}

func (w monitored) Start() error {
	err := w.startStopper.Start()
	if err == nil {
		w.monitor.polls(w.temporal)
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
		logger.Error("the worker can't go on, draining", "timeout", rotationworker.StopTimeout, "error", err)
		failure = fmt.Errorf("the worker could not go on: %w", err)
	}
	worker.Stop()
	logger.Info("stopped")
	return failure
}

// announce logs what the worker is about to do, with whom, and no secret.
func announce(logger *slog.Logger, configured settings) {
	described := make([]string, 0, len(configured.connections))
	for _, connection := range configured.connections {
		described = append(described, connection.name+"="+connection.host)
	}
	logger.Info("keyturn worker", "version", version.String(), "taskQueue", configured.taskQueue,
		"namespace", configured.temporal.Namespace, "address", configured.temporal.HostPort, "connections", described)
	announceVersioning(logger, configured.deployment)
	warnOfSharedHosts(logger, configured.connections)
}

// warnOfSharedHosts tells of Ops Managers that are configured twice: "one
// rotation per cluster" is kept by connection, so that a cluster that two
// connections reach could be rotated by both at once.
func warnOfSharedHosts(logger *slog.Logger, connections []connection) {
	first := map[string]string{}
	for _, connection := range connections {
		if other, shared := first[connection.host]; shared {
			logger.Warn("two connections have the same host: a cluster that both can reach has two locks",
				"host", connection.host, "connection", other, "other", connection.name)
			continue
		}
		first[connection.host] = connection.name
	}
}

func (s settings) activities() *activities.Activities {
	clients := make(map[string]*opsmanager.Client, len(s.connections))
	for _, connection := range s.connections {
		clients[connection.name] = connection.client
	}
	return &activities.Activities{Connections: clients}
}

// identity is what Temporal shows as this worker's name.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s@%d", host, os.Getpid())
}
