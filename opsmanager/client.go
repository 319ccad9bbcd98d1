package opsmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"keyturn/internal/retryafter"
)

const apiPath = "/api/public/v1.0"

// maxBody is the most that is read of a response, in bytes. A page of 500
// clusters takes some 200 KiB.
const maxBody = 8 << 20

// Client calls one Ops Manager. It is safe for concurrent use and meant to be
// shared: it reuses connections and digest challenges, and its limits hold for
// all of its callers together.
type Client struct {
	base      *url.URL
	userAgent string
	timeout   time.Duration
	limits    *limiter
	observer  Observer
	onRefused func()
	perSecond float64
	inFlight  int
	session   atomic.Pointer[session]
	version   atomic.Pointer[ServiceVersion]
	clock     atomic.Pointer[clockReading]
}

// New returns a client for the Ops Manager that the config describes. It sends
// nothing. The error is a [*ConfigError].
func New(config Config) (*Client, error) {
	base, err := config.baseURL()
	if err != nil {
		return nil, err
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	s, err := config.newSession(base)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base:      base,
		userAgent: config.UserAgent,
		timeout:   config.RequestTimeout,
		limits:    newLimiter(config.RequestsPerSecond, config.MaxInFlight),
		observer:  config.observer(),
		onRefused: config.OnRefused,
		perSecond: config.RequestsPerSecond, inFlight: config.MaxInFlight,
	}
	if c.timeout == 0 {
		c.timeout = DefaultRequestTimeout
	}
	c.session.Store(s)
	return c, nil
}

// Reconfigure replaces the API key, the trusted certificates, the client
// certificate and the proxy by those of the config and of the environment. Calls
// in progress end with the settings that they began with; later calls use new
// connections and the new settings. The other settings stay as [New] was given
// them.
//
// The error is a [*ConfigError], and then nothing has changed. It is an error if
// BaseURL or a limit is another one.
func (c *Client) Reconfigure(config Config) error {
	base, err := config.baseURL()
	if err != nil {
		return err
	}
	if *base != *c.base {
		return &ConfigError{Field: fieldBaseURL, Problem: onlyByRestart}
	}
	if config.RequestsPerSecond != c.perSecond {
		return &ConfigError{Field: fieldRequestsPerSecond, Problem: onlyByRestart}
	}
	if config.MaxInFlight != c.inFlight {
		return &ConfigError{Field: fieldMaxInFlight, Problem: onlyByRestart}
	}
	if err := config.check(); err != nil {
		return err
	}
	s, err := config.newSession(base)
	if err != nil {
		return err
	}
	c.session.Swap(s).connections.close()
	return nil
}

// SessionID identifies the API key and the other settings that [Client.Reconfigure]
// replaces. It is unique among all clients of the process.
func (c *Client) SessionID() uint64 { return c.session.Load().id }

const onlyByRestart = "cannot be changed without a restart"

// Host returns the scheme and the host of the address that the client calls,
// for a log.
func (c *Client) Host() string { return c.base.Scheme + "://" + c.base.Host }

// CheckAccess reads the root of the API, the cheapest authenticated request. It
// returns nil if Ops Manager answers and accepts the API key, and an [*Error]
// otherwise. It says nothing about any project. It has low priority (see
// [WithLowPriority]).
func (c *Client) CheckAccess(ctx context.Context) error {
	r, err := c.request(http.MethodGet, "")
	if err != nil {
		return err
	}
	var root struct {
		// Links is the one field that all versions have.
		Links []struct{} `json:"links"`
	}
	a, err := c.read(WithLowPriority(ctx), r, &root)
	if err != nil {
		return err
	}
	if root.Links == nil {
		return c.unexpected(r, a, "the response is not that of the API's root")
	}
	return nil
}

// sessions counts the sessions of all clients.
var sessions atomic.Uint64

// session is what a client can replace while it is in use.
type session struct {
	id          uint64
	credentials credentials
	connections *connectionPool
	nonces      noncePool
	peer        *peer
}

type request struct {
	session *session
	method  string
	path    string // including the path prefix of the base URL
	query   url.Values
	// beforeSend is called directly before each sending, after the wait for the
	// client's limits. If it returns an error, nothing is sent.
	beforeSend func() error
	// secret responses hold secrets and are never quoted.
	secret bool
	// document: the body of the request or of the response is an automation
	// configuration, whose secrets also the API's own error may quote. Nothing of
	// a response is quoted but its errorCode. secret is set, too.
	document bool
	// body of a PUT; nil = none.
	body []byte
}

// maxBody is the most that is read of the response, in bytes.
func (r request) maxBody() int {
	if r.document {
		return maxAutomationConfig
	}
	return maxBody
}

// target is what the request line, and therefore the digest's uri, contains.
func (r request) target() string {
	if len(r.query) == 0 {
		return r.path
	}
	return r.path + "?" + r.query.Encode()
}

type answer struct {
	status int
	header http.Header
	body   []byte
	// bodyErr is why the body could not be read to its end.
	bodyErr error
	// resent: net/http sent the request again by itself, with the same nonce
	// count, as it does with a GET whose connection was closed.
	resent bool
	// asked and answered: when the request was sent, and when the response's
	// header came.
	asked, answered time.Time
}

// request checks the ids before they become part of a path.
func (c *Client) request(method, format string, ids ...string) (request, error) {
	segments := make([]any, len(ids))
	for i, id := range ids {
		if !ValidID(id) {
			return request{}, invalidID(method, apiPath+strings.ReplaceAll(format, "%s", "{id}"))
		}
		segments[i] = id
	}
	return request{session: c.session.Load(), method: method, path: c.base.Path + apiPath + fmt.Sprintf(format, segments...)}, nil
}

func invalidID(method, path string) *Error {
	return &Error{Kind: InvalidID, Method: method, Path: path, Detail: "an id must have 24 hex digits"}
}

// read sends a GET and decodes the response, which must be one JSON object.
func (c *Client) read(ctx context.Context, r request, into any) (a answer, err error) {
	defer func() { c.ended(r, err) }()
	a, err = c.call(ctx, r)
	if err != nil {
		return a, err
	}
	if a.bodyErr != nil {
		return a, c.truncated(r, a)
	}
	return a, c.decode(r, a, into)
}

// decode reads a body that must be one JSON object.
func (c *Client) decode(r request, a answer, into any) error {
	if err := c.checkSize(r, a); err != nil {
		return err
	}
	if trimmed := strings.TrimSpace(string(a.body)); !strings.HasPrefix(trimmed, "{") {
		return c.unexpected(r, a, "the response is not a JSON object"+excerpt(r, a))
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return c.unexpected(r, a, "the response is not the API's JSON: "+jsonProblem(r, err))
	}
	return nil
}

// checkPutResponse distinguishes the API's acceptance of a PUT from a 2xx response
// of something in front of it, such as a login page: an empty body and an empty
// object are the API's, and check judges any other object. What is not the API's
// leaves the outcome unknown.
func (c *Client) checkPutResponse(r request, a answer, check func() error) error {
	if a.bodyErr != nil {
		return c.truncated(r, a)
	}
	if len(a.body) <= r.maxBody() && len(bytes.TrimSpace(a.body)) == 0 {
		return nil
	}
	var fields map[string]any
	err := c.decode(r, a, &fields)
	if err == nil && len(fields) > 0 {
		err = check()
	}
	if apiError, ok := AsError(err); ok {
		apiError.OutcomeUnknown = true
		return apiError
	}
	return nil
}

func (c *Client) checkSize(r request, a answer) error {
	if len(a.body) > r.maxBody() {
		return c.unexpected(r, a, fmt.Sprintf("the response is larger than %d bytes", r.maxBody()))
	}
	return nil
}

// excerpt is the beginning of a response, unless it must not be quoted.
func excerpt(r request, a answer) string {
	if r.secret {
		return ""
	}
	return ": " + textOfHTML(a.body)
}

// jsonProblem leaves out the values of a response that must not be quoted.
func jsonProblem(r request, err error) string {
	if r.secret {
		return "it cannot be decoded"
	}
	return err.Error()
}

// call sends a request within the client's limits and classifies the response. If
// the credentials are refused, and they have been replaced since the request began, it
// is sent again with the new ones.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	sentAt, err := c.enter(ctx)
	if err != nil {
		return answer{}, c.networkError(r, err, false)
	}
	defer c.limits.leave()
	a, err := c.classified(ctx, r, sentAt)
	if newer := c.replaced(r.session, err); newer != nil {
		if err := c.waitRate(ctx); err != nil {
			return answer{}, c.networkError(r, err, false)
		}
		r.session = newer
		return c.classified(ctx, r, sentAt)
	}
	return a, err
}

func (c *Client) classified(ctx context.Context, r request, sentAt time.Time) (answer, error) {
	a, err := c.authenticated(ctx, r)
	if err != nil {
		return a, err
	}
	if a.status == http.StatusTooManyRequests {
		c.limits.refused(sentAt, retryafter.Parse(a.header, time.Now(), maxRetryAfter))
	} else {
		c.limits.accepted(sentAt)
	}
	if a.status/100 != 2 {
		return a, c.statusError(r, a)
	}
	c.noteVersion(a.header)
	c.noteClock(a)
	return a, nil
}

// replaced returns the session that has replaced the one whose credentials an error
// refuses; nil = there is none, or the request may have been carried out.
func (c *Client) replaced(used *session, err error) *session {
	e, _ := AsError(err)
	if e == nil || e.OutcomeUnknown || e.Kind != Unauthorized && e.fault != ClientCertificateRefused && e.fault != ClientCertificateRequired {
		return nil
	}
	if c.onRefused != nil && c.session.Load() == used {
		c.onRefused()
	}
	if newer := c.session.Load(); newer != used {
		return newer
	}
	return nil
}

// enter waits until the client's limits allow a request.
func (c *Client) enter(ctx context.Context) (sentAt time.Time, err error) {
	began := time.Now()
	sentAt, err = c.limits.enter(ctx)
	c.observer.Waited(time.Since(began))
	return sentAt, err
}

// waitRate waits until a request that has entered may be sent once more.
func (c *Client) waitRate(ctx context.Context) error {
	began := time.Now()
	err := c.limits.waitRate(ctx)
	c.observer.Waited(time.Since(began))
	return err
}

// exchange sends one request and reads its response to the end. An error means
// that no response came.
func (c *Client) exchange(ctx context.Context, r request, over *connection, authorization string) (answer, error) {
	if r.beforeSend != nil {
		if err := r.beforeSend(); err != nil {
			e := c.networkError(r, err, false)
			e.cause = err // the caller's own, also where those of a response are dropped
			return answer{}, e
		}
	}
	if r.method == http.MethodPut {
		ctx = context.WithoutCancel(ctx) // an interrupted PUT has an unknown outcome
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var sendings atomic.Int32
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sendings.Add(1) }}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), r.method, c.Host(), body)
	if err != nil {
		return answer{}, c.networkError(r, err, false)
	}
	req.URL.Path, req.URL.RawQuery = r.path, r.query.Encode()
	c.setHeaders(req, authorization)
	// net/http logs what a server sends after the end of a response, once the
	// connection is idle. After a document it must not be.
	req.Close = r.document
	answered, asked := c.sending(r.method), time.Now()
	resp, err := over.transport.RoundTrip(req)
	if err != nil {
		answered(0)
		return answer{}, c.networkError(r, err, sendings.Load() > 0)
	}
	defer func() { _ = resp.Body.Close() }()
	r.session.peer.answered.Store(true)
	a := answer{status: resp.StatusCode, header: resp.Header, resent: sendings.Load() > 1, asked: asked, answered: time.Now()}
	a.body, a.bodyErr = readBody(resp, r.maxBody()+1)
	answered(a.status)
	return a, nil
}

// readBody reads a response to its end, but no more than limit bytes.
func readBody(resp *http.Response, limit int) ([]byte, error) {
	var body bytes.Buffer
	if length := resp.ContentLength; length > 0 {
		body.Grow(int(min(length, int64(limit))) + bytes.MinRead)
	}
	_, err := body.ReadFrom(io.LimitReader(resp.Body, int64(limit)))
	return body.Bytes(), err
}

func (c *Client) setHeaders(req *http.Request, authorization string) {
	req.Header.Set("Accept", "application/json")
	if c.userAgent != "" {
		req.Header.Set("User-Agent", c.userAgent)
	}
	if req.Method == http.MethodPut {
		req.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
}

// sending reports a request to the observer and returns the function that
// reports its end.
func (c *Client) sending(method string) (answered func(statusCode int)) {
	c.observer.Sent(method)
	sent := time.Now()
	return func(statusCode int) { c.observer.Answered(method, statusCode, time.Since(sent)) }
}

// ended reports the end of a call to the observer.
func (c *Client) ended(r request, err error) {
	apiError, _ := AsError(err)
	c.observer.Ended(r.method, apiError)
}

// ValidID reports whether s is an Ops Manager id: 24 hex digits of either case.
func ValidID(s string) bool {
	return len(s) == 24 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
