package campaign

import (
	"net/http"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// ambush is a row of mishaps that would make a second PUT if the code did
// without one of its precautions. Drawn one by one, the parts of such a row
// hardly ever come together.
type ambush struct {
	name string
	// put and get befall the first PUTs of a target, and the reads after the
	// first one.
	put, get func(dice, pace) []simulator.Fault
	// fates befall the first attempts of RotateKey.
	fates func(dice, pace) []fate
	// slow: a request may take longer than the heartbeat timeout and
	// settleTime together.
	slow bool
	// quick: a lost worker is noticed before the effect of its PUT shows.
	quick bool
}

// lay replaces what the first rotation was to meet, and sees to it that the
// rotation gets as far as the ambush.
func (a ambush) lay(d dice, p *plan) {
	target := d.IntN(p.targets())
	p.ambush = a.name
	if a.slow {
		p.pace.request = d.milliseconds(150, 200)
	}
	if a.quick {
		p.pace.heartbeat = d.share(p.pace.settle, 20, 30)
	}
	r := &p.rotations[0]
	r.input.DryRun, r.input.RequireApproval, r.input.ExpectedTargets = false, false, 0
	r.input.OnFailure = workflows.OnFailureHold
	r.operator.decision, r.operator.retries = approve, max(r.operator.retries, 2)
	if d.chance(70) {
		r.operator.deeds = nil
	}
	r.faults = nil
	for _, faults := range []func(dice, pace) []simulator.Fault{a.put, a.get} {
		if faults != nil {
			r.addFaults(faults(d, p.pace), target)
		}
	}
	r.fates = nil
	if a.fates != nil {
		r.fates = map[job][]fate{{activities.RotateKeyName, target}: a.fates(d, p.pace)}
	}
}

func (r *rotationPlan) addFaults(faults []simulator.Fault, target int) {
	for _, f := range faults {
		r.faults = append(r.faults, drawnFault{f, target}.numbered(len(r.faults)))
	}
}

var ambushes = []ambush{
	{
		// Its PUT is ready to go when another worker has taken over: only the
		// lease keeps it back.
		name: "a PUT comes to be sent late", slow: true,
		put:   func(d dice, p pace) []simulator.Fault { return []simulator.Fault{slowChallenge(d, p).Repeated(2)} },
		fates: func(d dice, _ pace) []fate { return []fate{{end: cutOff, after: d.milliseconds(0, 10)}} },
	},
	{
		// The note that a PUT was refused must be gone before the next PUT.
		name: "a note must not outlive its truth", quick: true,
		put:   func(d dice, p pace) []simulator.Fault { return []simulator.Fault{passing(d), shownLate(d, p)} },
		fates: func(dice, pace) []fate { return []fate{{end: byItself}, {end: unreported, lastWordsLost: true}} },
	},
	{
		// The PUT's outcome can't be read; it takes effect during the retry.
		name: "unknown, unreadable, tried again",
		put:  unknownAndLate,
		get:  unreadable,
	},
	{
		// As before, and the activity is reset within the heartbeat timeout.
		name:  "unknown, unreadable, reset",
		put:   unknownAndLate,
		get:   unreadable,
		fates: func(dice, pace) []fate { return []fate{{end: byItself, reset: true, wiped: true}} },
	},
	{
		name:  "stopped before the outcome is known",
		put:   unknownAndLate,
		fates: func(d dice, p pace) []fate { return []fate{{end: stopped, after: d.share(p.late, 5, 60)}} },
	},
	{
		name: "interrupted before the outcome is known",
		put:  unknownAndLate,
		fates: func(d dice, p pace) []fate {
			return []fate{{end: interrupted, after: d.share(p.late, 5, 60), reset: true, wiped: d.chance(70)}}
		},
	},
	{
		// That the PUT before was refused says nothing of the one in between.
		name: "refused, tried again, lost", quick: true,
		put:   func(d dice, p pace) []simulator.Fault { return []simulator.Fault{final(), shownLate(d, p)} },
		fates: func(dice, pace) []fate { return []fate{{end: byItself}, {end: unreported, lastWordsLost: true}} },
	},
	{
		// It counts as the first attempt again, and has no heartbeat's details.
		name: "lost and reset", quick: true,
		put: func(d dice, p pace) []simulator.Fault { return []simulator.Fault{shownLate(d, p)} },
		fates: func(d dice, p pace) []fate {
			return []fate{{end: pick(d, unreported, cutOff), after: d.milliseconds(2, 10), lastWordsLost: d.chance(50), reset: true, wiped: true}}
		},
	},
}

func shownLate(d dice, p pace) simulator.Fault {
	return simulator.PutShownLate("", d.share(p.late, 70, 100))
}

// unknownAndLate is a PUT whose answer says nothing, and whose effect comes late.
func unknownAndLate(d dice, p pace) []simulator.Fault {
	f := pick(d, simulator.PutServerError("", simulator.ApplyNo), simulator.PutCut("", simulator.ApplyNo)).
		AppliedAfter(d.share(p.late, 60, 80))
	f.Name += ", ambush"
	return []simulator.Fault{f}
}

func unreadable(dice, pace) []simulator.Fault {
	return []simulator.Fault{simulator.AccessListRefusal(http.MethodGet, "").On(simulator.KindKey).Skipping(1)}
}

// passing is a refusal that is worth another attempt.
func passing(d dice) simulator.Fault {
	return pick(d, simulator.InvalidState(http.MethodPut, ""), simulator.RateLimited(http.MethodPut, "", "")).On(simulator.KindKey)
}

// final is a refusal that is not.
func final() simulator.Fault {
	return simulator.AccessListRefusal(http.MethodPut, "").On(simulator.KindKey)
}
