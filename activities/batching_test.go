package activities

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// perform runs activities of one run that take these times, and gives when each
// of them completes.
func perform(lasting ...time.Duration) []time.Duration {
	var u completionBatcher
	var group sync.WaitGroup
	completed := make([]time.Duration, len(lasting))
	started := time.Now()
	for i, d := range lasting {
		done := u.join("run")
		group.Go(func() {
			time.Sleep(d)
			done(context.Background())
			completed[i] = time.Since(started)
		})
	}
	group.Wait()
	return completed
}

func TestActivitiesThatEndTogetherCompleteTogether(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct{ lasting, completed []time.Duration }{
		"alone":                          {[]time.Duration{200 * ms}, []time.Duration{200 * ms}},
		"in step":                        {[]time.Duration{200 * ms, 205 * ms, 210 * ms}, []time.Duration{210 * ms, 210 * ms, 210 * ms}},
		"the first one's limit holds":    {[]time.Duration{100 * ms, 108 * ms, 300 * ms}, []time.Duration{110 * ms, 110 * ms, 300 * ms}},
		"one that lasts holds up nobody": {[]time.Duration{time.Hour, 100 * ms, 400 * ms}, []time.Duration{time.Hour, 110 * ms, 440 * ms}},
		"the limit is bounded":           {[]time.Duration{time.Hour, time.Minute}, []time.Duration{time.Hour, time.Minute + 50*ms}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { assert.Equal(t, c.completed, perform(c.lasting...)) })
		})
	}
}

func TestRunsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u completionBatcher
		u.join("another run")
		done := u.join("run")
		started := time.Now()
		done(t.Context())
		assert.Zero(t, time.Since(started))
		assert.Len(t, u.batches, 1, "nothing is kept of a run without activities")
	})
}
