package randomized

import (
	"fmt"
	"slices"

	"keyturn/workflows"
)

// Operators.
const (
	requester = "dana"
	operator1 = "lee"
	operator2 = "kim"
)

// decision is what operators do with a rotation that awaits approval.
type decision string

const (
	approve         decision = "approve"
	approveAfterOwn decision = "approve after the requester tried" // which is rejected
	approveChanged  decision = "approve while a key changes"       // and approve again
	reject          decision = "reject"
	neverDecide     decision = "no decision"
)

// event happens to a rotation from outside, after a number of activity attempts
// have started or ended.
type event struct {
	kind  string
	after int
}

const (
	pause         = "pause"
	skipPending   = "skip a pending target"
	abort         = "abort"
	cancel        = "cancel the workflow"
	continueAsNew = "suggest continue-as-new"
	restart       = "restart Ops Manager"
	forgetNonces  = "forget nonces"
	resetRunning  = "reset the workflow while it runs"
	// daysPass is applied once a rotation is paused or held.
	daysPass = "days pass"
)

// operatorPlan is what operators and the environment do to a rotation.
type operatorPlan struct {
	decision decision
	events   []event
	// pausedSteps is the number of steps until a paused rotation is resumed.
	pausedSteps int
	// retries is how often failed targets are retried while the rotation is
	// held, afterRetries what follows.
	retries      int
	oneByOne     bool
	afterRetries string // skipFailed, abort, cancel or neverDecide
	// external: while days pass, someone else rotates a target that waits.
	external bool
}

const skipFailed = "skip"

func (i operatorPlan) String() string {
	return fmt.Sprintf("%s; %v; held: %d retries, then %s", i.decision, i.events, i.retries, i.afterRetries)
}

// isHarmless reports whether nothing in the plan can keep a rotation from
// success.
func (i operatorPlan) isHarmless() bool {
	harmful := func(e event) bool { return slices.Contains([]string{skipPending, abort, cancel, restart}, e.kind) }
	return i.decision != reject && i.decision != neverDecide && !slices.ContainsFunc(i.events, harmful)
}

func generateOperatorPlan(rnd rng, p *plan, input workflows.RotateClusterInput) operatorPlan {
	i := operatorPlan{
		decision:     pick(rnd, approve, approve, approve, approveAfterOwn, approveChanged, reject, neverDecide),
		pausedSteps:  rnd.between(1, 5),
		retries:      pick(rnd, 0, 1, 2, 3, 4),
		oneByOne:     rnd.chance(30),
		afterRetries: pick(rnd, skipFailed, skipFailed, skipFailed, abort, cancel, string(neverDecide)),
	}
	if !input.RequireApproval {
		i.decision = approve
	}
	i.external = rnd.chance(70)
	if rnd.chance(15) {
		i.events = append(i.events, event{pause, rnd.between(0, 2+2*p.targets())}, event{daysPass, 0})
	} else if rnd.chance(50) {
		for range rnd.between(1, 3) {
			i.events = append(i.events, event{generateEvent(rnd), rnd.between(0, 5+4*p.targets())})
		}
		slices.SortStableFunc(i.events, func(a, b event) int { return a.after - b.after })
	}
	return i
}

func generateEvent(rnd rng) string {
	switch n := rnd.IntN(100); {
	case n < 20:
		return pause
	case n < 28:
		return skipPending
	case n < 34:
		return abort
	case n < 40:
		return cancel
	case n < 65:
		return continueAsNew
	case n < 73:
		return restart
	case n < 80:
		return forgetNonces
	case n < 92:
		return resetRunning
	default:
		return daysPass
	}
}
