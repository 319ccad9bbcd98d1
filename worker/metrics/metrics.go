// Package metrics exports what a worker counts, in Prometheus' text format: the
// SDK's own metrics, what workflows and activities count through the SDK's
// handler, and what is counted here. docs/metrics.md lists them.
package metrics

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"

	"keyturn/activities"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// maxSeries bounds the series of each metric: clusters, above all. What comes
// after them is one series more, which says otel_metric_overflow="true".
const maxSeries = 2000

// Metrics are those of one worker.
type Metrics struct {
	registry *prometheus.Registry
	meter    metric.Meter
}

// Sources are asked at each scrape.
type Sources struct {
	Ready func() bool
	// InTemporal is what Temporal knows; false = it is not known here.
	InTemporal func() (InTemporal, bool)
	// LedgerAnswered is when the ledger last answered; zero = there is no ledger.
	LedgerAnswered func() time.Time
}

// InTemporal is what Temporal knows of the task queue, whichever workers start and stop.
type InTemporal struct {
	Open map[string]Open // by phase
	// PausedSchedules are the IDs of the schedules that failures have paused.
	PausedSchedules []string
}

// Open are the open rotations in one phase.
type Open struct {
	Count int
	// Idle is how long nothing has changed, in the one where that is longest.
	Idle time.Duration
}

// New makes the metrics of a worker of this version, with every counter that
// is known beforehand at zero: what counts an increase needs a beginning.
func New(version string) (*Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(views()...), sdkmetric.WithCardinalityLimit(maxSeries))
	m := &Metrics{registry: registry, meter: provider.Meter("keyturn")}
	if err := m.begin(version); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return m, nil
}

// ServeHTTP answers a scrape.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// Handler is where the SDK, and through it workflows and activities, count.
func (m *Metrics) Handler() client.MetricsHandler {
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
		Meter: m.meter, UseMonotonicCounters: true,
		OnError: func(error) {}, // a metric that is refused must end no workflow
	})
}

func label(name, value string) attribute.KeyValue { return attribute.String(name, value) }

func labels(pairs ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(pairs...))
}

// begin sets to zero what workflows and activities count.
func (m *Metrics) begin(version string) error {
	built, err := m.meter.Int64Gauge(buildInfo)
	if err != nil {
		return err
	}
	built.Record(context.Background(), 1, labels(label(versionLabel, version)))
	for name, series := range beginnings() {
		counter, err := m.meter.Int64Counter(name)
		if err != nil {
			return err
		}
		for _, one := range series {
			counter.Add(context.Background(), 0, labels(one...))
		}
	}
	return nil
}

// beginnings are the series, by counter, that are known before they count.
func beginnings() map[string][][]attribute.KeyValue {
	ended := [][]attribute.KeyValue{}
	for _, outcome := range []workflows.Outcome{workflows.OutcomeRotated, workflows.OutcomeRotatedWithSkips, workflows.OutcomeRotatedUnproven, workflows.OutcomePlanned} {
		ended = append(ended, []attribute.KeyValue{label(workflows.OutcomeLabel, string(outcome)), label(workflows.ErrorLabel, workflows.ErrorLabelNone)})
	}
	targets, ambiguous := [][]attribute.KeyValue{}, [][]attribute.KeyValue{}
	for _, status := range []workflows.Status{workflows.StatusVerified, workflows.StatusPlanned, workflows.StatusSkipped} {
		targets = append(targets, []attribute.KeyValue{label(workflows.StatusLabel, string(status)), label(workflows.ErrorLabel, workflows.ErrorLabelNone)})
	}
	for _, status := range []workflows.Status{workflows.StatusVerified, workflows.StatusFailed} {
		ambiguous = append(ambiguous, []attribute.KeyValue{label(workflows.StatusLabel, string(status))})
	}
	for _, errorType := range append([]workflows.ErrorType{workflows.ErrorLabelOther}, workflows.ErrorTypes...) {
		ended = append(ended, []attribute.KeyValue{label(workflows.OutcomeLabel, workflows.OutcomeLabelFailed), label(workflows.ErrorLabel, string(errorType))})
		targets = append(targets, []attribute.KeyValue{label(workflows.StatusLabel, string(workflows.StatusFailed)), label(workflows.ErrorLabel, string(errorType))})
	}
	retries := [][]attribute.KeyValue{}
	for _, activityType := range []string{activities.ListTargetsName, activities.ReadKeysName, activities.RotateKeyName, activities.VerifyKeyName, activities.ListClustersName} {
		for _, errorType := range []workflows.ErrorType{workflows.ErrorRateLimited, workflows.ErrorOpsManagerUnavailable, workflows.ErrorUnexpectedResponse} {
			retries = append(retries, []attribute.KeyValue{label(activityTypeLabel, activityType), label(workflows.ErrorLabel, string(errorType))})
		}
	}
	failures, events := [][]attribute.KeyValue{}, [][]attribute.KeyValue{}
	for _, eventType := range activities.EventTypes {
		ofType := label(activities.EventTypeLabel, string(eventType))
		failures = append(failures, []attribute.KeyValue{ofType})
		for _, outcome := range []string{activities.EventDelivered, activities.EventUndelivered} {
			events = append(events, []attribute.KeyValue{ofType, label(workflows.OutcomeLabel, outcome)})
		}
	}
	return map[string][][]attribute.KeyValue{
		workflows.RotationsEndedMetric: ended, workflows.TargetsEndedMetric: targets, workflows.TargetsAmbiguousMetric: ambiguous,
		activities.RetriesMetric: retries, activities.EventFailuresMetric: failures, activities.EventsEndedMetric: events,
		activities.LedgerEntriesMetric: {
			{label(activities.SourceLabel, string(ledgerentry.SourceWorkflow))}, {label(activities.SourceLabel, string(ledgerentry.SourceReconciled))},
		},
		activities.LedgerFailuresMetric: {
			{label(workflows.ErrorLabel, string(activities.ErrorLedgerUnavailable))}, {label(workflows.ErrorLabel, string(activities.ErrorLedgerRefused))},
		},
	}
}

// Watch has the sources asked at each scrape from now on.
func (m *Metrics) Watch(sources Sources) error {
	isReady, err := m.meter.Int64ObservableGauge(ready)
	if err != nil {
		return err
	}
	open, err := m.meter.Int64ObservableGauge(rotationsOpen)
	if err != nil {
		return err
	}
	idle, err := m.meter.Float64ObservableGauge(rotationsIdle)
	if err != nil {
		return err
	}
	paused, err := m.meter.Int64ObservableGauge(schedulePaused)
	if err != nil {
		return err
	}
	answered, err := m.meter.Float64ObservableGauge(ledgerAnswered)
	if err != nil {
		return err
	}
	_, err = m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(isReady, oneIf(sources.Ready()))
		if at := sources.LedgerAnswered(); !at.IsZero() {
			o.ObserveFloat64(answered, float64(at.Unix()))
		}
		temporal, known := sources.InTemporal()
		if !known {
			return nil
		}
		for _, schedule := range temporal.PausedSchedules {
			o.ObserveInt64(paused, 1, labels(label(scheduleLabel, schedule)))
		}
		for phase, rotations := range temporal.Open {
			o.ObserveInt64(open, int64(rotations.Count), labels(label(phaseLabel, phase)))
			o.ObserveFloat64(idle, rotations.Idle.Seconds(), labels(label(phaseLabel, phase)))
		}
		return nil
	}, isReady, open, idle, paused, answered)
	return err
}

func oneIf(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}
