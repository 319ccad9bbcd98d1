package opsmanager

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/icholy/digest"
)

// maxChallenges bounds the challenges answered for one request, so that a
// server that calls every nonce stale can't keep it going for ever.
const maxChallenges = 5

var errAlwaysStale = errors.New("the server calls every nonce stale")

type credentials struct{ publicKey, privateKey string }

// authenticated sends a request, answering the challenges that come.
//
// Each nonce serves one request at a time, so that a server sees its count
// grow in order, as RFC 7616 (section 3.4) lets it insist; parallel requests
// have nonces of their own, kept and used again. A 401 means wrong credentials
// only where a nonce that nobody else used, fresh, was refused without
// stale=true.
func (c *Client) authenticated(ctx context.Context, r request) (answer, error) {
	n := c.nonces.take()
	for try := range maxChallenges {
		if try > 0 {
			if err := c.another(ctx); err != nil {
				c.nonces.release(n)
				return answer{}, c.networkError(r, err, false)
			}
		}
		authorization, err := n.authorization(c.credentials, r)
		if err != nil {
			c.nonces.release(n)
			return answer{}, c.unexpected(r, answer{status: http.StatusUnauthorized}, err.Error())
		}
		a, err := c.exchange(ctx, r, authorization)
		if err != nil {
			c.nonces.release(n)
			return a, err
		}
		if a.status != http.StatusUnauthorized {
			c.nonces.accepted(n)
			return a, nil
		}
		challenge, found := findChallenge(a.header)
		if !found || !a.resent && c.nonces.refusedForGood(n, challenge) {
			c.nonces.release(n)
			return a, nil
		}
		c.nonces.replaced(n, challenge)
		if n, err = c.nonces.adopt(ctx, challenge); err != nil {
			return answer{}, c.networkError(r, err, false)
		}
	}
	c.nonces.release(n)
	return answer{}, c.networkError(r, errAlwaysStale, false)
}

// findChallenge gives the first digest challenge that can be answered; no other
// scheme is.
func findChallenge(header http.Header) (*digest.Challenge, bool) {
	for _, value := range header.Values("WWW-Authenticate") {
		challenge, err := digest.ParseChallenge(value)
		if err == nil && challenge.Nonce != "" && digest.CanDigest(challenge) && repeatable(challenge) {
			return challenge, true
		}
	}
	return nil, false
}

// repeatable tells whether all that is to be sent back of a challenge can be.
func repeatable(challenge *digest.Challenge) bool {
	for _, s := range []string{challenge.Realm, challenge.Nonce, challenge.Opaque} {
		if len(s) > 1024 || !quotable(s) {
			return false
		}
	}
	return true
}

// quotable tells what can stand between quotes in a header as it is: the library
// quotes as Go does, and no server knows the escapes that Go has for a character
// that can't be seen, such as a no-break space.
func quotable(s string) bool { return strconv.Quote(s) == `"`+s+`"` }

// nonce is a server's challenge and how often it has been answered.
type nonce struct {
	challenge *digest.Challenge
	count     int
	users     int
	shared    bool // used by more than one request since it was last idle
	mu        sync.Mutex
}

// authorization is the header's value for one request; empty without a nonce.
func (n *nonce) authorization(c credentials, r request) (string, error) {
	if n == nil {
		return "", nil
	}
	n.mu.Lock()
	n.count++
	count := n.count
	n.mu.Unlock()
	answered, err := digest.Digest(n.challenge, digest.Options{
		Method: r.method, URI: r.target(), Count: count, Username: c.publicKey, Password: c.privateKey,
	})
	if err != nil {
		return "", err
	}
	return answered.String(), nil
}

// sharing is what has been seen of a server that gives one nonce to several
// requests: whether it takes them in any order.
type sharing int

const (
	sharingUnseen sharing = iota
	sharingWorks
	sharingRefused
)

// noncePool keeps the nonces of one server. The zero value is ready.
type noncePool struct {
	mu      sync.Mutex
	known   []*nonce // the one used last stands last
	sharing sharing
	idle    chan struct{} // closed and replaced when a nonce becomes idle
}

// take gives a nonce that nobody uses, or nil: then the server is to be asked
// for one by a request without credentials.
func (p *noncePool) take() *nonce {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.known) - 1; i >= 0; i-- {
		if n := p.known[i]; n.users == 0 || p.sharing == sharingWorks {
			p.join(n)
			return n
		}
	}
	return nil
}

// adopt takes up the nonce of a challenge. Where the server gave the same one
// to another request that is still under way and insists on their order, it
// waits for that one to end.
func (p *noncePool) adopt(ctx context.Context, challenge *digest.Challenge) (*nonce, error) {
	for {
		p.mu.Lock()
		n := p.find(challenge.Nonce)
		if n == nil {
			n = &nonce{challenge: challenge}
			p.known = append(p.known, n)
		}
		if n.users == 0 || p.sharing != sharingRefused {
			p.join(n)
			p.mu.Unlock()
			return n, nil
		}
		if p.idle == nil {
			p.idle = make(chan struct{})
		}
		idle := p.idle
		p.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *noncePool) find(value string) *nonce {
	for _, n := range p.known {
		if n.challenge.Nonce == value {
			return n
		}
	}
	return nil
}

func (p *noncePool) join(n *nonce) {
	n.users++
	n.shared = n.shared || n.users > 1
}

// leave ends one use. The caller holds the lock.
func (p *noncePool) leave(n *nonce) {
	n.users--
	if n.users > 0 {
		return
	}
	n.shared = false
	if p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// accepted gives a nonce back for the next request.
func (p *noncePool) accepted(n *nonce) {
	if n == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.shared && p.sharing == sharingUnseen {
		p.sharing = sharingWorks
	}
	p.leave(n)
}

// release ends a use that says nothing about the nonce, such as an answer that
// never came: its count has grown, so that it can serve again.
func (p *noncePool) release(n *nonce) {
	if n == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(n)
}

// replaced ends a use that the server refused, and forgets the nonce where the
// server gives another one.
func (p *noncePool) replaced(n *nonce, challenge *digest.Challenge) {
	if n == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(n)
	if challenge.Nonce != n.challenge.Nonce {
		p.known = slices.DeleteFunc(p.known, func(known *nonce) bool { return known == n })
	}
}

// refusedForGood judges a 401: wrong credentials, or a nonce that was stale,
// forgotten or out of order and is worth another try with the new challenge.
func (p *noncePool) refusedForGood(n *nonce, next *digest.Challenge) bool {
	if n == nil || next.Stale {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.shared {
		p.sharing = sharingRefused
		return false
	}
	return n.count == 1 || next.Nonce == n.challenge.Nonce
}
