package opsmanager

import (
	"net/http"
	"sync"
)

// connection is one connection to the server, made again when it is closed, and
// the nonce of the digest challenge that it brought. It serves one request at a
// time: a challenge is answered over the connection that it came from, so that
// behind a balancer of connections it reaches the server that knows its nonce.
type connection struct {
	transport http.RoundTripper
	nonce     *nonce // nil: none is known
}

// connectionPool keeps the connections that are not in use.
type connectionPool struct {
	newTransport func() http.RoundTripper

	mu     sync.Mutex
	idle   []*connection // the one used last is last
	closed bool
}

// take returns the idle connection that was used last, or a new one.
func (p *connectionPool) take() *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		c := p.idle[last]
		p.idle = p.idle[:last]
		return c
	}
	return &connection{transport: p.newTransport()}
}

// put returns a connection and reports whether the pool keeps it.
func (p *connectionPool) put(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdleConnections {
		closeIdle(c.transport)
		return false
	}
	p.idle = append(p.idle, c)
	return true
}

// close closes the idle connections now and the others when they are put back.
func (p *connectionPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		closeIdle(c.transport)
	}
	p.idle = nil
}

func closeIdle(transport http.RoundTripper) {
	if t, ok := transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
