package campaign

import (
	"fmt"
	"time"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// plan is all that a seed draws.
type plan struct {
	seed    uint64
	pace    pace
	options simulator.Options
	limits  limits
	// shards of the cluster; 0 = a plain replica set.
	shards int
	// twin: a plain replica set of the same display name is in the project.
	twin bool
	// neighbour: another sharded cluster is in the project.
	neighbour bool
	ambush    string
	// rotations are one, or two of which the second gets the first one's
	// records as completed.
	rotations []rotationPlan
}

// limits are those of the workers' clients.
type limits struct {
	inFlight  int     // 0 = none
	perSecond float64 // 0 = none
}

// pace are the times that bound each other.
type pace struct {
	// settle is the rotation's settleTime: every PUT shows its effect sooner.
	settle time.Duration
	// late is the longest that a PUT's effect takes to show.
	late    time.Duration
	verify  time.Duration
	request time.Duration
	retry   time.Duration
	// heartbeat is the time after which the modelled server gives the work of
	// a silent worker to another one.
	heartbeat time.Duration
}

// rotationPlan is what is drawn for one rotation.
type rotationPlan struct {
	input     workflows.RotateClusterInput // the ids are filled in later
	faults    []drawnFault
	fates     map[job][]fate
	operator  intentions
	resetOnce bool // the workflow is reset after its end
	// kept is the share of the history, in percent, that a reset keeps of what
	// it may lose.
	kept int
	// calm: nothing was drawn that may keep the rotation from success.
	calm bool
}

func (r rotationPlan) isCalm(p pace) bool {
	return len(r.faults) == 0 && len(r.fates) == 0 && r.input.ExpectedTargets == 0 && r.operator.calm() && p.retry >= time.Second
}

// targets of the cluster.
func (p *plan) targets() int {
	if p.shards == 0 {
		return 1
	}
	return p.shards + 1
}

func draw(seed uint64) *plan {
	d := newDice(seed)
	p := &plan{seed: seed, pace: drawPace(d)}
	if !d.chance(15) {
		p.shards = d.between(1, 5)
	}
	p.twin, p.neighbour = d.chance(20), d.chance(40)
	p.options = drawOptions(d, p.pace)
	p.limits = drawLimits(d)
	p.rotations = []rotationPlan{drawRotation(d, p, false)}
	if d.chance(12) {
		p.rotations = append(p.rotations, drawRotation(d, p, true))
	}
	if d.chance(30) {
		pick(d, ambushes...).lay(d, p)
	}
	for i := range p.rotations {
		p.rotations[i].calm = p.rotations[i].isCalm(p.pace)
	}
	return p
}

func drawPace(d dice) pace {
	settle := d.milliseconds(60, 90)
	return pace{
		settle:    settle,
		late:      settle / 2,
		verify:    settle + d.milliseconds(60, 150),
		request:   d.milliseconds(50, 90),
		retry:     pick(d, time.Millisecond, 150*time.Millisecond, 400*time.Millisecond, 2*time.Second, 2*time.Second) * slowness,
		heartbeat: d.share(settle, 25, 100),
	}
}

func drawOptions(d dice, p pace) simulator.Options {
	made := 0
	o := simulator.Options{NewKey: func() string {
		made++
		return fmt.Sprintf("1234-3456-4567-abcd-%04x", made)
	}}
	if d.chance(60) {
		o.Latency = d.milliseconds(0, 5)
	}
	if d.chance(30) {
		o.ShowAfter = d.share(p.late, 10, 60)
	}
	if d.chance(20) {
		o.NonceUses = d.between(1, 5)
	}
	if d.chance(20) {
		o.NonceLifetime = d.milliseconds(20, 200)
	}
	o.RelaxedNonceCount = d.chance(20)
	if d.chance(40) {
		o.MaxItemsPerPage = d.between(1, 4)
	}
	return o
}

func drawLimits(d dice) (l limits) {
	if d.chance(15) {
		l.inFlight = d.between(1, 3)
	}
	if d.chance(10) {
		l.perSecond = float64(d.between(40, 200))
	}
	return l
}

func drawRotation(d dice, p *plan, second bool) rotationPlan {
	r := rotationPlan{input: drawInput(d, p), kept: d.between(0, 100)}
	r.operator = drawIntentions(d, p, r.input)
	if d.chance(90) {
		// A stale answer must not show a key that was replaced before the
		// rotation: that is more than a replica that lags behind by less than
		// settleTime.
		mayBeStale := !second && r.operator.decision != approveChanged
		r.faults = drawFaults(d, p, mayBeStale)
	}
	if d.chance(45) {
		r.fates = drawFates(d, p)
	}
	r.resetOnce = d.chance(10)
	return r
}

func drawInput(d dice, p *plan) workflows.RotateClusterInput {
	input := workflows.RotateClusterInput{
		ProjectID:     simulator.DefaultProjectID,
		Concurrency:   d.between(1, 6),
		DryRun:        d.chance(4),
		OnFailure:     pick(d, workflows.OnFailureHold, workflows.OnFailureHold, workflows.OnFailureContinue, workflows.OnFailureStop),
		RetryTimeout:  workflows.Duration(p.pace.retry),
		SettleTime:    workflows.Duration(p.pace.settle),
		VerifyTimeout: workflows.Duration(p.pace.verify),
		Change:        workflows.Change{Ticket: "CHG0031337", RequestedBy: requester},
	}
	input.RequireApproval = d.chance(15)
	switch n := d.IntN(100); {
	case n < 10:
		input.ExpectedTargets = p.targets()
	case n < 12:
		input.ExpectedTargets = p.targets() + 1
	}
	return input
}
