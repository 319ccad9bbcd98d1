package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc/codes"

	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
)

const (
	minRetryPause = time.Second
	maxRetryPause = 10 * time.Second
	// requestTimeout is how long Temporal may take to describe the namespace.
	requestTimeout = 10 * time.Second
)

// connect returns a client of a Temporal that answers and has the namespace, and the
// settings that it is made of. It tries for as long as it takes, since worker and
// Temporal may be started in any order; only what waiting cannot fix ends it early, as
// a *setting.Error. The error is ctx's when ctx ends first.
func (s settings) connect(ctx context.Context, logger *slog.Logger) (settings, client.Client, error) {
	pause := minRetryPause
	for attempt := 1; ; attempt++ {
		temporal, err := dial(ctx, s.temporal)
		if err == nil {
			return s, temporal, nil
		}
		if ctx.Err() != nil {
			return s, nil, ctx.Err()
		}
		if problem := s.temporalFiles.Diagnose(ctx, err); problem != nil {
			if problem.Refused {
				return s, nil, setting.Errorf(problem.Setting, "%s", problem.Text)
			}
			err = problem
		}
		logger.Warn("cannot connect to Temporal; retrying", "address", s.temporal.HostPort, "attempt", attempt, "pause", pause, "error", err)
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return s, nil, ctx.Err()
		}
		pause = min(2*pause, maxRetryPause)
		if other, found, err := s.other(); err == nil && found {
			s = other
		}
	}
}

// other reads the files of Temporal's settings again. If they name another Temporal,
// it returns the settings with that one. The error is why their contents are not in
// force.
func (s settings) other() (other settings, found bool, problem error) {
	problem = s.temporalFiles.Reload()
	if !errors.Is(problem, temporalclient.ErrMoved) {
		return s, false, problem
	}
	files, err := s.temporalFiles.Load()
	if err != nil {
		return s, false, err
	}
	options, err := files.Options()
	if err != nil {
		return s, false, err
	}
	options.Logger, options.Identity, options.MetricsHandler = s.temporal.Logger, s.temporal.Identity, s.temporal.MetricsHandler
	s.temporal, s.temporalFiles = options, files
	return s, true, nil
}

// awaitOther reads the files of Temporal's settings again until ctx ends, or until
// they name another Temporal that can be used, of which it returns a client. What is
// wrong with them is logged, and a warning of the monitor.
func (s settings) awaitOther(ctx context.Context, m *monitor, logger *slog.Logger) (settings, client.Client) {
	logged := reloadLog{logger: logger, of: "Temporal's settings", changes: s.temporalFiles.Changes()}
	for {
		sleep(ctx, s.monitoring.reload)
		if ctx.Err() != nil {
			return s, nil
		}
		other, found, problem := s.other()
		if found {
			temporal, err := dial(ctx, other.temporal)
			if err == nil {
				logger.Info("the files of Temporal's settings name another Temporal: draining, to continue there", "address", other.temporal.HostPort, "namespace", other.temporal.Namespace)
				return other, temporal
			}
			if ctx.Err() != nil {
				return s, nil
			}
			problem = fmt.Errorf("they name another Temporal, %s with namespace %q, which cannot be used: %w", other.temporal.HostPort, other.temporal.Namespace, err)
			if diagnosed := other.temporalFiles.Diagnose(ctx, err); diagnosed != nil {
				problem = diagnosed
			}
		}
		m.recordFiles(logged.log(s.temporalFiles.Changes(), problem))
	}
}

// dial connects and describes the namespace, as the start of the SDK's worker
// does, which gives up at the first error.
func dial(ctx context.Context, options client.Options) (client.Client, error) {
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request := &workflowservice.DescribeNamespaceRequest{Namespace: options.Namespace}
	if _, err := temporal.WorkflowService().DescribeNamespace(ctx, request); err != nil && temporalclient.CodeOf(err) != codes.Unimplemented {
		temporal.Close()
		return nil, err
	}
	return temporal, nil
}
