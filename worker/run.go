package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/version"
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
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	announce(logger, configured)

	configured.temporal.Logger = log.NewStructuredLogger(logger)
	configured.temporal.Identity = identity()
	temporal, err := connect(ctx, configured.temporal, logger)
	if err != nil {
		if ctx.Err() != nil {
			logger.Info("stopped before Temporal was reached")
			return nil
		}
		return err
	}
	defer temporal.Close()
	return work(ctx, temporal, configured, logger)
}

// work polls until ctx ends or the worker can't go on, and drains it.
func work(ctx context.Context, temporal client.Client, configured settings, logger *slog.Logger) error {
	fatal := make(chan error, 1) // the SDK calls OnFatalError once at most
	worker := rotationworker.New(temporal, configured.taskQueue, configured.activities(), func(options *sdkworker.Options) {
		options.OnFatalError = func(err error) { fatal <- err }
	})
	return poll(ctx, worker, fatal, logger)
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
