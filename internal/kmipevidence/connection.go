package kmipevidence

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/ttlv"
)

// maxAnswerSize bounds one answer, in bytes. One about seven attributes has a few
// hundred.
const maxAnswerSize = 64 << 10

// connection is one TLS session with the KMIP server. It carries one request at
// a time.
//
// It is built on the library's messages and not on its kmipclient package: that
// client keeps using a connection that was reset, can send on a closed channel
// when the server closes a connection as a request begins, and asks for the
// server's versions by an operation that is none of the three.
type connection struct {
	session     *tls.Conn
	stream      ttlv.Stream
	credentials *credentials
	lastUsed    time.Time
	// broken: it must not carry another request.
	broken bool
}

func dial(ctx context.Context, config Config, current *credentials) (*connection, error) {
	if err := config.checkExpiry(current, time.Now()); err != nil {
		return nil, err
	}
	dialed, err := (&tls.Dialer{Config: current.tls}).DialContext(ctx, "tcp", config.Address)
	if err != nil {
		return nil, err
	}
	session := dialed.(*tls.Conn) // tls.Dialer's own promise
	return &connection{session: session, stream: ttlv.NewStream(session, maxAnswerSize), credentials: current}, nil
}

func (c *connection) close() { _ = c.session.Close() } // nothing is sent that could be lost

// roundtrip sends one request and returns the payload of its answer. An answer
// that says no is a *resultError and leaves the connection usable.
func (c *connection) roundtrip(ctx context.Context, version kmip.ProtocolVersion, request kmip.OperationPayload) (answer kmip.OperationPayload, err error) {
	c.broken = true
	stop := context.AfterFunc(ctx, func() { _ = c.session.SetDeadline(time.Unix(1, 0)) }) // any time that has passed
	defer stop()
	message := kmip.NewRequestMessage(version, request)
	// The time of a request is optional, and servers refuse one that is a second
	// ahead of their own clock.
	message.Header.TimeStamp = nil
	response, err := c.exchange(&message)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if len(response.BatchItem) != 1 {
		return nil, fmt.Errorf("the answer to one request has %d parts", len(response.BatchItem))
	}
	c.broken = !stop()
	c.lastUsed = time.Now()
	item := response.BatchItem[0]
	switch {
	case item.ResultStatus == kmip.ResultStatusOperationFailed:
		return nil, &resultError{operation: request.Operation(), reason: item.ResultReason, message: item.ResultMessage}
	case item.ResultStatus != kmip.ResultStatusSuccess:
		return nil, fmt.Errorf("the answer to %s has the status %s", enumName(request.Operation()), enumName(item.ResultStatus))
	case item.Operation != request.Operation() || item.ResponsePayload == nil:
		return nil, fmt.Errorf("the answer to %s is one to %s, or has no content", enumName(request.Operation()), enumName(item.Operation))
	}
	return item.ResponsePayload, nil
}

func (c *connection) exchange(request *kmip.RequestMessage) (response *kmip.ResponseMessage, err error) {
	defer func() {
		// The library's decoder panics on some malformed messages.
		if problem := recover(); problem != nil {
			response, err = nil, fmt.Errorf("the answer cannot be decoded: %v", problem)
		}
	}()
	response = new(kmip.ResponseMessage)
	if err := c.stream.Roundtrip(request, response); err != nil {
		return nil, err
	}
	return response, nil
}

// isReusable reports whether the connection may carry another request.
func (c *connection) isReusable(current *credentials, now time.Time) bool {
	return !c.broken && c.credentials == current && now.Sub(c.lastUsed) < maxIdleTime
}
