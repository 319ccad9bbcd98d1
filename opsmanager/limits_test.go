package opsmanager

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// enterAll has requests enter one after the other, and tells in which order they
// are let in.
func enterAll(ctx context.Context, l *limiter, names []string, patient func(string) bool) <-chan string {
	admitted := make(chan string, len(names))
	for _, name := range names {
		requestCtx := ctx
		if patient(name) {
			requestCtx = Patiently(ctx)
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

func TestUrgentRequestsGoFirstButNotForEver(t *testing.T) {
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

// A 429 stops all requests for a while, lets half as many go on, and more again
// with each round of answers. Those that were under way with it count once.
func TestARefusalSlowsAllRequestsDown(t *testing.T) {
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
		assert.Equal(t, firstSlowdown, time.Since(refusedAt), "one pause, however many were refused together")
		synctest.Wait()
		assert.Len(t, admitted, 3, "half of the eight that were under way")
		for range 4 {
			l.accepted(time.Now())
		}
		synctest.Wait()
		assert.Len(t, admitted, 4, "a round of answers allows one more")
	})
}

func TestRepeatedRefusalsPauseLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0, 0)
		for _, pause := range []time.Duration{firstSlowdown, 2 * firstSlowdown, 4 * firstSlowdown} {
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

func TestOneThatGivesUpWaitingTakesNobodysPlace(t *testing.T) {
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

func TestTheRateHoldsForWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 0)
		begun := time.Now()
		for range 11 {
			_, err := l.enter(t.Context())
			require.NoError(t, err)
			l.leave()
		}
		assert.Equal(t, time.Second, time.Since(begun).Round(time.Millisecond))
	})
}
