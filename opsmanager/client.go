package opsmanager

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const apiPath = "/api/public/v1.0"

// maxBody bounds what is read of an answer: 500 clusters take some 200 KiB.
const maxBody = 8 << 20

// Client calls one Ops Manager. It is safe for concurrent use, and meant to be
// shared: connections and digest challenges are kept and used again.
type Client struct {
	base        *url.URL
	credentials credentials
	userAgent   string
	timeout     time.Duration
	transport   http.RoundTripper
	nonces      noncePool
	limits      *limiter
	observer    Observer
}

// New makes a client and sends nothing. The error is a [*ConfigError].
func New(config Config) (*Client, error) {
	base, err := config.baseURL()
	if err != nil {
		return nil, err
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	transport, err := config.transport()
	if err != nil {
		return nil, err
	}
	c := &Client{
		base:        base,
		credentials: credentials{config.PublicKey, config.PrivateKey},
		userAgent:   config.UserAgent,
		timeout:     config.RequestTimeout,
		transport:   transport,
		limits:      newLimiter(config.RequestsPerSecond, config.MaxInFlight),
		observer:    config.observer(),
	}
	if c.timeout == 0 {
		c.timeout = DefaultRequestTimeout
	}
	return c, nil
}

// Host is the address that the client calls, for a log: scheme and host only.
func (c *Client) Host() string { return c.base.Scheme + "://" + c.base.Host }

type request struct {
	method string
	path   string // with the base's prefix
	query  url.Values
	// beforeSend is asked directly before the request goes out, after the
	// waiting for the client's limits; its error sends nothing.
	beforeSend func() error
	// secret: the answer holds secrets, and is never quoted.
	secret bool
}

// target is what stands in the request line, and so in the digest's uri.
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
	// count, as it does with a GET whose connection was cut.
	resent bool
}

// request checks the ids before they become a part of a path.
func (c *Client) request(method, format string, ids ...string) (request, error) {
	segments := make([]any, len(ids))
	for i, id := range ids {
		if !ValidID(id) {
			return request{}, &Error{Kind: InvalidID, Method: method, Path: apiPath + strings.ReplaceAll(format, "%s", "{id}"), Detail: "an id must be 24 hex digits"}
		}
		segments[i] = id
	}
	return request{method: method, path: c.base.Path + apiPath + fmt.Sprintf(format, segments...)}, nil
}

// call sends a request within the client's limits and classifies the answer.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	sentAt, err := c.enter(ctx)
	if err != nil {
		return answer{}, c.networkError(r, err, false)
	}
	defer c.limits.leave()
	a, err := c.authenticated(ctx, r)
	if err != nil {
		return a, err
	}
	if a.status == http.StatusTooManyRequests {
		c.limits.refused(sentAt, parseRetryAfter(a.header.Get("Retry-After"), time.Now()))
	} else {
		c.limits.accepted(sentAt)
	}
	if a.status/100 != 2 {
		return a, c.statusError(r, a)
	}
	return a, nil
}

// enter waits until the client's limits let a request go out.
func (c *Client) enter(ctx context.Context) (sentAt time.Time, err error) {
	began := time.Now()
	sentAt, err = c.limits.enter(ctx)
	c.observer.Waited(time.Since(began))
	return sentAt, err
}

// exchange is one request on the wire, and its answer read to the end. An
// error means that no answer came.
func (c *Client) exchange(ctx context.Context, r request, authorization string) (answer, error) {
	if r.beforeSend != nil {
		if err := r.beforeSend(); err != nil {
			return answer{}, c.networkError(r, err, false)
		}
	}
	if r.method == http.MethodPut {
		ctx = context.WithoutCancel(ctx) // half a PUT has an unknown outcome
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var sendings atomic.Int32
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sendings.Add(1) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), r.method, c.Host(), nil)
	if err != nil {
		return answer{}, c.networkError(r, err, false)
	}
	req.URL.Path, req.URL.RawQuery = r.path, r.query.Encode()
	c.setHeaders(req, authorization)
	answered := c.sending(r.method)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		answered(0)
		return answer{}, c.networkError(r, err, sendings.Load() > 0)
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{status: resp.StatusCode, header: resp.Header, resent: sendings.Load() > 1}
	a.body, a.bodyErr = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	answered(a.status)
	return a, nil
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

// ValidID tells whether s is an Ops Manager id: 24 hex digits.
func ValidID(s string) bool {
	return len(s) == 24 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
