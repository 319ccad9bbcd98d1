package kmipevidence

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"

	"keyturn/internal/reload"
)

const (
	// maxConnections is how many requests are under way at a time; further ones
	// wait within their own timeout.
	maxConnections = 4
	// maxIdleTime is how long a connection may have been idle before it carries
	// a request: servers and firewalls drop idle connections silently.
	maxIdleTime = 30 * time.Second
)

// versions are those that are tried, in this order. A server that holds keys of
// MongoDB speaks one of them: mongod speaks 1.2, and 1.0 or 1.1 with its setting
// useLegacyProtocol. The three operations are the same in all of them.
var versions = []kmip.ProtocolVersion{kmip.V1_2, kmip.V1_1, kmip.V1_0}

// keyServer is all that is ever asked of a KMIP server.
type keyServer interface {
	// Query returns the operations that the server offers.
	Query(ctx context.Context) ([]kmip.Operation, error)
	// Locate returns up to limit ids of the symmetric keys that the client may
	// see.
	Locate(ctx context.Context, limit int32) ([]string, error)
	// GetAttributes returns the named attributes of one object.
	GetAttributes(ctx context.Context, id string, names []kmip.AttributeName) ([]kmip.Attribute, error)
}

// pool is a keyServer over connections that are kept between calls. A call that
// finds its connection closed is repeated once over a new one: all three only
// read.
type pool struct {
	config Config
	files  *reload.Value[*credentials]
	slots  chan struct{}

	mu      sync.Mutex
	idle    []*connection
	version kmip.ProtocolVersion // zero = not known
	closed  bool
}

func newPool(config Config, files *reload.Value[*credentials]) *pool {
	return &pool{config: config, files: files, slots: make(chan struct{}, maxConnections)}
}

func (p *pool) Query(ctx context.Context) ([]kmip.Operation, error) {
	answer, err := call[*payloads.QueryResponsePayload](ctx, p, queryOperations())
	if err != nil {
		return nil, err
	}
	return answer.Operations, nil
}

func (p *pool) Locate(ctx context.Context, limit int32) ([]string, error) {
	answer, err := call[*payloads.LocateResponsePayload](ctx, p, &payloads.LocateRequestPayload{
		MaximumItems: limit,
		Attribute:    []kmip.Attribute{{AttributeName: kmip.AttributeNameObjectType, AttributeValue: kmip.ObjectTypeSymmetricKey}},
	})
	if err != nil {
		return nil, err
	}
	return answer.UniqueIdentifier, nil
}

func (p *pool) GetAttributes(ctx context.Context, id string, names []kmip.AttributeName) ([]kmip.Attribute, error) {
	answer, err := call[*payloads.GetAttributesResponsePayload](ctx, p, &payloads.GetAttributesRequestPayload{UniqueIdentifier: id, AttributeName: names})
	if err != nil {
		return nil, err
	}
	if answer.UniqueIdentifier != id {
		return nil, errors.New("the answer is about a different object from the one that was asked for")
	}
	return answer.Attribute, nil
}

func queryOperations() *payloads.QueryRequestPayload {
	return &payloads.QueryRequestPayload{QueryFunction: []kmip.QueryFunction{kmip.QueryFunctionOperations}}
}

// call waits for a slot and makes the request over an idle connection, or over a
// new one.
func call[Answer kmip.OperationPayload](ctx context.Context, p *pool, request kmip.OperationPayload) (Answer, error) {
	var none Answer
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	answer, err := p.send(ctx, request)
	if err != nil {
		return none, err
	}
	typed, ok := answer.(Answer)
	if !ok {
		return none, errors.New("the answer is for a different operation")
	}
	return typed, nil
}

func (p *pool) send(ctx context.Context, request kmip.OperationPayload) (kmip.OperationPayload, error) {
	current := p.files.Latest() // Check reports files that cannot be used
	if conn := p.takeIdle(current); conn != nil {
		answer, err := conn.roundtrip(ctx, p.knownVersion(), request)
		p.giveBack(conn, err)
		if err == nil || !conn.broken || ctx.Err() != nil {
			return answer, err
		}
	}
	conn, err := dial(ctx, p.config, current)
	if err != nil {
		return nil, orContext(ctx, err)
	}
	version, err := p.negotiate(ctx, conn)
	if err != nil {
		conn.close()
		return nil, err
	}
	answer, err := conn.roundtrip(ctx, version, request)
	p.giveBack(conn, err)
	return answer, err
}

// negotiate finds a version that the server speaks, where none is known yet.
func (p *pool) negotiate(ctx context.Context, conn *connection) (kmip.ProtocolVersion, error) {
	if version := p.knownVersion(); version != (kmip.ProtocolVersion{}) {
		return version, nil
	}
	var err error
	for _, version := range versions {
		if _, err = conn.roundtrip(ctx, version, queryOperations()); err == nil {
			p.setVersion(version)
			return version, nil
		}
		if !isInvalidMessage(err) {
			break
		}
	}
	return kmip.ProtocolVersion{}, err
}

func (p *pool) knownVersion() kmip.ProtocolVersion {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version
}

func (p *pool) setVersion(version kmip.ProtocolVersion) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version = version
}

// takeIdle returns the connection that was used last, and closes those that must
// not be used any more; nil = there is none.
func (p *pool) takeIdle(current *credentials) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.idle = slices.DeleteFunc(p.idle, func(conn *connection) bool {
		if conn.isReusable(current, now) {
			return false
		}
		conn.close()
		return true
	})
	if len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	conn := p.idle[last]
	p.idle = p.idle[:last]
	return conn
}

// giveBack keeps the connection after a request that ended with err, or closes it.
// A server that calls a request invalid may have been replaced by one of another
// version.
func (p *pool) giveBack(conn *connection, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isInvalidMessage(err) {
		p.version, conn.broken = kmip.ProtocolVersion{}, true
	}
	if conn.broken || p.closed {
		conn.close()
		return
	}
	p.idle = append(p.idle, conn)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.idle {
		conn.close()
	}
	p.idle = nil
}
