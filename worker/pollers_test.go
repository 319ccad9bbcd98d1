package main

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

func TestPollIsRecentByChangesAndNotByTheClock(t *testing.T) {
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	type look struct {
		last  time.Time // by Temporal's clock
		now   int       // by this machine's, in seconds
		polls bool
		skew  time.Duration // in seconds, at least
	}
	for name, looks := range map[string][]look{
		"never":                      {{time.Time{}, 0, false, 0}, {time.Time{}, 15, false, 0}},
		"clocks agree":               {{at(-5), 0, true, 0}, {at(-5), 15, true, 0}, {at(20), 30, true, 0}},
		"an earlier process's poll":  {{at(-200), 0, false, 0}, {at(-200), 15, false, 0}, {at(20), 30, true, 0}},
		"listed after the beginning": {{time.Time{}, 0, false, 0}, {at(3), 15, true, 0}},
		"ahead":                      {{at(-180), 0, false, 0}, {at(-180), 15, false, 0}, {at(-160), 30, true, 175}, {at(-150), 45, true, 180}},
		"behind":                     {{at(180), 0, false, 0}, {at(200), 15, true, -185}},
		"ends, behind":               {{at(180), 0, false, 0}, {at(200), 15, true, -185}, {at(200), 134, true, -185}, {at(200), 136, false, -185}},
		"ends":                       {{at(-5), 0, true, 0}, {at(-5), 119, true, 0}, {at(-5), 121, false, 0}},
		"a clock that is set right":  {{at(180), 0, false, 0}, {at(200), 15, true, -185}, {at(210), 215, true, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &poller{}
			for i, l := range looks {
				assert.Equal(t, l.polls, p.observe(l.last, at(l.now), at(l.now)), "look %d", i)
				assert.Equal(t, l.skew*time.Second, p.skew, "look %d", i)
			}
		})
	}
	// What is not known for certain, because Temporal answers slowly, is no skew.
	p := &poller{}
	p.observe(at(0), at(100), at(130))
	p.observe(at(99), at(150), at(180))
	assert.Equal(t, time.Second, p.skew)
}

// A worker whose clock is wrong polls as well as others: it is ready, and warns.
func TestWorkerWithAWrongClockIsReadyAndWarns(t *testing.T) {
	t.Parallel()
	for want, skew := range map[string]time.Duration{"ahead of": 3 * time.Minute, "behind": -3 * time.Minute} {
		t.Run(want, func(t *testing.T) {
			s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
			s.StartWorker()
			var log bytes.Buffer
			m := &monitor{
				settings: settings{monitoring: defaultTimes, taskQueue: s.TaskQueue}, state: statePolling, ctx: t.Context(),
				logger: slog.New(slog.NewTextHandler(&log, nil)),
			}
			m.settings.monitoring.now = func() time.Time { return time.Now().Add(skew) }
			m.settings.temporal.Identity = pollersOf(t, s.Temporal, s.TaskQueue)[0]
			cluster := s.OM.AddReplicaSet(simulator.DefaultProjectID, "audit")
			input := workflows.RotateClusterInput{Connection: workflows.DefaultConnection, ProjectID: simulator.DefaultProjectID, ClusterID: cluster.ID}
			waiting.Until(t, func() bool {
				ready := m.checkPollers(t.Context(), s.Temporal)
				_ = startRotationOf(t, s.Temporal, s.TaskQueue, input).Get(t.Context(), nil) // makes it poll again
				return ready && m.readiness().Checks["temporal"].Warning != ""
			})
			r := m.readiness()
			assert.True(t, r.Ready)
			assert.Regexp(t, `^this machine's clock is at least (3m|2m5)\d?\d?s `+want+" Temporal's;", r.Checks["temporal"].Warning)
			assert.Contains(t, log.String(), "level=WARN")
		})
	}
}
