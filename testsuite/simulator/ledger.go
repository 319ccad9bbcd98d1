package simulator

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// Outcome is how a request ended.
type Outcome string

// The outcomes. A request that is under way has none.
const (
	OutcomeAnswered  Outcome = "answered"
	OutcomeCut       Outcome = "cut"       // the connection was closed without an answer, or after half of one
	OutcomeHung      Outcome = "hung"      // never answered; set as soon as it hangs
	OutcomeAbandoned Outcome = "abandoned" // the caller went during a delay
)

// Request is one request to the API, as the ledger keeps it. No part of it is
// secret.
type Request struct {
	// Seq counts the requests from 1.
	Seq int `json:"seq"`
	// Start is when it arrived; End is just before its answer was sent, or its
	// connection closed, and zero as long as it is under way.
	Start time.Time `json:"start"`
	End   time.Time `json:"end,omitzero"`

	Method string `json:"method"`
	// Path is the request's target with prefix and query.
	Path      string `json:"path"`
	Kind      Kind   `json:"kind"`
	ProjectID string `json:"projectId,omitempty"`
	ClusterID string `json:"clusterId,omitempty"`

	Outcome Outcome `json:"outcome"`
	// Status is the HTTP status that was sent, 0 for none.
	Status int `json:"status,omitempty"`

	// Authorization says whether the request had such a header, Authenticated
	// whether it was right, and Refusal why it wasn't.
	Authorization bool   `json:"authorization"`
	Authenticated bool   `json:"authenticated"`
	Refusal       string `json:"refusal,omitempty"`
	// Challenge says that the answer was 401 with a challenge, Stale that it
	// had stale=true.
	Challenge bool `json:"challenge,omitempty"`
	Stale     bool `json:"stale,omitempty"`
	// PublicKey, Nonce and NonceCount are those that the request came with.
	PublicKey  string `json:"publicKey,omitempty"`
	Nonce      string `json:"nonce,omitempty"`
	NonceCount uint64 `json:"nonceCount,omitempty"`

	// Fault is the name of the fault that the request met.
	Fault string `json:"fault,omitempty"`
	// Applied says that a PUT gave the cluster another key, or the project another
	// configuration, OnParent that it
	// named a sharded cluster as a whole, which must never happen.
	Applied  bool `json:"applied,omitempty"`
	OnParent bool `json:"onParent,omitempty"`
}

// Rotation is a PUT that was applied.
type Rotation struct {
	AppliedAt time.Time `json:"appliedAt"`
	ProjectID string    `json:"projectId"`
	ClusterID string    `json:"clusterId"`
	// PreviousKey is empty for an entity's first key.
	PreviousKey string `json:"previousKey"`
	NewKey      string `json:"newKey"`
	// Request is the Seq of the PUT, in the run of the simulator that it was
	// sent to.
	Request int `json:"request"`
}

// Ledger is what was asked of a simulator, and what was applied.
type Ledger struct {
	// Requests are in the order of their arrival.
	Requests []Request `json:"requests"`
	// Dropped is how many requests were older than those that
	// Options.KeepRequests kept.
	Dropped int `json:"dropped,omitempty"`
	// Rotations are in the order in which they were applied.
	Rotations []Rotation `json:"rotations"`
	// Publications are the automation configurations that were sent or published, in
	// the order of their arrival, and MemberRotations the new keys of processes.
	Publications    []Publication    `json:"publications,omitempty"`
	MemberRotations []MemberRotation `json:"memberRotations,omitempty"`
}

// Ledger is a copy of the ledger as it is now.
func (s *Simulator) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copyLedger()
}

func (s *Simulator) copyLedger() Ledger {
	l := Ledger{
		Requests:  make([]Request, len(s.requests)),
		Rotations: slices.Clone(s.data.Rotations),
		Dropped:   s.dropped,

		Publications:    slices.Clone(s.data.Publications),
		MemberRotations: slices.Clone(s.data.MemberRotations),
	}
	for i, r := range s.requests {
		l.Requests[i] = *r
	}
	return l
}

// ResetLedger forgets the requests, rotations and publications so far; keys and
// configurations stay.
func (s *Simulator) ResetLedger() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
	s.data.Rotations, s.data.Publications, s.data.MemberRotations = nil, nil, nil
	s.mustSave()
}

// Await returns when the ledger fulfils a condition, which is asked at the
// beginning and at each change, or with the context's error.
func (s *Simulator) Await(ctx context.Context, fulfilled func(Ledger) bool) error {
	for {
		s.mu.Lock()
		ledger, changed := s.copyLedger(), s.changed
		s.mu.Unlock()
		if fulfilled(ledger) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// announce wakes those who await a change. The lock is held.
func (s *Simulator) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Select gives the requests that fulfil a condition, in order.
func (l Ledger) Select(fulfils func(Request) bool) []Request {
	var selected []Request
	for _, r := range l.Requests {
		if fulfils(r) {
			selected = append(selected, r)
		}
	}
	return selected
}

// Applied gives the rotations of a cluster, or all for an empty id.
func (l Ledger) Applied(clusterID string) []Rotation {
	var applied []Rotation
	for _, r := range l.Rotations {
		if clusterID == "" || r.ClusterID == clusterID {
			applied = append(applied, r)
		}
	}
	return applied
}

// Count is the number of authenticated requests with a method and a cluster id,
// of which an empty one means any.
func (l Ledger) Count(method, clusterID string) int {
	return len(l.Select(func(r Request) bool {
		return r.Authenticated && (method == "" || r.Method == method) && (clusterID == "" || r.ClusterID == clusterID)
	}))
}

// Challenges is the number of 401 answers that were a challenge.
func (l Ledger) Challenges() int {
	return len(l.Select(func(r Request) bool { return r.Challenge }))
}

// PutsOnParents gives the PUTs that named a sharded cluster as a whole: there
// must be none.
func (l Ledger) PutsOnParents() []Request {
	return l.Select(func(r Request) bool { return r.OnParent })
}

// MaxInFlight is the greatest number of authenticated requests that were under
// way at one time. A request that a caller gave up counts until the simulator
// notices that, which may be after the caller's next one.
func (l Ledger) MaxInFlight() int {
	return l.MaxConcurrent(func(r Request) bool { return r.Authenticated })
}

// MaxConcurrent is MaxInFlight of the requests that fulfil a condition.
func (l Ledger) MaxConcurrent(fulfils func(Request) bool) int {
	type edge struct {
		at     time.Time
		change int
	}
	var edges []edge
	for _, r := range l.Select(fulfils) {
		edges = append(edges, edge{r.Start, 1})
		if !r.End.IsZero() {
			edges = append(edges, edge{r.End, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if order := a.at.Compare(b.at); order != 0 {
			return order
		}
		return a.change - b.change
	})
	most, now := 0, 0
	for _, e := range edges {
		now += e.change
		most = max(most, now)
	}
	return most
}

// MaxPer is the greatest number of authenticated requests that arrived within
// any span of the given length.
func (l Ledger) MaxPer(span time.Duration) int {
	arrived := l.Select(func(r Request) bool { return r.Authenticated })
	most, first := 0, 0
	for i, r := range arrived {
		for r.Start.Sub(arrived[first].Start) >= span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// call is a request on its way through the simulator.
type call struct {
	s     *Simulator
	w     http.ResponseWriter
	r     *http.Request
	route route
	// body is that of a publication, and bodyErr why it is not whole.
	body    []byte
	bodyErr error
	// guard checks the credentials: that of the server which the request reached.
	guard *digestGuard
	// key is the API key that the request was authenticated with.
	key APIKey
	// staleRead makes a GET show the key before the one it would show.
	staleRead bool
	// cleared is closed when the fault that the request met is taken back.
	cleared <-chan struct{}
	// entry is the request in the ledger, changed under the simulator's lock and,
	// but for Applied, only by its call.
	entry *Request
}

// begin enters a request into the ledger.
func (s *Simulator) begin(w http.ResponseWriter, r *http.Request, to route) *call {
	c := &call{s: s, w: w, r: r, route: to, guard: s.digest.choose(r), entry: &Request{
		Method: r.Method, Path: r.RequestURI,
		Kind: to.kind, ProjectID: to.projectID, ClusterID: to.clusterID,
		Authorization: r.Header.Get("Authorization") != "",
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.entry.Start = time.Now()
	s.arrived++
	c.entry.Seq = s.arrived
	s.requests = append(s.requests, c.entry)
	if keep := s.options.KeepRequests; keep > 0 && len(s.requests) > keep {
		s.requests[0] = nil
		s.requests = s.requests[1:]
		s.dropped++
	}
	s.announce()
	return c
}

// note changes the request's entry.
func (c *call) note(change func(*Request)) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	change(c.entry)
	c.s.announce()
}

// authenticated reports whether the request's credentials were right.
func (c *call) authenticated() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.entry.Authenticated
}

// finish notes how the request ended; the caller learns of it after that.
func (c *call) finish(outcome Outcome, status int) {
	c.note(func(entry *Request) {
		entry.Outcome, entry.Status, entry.End = outcome, status, time.Now()
	})
}

func (s *Simulator) noteCredentials(c *call, given credentials) {
	c.key = s.access.key(given.publicKey)
	c.note(func(entry *Request) {
		entry.PublicKey, entry.Nonce, entry.NonceCount = given.publicKey, given.nonce, given.nonceCount
		entry.Refusal, entry.Authenticated = given.refusal, given.refusal == ""
	})
}

// refuseAsStale answers a request with right credentials as though their nonce
// had expired.
func (s *Simulator) refuseAsStale(c *call) {
	c.guard.forget(c.entry.Nonce)
	c.note(func(entry *Request) {
		entry.Authenticated, entry.Refusal = false, RefusalStaleNonce
	})
	c.send(challenge(true))
}
