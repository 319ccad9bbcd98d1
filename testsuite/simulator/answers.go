package simulator

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
)

// Content types of the answers.
const (
	contentTypeJSON = "application/json"
	contentTypeHTML = "text/html; charset=utf-8"
)

// answer is an HTTP answer before it is written.
type answer struct {
	status int
	// body is encoded as JSON, unless raw is set.
	body map[string]any
	raw  []byte
	// contentType of raw.
	contentType string
	header      map[string]string
	// list bodies are their own envelope.
	list bool
	// challenge adds one with a new nonce.
	challenge, stale bool
	// plain answers ignore envelope and pretty: they are not the API's.
	plain bool
}

func object(status int, body map[string]any) answer {
	return answer{status: status, body: body}
}

// apiError is an error as Ops Manager words it; code may be empty.
func apiError(status int, code, detail string, parameters ...string) *answer {
	return &answer{status: status, body: errorBody(status, code, detail, parameters...)}
}

func errorBody(status int, code, detail string, parameters ...string) map[string]any {
	if parameters == nil {
		parameters = []string{}
	}
	body := map[string]any{
		"detail": detail, "error": status, "reason": http.StatusText(status), "parameters": parameters,
	}
	if code != "" {
		body["errorCode"] = code
	}
	return body
}

// unauthorized is a 401 to a key that is right but may not do this. As every
// 401 it carries a challenge, which doesn't help.
func unauthorized(code, detail string, parameters ...string) *answer {
	refused := apiError(http.StatusUnauthorized, code, detail, parameters...)
	refused.challenge = true
	return refused
}

// challenge is the 401 of a request without right credentials.
func challenge(stale bool) answer {
	a := apiError(http.StatusUnauthorized, "USER_UNAUTHORIZED", "You are not authorized for this resource.")
	a.challenge, a.stale, a.plain = true, stale, true
	return *a
}

// encode writes the body as the query asks for it, and says which status the
// answer has: in an envelope it is always 200.
func (a answer) encode(r *http.Request) (status int, body []byte) {
	if a.raw != nil || a.body == nil {
		return a.status, a.raw
	}
	status, content := a.status, a.body
	if !a.plain && flag(r, "envelope") {
		content = enveloped(a)
		status = http.StatusOK
	}
	return status, marshal(content, !a.plain && flag(r, "pretty"))
}

func enveloped(a answer) map[string]any {
	if !a.list {
		return map[string]any{"status": a.status, "content": a.body}
	}
	content := maps.Clone(a.body)
	content["status"] = a.status
	return content
}

func marshal(content any, pretty bool) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if pretty {
		encoder.SetIndent("", "  ")
	}
	if err := encoder.Encode(content); err != nil {
		panic("simulator: " + err.Error())
	}
	return bytes.TrimRight(buffer.Bytes(), "\n")
}

func flag(r *http.Request, name string) bool {
	return r.URL.Query().Get(name) == "true"
}

// send writes an answer. It is in the ledger before the caller can see it.
func (c *call) send(a answer) {
	status, body := c.prepare(a)
	c.finish(OutcomeAnswered, status)
	c.w.WriteHeader(status)
	if bodyAllowed(status) {
		_, _ = c.w.Write(body)
	}
}

// sendHalf promises a whole body, sends half of it and cuts the connection.
func (c *call) sendHalf(a answer) {
	status, body := c.prepare(a)
	c.finish(OutcomeCut, status)
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body[:len(body)/2])
	_ = http.NewResponseController(c.w).Flush()
	panic(http.ErrAbortHandler)
}

// cut closes the connection without an answer.
func (c *call) cut() {
	c.finish(OutcomeCut, 0)
	panic(http.ErrAbortHandler)
}

// hang keeps the caller waiting until it goes.
func (c *call) hang() {
	c.note(func(entry *Request) { entry.Outcome = OutcomeHung })
	select {
	case <-c.r.Context().Done():
	case <-c.s.life.Done():
	}
	c.finish(OutcomeHung, 0)
	panic(http.ErrAbortHandler)
}

// prepare sets the headers of an answer and gives its status and body.
func (c *call) prepare(a answer) (status int, body []byte) {
	status, body = a.encode(c.r)
	header := c.w.Header()
	switch {
	case a.contentType != "":
		header.Set("Content-Type", a.contentType)
	case len(body) > 0:
		header.Set("Content-Type", contentTypeJSON)
	}
	if status == http.StatusOK {
		header.Set("X-MongoDB-Service-Version", c.s.options.ServiceVersion)
	}
	if a.challenge {
		for _, line := range c.guard.challenge(a.stale) {
			header.Add("WWW-Authenticate", line)
		}
	}
	if c.s.options.NextNonce && c.authenticated() {
		header.Set("Authentication-Info", `qop=auth, nextnonce="`+c.guard.newNonce()+`"`)
	}
	for name, value := range a.header {
		header.Set(name, value)
	}
	if bodyAllowed(status) {
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	isChallenge := status == http.StatusUnauthorized && header.Get("WWW-Authenticate") != ""
	c.note(func(entry *Request) { entry.Challenge, entry.Stale = isChallenge, isChallenge && a.stale })
	return status, body
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}
