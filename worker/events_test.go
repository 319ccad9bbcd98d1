package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/internal/version"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
)

// renewedSecret replaces the receiver's usual one.
const renewedSecret = "whsec_cmVuZXdlZC1ldmVudHMtc2VjcmV0LTg4MTJhYzBkNTFlZg=="

// attemptLimit is that of an attempt to send an event.
const attemptLimit = 30 * time.Second

func eventSettings(t *testing.T, receiver *eventreceiver.Server) setting.Environment {
	t.Helper()
	return setting.Environment{
		events.URLVariable: receiver.URL + "/hook?token=" + secret, events.AllowHTTPVariable: "true", events.WebUIVariable: "https://ui.example.net",
		events.SecretFileVariable: writeFile(t, "events-secret", eventreceiver.Secret+"\n"),
	}
}

func heldEvent(id string) activities.SendEventInput {
	return activities.SendEventInput{
		ID: id, Type: activities.EventRotationHeld, Time: time.Now(), Subject: "cluster", WorkflowID: "rotation", RunID: "run", Data: json.RawMessage(`{"phase":"held"}`),
	}
}

// warnsOfEvents shows a worker that is ready with this warning; empty = with none.
func warnsOfEvents(warning string) func(readiness) bool {
	return func(r readiness) bool {
		check, found := r.Checks["events"]
		return r.Ready && found && check.OK && strings.Contains(check.Warning, warning) && (warning != "" || check.Warning == "")
	}
}

// A worker sends events. A receiver that refuses them is a warning, and at no time
// makes the worker unready. The secrets are read again when they change.
func TestWorkerSendsEvents(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Status: http.StatusInternalServerError, Body: secret})
	env := monitoredEnvironment(s)
	maps.Copy(env, eventSettings(t, receiver))
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, warnsOfEvents(""))

	sending := s.StartSending(heldEvent("first"), attemptLimit)
	awaitReadiness(t, w.address, warnsOfEvents(": the receiver of events at "+receiver.URL+" answered 500 Internal Server Error; check the receiver"))
	failed := map[string]string{"type": "keyturn.rotation.held"}
	awaitScrape(t, w.address, "failures are counted", func(f families) bool { return f.sum("keyturn_event_failures_total", failed) >= 2 })
	receiver.AnswerWith()
	var sent activities.SendEventResult
	require.NoError(t, sending.Get(t.Context(), &sent))
	assert.False(t, sent.NoReceiver)
	awaitReadiness(t, w.address, warnsOfEvents(""))
	got := receiver.Accepted()["first"]
	assert.Equal(t, "keyturn/"+version.String(), got.Header.Get("User-Agent"))
	assert.Equal(t, "/namespaces/"+s.TemporalServer.Namespace+"/workflows/rotation", got.Event.Source())
	assert.JSONEq(t, `{"phase": "held", "url": "https://ui.example.net/namespaces/`+s.TemporalServer.Namespace+`/workflows/rotation/run/history"}`, string(got.Event.Data()))

	file := env[events.SecretFileVariable]
	require.NoError(t, os.WriteFile(file, []byte("whsec_"+secret), 0o600))
	waitForText(t, &w.log, "cannot reload the files of events; the earlier contents stay in use")
	awaitReadiness(t, w.address, warnsOfEvents(events.SecretFileVariable+": line 1 is not whsec_ followed by base64"))
	require.NoError(t, s.StartSending(heldEvent("second"), attemptLimit).Get(t.Context(), nil), "the earlier secret stays in use")

	require.NoError(t, os.WriteFile(file, []byte(renewedSecret), 0o600))
	waitForText(t, &w.log, "reloaded the files of events")
	awaitReadiness(t, w.address, warnsOfEvents(""))
	receiver.Trust(renewedSecret)
	require.NoError(t, s.StartSending(heldEvent("third"), attemptLimit).Get(t.Context(), nil))
	assert.Empty(t, receiver.Refused())
	assert.Contains(t, w.log.String(), "receiver="+receiver.URL)
	assert.NotContains(t, w.log.String(), secret)
}

func TestEventsNeverMakeAWorkerUnready(t *testing.T) {
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Status: http.StatusGone})
	env := eventSettings(t, receiver)
	sender, err := readEvents(env)
	require.NoError(t, err)
	assert.Equal(t, checkStatus{OK: true}, eventStatus(sender))
	require.Error(t, sender.Send(t.Context(), events.Event{
		ID: "1", Type: "keyturn.rotation.held", Namespace: "default", WorkflowID: "w", RunID: "r", Data: json.RawMessage(`{}`),
	}))
	require.NoError(t, os.Remove(env[events.SecretFileVariable]))
	_, problem := sender.Refresh()
	require.Error(t, problem)
	status := eventStatus(sender)
	assert.True(t, status.OK)
	assert.Empty(t, status.Problem)
	assert.Regexp(t, `^KEYTURN_EVENTS_SECRET_FILE: cannot read the file: no such file or directory; the last event was not delivered at 20\S+Z: the receiver of events at \S+ answered 410 Gone`, status.Warning)
}

func TestWorkerWithoutAReceiverSendsNoEvents(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	w := startMonitored(t, monitoredEnvironment(s), oftenLooking)
	var sent activities.SendEventResult
	require.NoError(t, s.StartSending(heldEvent("nowhere"), attemptLimit).Get(t.Context(), &sent))
	assert.True(t, sent.NoReceiver)
	assert.NotContains(t, awaitReadiness(t, w.address, isReady).Checks, "events")
	assert.Zero(t, scrape(t, w.address).sum("keyturn_event_failures_total", nil))
}

// An event whose worker is killed while the receiver has not answered is sent again by
// another worker, with the same ID: the receiver can tell that it is the same.
func TestEventOfAKilledWorkerIsSentAgain(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Hang: true, Times: 1})
	env := monitoredEnvironment(s)
	maps.Copy(env, eventSettings(t, receiver))
	killed := startWorker(t, env)
	sending := s.StartSending(heldEvent("killed"), 3*time.Second)
	waiting.Until(t, func() bool { return len(receiver.Received()) == 1 })
	require.NoError(t, killed.command.Process.Kill())
	<-killed.ended

	env[listenVariable] = freeAddress(t)
	startMonitored(t, env, oftenLooking)
	require.NoError(t, sending.Get(t.Context(), nil))
	received := receiver.Received()
	require.Greater(t, len(received), 1)
	assert.Len(t, receiver.Accepted(), 1)
	assert.Equal(t, received[0].Body, received[len(received)-1].Body, "it is the same event")
}
