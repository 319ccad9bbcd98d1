package opsmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyturn/internal/retryafter"
)

// Kind says what a failure means for the caller, whatever its status was.
type Kind string

const (
	// Unauthorized: 401, and the API key is wrong or may not do this.
	Unauthorized Kind = "Unauthorized"
	// Forbidden: 403, mainly because of the API access list.
	Forbidden Kind = "Forbidden"
	// NotFound: 404, an unknown or malformed id, or no backup configuration.
	NotFound Kind = "NotFound"
	// RateLimited: 429; the request was not carried out.
	RateLimited Kind = "RateLimited"
	// Unavailable: no response, a 409 because of an invalid state, a 408, a 5xx,
	// or a list that keeps changing. A retry may succeed.
	Unavailable Kind = "Unavailable"
	// EncryptionOff: the response is the API's, but contains no key.
	EncryptionOff Kind = "EncryptionOff"
	// UnexpectedResponse: a response that is not the API's, a challenge that
	// cannot be answered, or a connection that is refused before the API is
	// reached (see [Error.ConnectionFault]).
	UnexpectedResponse Kind = "UnexpectedResponse"
	// InvalidID: not 24 hex digits; nothing was sent.
	InvalidID Kind = "InvalidID"
)

// maxDetail is the most that an error quotes of a response, in bytes.
const maxDetail = 300

// maxRetryAfter is the longest Retry-After that is believed.
const maxRetryAfter = 24 * time.Hour

// Error is any failure of a call. It holds no secret.
type Error struct {
	// Kind is never empty.
	Kind Kind
	// Method is GET or PUT.
	Method string
	// Path is the request's path and query, without the host.
	Path string
	// StatusCode is 0 if no response came.
	StatusCode int
	// ErrorCode is Ops Manager's, such as CLUSTER_NOT_FOUND; empty if the
	// response had none.
	ErrorCode string
	// Detail is the response's own explanation or the client's, in one line of at
	// most some 300 bytes.
	Detail string
	// RetryAfter is how long the server asks the client to wait, at most 24
	// hours; 0 = the response does not say.
	RetryAfter time.Duration
	// OutcomeUnknown is set for a PUT that may have taken effect.
	OutcomeUnknown bool

	fault ConnectionFault
	cause error
}

// Error names the request, the status, Ops Manager's error code and the detail.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)
	switch {
	case e.StatusCode != 0:
		fmt.Fprintf(&b, "%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	case e.Kind == InvalidID:
		b.WriteString("not sent")
	default:
		b.WriteString("no response")
	}
	if e.ErrorCode != "" {
		b.WriteString(" " + e.ErrorCode)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// Unwrap returns the error of the network or of the context, if there was one.
func (e *Error) Unwrap() error { return e.cause }

// AsError finds the first *Error in err's chain.
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

// mayHaveApplied reports whether a PUT may have taken effect that was answered
// with this status. A 4xx refuses it, and a 307 or 308 asks for the same request
// at another address. The other redirects may also follow a request that was
// carried out.
func mayHaveApplied(status int) bool {
	switch {
	case status == http.StatusRequestTimeout, status >= 500:
		return true
	case status == http.StatusTemporaryRedirect, status == http.StatusPermanentRedirect:
		return false
	}
	return status < 400
}

func (c *Client) statusError(r request, a answer) *Error {
	e := &Error{
		Kind: kindOfStatus(a.status), Method: r.method, Path: r.target(), StatusCode: a.status,
		RetryAfter:     retryafter.Parse(a.header, time.Now(), maxRetryAfter),
		OutcomeUnknown: r.method == http.MethodPut && mayHaveApplied(a.status),
	}
	e.ErrorCode, e.Detail = r.session.explanation(r, a)
	if a.status == http.StatusProxyAuthRequired && r.session.peer.proxy != nil {
		e.fault, e.Detail = ProxyAuthenticationRequired, "the proxy requires authentication"
	}
	return e
}

// codePattern is what an errorCode looks like; it holds no secret.
var codePattern = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,99}$`)

// explanation reads the API's error object, or the text of a proxy's HTML, unless
// the response must not be quoted.
func (s *session) explanation(r request, a answer) (code, detail string) {
	var body struct {
		ErrorCode string `json:"errorCode"`
		Detail    string `json:"detail"`
		Reason    string `json:"reason"`
	}
	if json.Unmarshal(a.body, &body) == nil && (body.ErrorCode != "" || body.Detail != "" || body.Reason != "") {
		if r.document {
			if !codePattern.MatchString(body.ErrorCode) {
				body.ErrorCode = ""
			}
			return body.ErrorCode, "the response's own text is left out: it may quote the automation configuration"
		}
		if body.Detail == "" {
			body.Detail = body.Reason
		}
		return s.quote(body.ErrorCode), s.quote(body.Detail)
	}
	if location := a.header.Get("Location"); location != "" && a.status/100 == 3 {
		return "", s.quote("redirects are not followed; this one leads to " + withoutQuery(location))
	}
	if r.secret {
		return "", ""
	}
	return "", s.quote(textOfHTML(a.body))
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

// withoutQuery leaves out what may hold a token.
func withoutQuery(location string) string {
	location, _, _ = strings.Cut(location, "?")
	location, _, _ = strings.Cut(location, "#")
	return location
}

// quote makes a server's text fit for one line of a log or a history: printable,
// short, and without the private key, in case a server repeats it.
func (s *session) quote(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), s.credentials.privateKey, "[private key]")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(text) <= maxDetail {
		return text
	}
	cut := maxDetail
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// networkError is a request without a response. sent means that it may have
// reached the server.
func (c *Client) networkError(r request, err error, sent bool) *Error {
	e := &Error{
		Kind: Unavailable, Method: r.method, Path: r.target(), Detail: r.session.quote(err.Error()),
		OutcomeUnknown: r.method == http.MethodPut && sent, cause: err,
	}
	if before, _, quotes := strings.Cut(err.Error(), `"`); r.document && quotes {
		e.Detail, e.cause = r.session.quote(before), nil // net/http quotes what is no HTTP
	}
	if refused := r.session.peer.refusalOf(err, sent); refused.fault != "" {
		e.Kind, e.fault, e.Detail = UnexpectedResponse, refused.fault, r.session.quote(refused.detail)
		e.OutcomeUnknown = e.OutcomeUnknown && !refused.certain
	}
	return e
}

func (c *Client) unexpected(r request, a answer, problem string) *Error {
	return &Error{Kind: UnexpectedResponse, Method: r.method, Path: r.target(), StatusCode: a.status, Detail: r.session.quote(problem)}
}

// truncated is a response whose body ended too early.
func (c *Client) truncated(r request, a answer) *Error {
	if r.document {
		// The cause may quote a line of the body.
		return c.networkError(r, errors.New("response body truncated"), true)
	}
	return c.networkError(r, fmt.Errorf("response body truncated: %w", a.bodyErr), true)
}
