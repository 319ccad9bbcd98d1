package opsmanager

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// enterAll makes requests enter one after the other. The channel receives their
// names in the order in which they are admitted.
func enterAll(ctx context.Context, l *limiter, names []string, lowPriority func(string) bool) <-chan string {
	admitted := make(chan string, len(names))
	for _, name := range names {
		requestCtx := ctx
		if lowPriority(name) {
			requestCtx = WithLowPriority(ctx)
		}
		go func() {
			if _, err := l.enter(requestCtx); err == nil {
				admitted <- name
			}
		}()
		synctest.Wait()
	}
	return admitted
}

func TestLowPriorityIsDelayedAndNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0, 1)
		_, err := l.enter(t.Context())
		require.NoError(t, err)
		names := []string{"fleet-1", "fleet-2", "fleet-3", "one-1", "one-2", "one-3", "one-4", "one-5", "one-6"}
		admitted := enterAll(t.Context(), l, names, func(name string) bool { return name[0] == 'f' })
		var order []string
		for range names {
			l.leave()
			order = append(order, <-admitted)
		}
		assert.Equal(t, []string{"one-1", "one-2", "one-3", "fleet-1", "one-4", "one-5", "one-6", "fleet-2", "fleet-3"}, order)
	})
}

// A 429 stops all requests for a pause, halves the window, and each window of
// other responses widens it by one. Several 429s of one window count once.
func TestTooManyRequestsSlowsAllRequestsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0, 0)
		var sent []time.Time
		for range 8 {
			at, err := l.enter(t.Context())
			require.NoError(t, err)
			sent = append(sent, at)
		}
		time.Sleep(time.Millisecond)
		refusedAt := time.Now()
		for _, at := range sent[:4] {
			l.refused(at, 0)
		}
		admitted := enterAll(t.Context(), l, []string{"a", "b", "c", "d", "e"}, func(string) bool { return false })
		for range sent {
			l.leave()
		}
		<-admitted
		assert.Equal(t, minBackoff, time.Since(refusedAt), "one pause, however many were refused together")
		synctest.Wait()
		assert.Len(t, admitted, 3, "half of the eight that were in flight")
		for range 4 {
			l.accepted(time.Now())
		}
		synctest.Wait()
		assert.Len(t, admitted, 4, "a window of responses adds one")
	})
}

func TestRepeated429sPauseLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0, 0)
		for _, pause := range []time.Duration{minBackoff, 2 * minBackoff, 4 * minBackoff} {
			refusedAt := time.Now()
			l.refused(refusedAt, 0)
			_, err := l.enter(t.Context())
			require.NoError(t, err)
			assert.Equal(t, pause, time.Since(refusedAt))
			l.leave()
		}
		l.refused(time.Now(), 20*time.Second)
		refusedAt := time.Now()
		_, err := l.enter(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 20*time.Second, time.Since(refusedAt), "what the server asks for")
	})
}

func TestARequestThatGivesUpLeavesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0, 1)
		_, err := l.enter(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		gone := enterAll(ctx, l, []string{"gone"}, func(string) bool { return false })
		stays := enterAll(t.Context(), l, []string{"stays"}, func(string) bool { return false })
		cancel()
		synctest.Wait()
		l.leave()
		assert.Equal(t, "stays", <-stays)
		assert.Empty(t, gone)
	})
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 0)
		began := time.Now()
		for range 11 {
			_, err := l.enter(t.Context())
			require.NoError(t, err)
			l.leave()
		}
		assert.Equal(t, time.Second, time.Since(began).Round(time.Millisecond))
	})
}
