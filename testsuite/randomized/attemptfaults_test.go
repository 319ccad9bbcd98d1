package randomized

import (
	"fmt"
	"time"

	"keyturn/activities"
)

// job is one activity for one target.
type job struct {
	activity string
	target   int // noTarget if the activity is not about a single target
}

const noTarget = -1

func (j job) String() string {
	if j.target == noTarget {
		return j.activity
	}
	return fmt.Sprintf("%s of target %d", j.activity, j.target)
}

// attemptEnd is how an attempt ends.
type attemptEnd string

const (
	// completes: the attempt runs to its end.
	completes attemptEnd = "completes"
	// workerKilledBefore: the worker is killed before the activity starts.
	workerKilledBefore attemptEnd = "killed before it started"
	// workerKilledAfter: the worker is killed when the activity is done, before
	// it can report.
	workerKilledAfter attemptEnd = "killed before it could report"
	// workerDisconnected: the worker loses its connection to Temporal, but not
	// to Ops Manager. It continues while another worker takes over.
	workerDisconnected attemptEnd = "disconnected, continues"
	// workerStopped: the worker is shutting down.
	workerStopped attemptEnd = "worker stopped"
	// interrupted: the activity is paused or reset while it runs.
	interrupted attemptEnd = "interrupted"
)

// attemptFault is what happens to one attempt of an activity.
type attemptFault struct {
	end attemptEnd
	// after is the time from the start of the attempt.
	after time.Duration
	// finalHeartbeatLost: the details that the attempt recorded at its end do
	// not arrive.
	finalHeartbeatLost bool
	// reset: the activity is reset, so that the next attempt counts as the
	// first; wiped: the reset also removes the heartbeat details.
	reset, wiped bool
}

func (f attemptFault) String() string {
	text := fmt.Sprintf("%s (%s)", f.end, f.after)
	for _, more := range []struct {
		holds bool
		text  string
	}{{f.finalHeartbeatLost, "final heartbeat lost"}, {f.reset, "reset"}, {f.wiped, "details wiped"}} {
		if more.holds {
			text += ", " + more.text
		}
	}
	return text
}

func generateAttemptFaults(rnd rng, p *plan) map[job][]attemptFault {
	faults := map[job][]attemptFault{}
	for range rnd.between(1, 4) {
		j := generateJob(rnd, p)
		if len(faults[j]) < 3 { // the test environment gives up after ten attempts
			faults[j] = append(faults[j], generateAttemptFault(rnd, p))
		}
	}
	return faults
}

func generateJob(rnd rng, p *plan) job {
	switch n := rnd.IntN(100); {
	case n < 75:
		return job{activities.RotateKeyName, rnd.IntN(p.targets())}
	case n < 88:
		return job{activities.VerifyKeyName, rnd.IntN(p.targets())}
	case n < 96:
		return job{activities.ReadKeysName, noTarget}
	default:
		return job{activities.ListTargetsName, noTarget}
	}
}

func generateAttemptFault(rnd rng, p *plan) attemptFault {
	f := attemptFault{
		end: pick(rnd, completes, workerKilledBefore, workerKilledAfter, workerKilledAfter, workerKilledAfter, workerDisconnected, workerDisconnected, workerDisconnected, workerStopped, interrupted),
		// Mostly soon, as most attempts are short.
		after:              pick(rnd, rnd.milliseconds(0, 12), rnd.milliseconds(0, 12), rnd.share(p.timing.settle, 0, 150)),
		finalHeartbeatLost: rnd.chance(50),
	}
	f.reset = f.end == completes || rnd.chance(40)
	f.wiped = f.reset && rnd.chance(70)
	return f
}
