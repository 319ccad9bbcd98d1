package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	// actionMetric is the server's count of what Temporal Cloud bills as
	// actions, by type: starts of workflows, activities (with retries and
	// heartbeats) and children, timers, signals, queries, updates and so on.
	actionMetric = "action"
	// metricsLag is the maximum age of the server's metrics (updated every
	// second), metricsInterval the time between two reads.
	metricsLag      = 1200 * time.Millisecond
	metricsInterval = 100 * time.Millisecond
)

// actions are counts by type.
type actions map[string]float64

// readActions waits until the server's metrics are up to date. No workflow may
// run meanwhile.
func (r *harness) readActions(ctx context.Context) (actions, error) {
	var read actions
	for since := time.Now(); time.Since(since) < metricsLag; {
		now, err := r.scrapeActions(ctx)
		if err != nil {
			return nil, err
		}
		if !maps.Equal(now, read) {
			read, since = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(metricsInterval):
		}
	}
	return read, nil
}

func (r *harness) scrapeActions(ctx context.Context) (actions, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.server.MetricsAddress, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reading the Temporal server's metrics: %w", err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the Temporal server's metrics: %w", err)
	}
	return actionsOf(families[actionMetric], r.server.Namespace), nil
}

func actionsOf(family *dto.MetricFamily, namespace string) actions {
	counted := actions{}
	for _, metric := range family.GetMetric() {
		labels := map[string]string{}
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		if labels["namespace"] == namespace {
			counted[labels["action_type"]] += metric.GetCounter().GetValue() + metric.GetUntyped().GetValue()
		}
	}
	return counted
}

// since returns the difference to earlier counts, divided by among.
func (a actions) since(earlier actions, among int) actions {
	added := actions{}
	for kind, count := range a {
		if count > earlier[kind] {
			added[strings.TrimPrefix(strings.TrimPrefix(kind, "grpc_"), "command_")] += (count - earlier[kind]) / float64(among)
		}
	}
	return added
}

func (a actions) sum() (all float64) {
	for _, count := range a {
		all += count
	}
	return all
}
