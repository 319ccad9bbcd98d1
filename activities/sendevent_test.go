package activities_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/activities"
	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/fixture"
)

// sendEvent runs one attempt of the activity in a worker with this sender.
func sendEvent(t *testing.T, sender activities.EventSender) (result activities.SendEventResult, counts map[string]int64, err error) {
	t.Helper()
	var suite sdktestsuite.WorkflowTestSuite
	counted := fixture.NewCounts()
	suite.SetMetricsHandler(counted)
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	activities.Register(env, &activities.Activities{Events: sender})
	value, err := env.ExecuteActivity(activities.SendEventName, activities.SendEventInput{
		ID: "event-1", Type: activities.EventFleetFailed, Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Subject: "fleet", WorkflowID: "rotate-fleet/1", RunID: "run-1", Data: json.RawMessage(`{"outcome": "partial"}`),
	})
	if err == nil {
		require.NoError(t, value.Get(&result))
	}
	return result, counted.Of(), err
}

func senderTo(t *testing.T, address string) *events.Sender {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(eventreceiver.Secret), 0o600))
	settings, err := events.ReadSettings(setting.Environment{
		events.URLVariable: address, events.AllowHTTPVariable: "true", events.SecretFileVariable: file, events.WebUIVariable: "https://ui",
	})
	require.NoError(t, err)
	sender, err := events.NewSender(settings)
	require.NoError(t, err)
	return sender
}

func TestSendEvent(t *testing.T) {
	t.Parallel()
	receiver := eventreceiver.Start(t)
	result, counts, err := sendEvent(t, senderTo(t, receiver.URL))
	require.NoError(t, err)
	assert.Empty(t, counts)
	assert.False(t, result.NoReceiver)
	got := receiver.RequireOne(t)
	assert.Equal(t, "event-1", got.Event.ID())
	assert.Equal(t, "keyturn.fleet.failed", got.Event.Type())
	assert.Equal(t, "2026-03-04T05:06:07Z", got.Event.Time().Format(time.RFC3339))
	assert.Equal(t, "fleet", got.Event.Subject())
	assert.Equal(t, "/namespaces/default-test-namespace/workflows/rotate-fleet%2F1", got.Event.Source())
	assert.JSONEq(t, `{"outcome": "partial", "url": "https://ui/namespaces/default-test-namespace/workflows/rotate-fleet%2F1/run-1/history"}`, string(got.Event.Data()))
}

func TestSendEventWithoutAReceiver(t *testing.T) {
	t.Parallel()
	result, counts, err := sendEvent(t, nil)
	require.NoError(t, err)
	assert.Empty(t, counts)
	assert.True(t, result.NoReceiver)
}

// Every failure is retried: by the retry policy, unless the receiver asks for a time.
func TestUndeliveredEventIsRetried(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer eventreceiver.Answer
		delay  time.Duration
	}{
		"500":                      {eventreceiver.Answer{Status: 500}, 0},
		"410":                      {eventreceiver.Answer{Status: 410}, 0},
		"400":                      {eventreceiver.Answer{Status: 400}, 0},
		"redirect":                 {eventreceiver.Answer{Status: 302, Header: map[string]string{"Location": "/"}}, 0},
		"cut":                      {eventreceiver.Answer{Cut: true}, 0},
		"429 with Retry-After":     {eventreceiver.Answer{Status: 429, Header: map[string]string{"Retry-After": "17"}}, 17 * time.Second},
		"503 with Retry-After 0":   {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "0"}}, 0},
		"410 with a long pause":    {eventreceiver.Answer{Status: 410, Header: map[string]string{"Retry-After": "86400"}}, 5 * time.Minute},
		"503 with a strange pause": {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "soon"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := eventreceiver.Start(t)
			receiver.AnswerWith(c.answer)
			_, counts, err := sendEvent(t, senderTo(t, receiver.URL))
			appErr := requireType(t, err, activities.ErrorEventUndelivered, true)
			assert.Equal(t, c.delay, appErr.NextRetryDelay())
			assert.Equal(t, map[string]int64{`keyturn_event_failures_total{type="keyturn.fleet.failed"}`: 1}, counts)
			receiver.RequireOne(t)
		})
	}
}
