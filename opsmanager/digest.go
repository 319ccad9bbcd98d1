package opsmanager

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
)

const (
	// maxChallenges is how often one request is sent at most, so that a server
	// that refuses every nonce cannot prolong it without end.
	maxChallenges = 32
	// maxRefusals is how many answers of fresh challenges must be refused before
	// the API key counts as wrong. One is not enough: behind a balancer of
	// requests, the server that is asked may not be the one that made the nonce.
	// With two servers, right credentials are refused so often by chance once in
	// 4,000 times, and only until the client has seen that there are several
	// servers.
	maxRefusals = 12
	// sendingsPerNonce is how often one request answers the same fresh challenge:
	// behind a balancer that takes turns, one of as many servers knows it.
	sendingsPerNonce = 3
)

var errAlwaysStale = errors.New("the server refuses every nonce")

type credentials struct{ publicKey, privateKey string }

// authenticated sends a request and answers the challenges that come.
//
// Each connection has a nonce of its own, which serves one request at a time, so
// that a server sees its count grow in order, as RFC 7616 (section 3.4) lets it
// insist. A 401 means wrong credentials only where fresh nonces that nobody else
// used were refused, without stale=true, more often than several servers behind
// one address explain; or where the server refuses every nonce of a request, has
// refused some of the client's so, and has never accepted the credentials.
//
// A request that was refused with a 401 has not been carried out, so a PUT can be
// sent again after it. After anything else it is not sent again.
func (c *Client) authenticated(ctx context.Context, r request) (answer, error) {
	s := r.session
	over := s.connections.take()
	defer func() {
		if !s.connections.put(over) {
			s.nonces.drop(over.nonce)
		}
	}()
	var seen refusals
	for sending := 1; sending <= maxChallenges; sending++ {
		if sending > 1 {
			if err := c.waitRate(ctx); err != nil {
				return answer{}, c.networkError(r, err, false)
			}
		}
		a, done, err := c.sendOnce(ctx, r, over, &seen)
		if done || err != nil {
			return a, err
		}
	}
	if s.nonces.haveOnlyRefused() {
		return seen.last, nil
	}
	return answer{}, c.networkError(r, errAlwaysStale, false)
}

// refusals is what one request has met so far.
type refusals struct {
	unexplained int // refusals of a fresh nonce, without stale=true
	fresh       int // refusals of a fresh nonce
	ofNonce     int // refusals of the connection's present nonce
	last        answer
}

// sendOnce sends a request once, with an answer to the connection's challenge if
// it has one. done means that this is the response, whatever it is.
func (c *Client) sendOnce(ctx context.Context, r request, over *connection, seen *refusals) (a answer, done bool, err error) {
	nonces, n := &r.session.nonces, over.nonce
	if err := nonces.begin(ctx, n); err != nil {
		return answer{}, false, c.networkError(r, err, false)
	}
	defer nonces.end(n)
	authorization, err := n.authorization(r)
	if err != nil {
		return answer{}, false, c.unexpected(r, answer{status: http.StatusUnauthorized}, err.Error())
	}
	a, err = c.exchange(ctx, r, over, authorization)
	if err != nil {
		return a, false, err
	}
	if a.status != http.StatusUnauthorized || isLockedByOthers(a) {
		nonces.accepted(n, seen.unexplained > 0)
		if value := nextNonce(a.header); value != "" && n != nil {
			nonces.replace(over, n.challenge.withNonce(value))
		}
		return a, true, nil
	}
	next, err := findChallenge(a.header)
	switch {
	case errors.Is(err, errNoChallenge) && n != nil:
		return a, true, nil
	case err != nil:
		return a, false, c.unexpected(r, a, err.Error())
	}
	verdict := nonces.refused(n, next, a.resent)
	seen.last = a
	if verdict.unexplained {
		seen.unexplained++
	}
	if seen.unexplained >= nonces.refusalsToBelieve() {
		nonces.expectOneServer()
		return a, true, nil
	}
	if verdict.fresh {
		seen.fresh++
	}
	if seen.ofNonce++; verdict.fresh && seen.fresh > 1 && seen.ofNonce < sendingsPerNonce {
		return a, false, nil // another server may know the nonce
	}
	seen.ofNonce = 0
	nonces.replace(over, next)
	return a, false, nil
}

// nonce is a server's challenge and how often it has been answered.
type nonce struct {
	challenge *challenge
	cnonce    string // for a -sess algorithm, whose key depends on the first one

	mu    sync.Mutex
	count int

	// The noncePool's lock guards these.
	holders int  // connections
	users   int  // requests in progress
	shared  bool // used by more than one request since it was last unused
}

// authorization returns the header's value for one request, empty without a
// nonce.
func (n *nonce) authorization(r request) (string, error) {
	if n == nil {
		return "", nil
	}
	n.mu.Lock()
	n.count++
	count := n.count
	n.mu.Unlock()
	cnonce := n.cnonce
	if !n.challenge.session {
		cnonce = newCnonce()
	}
	return n.challenge.answer(r.session.credentials, r, count, cnonce)
}

func newCnonce() string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // it never fails
	return hex.EncodeToString(random)
}

// sharing is what is known about a server that gives one nonce to several
// connections: whether it accepts the counts in any order.
type sharing int

const (
	sharingUnknown sharing = iota
	sharingWorks
	sharingRefused
)

// noncePool has the nonces of one server, or of several behind one address. The
// zero value is ready for use.
type noncePool struct {
	mu      sync.Mutex
	known   map[string]*nonce
	sharing sharing
	unused  chan struct{} // closed and replaced when a nonce is no longer used
	// severalServers: a fresh nonce was refused and another one accepted, so that
	// a refusal proves little about the credentials.
	severalServers bool
	everAccepted   bool // the credentials were right at least once
	everRefused    bool // without stale=true, of a fresh nonce
}

// begin starts a use of a nonce. Where another connection uses the same nonce
// and the server insists on the order of the counts, it waits for the end of
// that use.
func (p *noncePool) begin(ctx context.Context, n *nonce) error {
	if n == nil {
		return nil
	}
	for {
		p.mu.Lock()
		if n.users == 0 || p.sharing != sharingRefused {
			n.users++
			n.shared = n.shared || n.users > 1
			p.mu.Unlock()
			return nil
		}
		if p.unused == nil {
			p.unused = make(chan struct{})
		}
		unused := p.unused
		p.mu.Unlock()
		select {
		case <-unused:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end ends a use of a nonce.
func (p *noncePool) end(n *nonce) {
	if n == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.users--; n.users > 0 {
		return
	}
	n.shared = false
	if p.unused != nil {
		close(p.unused)
		p.unused = nil
	}
}

// accepted notes that the server accepted an answer, afterRefusals that it had
// refused fresh ones of the same request.
func (p *noncePool) accepted(n *nonce, afterRefusals bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.everAccepted = p.everAccepted || n != nil
	p.severalServers = p.severalServers || afterRefusals
	if n != nil && n.shared && p.sharing == sharingUnknown {
		p.sharing = sharingWorks
	}
}

// haveOnlyRefused reports whether an answer was refused that the server did not
// call stale, of whichever request, and none was ever accepted. Of many requests
// with wrong credentials, a server that soon forgets its nonces may call every
// answer of one stale.
func (p *noncePool) haveOnlyRefused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.everRefused && !p.everAccepted
}

// refusal says what a 401 means for the nonce that was used.
type refusal struct {
	fresh       bool // it was the first use of the nonce, by this request alone
	unexplained bool // and the server does not call it stale: the credentials may be wrong
}

// refused judges a 401, which brought the next challenge. resent requests prove
// nothing: their count was used twice.
func (p *noncePool) refused(n *nonce, next *challenge, resent bool) refusal {
	if n == nil {
		return refusal{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.shared {
		if !next.Stale {
			p.sharing = sharingRefused
		}
		return refusal{}
	}
	if resent {
		return refusal{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fresh := n.count == 1
	if fresh {
		n.count = 0 // a server that does not know the nonce has not counted it
	}
	unexplained := !next.Stale && (fresh || next.Nonce == n.challenge.Nonce)
	p.everRefused = p.everRefused || unexplained
	return refusal{fresh: fresh, unexplained: unexplained}
}

// refusalsToBelieve is how many unexplained refusals of one request prove that
// the credentials are wrong.
func (p *noncePool) refusalsToBelieve() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.severalServers {
		return maxChallenges - 1 // all but the first sending, which has no answer
	}
	return maxRefusals
}

// expectOneServer forgets that there are several servers, once not even that
// explains the refusals.
func (p *noncePool) expectOneServer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.severalServers = false
}

// replace gives a connection the nonce of a challenge. Connections to which the
// server gave the same one share it.
func (p *noncePool) replace(over *connection, by *challenge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.known[by.Nonce]
	if n == nil {
		n = &nonce{challenge: by, cnonce: newCnonce()}
		if p.known == nil {
			p.known = map[string]*nonce{}
		}
		p.known[by.Nonce] = n
	}
	n.holders++
	p.release(over.nonce)
	over.nonce = n
}

// drop forgets the nonce of a connection that is no longer kept.
func (p *noncePool) drop(n *nonce) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(n)
}

func (p *noncePool) release(n *nonce) {
	if n == nil {
		return
	}
	if n.holders--; n.holders == 0 {
		delete(p.known, n.challenge.Nonce)
	}
}
