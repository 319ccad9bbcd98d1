package main

import (
	"net/http"
	"sync"
	"time"

	"keyturn/opsmanager"
)

// readObserver observes the client of a connection: it records when Ops Manager
// last answered an authenticated read.
type readObserver struct {
	// next also receives everything; nil = none. It is set before the client's
	// first request.
	next opsmanager.Observer

	mu       sync.Mutex
	lastRead time.Time
}

func (o *readObserver) Waited(pause time.Duration) {
	if o.next != nil {
		o.next.Waited(pause)
	}
}

func (o *readObserver) Sent(method string) {
	if o.next != nil {
		o.next.Sent(method)
	}
}

func (o *readObserver) Answered(method string, statusCode int, took time.Duration) {
	if o.next != nil {
		o.next.Answered(method, statusCode, took)
	}
}

func (o *readObserver) Ended(method string, err *opsmanager.Error) {
	if err == nil && method == http.MethodGet {
		o.mu.Lock()
		o.lastRead = time.Now()
		o.mu.Unlock()
	}
	if o.next != nil {
		o.next.Ended(method, err)
	}
}

// lastReadAt returns when Ops Manager last answered a read; zero = never.
func (o *readObserver) lastReadAt() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lastRead
}
