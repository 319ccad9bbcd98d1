package opsmanager

import "time"

// Observer receives what a client does, as it happens, for metrics and logs.
// Its methods are called from many goroutines at a time and must return at
// once. They receive no secret.
type Observer interface {
	// Waited reports how long a request waited for the client's limits, or for
	// the end of the pause after a 429. The request may have given up.
	Waited(time time.Duration)
	// Sent reports that a request is being sent. A digest challenge and its
	// answer are two requests.
	Sent(method string)
	// Answered reports that a sent request has ended: its status, or 0 if no
	// response came, and the time since it was sent.
	Answered(method string, statusCode int, time time.Duration)
	// Ended reports that a call has ended, which may have taken several
	// requests. The error is nil if the response was an authenticated one of the
	// API.
	Ended(method string, err *Error)
}

// nopObserver is the Observer of a client that has none.
type nopObserver struct{}

func (nopObserver) Waited(time.Duration)                {}
func (nopObserver) Sent(string)                         {}
func (nopObserver) Answered(string, int, time.Duration) {}
func (nopObserver) Ended(string, *Error)                {}

func (c Config) observer() Observer {
	if c.Observer == nil {
		return nopObserver{}
	}
	return c.Observer
}
