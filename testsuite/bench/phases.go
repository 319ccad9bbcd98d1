package main

import (
	"context"
	"time"

	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"keyturn/activities"
)

// phases are the parts of a rotation's time, from the times of its history
// events.
type phases struct {
	// The phases, in seconds: until the first activity is scheduled, listing,
	// reading, the first target, the others, and the rest after the last
	// activity.
	Starting float64 `json:"starting"`
	Listing  float64 `json:"listing"`
	Reading  float64 `json:"reading"`
	Canary   float64 `json:"canary"`
	Rotating float64 `json:"rotating"`
	Ending   float64 `json:"ending"`
	// Busy is the average number of running activities while the others are
	// rotated.
	Busy float64 `json:"busy"`
	// Turn is the average time from the end of an activity to the completion of
	// the workflow task that handles it.
	Turn  float64        `json:"turn"`
	Kinds []activityKind `json:"activities"`
}

// activityKind has the averages of one activity type, in seconds.
type activityKind struct {
	Type  string  `json:"type"`
	Count int     `json:"count"`
	Wait  float64 `json:"wait"` // from scheduled to started
	Work  float64 `json:"work"` // from started to completed
}

// activityTimes are the times of one activity.
type activityTimes struct {
	kind                       string
	scheduled, startedAt, done time.Time
}

// phasesOf returns the phases of a rotation with one run; a rotation that has
// continued as new has none.
func (s *target) phasesOf(ctx context.Context, r rotation) (phases, error) {
	if len(r.runs) != 1 {
		return phases{}, nil
	}
	events, err := s.history(ctx, r.runs[0])
	if err != nil {
		return phases{}, err
	}
	return phasesOf(events), nil
}

func phasesOf(events []*historypb.HistoryEvent) phases {
	done := activityTimesOf(events)
	if len(done) == 0 {
		return phases{}
	}
	marks := marksOf(events, done)
	p := phases{Turn: turnOf(events), Kinds: kindsOf(done)}
	for i, part := range []*float64{&p.Starting, &p.Listing, &p.Reading, &p.Canary, &p.Rotating, &p.Ending} {
		*part = marks[i+1].Sub(marks[i]).Seconds()
	}
	p.Busy = busy(done, marks[4], marks[5])
	return p
}

// activityTimesOf lists the activities in the order in which they were
// scheduled.
func activityTimesOf(events []*historypb.HistoryEvent) []*activityTimes {
	var all []*activityTimes
	byEvent := map[int64]*activityTimes{}
	for _, event := range events {
		at := event.GetEventTime().AsTime()
		switch {
		case event.GetActivityTaskScheduledEventAttributes() != nil:
			one := &activityTimes{kind: event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName(), scheduled: at, startedAt: at, done: at}
			all, byEvent[event.GetEventId()] = append(all, one), one
		case event.GetActivityTaskStartedEventAttributes() != nil:
			byEvent[event.GetActivityTaskStartedEventAttributes().GetScheduledEventId()].startedAt = at
		case event.GetActivityTaskCompletedEventAttributes() != nil:
			byEvent[event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()].done = at
		}
	}
	return all
}

// marksOf returns the boundaries of the phases: the start of the workflow, the
// first activity, the end of listing, the start of the first target and of the
// second one, the end of the last activity, and the end of the workflow.
func marksOf(events []*historypb.HistoryEvent, done []*activityTimes) [7]time.Time {
	var marks [7]time.Time
	marks[0], marks[1] = events[0].GetEventTime().AsTime(), done[0].scheduled
	rotations := 0
	last := marks[1]
	for _, one := range done {
		if one.kind == activities.ListTargetsName {
			marks[2] = one.done
		}
		if one.kind == activities.RotateKeyName {
			if rotations++; rotations <= 2 {
				marks[2+rotations] = one.scheduled
			}
		}
		if one.done.After(last) {
			last = one.done
		}
	}
	marks[5], marks[6] = last, events[len(events)-1].GetEventTime().AsTime()
	for i := 4; i >= 2; i-- { // a missing phase takes no time
		if marks[i].IsZero() {
			marks[i] = marks[i+1]
		}
	}
	return marks
}

func turnOf(events []*historypb.HistoryEvent) float64 {
	var sum float64
	var count int
	var waiting []time.Time
	for _, event := range events {
		at := event.GetEventTime().AsTime()
		switch event.GetEventType() {
		case enums.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			waiting = append(waiting, at)
		case enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
			for _, since := range waiting {
				sum += at.Sub(since).Seconds()
				count++
			}
			waiting = nil
		}
	}
	return sum / float64(max(count, 1))
}

func kindsOf(done []*activityTimes) (kinds []activityKind) {
	place := map[string]int{}
	for _, one := range done {
		i, known := place[one.kind]
		if !known {
			i = len(kinds)
			place[one.kind] = i
			kinds = append(kinds, activityKind{Type: one.kind})
		}
		kinds[i].Count++
		kinds[i].Wait += one.startedAt.Sub(one.scheduled).Seconds()
		kinds[i].Work += one.done.Sub(one.startedAt).Seconds()
	}
	for i := range kinds {
		kinds[i].Wait /= float64(kinds[i].Count)
		kinds[i].Work /= float64(kinds[i].Count)
	}
	return kinds
}

func busy(done []*activityTimes, from, to time.Time) float64 {
	if !to.After(from) {
		return 0
	}
	var sum float64
	for _, one := range done {
		startedAt, ended := later(one.startedAt, from), earlier(one.done, to)
		sum += max(ended.Sub(startedAt).Seconds(), 0)
	}
	return sum / to.Sub(from).Seconds()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
