// Package waiting is how tests wait for what takes a moment. A wait ends a hang, and
// a slow machine must not reach it: so there is one limit for all waits of a test.
package waiting

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// Limit is how long a test may take from its first wait on.
	Limit = 5 * time.Minute
	// Between two looks at a condition is a tenth of the time that it has been waited
	// for: looking often costs a busy machine what the test waits for.
	shortestInterval = 5 * time.Millisecond
	longestInterval  = 100 * time.Millisecond
)

var (
	limitsLock sync.Mutex
	limits     = map[string]context.Context{} // by the name of the test
)

// Context returns a context that ends with the test, or at its limit.
func Context(t testing.TB) context.Context {
	limitsLock.Lock()
	defer limitsLock.Unlock()
	if limited, found := limits[t.Name()]; found {
		return limited
	}
	limited, cancel := context.WithTimeoutCause(t.Context(), Limit, fmt.Errorf("%s has not ended %s after its first wait", t.Name(), Limit))
	limits[t.Name()] = limited
	t.Cleanup(func() {
		cancel()
		limitsLock.Lock()
		defer limitsLock.Unlock()
		delete(limits, t.Name())
	})
	return limited
}

// Until waits until a condition holds.
func Until(t testing.TB, holds func() bool, explanation ...any) {
	t.Helper()
	limited := Context(t)
	for began := time.Now(); !holds(); {
		select {
		case <-time.After(min(max(time.Since(began)/10, shortestInterval), longestInterval)):
		case <-limited.Done():
			require.FailNow(t, fmt.Sprintf("the condition does not hold: %v", context.Cause(limited)), explanation...)
		}
	}
}

// UntilAnswer is Until for a condition that asks a server. An error is none of the
// test's: a busy server answers late, and a client gives up after ten seconds. The last
// one is shown if the condition never holds.
func UntilAnswer(t testing.TB, holds func() (bool, error), explanation string) {
	t.Helper()
	var last lastError
	Until(t, func() bool {
		var held bool
		held, last.err = holds()
		return held && last.err == nil
	}, "%s%s", explanation, &last)
}

// lastError is formatted when a test has failed.
type lastError struct{ err error }

func (l *lastError) String() string {
	if l.err == nil {
		return ""
	}
	return "; the last error: " + l.err.Error()
}

// For waits until a channel is closed, or something is sent on it.
func For[T any](t testing.TB, channel <-chan T, explanation ...any) (received T) {
	t.Helper()
	limited := Context(t)
	select {
	case received = <-channel:
	case <-limited.Done():
		require.FailNow(t, fmt.Sprintf("nothing was received: %v", context.Cause(limited)), explanation...)
	}
	return received
}
