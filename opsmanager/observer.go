package opsmanager

import (
	"context"
	"time"
)

// Observer is told what a client does, as it does it, for metrics and the like.
// Its methods are called from many goroutines at a time and must return at
// once. Nothing that they are told is a secret.
type Observer interface {
	// Waited: a request waited this long for the client's limits, or for the
	// end of the pause after a 429, or gave up waiting.
	Waited(time time.Duration)
	// Sent: a request goes out, a digest challenge being one of its own.
	Sent(method string)
	// Answered: it has ended after this time, with this status; 0 = no answer
	// came.
	Answered(method string, statusCode int, time time.Duration)
	// Ended: a call, which may have taken several requests, has ended: nil = the
	// answer was an authenticated one of the API.
	Ended(method string, err *Error)
}

// unobserved is the Observer of a client that has none.
type unobserved struct{}

func (unobserved) Waited(time.Duration)                {}
func (unobserved) Sent(string)                         {}
func (unobserved) Answered(string, int, time.Duration) {}
func (unobserved) Ended(string, *Error)                {}

func (c Config) observer() Observer {
	if c.Observer == nil {
		return unobserved{}
	}
	return c.Observer
}

// another waits until a request that has entered may be sent once more.
func (c *Client) another(ctx context.Context) error {
	began := time.Now()
	err := c.limits.another(ctx)
	c.observer.Waited(time.Since(began))
	return err
}

// sending tells the observer that a request goes out, and gives what tells it
// that the request has ended.
func (c *Client) sending(method string) (answered func(statusCode int)) {
	c.observer.Sent(method)
	sent := time.Now()
	return func(statusCode int) { c.observer.Answered(method, statusCode, time.Since(sent)) }
}

// ended tells the observer how a call has ended.
func (c *Client) ended(r request, err error) {
	apiError, _ := AsError(err)
	c.observer.Ended(r.method, apiError)
}
