package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/temporalclient"
)

const (
	// maxPollerAge is how long ago the last poll may have begun: a poll lasts a
	// minute.
	maxPollerAge = 2 * time.Minute
	// maxClockSkew is how far this machine's clock may be from Temporal's before
	// the worker warns.
	maxClockSkew = 30 * time.Second
)

// checkPollers asks Temporal whether this worker is among the task queue's
// pollers.
func (m *monitor) checkPollers(ctx context.Context, temporal client.Client) bool {
	var problems []string
	for _, kind := range []enumspb.TaskQueueType{enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY} {
		began := m.settings.monitoring.now()
		described, err := temporal.DescribeTaskQueue(ctx, m.settings.taskQueue, kind)
		if err != nil {
			problems = append(problems, describeRequestError(ctx, m.temporalFiles, err))
			break
		}
		last := lastPoll(described.GetPollers(), m.settings.temporal.Identity)
		if !m.pollerOf(kind).observe(last, began, m.settings.monitoring.now()) {
			problems = append(problems, "this worker does not poll for tasks of kind "+kind.String())
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	m.recordPollers(strings.Join(problems, "; "))
	return len(problems) == 0
}

func (m *monitor) pollerOf(kind enumspb.TaskQueueType) *poller {
	if m.pollers == nil {
		m.pollers = map[enumspb.TaskQueueType]*poller{}
	}
	if m.pollers[kind] == nil {
		m.pollers[kind] = &poller{}
	}
	return m.pollers[kind]
}

func (m *monitor) recordPollers(problem string) {
	var skew time.Duration
	for _, p := range m.pollers {
		if p.skew.Abs() > skew.Abs() {
			skew = p.skew
		}
	}
	warning := skewWarning(skew)
	m.mu.Lock()
	before := m.temporal
	m.temporal = checkResult{problem: problem, warning: warning}
	m.mu.Unlock()
	switch {
	case warning != "" && before.warning == "":
		m.logger.Warn(warning)
	case warning == "" && before.warning != "":
		m.logger.Info("this machine's clock agrees with Temporal's again")
	}
	switch {
	case problem != "" && problem != before.problem:
		m.logger.Warn("this worker is not ready", "error", problem)
	case problem == "" && before.problem != "":
		m.logger.Info("Temporal lists this worker as a poller")
	}
}

// lastPoll returns when, by Temporal's clock, the last poll of an identity began;
// zero = Temporal lists none.
func lastPoll(pollers []*taskqueuepb.PollerInfo, identity string) (last time.Time) {
	for _, p := range pollers {
		if at := p.GetLastAccessTime(); at != nil && p.GetIdentity() == identity && at.AsTime().After(last) {
			last = at.AsTime()
		}
	}
	return last
}

// poller follows this worker's polls as Temporal lists them. The times of polls
// are by Temporal's clock, which may differ from this machine's: that a poll is
// recent is known from a change between two observations.
type poller struct {
	last     time.Time // the last poll, by Temporal's clock
	observed time.Time // when the last observation began, by this machine's clock
	fresh    time.Time // when a new poll was last observed, by this machine's clock; zero = never
	// skew is by how much this machine's clock is ahead of Temporal's, at least;
	// negative = behind.
	skew time.Duration
}

// observe takes the time of the last poll, which Temporal was asked for between
// two times, and reports whether this worker polls.
func (p *poller) observe(last, began, now time.Time) bool {
	switch {
	case last.IsZero():
	case p.observed.IsZero():
		// It may be of an earlier process with the same identity.
		if now.Sub(last).Abs() < maxPollerAge {
			p.fresh = now
		}
	case last.After(p.last):
		p.fresh = now
		p.skew = skewBetween(last, p.observed, now)
	}
	p.last, p.observed = last, began
	return !last.IsZero() && !p.fresh.IsZero() && now.Sub(p.fresh) < maxPollerAge
}

// skewBetween returns by how much this machine's clock is ahead of Temporal's at
// least, given that an event happened at a time by Temporal's clock, and between
// two times by this machine's.
func skewBetween(event, earliest, latest time.Time) time.Duration {
	switch {
	case earliest.After(event):
		return earliest.Sub(event)
	case latest.Before(event):
		return latest.Sub(event) // negative: behind
	}
	return 0
}

// skewWarning is empty if the clocks agree.
func skewWarning(skew time.Duration) string {
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	if skew.Abs() < maxClockSkew {
		return ""
	}
	return fmt.Sprintf("this machine's clock is at least %s %s Temporal's; the times in records are wrong by as much: synchronize the clock", skew.Abs().Round(time.Second), direction)
}

// describeRequestError names the setting that is the cause, if there is one.
func describeRequestError(ctx context.Context, files *temporalclient.Configuration, err error) string {
	if problem := files.Diagnose(ctx, err); problem != nil {
		return problem.Error()
	}
	return fmt.Sprintf("Temporal does not describe the task queue: %v", err)
}
