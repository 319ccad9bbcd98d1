package randomized

import (
	"fmt"
	"slices"
	"time"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// plan is everything that a seed generates.
type plan struct {
	seed    uint64
	timing  timing
	options simulator.Options
	limits  limits
	// shards of the cluster; 0 means a replica set.
	shards int
	// duplicateName: the project has a replica set with the same display name.
	duplicateName bool
	// otherCluster: the project has another sharded cluster.
	otherCluster bool
	scenario     string
	// rotations has one rotation, or two: the second one gets the records of
	// the first one as completed.
	rotations []rotationPlan
}

// limits are the limits of the workers' clients.
type limits struct {
	inFlight  int     // 0 = none
	perSecond float64 // 0 = none
}

// timing has durations that depend on each other.
type timing struct {
	// settle is the rotation's settleTime: the effect of every PUT is visible
	// earlier.
	settle time.Duration
	// late is the maximum time until the effect of a PUT is visible.
	late    time.Duration
	verify  time.Duration
	request time.Duration
	retry   time.Duration
	// heartbeat is the heartbeat timeout, after which another worker gets the
	// activity.
	heartbeat time.Duration
}

// rotationPlan is what is generated for one rotation.
type rotationPlan struct {
	input         workflows.RotateClusterInput // without IDs, which are set later
	faults        []plannedFault
	attemptFaults map[job][]attemptFault
	operator      operatorPlan
	resetOnce     bool // reset the workflow after its end
	// kept is the part of the history, in percent of what may be dropped, that
	// a reset keeps.
	kept int
	// faultFree: nothing was generated that can keep the rotation from success.
	faultFree bool
}

func (r rotationPlan) isFaultFree(p timing) bool {
	return len(r.faults) == 0 && len(r.attemptFaults) == 0 && r.input.ExpectedTargets == 0 && r.operator.isHarmless() && p.retry >= time.Second
}

// standsStill reports whether Ops Manager stands still until it is thawed.
func (r rotationPlan) standsStill() bool {
	return slices.ContainsFunc(r.faults, func(f plannedFault) bool { return faultKind(f.Name) == simulator.KeyGated("").Name })
}

func (r rotationPlan) alwaysKnowsFirstAttempts() bool {
	return len(r.attemptFaults) == 0 && !r.resetOnce &&
		!slices.ContainsFunc(r.operator.events, func(e event) bool { return e.kind == resetRunning }) &&
		!slices.ContainsFunc(r.faults, func(f plannedFault) bool { return faultKind(f.Name) == simulator.KeyStale("").Name })
}

// targets returns the number of targets of the cluster.
func (p *plan) targets() int {
	if p.shards == 0 {
		return 1
	}
	return p.shards + 1
}

func generate(seed uint64) *plan {
	rnd := newRNG(seed)
	p := &plan{seed: seed, timing: generateTiming(rnd)}
	if !rnd.chance(15) {
		p.shards = rnd.between(1, 5)
	}
	if rnd.chance(1) {
		p.shards = rnd.between(100, 120) // more than an activity once read
	}
	p.duplicateName, p.otherCluster = rnd.chance(20), rnd.chance(40)
	p.options = generateOptions(rnd, p.timing)
	p.limits = generateLimits(rnd)
	p.rotations = []rotationPlan{generateRotation(rnd, p, false)}
	if rnd.chance(12) {
		p.rotations = append(p.rotations, generateRotation(rnd, p, true))
	}
	if rnd.chance(30) {
		pick(rnd, scenarios...).apply(rnd, p)
	}
	if len(p.rotations) == 1 && p.rotations[0].operator.external && p.rotations[0].alwaysKnowsFirstAttempts() {
		p.timing.heartbeat = time.Minute // a busy machine must not make an attempt look like a later one
	}
	for i := range p.rotations {
		p.rotations[i].faultFree = p.rotations[i].isFaultFree(p.timing)
	}
	return p
}

func generateTiming(rnd rng) timing {
	settle := rnd.milliseconds(60, 90)
	return timing{
		settle:    settle,
		late:      settle / 2,
		verify:    settle + rnd.milliseconds(60, 150),
		request:   rnd.milliseconds(50, 90),
		retry:     pick(rnd, time.Millisecond, 150*time.Millisecond, 400*time.Millisecond, 2*time.Second, 2*time.Second) * timeScale,
		heartbeat: rnd.share(settle, 25, 100),
	}
}

func generateOptions(rnd rng, p timing) simulator.Options {
	made := 0
	o := simulator.Options{NewKey: func() (string, error) {
		made++
		return fmt.Sprintf("1234-3456-4567-abcd-%04x", made), nil
	}}
	if rnd.chance(60) {
		o.Latency = rnd.milliseconds(0, 5)
	}
	if rnd.chance(30) {
		o.ShowAfter = rnd.share(p.late, 10, 60)
	}
	if rnd.chance(20) {
		o.NonceUses = rnd.between(1, 5)
	}
	if rnd.chance(20) {
		o.NonceLifetime = rnd.milliseconds(20, 200)
	}
	o.RelaxedNonceCount = rnd.chance(20)
	if rnd.chance(40) {
		o.MaxItemsPerPage = rnd.between(1, 4)
	}
	return o
}

func generateLimits(rnd rng) (l limits) {
	if rnd.chance(15) {
		l.inFlight = rnd.between(1, 3)
	}
	if rnd.chance(10) {
		l.perSecond = float64(rnd.between(40, 200))
	}
	return l
}

func generateRotation(rnd rng, p *plan, second bool) rotationPlan {
	r := rotationPlan{input: generateInput(rnd, p), kept: rnd.between(0, 100)}
	r.operator = generateOperatorPlan(rnd, p, r.input)
	if rnd.chance(90) {
		// A stale read must not show a key that was replaced before the
		// rotation started: that exceeds a replica lag of less than settleTime.
		mayBeStale := !second && r.operator.decision != approveChanged
		r.faults = generateFaults(rnd, p, mayBeStale)
	}
	if rnd.chance(45) {
		r.attemptFaults = generateAttemptFaults(rnd, p)
	}
	r.resetOnce = rnd.chance(10)
	return r
}

func generateInput(rnd rng, p *plan) workflows.RotateClusterInput {
	input := workflows.RotateClusterInput{
		ProjectID:     simulator.DefaultProjectID,
		Concurrency:   rnd.between(1, 6),
		DryRun:        rnd.chance(4),
		OnFailure:     pick(rnd, workflows.OnFailureHold, workflows.OnFailureHold, workflows.OnFailureContinue, workflows.OnFailureStop),
		RetryTimeout:  workflows.Duration(p.timing.retry),
		SettleTime:    workflows.Duration(p.timing.settle),
		VerifyTimeout: workflows.Duration(p.timing.verify),
		Change:        workflows.Change{Ticket: "CHG0031337", RequestedBy: requester},
	}
	input.RequireApproval = rnd.chance(15)
	switch n := rnd.IntN(100); {
	case n < 10:
		input.ExpectedTargets = p.targets()
	case n < 12:
		input.ExpectedTargets = p.targets() + 1
	}
	return input
}
