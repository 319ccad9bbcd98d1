// Package eventreceiver is a receiver of events, for tests. It verifies and reads
// them with the libraries that the authors of Standard Webhooks and of CloudEvents
// publish, and not with keyturn's own code.
package eventreceiver

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// Secret is the secret of receivers that are given no other one.
const Secret = "whsec_cGxhbnRlZC1ldmVudHMtc2VjcmV0LTRkMWY5MmFiNzBjMw=="

// maxBody is the most that is read of a request, in bytes.
const maxBody = 4 << 20

// Answer is how a receiver answers requests.
type Answer struct {
	// Status is the response's; 0 = 204.
	Status int
	// Header is set in the response.
	Header map[string]string
	// Body is the response's.
	Body string
	// Cut closes the connection without a response.
	Cut bool
	// Raw is sent instead of a response, before the connection is closed.
	Raw string
	// Hang keeps the connection open without a response until the client or the test
	// ends.
	Hang bool
	// Times is how many requests are answered so, before the next answer counts;
	// 0 = all that come.
	Times int
}

// Received is a request that was verified and read.
type Received struct {
	// Event is the request's.
	Event event.Event
	// Header is the request's.
	Header http.Header
	// Body is the request's.
	Body []byte
	// Accepted: the answer's status was a 2xx.
	Accepted bool
}

// Server is a receiver.
type Server struct {
	// URL is where it listens; a path and a query may follow.
	URL string

	server *httptest.Server
	ended  chan struct{}

	mu       sync.Mutex
	secrets  []string
	answers  []Answer
	received []Received
	refused  []error
}

// Start starts a receiver that knows these secrets; none = Secret. It answers 204, and
// 401 to what it cannot verify. It ends with the test.
func Start(t testing.TB, secrets ...string) *Server {
	t.Helper()
	return start(t, httptest.NewServer, secrets)
}

// StartTLS starts a receiver with a certificate that nobody trusts.
func StartTLS(t testing.TB, secrets ...string) *Server {
	t.Helper()
	return start(t, httptest.NewTLSServer, secrets)
}

func start(t testing.TB, serve func(http.Handler) *httptest.Server, secrets []string) *Server {
	t.Helper()
	s := &Server{ended: make(chan struct{})}
	s.Trust(secrets...)
	s.server = serve(s)
	s.URL = s.server.URL
	t.Cleanup(s.server.Close)
	t.Cleanup(func() { close(s.ended) })
	return s
}

// Trust replaces the secrets; none = Secret.
func (s *Server) Trust(secrets ...string) {
	if len(secrets) == 0 {
		secrets = []string{Secret}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = secrets
}

// AnswerWith replaces the answers to come. After the last one, it answers 204.
func (s *Server) AnswerWith(answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = slices.Clone(answers)
}

// Received returns the verified requests, the oldest first, also those that were not
// accepted.
func (s *Server) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received)
}

// Refused returns why requests could not be verified or read.
func (s *Server) Refused() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

// Accepted returns the accepted events by ID: those that were sent again are one.
func (s *Server) Accepted() map[string]Received {
	accepted := map[string]Received{}
	for _, one := range s.Received() {
		if one.Accepted {
			accepted[one.Event.ID()] = one
		}
	}
	return accepted
}

// RequireOne returns the one request that there was.
func (s *Server) RequireOne(t testing.TB) Received {
	t.Helper()
	require.Empty(t, s.Refused())
	received := s.Received()
	require.Len(t, received, 1)
	return received[0]
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return // the client has gone
	}
	received, err := s.verified(r, body)
	answer := s.record(received, err)
	switch {
	case answer.Hang:
		select {
		case <-r.Context().Done():
		case <-s.ended:
		}
		panic(http.ErrAbortHandler)
	case answer.Cut:
		panic(http.ErrAbortHandler)
	case answer.Raw != "":
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(connection, answer.Raw)
			_ = connection.Close()
		}
		return
	}
	for name, value := range answer.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body)
}

// record returns how to answer.
func (s *Server) record(received Received, err error) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.refused = append(s.refused, err)
		return Answer{Status: http.StatusUnauthorized, Body: err.Error()}
	}
	answer := Answer{}
	if len(s.answers) > 0 {
		answer = s.answers[0]
		if s.answers[0].Times--; s.answers[0].Times == 0 {
			s.answers = s.answers[1:]
		}
	}
	if answer.Status == 0 {
		answer.Status = http.StatusNoContent
	}
	received.Accepted = answer.Status/100 == 2 && !answer.Cut && !answer.Hang && answer.Raw == ""
	s.received = append(s.received, received)
	return answer
}

// verified checks the signature and the event.
func (s *Server) verified(r *http.Request, body []byte) (Received, error) {
	if r.Method != http.MethodPost {
		return Received{}, fmt.Errorf("the method is %s", r.Method)
	}
	if err := s.verify(r.Header, body); err != nil {
		return Received{}, err
	}
	if contentType := r.Header.Get("Content-Type"); !strings.HasPrefix(contentType, "application/cloudevents+json") {
		return Received{}, fmt.Errorf("the content type is %q", contentType)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	read, err := cehttp.NewEventFromHTTPRequest(r)
	if err != nil {
		return Received{}, err
	}
	if err := read.Validate(); err != nil {
		return Received{}, err
	}
	if id := r.Header.Get(webhooks.HeaderWebhookID); id != read.ID() {
		return Received{}, fmt.Errorf("the webhook-id is %q, and the event's id %q", id, read.ID())
	}
	return Received{Event: *read, Header: r.Header, Body: body}, nil
}

// verify reports whether one of the secrets verifies the request.
func (s *Server) verify(header http.Header, body []byte) (err error) {
	s.mu.Lock()
	known := s.secrets
	s.mu.Unlock()
	for _, secret := range known {
		var webhook *webhooks.Webhook
		if webhook, err = webhooks.NewWebhook(secret); err == nil {
			err = webhook.Verify(body, header)
		}
		if err == nil {
			return nil
		}
	}
	return err
}
