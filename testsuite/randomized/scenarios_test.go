package randomized

import (
	"net/http"
	"time"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// scenario is a sequence of faults that would cause a second PUT if the code
// lacked one of its precautions. Generated independently, the faults of such a
// sequence rarely occur together.
type scenario struct {
	name string
	// put and get are the faults of the first PUTs of a target and of the reads
	// after the first one.
	put, get func(rng, timing) []simulator.Fault
	// attemptFaults are the faults of the first attempts of RotateKey.
	attemptFaults func(rng, timing) []attemptFault
	// slow: a request may take longer than the heartbeat timeout and settleTime
	// together.
	slow bool
	// quick: a lost worker is detected before the effect of its PUT is visible.
	quick bool
	// retriesLonger: transient errors are retried for long enough to see it through.
	retriesLonger bool
}

// apply replaces the faults of the first rotation and makes sure that the
// rotation reaches the scenario.
func (a scenario) apply(rnd rng, p *plan) {
	target := rnd.IntN(p.targets())
	p.scenario = a.name
	if a.slow {
		p.timing.request = rnd.milliseconds(150, 200)
	}
	if a.retriesLonger {
		p.timing.retry = 10 * time.Second * timeScale
		p.rotations[0].input.RetryTimeout = workflows.Duration(p.timing.retry)
	}
	if a.quick {
		p.timing.heartbeat = rnd.share(p.timing.settle, 20, 30)
	}
	r := &p.rotations[0]
	r.input.DryRun, r.input.RequireApproval, r.input.ExpectedTargets = false, false, 0
	r.input.OnFailure = workflows.OnFailureHold
	r.operator.decision, r.operator.retries = approve, max(r.operator.retries, 2)
	if rnd.chance(70) {
		r.operator.events = nil
	}
	r.faults = nil
	for _, faults := range []func(rng, timing) []simulator.Fault{a.put, a.get} {
		if faults != nil {
			r.addFaults(faults(rnd, p.timing), target)
		}
	}
	r.attemptFaults = nil
	if a.attemptFaults != nil {
		r.attemptFaults = map[job][]attemptFault{{activities.RotateKeyName, target}: a.attemptFaults(rnd, p.timing)}
	}
}

func (r *rotationPlan) addFaults(faults []simulator.Fault, target int) {
	for _, f := range faults {
		r.faults = append(r.faults, plannedFault{f, target}.numbered(len(r.faults)))
	}
}

var scenarios = []scenario{
	{
		// The PUT is ready to be sent when another worker has taken over. Only
		// the lease prevents it.
		name: "a PUT is sent late", slow: true,
		put: func(rnd rng, p timing) []simulator.Fault { return []simulator.Fault{slowChallenge(rnd, p).Repeated(2)} },
		attemptFaults: func(rnd rng, _ timing) []attemptFault {
			return []attemptFault{{end: workerDisconnected, after: rnd.milliseconds(0, 10)}}
		},
	},
	{
		// The heartbeat details that say that a PUT was refused must be gone
		// before the next PUT.
		name: "outdated heartbeat details", quick: true,
		put: func(rnd rng, p timing) []simulator.Fault {
			return []simulator.Fault{transientRefusal(rnd), shownLate(rnd, p)}
		},
		attemptFaults: func(rng, timing) []attemptFault {
			return []attemptFault{{end: completes}, {end: workerKilledAfter, finalHeartbeatLost: true}}
		},
	},
	{
		// The outcome of the PUT cannot be read; it takes effect during the
		// retry.
		name: "unknown, unreadable, retried",
		put:  unknownAndLate,
		get:  unreadable,
	},
	{
		// As before, and the activity is reset within the heartbeat timeout.
		name:          "unknown, unreadable, reset",
		put:           unknownAndLate,
		get:           unreadable,
		attemptFaults: func(rng, timing) []attemptFault { return []attemptFault{{end: completes, reset: true, wiped: true}} },
	},
	{
		name: "stopped before the outcome is known",
		put:  unknownAndLate,
		attemptFaults: func(rnd rng, p timing) []attemptFault {
			return []attemptFault{{end: workerStopped, after: rnd.share(p.late, 5, 60)}}
		},
	},
	{
		name: "interrupted before the outcome is known",
		put:  unknownAndLate,
		attemptFaults: func(rnd rng, p timing) []attemptFault {
			return []attemptFault{{end: interrupted, after: rnd.share(p.late, 5, 60), reset: true, wiped: rnd.chance(70)}}
		},
	},
	{
		// A refusal of an earlier PUT says nothing about the PUT in between.
		name: "refused, retried, lost", quick: true,
		put: func(rnd rng, p timing) []simulator.Fault {
			return []simulator.Fault{permanentRefusal(), shownLate(rnd, p)}
		},
		attemptFaults: func(rng, timing) []attemptFault {
			return []attemptFault{{end: completes}, {end: workerKilledAfter, finalHeartbeatLost: true}}
		},
	},
	{
		name: "Ops Manager stands still", retriesLonger: true,
		put: standStill,
		get: func(rng, timing) []simulator.Fault { return []simulator.Fault{simulator.KeyGated("").Skipping(1)} },
	},
	{
		// The attempt counts as the first one again and has no heartbeat
		// details.
		name: "lost and reset", quick: true,
		put: func(rnd rng, p timing) []simulator.Fault { return []simulator.Fault{shownLate(rnd, p)} },
		attemptFaults: func(rnd rng, p timing) []attemptFault {
			return []attemptFault{{end: pick(rnd, workerKilledAfter, workerDisconnected), after: rnd.milliseconds(2, 10), finalHeartbeatLost: rnd.chance(50), reset: true, wiped: true}}
		},
	},
}

// standStill applies its PUT when Ops Manager goes on, after the first reads that
// it then answers.
func standStill(rnd rng, p timing) []simulator.Fault {
	return []simulator.Fault{simulator.PutFrozen("", rnd.share(p.late, 30, 80))}
}

func shownLate(rnd rng, p timing) simulator.Fault {
	return simulator.PutShownLate("", rnd.share(p.late, 70, 100))
}

// unknownAndLate is a PUT whose response does not show its outcome and whose
// effect comes late.
func unknownAndLate(rnd rng, p timing) []simulator.Fault {
	f := pick(rnd, simulator.PutServerError("", simulator.ApplyNo), simulator.PutCut("", simulator.ApplyNo)).
		AppliedAfter(rnd.share(p.late, 60, 80))
	f.Name += ", scenario"
	return []simulator.Fault{f}
}

func unreadable(rng, timing) []simulator.Fault {
	return []simulator.Fault{simulator.AccessListRefusal(http.MethodGet, "").On(simulator.KindKey).Skipping(1)}
}

// transientRefusal is a refusal that is retried.
func transientRefusal(rnd rng) simulator.Fault {
	return pick(rnd, simulator.InvalidState(http.MethodPut, ""), simulator.RateLimited(http.MethodPut, "", "")).On(simulator.KindKey)
}

// permanentRefusal is a refusal that is not retried.
func permanentRefusal() simulator.Fault {
	return simulator.AccessListRefusal(http.MethodPut, "").On(simulator.KindKey)
}
