package main

import (
	"context"
	"time"

	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"keyturn/activities"
)

// phases tell where a rotation's time went, by the times of its history's
// events.
type phases struct {
	// The parts of the whole, in seconds: until the first activity is there to
	// be done, listing, reading, the first target alone, the others, and what
	// was left after the last activity.
	Starting float64 `json:"starting"`
	Listing  float64 `json:"listing"`
	Reading  float64 `json:"reading"`
	Canary   float64 `json:"canary"`
	Rotating float64 `json:"rotating"`
	Ending   float64 `json:"ending"`
	// Busy is how many activities were being worked on, on an average, while
	// the others were rotated.
	Busy float64 `json:"busy"`
	// Turn is how long the workflow took, on an average, to take note of an
	// activity's end and to ask for what is next.
	Turn  float64        `json:"turn"`
	Kinds []activityKind `json:"activities"`
}

// activityKind has the averages of one activity type, in seconds.
type activityKind struct {
	Type  string  `json:"type"`
	Count int     `json:"count"`
	Wait  float64 `json:"wait"` // from being asked for to being begun
	Work  float64 `json:"work"` // from being begun to its end
}

// activityTimes are one activity's.
type activityTimes struct {
	kind                   string
	scheduled, begun, done time.Time
}

// phasesOf reads a rotation of one run; one that has continued as new has none.
func (s *site) phasesOf(ctx context.Context, r rotation) (phases, error) {
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

// activityTimesOf lists the activities in the order in which they were asked
// for.
func activityTimesOf(events []*historypb.HistoryEvent) []*activityTimes {
	var all []*activityTimes
	byEvent := map[int64]*activityTimes{}
	for _, event := range events {
		at := event.GetEventTime().AsTime()
		switch {
		case event.GetActivityTaskScheduledEventAttributes() != nil:
			one := &activityTimes{kind: event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName(), scheduled: at, begun: at, done: at}
			all, byEvent[event.GetEventId()] = append(all, one), one
		case event.GetActivityTaskStartedEventAttributes() != nil:
			byEvent[event.GetActivityTaskStartedEventAttributes().GetScheduledEventId()].begun = at
		case event.GetActivityTaskCompletedEventAttributes() != nil:
			byEvent[event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()].done = at
		}
	}
	return all
}

// marksOf are the borders between the phases: the workflow's start, the first
// activity, the end of listing, the first target's begin, the second one's, the
// last activity's end, and the workflow's.
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
	for i := 4; i >= 2; i-- { // what was not there took no time
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
		kinds[i].Wait += one.begun.Sub(one.scheduled).Seconds()
		kinds[i].Work += one.done.Sub(one.begun).Seconds()
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
		begun, ended := later(one.begun, from), earlier(one.done, to)
		sum += max(ended.Sub(begun).Seconds(), 0)
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
