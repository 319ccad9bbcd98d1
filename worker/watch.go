package main

import (
	"net/http"
	"sync"
	"time"

	"keyturn/opsmanager"
)

// watch is the observer of a connection's client: it remembers when Ops Manager
// last answered an authenticated read.
type watch struct {
	// counts is told everything, too; nil = nobody counts. It is set before the
	// client's first request.
	counts opsmanager.Observer

	mu       sync.Mutex
	lastRead time.Time
}

func (w *watch) Waited(pause time.Duration) {
	if w.counts != nil {
		w.counts.Waited(pause)
	}
}

func (w *watch) Sent(method string) {
	if w.counts != nil {
		w.counts.Sent(method)
	}
}

func (w *watch) Answered(method string, statusCode int, took time.Duration) {
	if w.counts != nil {
		w.counts.Answered(method, statusCode, took)
	}
}

func (w *watch) Ended(method string, err *opsmanager.Error) {
	if err == nil && method == http.MethodGet {
		w.mu.Lock()
		w.lastRead = time.Now()
		w.mu.Unlock()
	}
	if w.counts != nil {
		w.counts.Ended(method, err)
	}
}

// read is when Ops Manager last answered; zero = never.
func (w *watch) read() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastRead
}
