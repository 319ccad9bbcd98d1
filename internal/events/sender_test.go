package events_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/waiting"
)

// answerSecret is in what receivers answer: no error may contain it.
const answerSecret = "s3cret-of-the-answer"

func happened() events.Event {
	return events.Event{
		ID: "deliver-event:1", Type: "keyturn.rotation.held", Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("CET", 3600)),
		Subject: "5196e5b0e4b0fca9cc88334a", Namespace: "default", WorkflowID: "rotate-cluster:default:p/1:c ö", RunID: "run",
		Data: json.RawMessage(`{"phase": "held", "counts": {"failed": 1}}`),
	}
}

// sender returns a sender to an address, with these variables besides it.
func sender(t *testing.T, address string, variables setting.Environment, change ...func(*events.Settings)) *events.Sender {
	t.Helper()
	env := setting.Environment{
		events.URLVariable: address + "/s3cret-path?token=s3cret-query", events.AllowHTTPVariable: "true",
		events.SecretFileVariable: writeSecrets(t, eventreceiver.Secret),
	}
	for name, value := range variables {
		env[name] = value
	}
	s, err := events.ReadSettings(env)
	require.NoError(t, err)
	s.UserAgent = "keyturn/test"
	for _, apply := range change {
		apply(&s)
	}
	made, err := events.NewSender(s)
	require.NoError(t, err)
	return made
}

func requireUndelivered(t *testing.T, err error) *events.Error {
	t.Helper()
	var undelivered *events.Error
	require.ErrorAs(t, err, &undelivered)
	assert.NotContains(t, err.Error(), "s3cret")
	assert.NotContains(t, err.Error(), "whsec")
	assert.NotContains(t, err.Error(), "\n")
	return undelivered
}

func problemOf(s *events.Sender) string {
	problem, _ := s.Problem()
	return problem
}

func TestEventIsSentAsASignedCloudEvent(t *testing.T) {
	receiver := eventreceiver.Start(t)
	s := sender(t, receiver.URL, setting.Environment{events.WebUIVariable: "https://ui.example.net/temporal/"})
	require.NoError(t, s.Send(t.Context(), happened()))
	got := receiver.RequireOne(t)
	assert.Equal(t, "1.0", got.Event.SpecVersion())
	assert.Equal(t, "deliver-event:1", got.Event.ID())
	assert.Equal(t, "keyturn.rotation.held", got.Event.Type())
	assert.Equal(t, "/namespaces/default/workflows/rotate-cluster:default:p%2F1:c%20%C3%B6", got.Event.Source())
	assert.Equal(t, "5196e5b0e4b0fca9cc88334a", got.Event.Subject())
	assert.Equal(t, "2026-03-04T04:06:07Z", got.Event.Time().Format(time.RFC3339))
	assert.Equal(t, time.UTC, got.Event.Time().Location())
	assert.Equal(t, "application/json", got.Event.DataContentType())
	assert.JSONEq(t, `{"phase": "held", "counts": {"failed": 1},
		"url": "https://ui.example.net/temporal/namespaces/default/workflows/rotate-cluster:default:p%2F1:c%20%C3%B6/run/history"}`, string(got.Event.Data()))
	assert.Equal(t, "application/cloudevents+json; charset=utf-8", got.Header.Get("Content-Type"))
	assert.Equal(t, "keyturn/test", got.Header.Get("User-Agent"))
	assert.Empty(t, problemOf(s))
}

func TestEventWithoutTheOptionalParts(t *testing.T) {
	receiver := eventreceiver.Start(t)
	event := happened()
	event.Subject, event.Time = "", time.Time{}
	require.NoError(t, sender(t, receiver.URL, nil).Send(t.Context(), event))
	got := receiver.RequireOne(t)
	assert.JSONEq(t, string(event.Data), string(got.Event.Data()), "there is no url without the Web UI's address")
	assert.NotContains(t, string(got.Body), `"time"`)
	assert.NotContains(t, string(got.Body), `"subject"`)
}

// Receivers decode headers that are not ASCII differently.
func TestAnyIDIsSigned(t *testing.T) {
	receiver := eventreceiver.Start(t)
	event := happened()
	event.ID = "schedule ö\n100%"
	require.NoError(t, sender(t, receiver.URL, nil).Send(t.Context(), event))
	assert.Equal(t, "schedule%20%C3%B6%0A100%25", receiver.RequireOne(t).Event.ID())
}

func TestEventThatCannotBeSent(t *testing.T) {
	receiver := eventreceiver.Start(t)
	s := sender(t, receiver.URL, nil)
	for problem, change := range map[string]func(*events.Event){
		"its id is missing":               func(e *events.Event) { e.ID = "" },
		"its type is missing":             func(e *events.Event) { e.Type = "" },
		"its workflowId is missing":       func(e *events.Event) { e.WorkflowID = "" },
		"its runId is missing":            func(e *events.Event) { e.RunID = "" },
		"its data is not a JSON object":   func(e *events.Event) { e.Data = json.RawMessage(`null`) },
		"its data is not a JSON object ":  func(e *events.Event) { e.Data = json.RawMessage(`["s3cret"]`) },
		"its data is not a JSON object  ": func(e *events.Event) { e.Data = nil },
	} {
		event := happened()
		change(&event)
		assert.Contains(t, requireUndelivered(t, s.Send(t.Context(), event)).Problem, strings.TrimSpace(problem))
	}
	assert.Empty(t, receiver.Received())
	assert.Empty(t, receiver.Refused())
}

// One call sends one request, whatever the answer is.
func TestAnswers(t *testing.T) {
	const seconds = time.Second
	for name, c := range map[string]struct {
		answer     eventreceiver.Answer
		problem    string // empty = delivered
		advice     string
		retryAfter time.Duration
	}{
		"200":       {eventreceiver.Answer{Status: 200, Body: answerSecret}, "", "", 0},
		"202":       {eventreceiver.Answer{Status: 202, Header: map[string]string{"Retry-After": "7"}}, "", "", 0},
		"204":       {eventreceiver.Answer{}, "", "", 0},
		"299":       {eventreceiver.Answer{Status: 299}, "", "", 0},
		"redirect":  {eventreceiver.Answer{Status: 307, Header: map[string]string{"Location": "/" + answerSecret}}, "answered 307 Temporary Redirect", "redirects are not followed: set KEYTURN_EVENTS_URL", 0},
		"moved":     {eventreceiver.Answer{Status: 301, Header: map[string]string{"Location": "/" + answerSecret}}, "answered 301 Moved Permanently", "redirects are not followed", 0},
		"400":       {eventreceiver.Answer{Status: 400, Body: answerSecret}, "answered 400 Bad Request", "check KEYTURN_EVENTS_URL, and the receiver's log", 0},
		"401":       {eventreceiver.Answer{Status: 401, Body: answerSecret}, "answered 401 Unauthorized", "KEYTURN_EVENTS_SECRET_FILE", 0},
		"403":       {eventreceiver.Answer{Status: 403, Body: answerSecret}, "answered 403 Forbidden", "KEYTURN_EVENTS_SECRET_FILE", 0},
		"404":       {eventreceiver.Answer{Status: 404, Body: answerSecret}, "answered 404 Not Found", "check KEYTURN_EVENTS_URL", 0},
		"410":       {eventreceiver.Answer{Status: 410}, "answered 410 Gone", "it no longer accepts events: change KEYTURN_EVENTS_URL, or unset it", 0},
		"413":       {eventreceiver.Answer{Status: 413}, "answered 413 Request Entity Too Large", "raise its limit: the event has ", 0},
		"418":       {eventreceiver.Answer{Status: 418, Header: map[string]string{"Retry-After": "9"}}, "answered 418", "", 9 * seconds},
		"408":       {eventreceiver.Answer{Status: 408}, "answered 408 Request Timeout", "check the receiver", 0},
		"425":       {eventreceiver.Answer{Status: 425}, "answered 425 Too Early", "check the receiver", 0},
		"429":       {eventreceiver.Answer{Status: 429, Header: map[string]string{"Retry-After": "30"}}, "answered 429 Too Many Requests", "check the receiver", 30 * seconds},
		"500":       {eventreceiver.Answer{Status: 500, Body: answerSecret}, "answered 500 Internal Server Error", "check the receiver, whose address is KEYTURN_EVENTS_URL", 0},
		"503":       {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "120"}}, "answered 503 Service Unavailable", "check the receiver", 120 * seconds},
		"599":       {eventreceiver.Answer{Status: 599}, "answered 599;", "check the receiver", 0},
		"long":      {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "301"}}, "answered 503", "", 300 * seconds},
		"very long": {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "2147483647"}}, "answered 503", "", 300 * seconds},
		"far date":  {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}}, "answered 503", "", 300 * seconds},
		"past date": {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}}, "answered 503", "", 0},
		"zero":      {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "0"}}, "answered 503", "", 0},
		"negative":  {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": "-5"}}, "answered 503", "", 0},
		"nonsense":  {eventreceiver.Answer{Status: 503, Header: map[string]string{"Retry-After": answerSecret}}, "answered 503", "", 0},
		"cut":       {eventreceiver.Answer{Cut: true}, "the receiver closed the connection", "check it", 0},
		"no HTTP":   {eventreceiver.Answer{Raw: answerSecret + "\r\n\r\n"}, "the response is not HTTP", "check KEYTURN_EVENTS_URL", 0},
		"half":      {eventreceiver.Answer{Raw: "HTTP/1.1 200"}, "no valid response from the receiver", "", 0},
		"status":    {eventreceiver.Answer{Raw: "HTTP/1.1 2x " + answerSecret + "\r\n\r\n"}, "the response is not HTTP", "", 0},
		"header":    {eventreceiver.Answer{Raw: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat(answerSecret, 20_000) + "\r\n\r\n"}, "no valid response from the receiver", "", 0},
		// A receiver that has answered 2xx has the event, whatever follows.
		"endless body": {eventreceiver.Answer{Raw: "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + answerSecret}, "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := eventreceiver.Start(t)
			receiver.AnswerWith(c.answer)
			s := sender(t, receiver.URL, nil)
			err := s.Send(t.Context(), happened())
			receiver.RequireOne(t)
			if c.problem == "" {
				require.NoError(t, err)
				return
			}
			undelivered := requireUndelivered(t, err)
			assert.Contains(t, undelivered.Problem, receiver.URL)
			assert.Contains(t, undelivered.Problem, c.problem)
			assert.Contains(t, undelivered.Problem, c.advice)
			assert.Equal(t, c.retryAfter, undelivered.RetryAfter)
			assert.Equal(t, undelivered.Problem, problemOf(s))
		})
	}
}

// While the receiver asks for a pause, nothing is sent, also of other events.
func TestPauseOfTheReceiver(t *testing.T) {
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Status: 429, Header: map[string]string{"Retry-After": "200"}})
	s := sender(t, receiver.URL, nil)
	requireUndelivered(t, s.Send(t.Context(), happened()))
	other := happened()
	other.ID = "another"
	undelivered := requireUndelivered(t, s.Send(t.Context(), other))
	assert.Contains(t, undelivered.Problem, "not sent yet")
	assert.Contains(t, undelivered.Problem, "429 Too Many Requests")
	assert.LessOrEqual(t, undelivered.RetryAfter, 200*time.Second)
	assert.Greater(t, undelivered.RetryAfter, time.Duration(0))
	receiver.RequireOne(t)
}

func TestPauseOfTheReceiverEnds(t *testing.T) {
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Status: 429, Header: map[string]string{"Retry-After": "1"}, Times: 1})
	s := sender(t, receiver.URL, nil)
	requireUndelivered(t, s.Send(t.Context(), happened()))
	waiting.Until(t, func() bool { return s.Send(t.Context(), happened()) == nil })
	assert.Len(t, receiver.Received(), 2)
	assert.Len(t, receiver.Accepted(), 1, "the ID is the same")
	assert.Empty(t, problemOf(s))
}

func TestReceiverThatIsDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	undelivered := requireUndelivered(t, sender(t, "http://"+listener.Addr().String(), nil).Send(t.Context(), happened()))
	assert.Contains(t, undelivered.Problem, "connection refused; check KEYTURN_EVENTS_URL and the receiver")
}

func TestReceiverWhoseNameIsUnknown(t *testing.T) {
	undelivered := requireUndelivered(t, sender(t, "http://receiver.invalid", nil).Send(t.Context(), happened()))
	assert.Contains(t, undelivered.Problem, "cannot resolve the host name")
}

func TestReceiverThatNeverAnswers(t *testing.T) {
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Hang: true})
	s := sender(t, receiver.URL, nil, func(s *events.Settings) { s.RequestTimeout = 50 * time.Millisecond })
	assert.Contains(t, requireUndelivered(t, s.Send(t.Context(), happened())).Problem, "timeout (limit 50ms)")
}

// A receiver gets a few requests at a time, also when all events of a fleet are due.
func TestFewRequestsAtATime(t *testing.T) {
	const most = 8
	receiver := eventreceiver.Start(t)
	receiver.AnswerWith(eventreceiver.Answer{Hang: true})
	s := sender(t, receiver.URL, nil, func(s *events.Settings) { s.RequestTimeout = waiting.Limit })
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	for range most {
		sending.Go(func() { assert.Error(t, s.Send(ctx, happened())) })
	}
	waiting.Until(t, func() bool { return len(receiver.Received()) == most })
	short, cancelShort := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancelShort()
	assert.Contains(t, requireUndelivered(t, s.Send(short, happened())).Problem, "timeout")
	assert.Len(t, receiver.Received(), most)
}

func TestReceiverWhoseCertificateIsNotTrusted(t *testing.T) {
	undelivered := requireUndelivered(t, sender(t, eventreceiver.StartTLS(t).URL, nil).Send(t.Context(), happened()))
	assert.Contains(t, undelivered.Problem, "certificate signed by unknown authority; add its authority to the trusted certificates")
}

func TestReceiverWithoutTLS(t *testing.T) {
	address := strings.Replace(eventreceiver.Start(t).URL, "http://", "https://", 1)
	assert.Contains(t, requireUndelivered(t, sender(t, address, nil).Send(t.Context(), happened())).Problem, "the receiver does not use TLS")
}

func TestInterruptedAttempt(t *testing.T) {
	receiver := eventreceiver.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Contains(t, requireUndelivered(t, sender(t, receiver.URL, nil).Send(ctx, happened())).Problem, "the attempt was canceled")
}

// A proxy's password, and what it answers, are secrets.
func TestProxyThatRefuses(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, http.MethodConnect, r.Method)
		connection, _, err := http.NewResponseController(w).Hijack()
		assert.NoError(t, err)
		_, _ = connection.Write([]byte("HTTP/1.1 407 " + answerSecret + "\r\nContent-Length: 0\r\n\r\n"))
		_ = connection.Close()
	}))
	t.Cleanup(proxy.Close)
	address, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	address.User = url.UserPassword("user", "s3cret")
	t.Setenv("HTTPS_PROXY", address.String())
	undelivered := requireUndelivered(t, sender(t, "https://hooks.example.net", nil).Send(t.Context(), happened()))
	assert.Contains(t, undelivered.Problem, "the proxy answered 407 Proxy Authentication Required; check the worker's HTTPS_PROXY")
}

// A secret is renewed without a gap: both sign until the receiver knows the new one.
func TestRenewedSecret(t *testing.T) {
	const renewed = "whsec_cmVuZXdlZC1ldmVudHMtc2VjcmV0LTg4MTJhYzBkNTFlZg=="
	receiver := eventreceiver.Start(t)
	file := writeSecrets(t, eventreceiver.Secret)
	s := sender(t, receiver.URL, setting.Environment{events.SecretFileVariable: file})
	send := func() error { return s.Send(t.Context(), happened()) }
	replace := func(lines ...string) (changes int, problem error) {
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
		return s.Refresh()
	}
	require.NoError(t, send())

	changes, problem := replace(renewed, eventreceiver.Secret)
	require.NoError(t, problem)
	assert.Equal(t, 1, changes)
	require.NoError(t, send(), "the receiver knows the old one only")
	receiver.Trust(renewed)
	require.NoError(t, send(), "the receiver knows the new one only")

	changes, problem = replace(eventreceiver.Secret)
	require.NoError(t, problem)
	assert.Equal(t, 2, changes)
	assert.Contains(t, requireUndelivered(t, send()).Problem, "401 Unauthorized")

	_, problem = replace(renewed, "whsec_half-writ")
	require.ErrorContains(t, problem, events.SecretFileVariable+": line 2")
	assert.Equal(t, problem, s.FilesProblem())
	receiver.Trust(eventreceiver.Secret)
	require.NoError(t, send(), "a file that cannot be used changes nothing")
}

// The timestamp is that of the attempt: receivers refuse old ones.
func TestTimestampIsThatOfTheAttempt(t *testing.T) {
	receiver := eventreceiver.Start(t)
	event := happened()
	event.Time = time.Now().Add(-20 * time.Hour)
	require.NoError(t, sender(t, receiver.URL, nil).Send(t.Context(), event))
	receiver.RequireOne(t)
}
