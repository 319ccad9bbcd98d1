package events

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyturn/internal/ellipsis"
	"keyturn/internal/proxy"
	"keyturn/internal/reload"
	"keyturn/internal/retryafter"
	"keyturn/internal/setting"
)

const (
	contentType = "application/cloudevents+json; charset=utf-8"

	// maxRetryAfter is the longest Retry-After that is honored.
	maxRetryAfter = 5 * time.Minute
	// connectTimeout is the time for connecting, and again for the TLS handshake.
	connectTimeout = 5 * time.Second
	// maxConnections is how many requests are in progress at a time: after an outage,
	// the events of a whole fleet are sent again. Waiting counts towards the timeout.
	maxConnections = 8
	// maxHeader is the most that is read of a response's header, in bytes. Its body is
	// not read.
	maxHeader = 64 << 10
	// maxProblem is the length of an error, in characters.
	maxProblem = 500
)

// Sender sends events to one receiver. Its methods may be called concurrently.
type Sender struct {
	settings  Settings
	secrets   *reload.Value[secrets]
	transport *http.Transport

	mu sync.Mutex
	// pausedUntil is when the receiver has asked to be sent something again.
	pausedUntil time.Time
	pausedBy    string // what it answered
	// problem is why the last event was not delivered, at failedAt; empty = it was.
	problem  string
	failedAt time.Time
}

// NewSender returns the sender of settings with a receiver. It sends nothing.
// Proxies are taken from the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY). The
// error is a [*setting.Error].
func NewSender(s Settings) (*Sender, error) {
	if s.RequestTimeout == 0 {
		s.RequestTimeout = RequestTimeout
	}
	via, err := proxy.For(s.URL)
	if err != nil {
		return nil, proxySetting(err)
	}
	files, err := reload.New(reload.Options[secrets]{Load: func() (secrets, error) { return readSecrets(s.SecretFile) }, Same: sameSecrets})
	if err != nil {
		return nil, err
	}
	return &Sender{settings: s, secrets: files, transport: &http.Transport{
		Proxy:                  http.ProxyURL(via),
		OnProxyConnectResponse: checkProxyResponse,
		DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    connectTimeout,
		MaxConnsPerHost:        maxConnections,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
		// Events are rare. net/http would log what a server sends over an idle connection.
		DisableKeepAlives: true,
	}}, nil
}

func proxySetting(err error) error {
	var wrong *proxy.Error
	if errors.As(err, &wrong) {
		return setting.Errorf(wrong.Variable, "%s", wrong.Problem)
	}
	return setting.Errorf(URLVariable, "%v", err)
}

// Host returns the scheme and the host of the receiver's address, for a log.
func (s *Sender) Host() string { return s.settings.URL.Scheme + "://" + s.settings.URL.Host }

// Refresh reads the file with the secrets now. It returns how often the secrets have
// changed, and why the newest ones are not in use.
func (s *Sender) Refresh() (changes int, problem error) {
	problem = s.secrets.Refresh()
	return s.secrets.Changes(), problem
}

// FilesProblem is why, by the last reading, the newest secrets are not in use; nil =
// they are.
func (s *Sender) FilesProblem() error { return s.secrets.Problem() }

// Problem is why the last event was not delivered, and when it was sent; empty = it was
// delivered, or there was none.
func (s *Sender) Problem() (problem string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem, s.failedAt
}

// Send sends an event once at most; nil = the receiver has accepted it. The error is
// an [*Error]. The receiver may have the event nevertheless.
func (s *Sender) Send(ctx context.Context, event Event) error {
	body, err := s.settings.encode(event)
	if err != nil {
		return &Error{Problem: fmt.Sprintf("the event cannot be sent: %v", err)}
	}
	undelivered := s.pause()
	if undelivered == nil {
		undelivered = s.post(ctx, headerText(event.ID), body)
		s.record(undelivered)
	}
	if undelivered == nil {
		return nil
	}
	undelivered.Problem = ellipsis.Cut(undelivered.Problem, maxProblem)
	return undelivered
}

// pause returns the error of an event that is not sent, because the receiver has asked
// for a pause that has not ended; nil = it has.
func (s *Sender) pause() *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := time.Until(s.pausedUntil)
	if left <= 0 {
		return nil
	}
	return &Error{Problem: "not sent yet: " + s.pausedBy, RetryAfter: left}
}

func (s *Sender) record(undelivered *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = ""
	if undelivered == nil {
		return
	}
	s.problem, s.failedAt = undelivered.Problem, time.Now()
	if undelivered.RetryAfter > 0 {
		s.pausedUntil, s.pausedBy = time.Now().Add(undelivered.RetryAfter), undelivered.Problem
	}
}

// post sends one request. Redirects are not followed: the event would reach a
// receiver that nobody has configured.
func (s *Sender) post(ctx context.Context, id string, body []byte) *Error {
	ctx, cancel := context.WithTimeout(ctx, s.settings.RequestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.settings.URL.String(), bytes.NewReader(body))
	if err != nil {
		return &Error{Problem: "the event cannot be sent; check " + URLVariable}
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("User-Agent", s.settings.UserAgent)
	request.Header.Set("Webhook-Id", id)
	request.Header.Set("Webhook-Timestamp", timestamp)
	request.Header.Set("Webhook-Signature", s.secrets.Latest().sign(id, timestamp, body))
	response, err := s.transport.RoundTrip(request)
	if err != nil {
		return &Error{Problem: fmt.Sprintf("no valid response from the receiver of events at %s: %s", s.Host(), s.networkProblem(err))}
	}
	_ = response.Body.Close()
	if response.StatusCode/100 == 2 {
		return nil
	}
	return &Error{
		Problem: fmt.Sprintf("the receiver of events at %s answered %s; %s", s.Host(),
			strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", http.StatusText(response.StatusCode))), advice(response.StatusCode, len(body))),
		RetryAfter: retryafter.Parse(response.Header, time.Now(), maxRetryAfter),
	}
}

// advice says what to do about a status.
func advice(status, size int) string {
	switch {
	case status/100 == 3:
		return "redirects are not followed: set " + URLVariable + " to the final address"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "check that the receiver knows one of the secrets in " + SecretFileVariable + ", and that its clock and the worker's agree"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return "check " + URLVariable
	case status == http.StatusGone:
		return "it no longer accepts events: change " + URLVariable + ", or unset it"
	case status == http.StatusProxyAuthRequired:
		return "check the worker's proxy"
	case status == http.StatusRequestEntityTooLarge:
		return fmt.Sprintf("raise its limit: the event has %d bytes", size)
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status/100 == 5:
		return "check the receiver, whose address is " + URLVariable
	}
	return "check " + URLVariable + ", and the receiver's log"
}

// networkProblem describes why there was no answer, and what to check. It quotes
// nothing that the other side has sent, but the names in its certificate.
func (s *Sender) networkProblem(err error) string {
	var (
		refused     *proxyError
		resolving   *net.DNSError
		certificate *tls.CertificateVerificationError
		notTLS      tls.RecordHeaderError
		network     *net.OpError
		timeout     net.Error
	)
	switch {
	case errors.As(err, &refused):
		return refused.Error() + "; check the worker's HTTPS_PROXY and NO_PROXY"
	case errors.Is(err, context.Canceled):
		return "the attempt was canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("timeout (limit %v); check the receiver and the network", s.settings.RequestTimeout)
	case errors.As(err, &resolving):
		return "cannot resolve the host name: " + resolving.Err + "; check " + URLVariable
	case errors.As(err, &certificate):
		return certificateProblem(certificate.Err)
	case errors.As(err, &notTLS):
		return "the receiver does not use TLS; check " + URLVariable
	case errors.As(err, &network):
		return network.Op + ": " + network.Err.Error() + "; check " + URLVariable + " and the receiver"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the receiver closed the connection; check it"
	}
	return "the response is not HTTP; check " + URLVariable // net/http's error quotes it
}

func certificateProblem(err error) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "?")), " ")
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return text + "; add its authority to the trusted certificates of the worker's system (SSL_CERT_FILE)"
	}
	return text + "; check the receiver's certificate and " + URLVariable
}

// proxyError is a proxy's refusal to connect.
type proxyError struct{ status int }

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy answered %d %s", e.status, http.StatusText(e.status))
}

// checkProxyResponse keeps the proxy's own text out of errors.
func checkProxyResponse(_ context.Context, _ *url.URL, _ *http.Request, response *http.Response) error {
	if response.StatusCode != http.StatusOK {
		return &proxyError{response.StatusCode}
	}
	return nil
}
