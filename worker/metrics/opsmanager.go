package metrics

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"keyturn/opsmanager"
	"keyturn/workflows"
)

// observer counts what one connection's client does.
type observer struct {
	connection attribute.KeyValue
	requests   metric.Int64Counter
	duration   metric.Float64Histogram
	flying     metric.Int64UpDownCounter
	calls      metric.Int64Counter
	limitWait  metric.Float64Counter
	lastRead   metric.Float64Gauge
}

// kinds of failures of a call.
var kinds = []opsmanager.Kind{
	opsmanager.Unauthorized, opsmanager.Forbidden, opsmanager.NotFound, opsmanager.RateLimited, opsmanager.Unavailable,
	opsmanager.UnexpectedResponse,
}

// OpsManager gives the observer of a connection's client.
func (m *Metrics) OpsManager(connection string) (opsmanager.Observer, error) {
	o := &observer{connection: label(connectionLabel, connection)}
	errs := make([]error, 6)
	o.requests, errs[0] = m.meter.Int64Counter(requests)
	o.duration, errs[1] = m.meter.Float64Histogram(requestDuration, metric.WithUnit("s"))
	o.flying, errs[2] = m.meter.Int64UpDownCounter(requestsFlying)
	o.calls, errs[3] = m.meter.Int64Counter(calls)
	o.limitWait, errs[4] = m.meter.Float64Counter(limitWait, metric.WithUnit("s"))
	o.lastRead, errs[5] = m.meter.Float64Gauge(lastRead)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	o.begin()
	return o, nil
}

func (o *observer) begin() {
	ctx := context.Background()
	o.flying.Add(ctx, 0, o.labels())
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		o.countCall(method, workflows.ErrorLabelNone, 0)
		for _, kind := range kinds {
			o.countCall(method, string(kind), 0)
		}
	}
	o.limitWait.Add(ctx, 0, o.labels())
}

func (o *observer) labels(more ...attribute.KeyValue) metric.MeasurementOption {
	return labels(append(more, o.connection)...)
}

func (o *observer) Waited(pause time.Duration) {
	o.limitWait.Add(context.Background(), pause.Seconds(), o.labels())
}

func (o *observer) Sent(string) { o.flying.Add(context.Background(), 1, o.labels()) }

func (o *observer) Answered(method string, statusCode int, took time.Duration) {
	ctx := context.Background()
	code := "none"
	if statusCode != 0 {
		code = strconv.Itoa(statusCode)
	}
	o.flying.Add(ctx, -1, o.labels())
	o.requests.Add(ctx, 1, o.labels(label(methodLabel, method), label(codeLabel, code)))
	o.duration.Record(ctx, took.Seconds(), o.labels(label(methodLabel, method)))
}

func (o *observer) Ended(method string, err *opsmanager.Error) {
	if err != nil {
		o.countCall(method, string(err.Kind), 1)
		return
	}
	o.countCall(method, workflows.ErrorLabelNone, 1)
	if method == http.MethodGet {
		o.lastRead.Record(context.Background(), float64(time.Now().Unix()), o.labels())
	}
}

func (o *observer) countCall(method, kind string, times int64) {
	o.calls.Add(context.Background(), times, o.labels(label(methodLabel, method), label(workflows.ErrorLabel, kind)))
}
