package campaign

import (
	"fmt"
	"time"

	"keyturn/activities"
)

// job is the work of one activity on one target.
type job struct {
	activity string
	target   int // noTarget for what concerns them all
}

const noTarget = -1

func (j job) String() string {
	if j.target == noTarget {
		return j.activity
	}
	return fmt.Sprintf("%s of target %d", j.activity, j.target)
}

// end is how an attempt ends.
type end string

const (
	// byItself: nothing befalls it.
	byItself end = "by itself"
	// neverRuns: its worker dies with the task in hand.
	neverRuns end = "killed before it began"
	// unreported: its worker dies when the work is done, before it can say so.
	unreported end = "killed before it could report"
	// cutOff: its worker is cut off from Temporal, but not from Ops Manager: it
	// goes on while another worker takes over.
	cutOff end = "cut off, went on"
	// stopped: its worker is told to stop.
	stopped end = "worker stopped"
	// interrupted: the activity is paused or reset while it runs.
	interrupted end = "interrupted"
)

// fate is what befalls one attempt of an activity.
type fate struct {
	end end
	// after the start of the attempt.
	after time.Duration
	// lastWordsLost: the notes that it wrote at its end did not get through.
	lastWordsLost bool
	// reset: the activity is reset, so that the next attempt counts as the
	// first; wiped: with its heartbeat's details.
	reset, wiped bool
}

func (f fate) String() string {
	text := fmt.Sprintf("%s (%s)", f.end, f.after)
	for _, more := range []struct {
		holds bool
		text  string
	}{{f.lastWordsLost, "last words lost"}, {f.reset, "reset"}, {f.wiped, "details wiped"}} {
		if more.holds {
			text += ", " + more.text
		}
	}
	return text
}

func drawFates(d dice, p *plan) map[job][]fate {
	fates := map[job][]fate{}
	for range d.between(1, 4) {
		j := drawJob(d, p)
		if len(fates[j]) < 3 { // the test environment gives up after ten attempts
			fates[j] = append(fates[j], drawFate(d, p))
		}
	}
	return fates
}

func drawJob(d dice, p *plan) job {
	switch n := d.IntN(100); {
	case n < 75:
		return job{activities.RotateKeyName, d.IntN(p.targets())}
	case n < 88:
		return job{activities.VerifyKeyName, d.IntN(p.targets())}
	case n < 96:
		return job{activities.ReadKeysName, noTarget}
	default:
		return job{activities.ListTargetsName, noTarget}
	}
}

func drawFate(d dice, p *plan) fate {
	f := fate{
		end: pick(d, byItself, neverRuns, unreported, unreported, unreported, cutOff, cutOff, cutOff, stopped, interrupted),
		// Mostly soon, as most attempts are short.
		after:         pick(d, d.milliseconds(0, 12), d.milliseconds(0, 12), d.share(p.pace.settle, 0, 150)),
		lastWordsLost: d.chance(50),
	}
	f.reset = f.end == byItself || d.chance(40)
	f.wiped = f.reset && d.chance(70)
	return f
}
