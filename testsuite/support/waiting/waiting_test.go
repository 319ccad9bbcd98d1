package waiting

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// failing is a test that may fail.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) FailNow()              { panic(f) }

// requireFails runs a wait that must fail the test that it is given.
func requireFails(t *testing.T, wait func(t testing.TB)) {
	t.Helper()
	f := &failing{TB: t}
	defer func() {
		assert.Same(t, f, recover())
		assert.True(t, f.failed)
	}()
	wait(f)
}

func TestAllWaitsOfATestHaveOneLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		Until(t, func() bool { return time.Since(began) > Limit/2 })
		requireFails(t, func(t testing.TB) { For(t, make(chan int)) })
		assert.Equal(t, Limit, time.Since(began), "counted from the first wait")
		requireFails(t, func(t testing.TB) { Until(t, func() bool { return false }) })
		assert.Equal(t, Limit, time.Since(began))
	})
}

func TestLimitIsOfOneTest(t *testing.T) {
	var first context.Context
	for range 2 {
		t.Run("", func(t *testing.T) {
			assert.NoError(t, Context(t).Err())
			assert.NotEqual(t, first, Context(t))
			first = Context(t)
		})
	}
	assert.Error(t, first.Err())
}

func TestWhatHoldsIsNotWaitedFor(t *testing.T) {
	sent := make(chan int, 1)
	sent <- 7
	assert.Equal(t, 7, For(t, sent))
	looks := 0
	Until(t, func() bool { looks++; return looks == 3 })
	assert.Equal(t, 3, looks)
}

func TestAnErrorOfAServerIsNotTheEnd(t *testing.T) {
	answers := []error{errors.New("deadline exceeded"), nil, nil}
	looks := 0
	UntilAnswer(t, func() (bool, error) {
		looks++
		return looks != 2, answers[looks-1]
	}, "it never answers")
	assert.Equal(t, 3, looks)
}

func TestTheLastErrorIsShown(t *testing.T) {
	last := &lastError{errors.New("deadline exceeded")}
	assert.Equal(t, "it never answers; the last error: deadline exceeded", fmt.Sprintf("%s%s", "it never answers", last))
	assert.Equal(t, "it never answers", fmt.Sprintf("%s%s", "it never answers", &lastError{}))
}
