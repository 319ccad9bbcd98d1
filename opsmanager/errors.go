package opsmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Kind says what a failure means for the caller, whatever its status was.
type Kind string

const (
	// Unauthorized: 401 to a lone and fresh answer of a challenge.
	Unauthorized Kind = "Unauthorized"
	// Forbidden: 403, mainly the API access list.
	Forbidden Kind = "Forbidden"
	// NotFound: 404, an unknown or malformed id, or no backup configuration.
	NotFound Kind = "NotFound"
	// RateLimited: 429; the request was not carried out.
	RateLimited Kind = "RateLimited"
	// Unavailable: no answer, a 409 of an invalid state, or a 5xx; later it
	// may work.
	Unavailable Kind = "Unavailable"
	// EncryptionOff: the answer is the API's, but there is no key in it.
	EncryptionOff Kind = "EncryptionOff"
	// UnexpectedResponse: an answer that is not the API's.
	UnexpectedResponse Kind = "UnexpectedResponse"
	// InvalidID: not 24 hex digits; nothing was sent.
	InvalidID Kind = "InvalidID"
)

// maxDetail bounds what an error quotes of an answer, in bytes.
const maxDetail = 300

// maxRetryAfter bounds what is believed of a Retry-After header.
const maxRetryAfter = 24 * time.Hour

// Error is any failure of a call. It holds no secret.
type Error struct {
	Kind   Kind
	Method string
	// Path is the request's path and query, without the host.
	Path string
	// StatusCode is 0 where no answer came.
	StatusCode int
	// ErrorCode is Ops Manager's, such as CLUSTER_NOT_FOUND; empty where the
	// answer had none.
	ErrorCode string
	// Detail is the answer's own explanation, shortened.
	Detail string
	// RetryAfter is how long the server asks to be left alone; 0 = not said.
	RetryAfter time.Duration
	// OutcomeUnknown is set for a PUT that may have taken effect.
	OutcomeUnknown bool

	cause error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)
	switch {
	case e.StatusCode != 0:
		fmt.Fprintf(&b, "%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	case e.Kind == InvalidID:
		b.WriteString("not sent")
	default:
		b.WriteString("no answer")
	}
	if e.ErrorCode != "" {
		b.WriteString(" " + e.ErrorCode)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// Unwrap gives the error of the network below, if there was one.
func (e *Error) Unwrap() error { return e.cause }

// AsError finds the client's error in a chain.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// kindOfStatus is the one place where an answer's status becomes a Kind.
func kindOfStatus(status int) Kind {
	switch {
	case status == http.StatusUnauthorized:
		return Unauthorized
	case status == http.StatusForbidden:
		return Forbidden
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusTooManyRequests:
		return RateLimited
	case status == http.StatusConflict, status == http.StatusRequestTimeout, status >= 500:
		return Unavailable
	default:
		return UnexpectedResponse
	}
}

// mayHaveApplied tells the refusals, after which a PUT is known not to have
// taken effect, from the failures behind the server's front door.
func mayHaveApplied(status int) bool {
	return status == http.StatusRequestTimeout || status >= 500
}

func (c *Client) statusError(r request, a answer) *Error {
	e := &Error{
		Kind: kindOfStatus(a.status), Method: r.method, Path: r.target(), StatusCode: a.status,
		RetryAfter:     parseRetryAfter(a.header.Get("Retry-After"), time.Now()),
		OutcomeUnknown: r.method == http.MethodPut && mayHaveApplied(a.status),
	}
	e.ErrorCode, e.Detail = c.explanation(r, a)
	return e
}

// explanation reads the API's error object, or what a proxy says in HTML, where
// the answer may be quoted.
func (c *Client) explanation(r request, a answer) (code, detail string) {
	var body struct {
		ErrorCode string `json:"errorCode"`
		Detail    string `json:"detail"`
		Reason    string `json:"reason"`
	}
	if json.Unmarshal(a.body, &body) == nil && (body.ErrorCode != "" || body.Detail != "" || body.Reason != "") {
		if body.Detail == "" {
			body.Detail = body.Reason
		}
		return c.quote(body.ErrorCode), c.quote(body.Detail)
	}
	if location := a.header.Get("Location"); location != "" && a.status/100 == 3 {
		return "", c.quote("redirects are not followed, and this one leads to " + location)
	}
	if r.secret {
		return "", ""
	}
	return "", c.quote(textOfHTML(a.body))
}

var (
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	htmlTag   = regexp.MustCompile(`(?s)<[^>]*>`)
)

func textOfHTML(body []byte) string {
	const enough = 8 << 10
	if len(body) > enough {
		body = body[:enough]
	}
	if title := htmlTitle.FindSubmatch(body); title != nil {
		return string(title[1])
	}
	return htmlTag.ReplaceAllString(string(body), " ")
}

// quote makes foreign text fit for one line of a log or a history: printable,
// short, and without the private key, should a server repeat it.
func (c *Client) quote(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), c.credentials.privateKey, "[private key]")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) <= maxDetail {
		return s
	}
	cut := maxDetail
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func (c *Client) networkError(r request, err error, sent bool) *Error {
	return &Error{
		Kind: Unavailable, Method: r.method, Path: r.target(), Detail: c.quote(err.Error()),
		OutcomeUnknown: r.method == http.MethodPut && sent, cause: err,
	}
}

func (c *Client) unexpected(r request, a answer, problem string) *Error {
	return &Error{Kind: UnexpectedResponse, Method: r.method, Path: r.target(), StatusCode: a.status, Detail: c.quote(problem)}
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, section 10.2.3);
// 0 = not said, or nonsense.
func parseRetryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
