package environment

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
)

// Counts is a client.MetricsHandler that remembers keyturn's own metrics: how
// often each was counted, by name and labels, as in `name{a="x"}`. Labels of the
// SDK's are left out.
type Counts struct {
	mu     *sync.Mutex
	counts map[string]int64
	labels string
}

// NewCounts makes one with nothing counted.
func NewCounts() Counts { return Counts{mu: &sync.Mutex{}, counts: map[string]int64{}} }

// Of gives all that was counted.
func (c Counts) Of() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

var sdkLabels = []string{"namespace", "client_name", "worker_type", "workflow_type", "activity_type", "task_queue"}

// WithTags implements client.MetricsHandler, as all below.
func (c Counts) WithTags(tags map[string]string) client.MetricsHandler {
	var shown []string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		if !slices.Contains(sdkLabels, name) {
			shown = append(shown, fmt.Sprintf("%s=%q", name, tags[name]))
		}
	}
	if len(shown) > 0 {
		c.labels = "{" + strings.Join(shown, ",") + "}"
	}
	return c
}

func (c Counts) add(name string, n int64) {
	if !strings.HasPrefix(name, "keyturn_") {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[name+c.labels] += n
}

// Counter counts its increments.
func (c Counts) Counter(name string) client.MetricsCounter {
	return counter(func(n int64) { c.add(name, n) })
}

// Gauge counts its updates.
func (c Counts) Gauge(name string) client.MetricsGauge {
	return gauge(func(float64) { c.add(name, 1) })
}

// Timer counts its records.
func (c Counts) Timer(name string) client.MetricsTimer {
	return timer(func(time.Duration) { c.add(name, 1) })
}

type (
	counter func(int64)
	gauge   func(float64)
	timer   func(time.Duration)
)

func (f counter) Inc(n int64)          { f(n) }
func (f gauge) Update(value float64)   { f(value) }
func (f timer) Record(d time.Duration) { f(d) }
