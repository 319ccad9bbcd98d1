package simulator

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// Apply says what becomes of a PUT that meets a fault.
type Apply string

// What becomes of a PUT.
const (
	// ApplyNo leaves the key as it is.
	ApplyNo Apply = "no"
	// ApplyBefore rotates before anything else, a delay included.
	ApplyBefore Apply = "before"
	// ApplyLate rotates after Fault.ApplyAfter, even though the caller has gone.
	ApplyLate Apply = "late"
)

// Cut says when a connection is closed instead of answering.
type Cut string

// When a connection is closed.
const (
	CutNoAnswer Cut = "noAnswer" // without an answer
	CutHalfBody Cut = "halfBody" // after half of the body that the headers promise
)

// Answer replaces the body of an answer by one that depends on the request.
type Answer string

// The bodies that replace the natural one.
const (
	AnswerKey         Answer = "key"         // what a GET of the key shows, for a PUT
	AnswerKeyMissing  Answer = "keyMissing"  // the natural one without encryptionKeyUUID
	AnswerKeyNull     Answer = "keyNull"     // the natural one with "encryptionKeyUUID": null
	AnswerEmptyObject Answer = "emptyObject" // {}
	AnswerHalfBody    Answer = "halfBody"    // the first half of the natural one, with a length that fits it
	AnswerGarbage     Answer = "garbage"     // what is neither JSON nor text, called JSON
)

// Forever, as Fault.Times, lets a fault meet requests until ClearFaults.
const Forever = -1

// Fault is something that goes wrong: which requests it meets, and what happens
// to them. Faults are tried in the order of their injection, and a request
// meets the first one that matches it and has times left; a match that Skip
// lets pass goes on to the next fault. In JSON, durations are strings ("2s").
type Fault struct {
	// Name is what the ledger calls the fault; Inject makes one for an empty one.
	Name string `json:"name,omitempty"`

	// Method, Kind, ProjectID and ClusterID say which requests the fault
	// matches; an empty one means any. The ids are those of the path, whether
	// or not there is such a cluster.
	Method    string `json:"method,omitempty"`
	Kind      Kind   `json:"kind,omitempty"`
	ProjectID string `json:"projectId,omitempty"`
	ClusterID string `json:"clusterId,omitempty"`
	// BeforeAuthentication meets a request whatever its credentials, as a proxy
	// in front does. By default a fault meets authenticated requests only.
	BeforeAuthentication bool `json:"beforeAuthentication,omitempty"`
	// Skip is how many matching requests pass first.
	Skip int `json:"skip,omitempty"`
	// Times is how many requests meet the fault; 0 means 1, Forever all.
	Times int `json:"times,omitempty"`

	// Apply says what becomes of a PUT of a key or of a configuration. A fault that
	// may meet one must say it. A PUT that is refused, on a sharded parent for
	// example, isn't applied in any case.
	Apply Apply `json:"apply,omitempty"`
	// ApplyAfter is how long ApplyLate waits.
	ApplyAfter time.Duration `json:"applyAfter,omitempty"`
	// ShowAfter is how long GETs go on to show the previous key after this
	// rotation; 0 means what the Options say.
	ShowAfter time.Duration `json:"showAfter,omitempty"`

	// Rival is somebody else who changes the project's configuration within the
	// request; nil = nobody does.
	Rival *Rival `json:"rival,omitempty"`

	// Gated requests wait until ClearFaults, which lets those through that are
	// there: before the Delay, and after a PUT is applied (ApplyBefore). A PUT
	// with ApplyLate is applied ApplyAfter later than that: so a server can stand
	// still and then carry out the PUT that it took.
	Gated bool `json:"gated,omitempty"`
	// Delay is waited before whatever happens next.
	Delay time.Duration `json:"delay,omitempty"`
	// Hang never answers: it lasts until the caller goes, or the server stops.
	Hang bool `json:"hang,omitempty"`
	// Cut closes the connection.
	Cut Cut `json:"cut,omitempty"`
	// StaleNonce answers 401 with stale=true and a new nonce; the one that was
	// used stays stale.
	StaleNonce bool `json:"staleNonce,omitempty"`
	// StaleReads makes a GET of a key show the previous key once more. It
	// matches only where an earlier GET has shown the newer one already.
	StaleReads bool `json:"staleReads,omitempty"`

	// Status replaces the answer: by Body, which may be empty, or by Answer. 0
	// leaves the natural answer's status.
	Status int `json:"status,omitempty"`
	// Body is sent as it is; it needs a Status.
	Body string `json:"body,omitempty"`
	// ContentType of Body; empty means JSON, if there is a body.
	ContentType string `json:"contentType,omitempty"`
	// Answer replaces the body; it excludes Body.
	Answer Answer `json:"answer,omitempty"`
	// Header is set on the answer, Retry-After for example.
	Header map[string]string `json:"header,omitempty"`
}

// Skipping is the fault after n matching requests have passed.
func (f Fault) Skipping(n int) Fault {
	f.Skip = n
	return f
}

// Repeated is the fault meeting n requests.
func (f Fault) Repeated(n int) Fault {
	f.Times = n
	return f
}

// Always is the fault meeting requests until ClearFaults.
func (f Fault) Always() Fault {
	return f.Repeated(Forever)
}

// On is the fault for one kind of path only.
func (f Fault) On(kind Kind) Fault {
	f.Kind = kind
	return f
}

// AppliedAfter is the fault with its PUT applied late: after d, even though the
// caller has gone.
func (f Fault) AppliedAfter(d time.Duration) Fault {
	f.Apply, f.ApplyAfter = ApplyLate, d
	return f
}

// Validate returns an error if the fault is contradictory or has unknown
// values.
func (f Fault) Validate() error {
	return errors.Join(f.validateMatch(), f.validateApply(), f.validateAnswer(), f.Rival.validate())
}

func (f Fault) validateMatch() error {
	switch {
	case f.Kind != "" && !knownKind(f.Kind):
		return fmt.Errorf("kind: there is no %q", f.Kind)
	case f.Skip < 0:
		return errors.New("skip: must not be negative")
	case f.Times < Forever:
		return errors.New("times: must be -1 (forever) or more")
	case f.StaleReads && ((f.Method != "" && f.Method != http.MethodGet) || (f.Kind != "" && f.Kind != KindKey)):
		return errors.New("staleReads: only a GET of a key can be stale")
	case f.BeforeAuthentication && f.Rival != nil:
		return errors.New("rival: nobody acts before authentication")
	case f.BeforeAuthentication && !f.Hang && f.Cut != CutNoAnswer && (f.Status == 0 || f.Answer != ""):
		return errors.New("beforeAuthentication: needs a status with a body of its own, hang, or cut noAnswer")
	}
	return nil
}

func (f Fault) mayMeetRotation() bool {
	return (f.Method == "" || f.Method == http.MethodPut) &&
		(f.Kind == "" || f.Kind == KindKey || f.Kind == KindAutomationConfig) && !f.StaleReads
}

func (f Fault) validateApply() error {
	switch {
	case !slices.Contains([]Apply{"", ApplyNo, ApplyBefore, ApplyLate}, f.Apply):
		return fmt.Errorf("apply: there is no %q", f.Apply)
	case f.Apply == "" && f.mayMeetRotation():
		return errors.New("apply: must be said of a fault that may meet a PUT of a key or a configuration")
	case f.applies() && (f.BeforeAuthentication || f.StaleNonce):
		return errors.New("apply: nothing can be applied before authentication or with a stale nonce")
	case f.ApplyAfter < 0 || (f.ApplyAfter > 0 && f.Apply != ApplyLate):
		return errors.New("applyAfter: must not be negative, and goes with apply late only")
	case f.ShowAfter < 0 || (f.ShowAfter > 0 && !f.applies()):
		return errors.New("showAfter: must not be negative, and needs a PUT that is applied")
	}
	return nil
}

func (f Fault) applies() bool {
	return f.Apply == ApplyBefore || f.Apply == ApplyLate
}

func (f Fault) validateAnswer() error {
	answers := []Answer{
		"", AnswerKey, AnswerKeyMissing, AnswerKeyNull, AnswerEmptyObject, AnswerHalfBody, AnswerGarbage,
	}
	switch {
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return errors.New("status: must be 200 to 599")
	case f.Body != "" && (f.Status == 0 || f.Answer != ""):
		return errors.New("body: needs a status, and excludes answer")
	case f.ContentType != "" && f.Body == "":
		return errors.New("contentType: needs a body")
	case !slices.Contains(answers, f.Answer):
		return fmt.Errorf("answer: there is no %q", f.Answer)
	case !slices.Contains([]Cut{"", CutNoAnswer, CutHalfBody}, f.Cut):
		return fmt.Errorf("cut: there is no %q", f.Cut)
	case f.Delay < 0:
		return errors.New("delay: must not be negative")
	case f.Gated && (f.StaleNonce || f.BeforeAuthentication):
		return errors.New("gated: goes neither with staleNonce nor with beforeAuthentication")
	}
	return f.validateExclusions()
}

func (f Fault) validateExclusions() error {
	answers := f.Status != 0 || f.Answer != "" || len(f.Header) > 0
	ends := 0
	for _, chosen := range []bool{f.Hang, f.Cut != "", f.StaleNonce} {
		if chosen {
			ends++
		}
	}
	if ends > 1 || (answers && (f.Hang || f.StaleNonce || f.Cut == CutNoAnswer)) {
		return errors.New("hang, cut noAnswer and staleNonce exclude each other and every answer")
	}
	return nil
}

// armedFault is a fault and how many requests it has seen.
type armedFault struct {
	Fault
	skipped, met int
}

func (f *armedFault) spent() bool {
	return f.Times != Forever && f.met >= max(f.Times, 1)
}

// Inject adds a fault behind those that are there. It panics if Validate finds
// something wrong.
func (s *Simulator) Inject(f Fault) {
	if err := f.Validate(); err != nil {
		panic("simulator: fault " + f.Name + ": " + err.Error())
	}
	f.Header, f.Rival = maps.Clone(f.Header), f.Rival.clone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.injected++
	if f.Name == "" {
		f.Name = fmt.Sprintf("fault-%d", s.injected)
	}
	s.faults = append(s.faults, &armedFault{Fault: f})
}

// ClearFaults takes back every fault; requests that met one already go on as it
// says.
func (s *Simulator) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
	close(s.cleared)
	s.cleared = make(chan struct{})
}

// FaultsLeft is how many faults have times left, those that last forever not
// counted: 0 when everything that a test injected has happened.
func (s *Simulator) FaultsLeft() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := 0
	for _, f := range s.faults {
		if f.Times != Forever && !f.spent() {
			left++
		}
	}
	return left
}

// takeFault finds the fault that a request meets, and counts it.
func (s *Simulator) takeFault(c *call, beforeAuthentication bool) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.BeforeAuthentication != beforeAuthentication || f.spent() || !s.matches(f, c) {
			continue
		}
		if f.skipped < f.Skip {
			f.skipped++
			continue
		}
		f.met++
		c.cleared = s.cleared
		c.entry.Fault = f.Name
		c.staleRead = f.StaleReads
		return f.Fault, true
	}
	return Fault{}, false
}

func (s *Simulator) matches(f *armedFault, c *call) bool {
	if (f.Method != "" && f.Method != c.r.Method) ||
		(f.Kind != "" && f.Kind != c.route.kind) ||
		(f.ProjectID != "" && f.ProjectID != c.route.projectID) ||
		(f.ClusterID != "" && f.ClusterID != c.route.clusterID) {
		return false
	}
	return !f.StaleReads || s.canBeStale(c)
}

func (s *Simulator) canBeStale(c *call) bool {
	record := s.data.cluster(c.route.clusterID)
	return c.route.kind == KindKey && c.r.Method == http.MethodGet && record != nil && record.wasReadAsNewest()
}

// answer is the natural answer with what the fault replaces of it.
func (s *Simulator) answer(c *call, f Fault, refused *answer) answer {
	if f.Status != 0 && f.Answer == "" {
		return f.withHeader(f.literal())
	}
	a := s.natural(c, refused)
	switch f.Answer {
	case AnswerKey:
		a = s.keyObject(c)
	case AnswerKeyMissing:
		delete(a.body, "encryptionKeyUUID")
	case AnswerKeyNull:
		if a.body != nil { // a configuration is no such object
			a.body["encryptionKeyUUID"] = nil
		}
	case AnswerEmptyObject:
		a.body, a.list = map[string]any{}, false
	case AnswerHalfBody:
		_, whole := a.encode(c.r)
		a.raw, a.contentType = whole[:len(whole)/2], contentTypeJSON
	case AnswerGarbage:
		a.raw, a.contentType = []byte("\x00\x1f\x8b<{]not the API\xff\xfe"), contentTypeJSON
	}
	if f.Status != 0 {
		a.status = f.Status
	}
	return f.withHeader(a)
}

func (s *Simulator) keyObject(c *call) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.getKey(c)
}

func (f Fault) literal() answer {
	a := answer{status: f.Status, raw: []byte(f.Body), contentType: f.ContentType}
	if f.Body != "" && a.contentType == "" {
		a.contentType = contentTypeJSON
	}
	return a
}

func (f Fault) withHeader(a answer) answer {
	if len(f.Header) == 0 {
		return a
	}
	merged := maps.Clone(a.header)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, f.Header)
	a.header = merged
	return a
}
