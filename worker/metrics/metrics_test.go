package metrics

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/workflows"
)

func newMetrics(t *testing.T) *Metrics {
	t.Helper()
	m, err := New("v0.0.0-test")
	require.NoError(t, err)
	return m
}

func page(m *Metrics) string {
	recorder := httptest.NewRecorder()
	m.ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	return recorder.Body.String()
}

// linesOf gives the lines of one metric.
func linesOf(page, name string) (lines []string) {
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, name+"{") || strings.HasPrefix(line, name+" ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestSDKsLabelsAreLeftOutOfKeyturnsMetrics(t *testing.T) {
	m := newMetrics(t)
	sdk := m.Handler().WithTags(map[string]string{"namespace": "default", "task_queue": "q", "workflow_type": "RotateCluster"})
	sdk.WithTags(map[string]string{workflows.OutcomeLabel: "rotated", workflows.ErrorLabel: "none"}).Counter(workflows.RotationsEndedMetric).Inc(1)
	sdk.WithTags(map[string]string{workflows.OutcomeLabel: "rotated"}).Timer(workflows.RotationDurationMetric).Record(2 * time.Minute)
	sdk.Counter("temporal_request").Inc(3)
	got := page(m)
	assert.Contains(t, linesOf(got, workflows.RotationsEndedMetric), `keyturn_rotations_ended_total{error="none",outcome="rotated"} 1`)
	assert.Contains(t, linesOf(got, "keyturn_rotation_duration_seconds_bucket"), `keyturn_rotation_duration_seconds_bucket{outcome="rotated",le="300"} 1`)
	assert.Contains(t, linesOf(got, "keyturn_rotation_duration_seconds_bucket"), `keyturn_rotation_duration_seconds_bucket{outcome="rotated",le="60"} 0`)
	assert.Contains(t, linesOf(got, "temporal_request_total"), `temporal_request_total{namespace="default",task_queue="q",workflow_type="RotateCluster"} 3`)
}

// What counts an increase needs a beginning: the first event must not be the
// first sight of its series.
func TestCountersBeginAtZero(t *testing.T) {
	m := newMetrics(t)
	_, err := m.OpsManager("emea")
	require.NoError(t, err)
	got := page(m)
	for _, line := range []string{
		`keyturn_rotations_ended_total{error="PartialFailure",outcome="failed"} 0`,
		`keyturn_rotations_ended_total{error="Other",outcome="failed"} 0`,
		`keyturn_rotations_ended_total{error="none",outcome="rotatedUnproven"} 0`,
		`keyturn_targets_ended_total{error="Forbidden",status="failed"} 0`,
		`keyturn_targets_ambiguous_total{status="failed"} 0`,
		`keyturn_retries_total{activity_type="RotateKey",error="RateLimited"} 0`,
		`keyturn_opsmanager_calls_total{connection="emea",error="Unauthorized",method="GET"} 0`,
		`keyturn_opsmanager_requests_in_flight{connection="emea"} 0`,
		`keyturn_build_info{version="v0.0.0-test"} 1`,
	} {
		assert.Contains(t, got, line+"\n")
	}
}

func TestClustersAreBounded(t *testing.T) {
	m := newMetrics(t)
	for i := range 3 * maxSeries {
		m.Handler().WithTags(map[string]string{
			workflows.ConnectionLabel: "default", workflows.ProjectLabel: "p", workflows.ClusterLabel: fmt.Sprint(i),
		}).Gauge(workflows.LastVerifiedMetric).Update(float64(i))
	}
	lines := linesOf(page(m), workflows.LastVerifiedMetric)
	assert.Len(t, lines, maxSeries)
	overflow := 0
	for _, line := range lines {
		if strings.Contains(line, `{otel_metric_overflow="true"}`) {
			overflow++
		}
	}
	assert.Equal(t, 1, overflow)
}

func TestRequestsAreCounted(t *testing.T) {
	m := newMetrics(t)
	o, err := m.OpsManager("emea")
	require.NoError(t, err)
	o.Waited(1500 * time.Millisecond)
	o.Sent("PUT")
	assert.Contains(t, page(m), `keyturn_opsmanager_requests_in_flight{connection="emea"} 1`)
	o.Answered("PUT", 0, 20*time.Second)
	o.Ended("PUT", &opsmanager.Error{Kind: opsmanager.Unavailable})
	got := page(m)
	for _, line := range []string{
		`keyturn_opsmanager_requests_in_flight{connection="emea"} 0`,
		`keyturn_opsmanager_requests_total{code="none",connection="emea",method="PUT"} 1`,
		`keyturn_opsmanager_request_duration_seconds_bucket{connection="emea",method="PUT",le="30"} 1`,
		`keyturn_opsmanager_request_duration_seconds_bucket{connection="emea",method="PUT",le="10"} 0`,
		`keyturn_opsmanager_calls_total{connection="emea",error="Unavailable",method="PUT"} 1`,
		`keyturn_opsmanager_limit_wait_seconds_total{connection="emea"} 1.5`,
	} {
		assert.Contains(t, got, line+"\n")
	}
	assert.NotContains(t, got, lastRead, "no read has been answered")
	o.Ended("PUT", nil)
	assert.NotContains(t, page(m), lastRead, "an accepted PUT is no read")
	o.Ended("GET", nil)
	assert.Contains(t, page(m), lastRead)
}

func TestUnknownRotationsAreNotReportedAsNone(t *testing.T) {
	m := newMetrics(t)
	known, answered := false, time.Time{}
	require.NoError(t, m.Watch(Sources{
		LedgerAnswered: func() time.Time { return answered },
		Ready:          func() bool { return known },
		InTemporal: func() (InTemporal, bool) {
			return InTemporal{Open: map[string]Open{"held": {2, time.Hour}}, PausedSchedules: []string{"orders"}}, known
		},
	}))
	got := page(m)
	assert.Contains(t, got, "keyturn_ready 0\n")
	assert.NotContains(t, got, rotationsOpen)
	assert.NotContains(t, got, schedulePaused)
	assert.NotContains(t, got, ledgerAnswered)
	known, answered = true, time.Unix(7, 0)
	got = page(m)
	assert.Contains(t, got, "keyturn_ready 1\n")
	assert.Contains(t, got, `keyturn_rotations_open{phase="held"} 2`)
	assert.Contains(t, got, `keyturn_schedule_paused{schedule="orders"} 1`)
	assert.Contains(t, got, `keyturn_rotations_idle_seconds{phase="held"} 3600`)
	assert.Contains(t, got, ledgerAnswered+" 7\n")
}
