package campaign

import (
	"fmt"
	"slices"

	"keyturn/workflows"
)

// People of the campaign.
const (
	requester = "dana"
	operator1 = "lee"
	operator2 = "kim"
)

// decision is what becomes of a plan that awaits approval.
type decision string

const (
	approve         decision = "approve"
	approveAfterOwn decision = "approve after the requester tried" // which is refused
	approveChanged  decision = "approve while a key changes"       // and approve once more
	reject          decision = "reject"
	neglect         decision = "nobody decides"
)

// deed is what happens to a rotation from outside, once so many attempts of
// activities have started or ended.
type deed struct {
	what  string
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
	terminate     = "reset the workflow while it runs"
)

// intentions are what operators, and the world, do to a rotation.
type intentions struct {
	decision decision
	deeds    []deed
	// pausedFor so many looks.
	pausedFor int
	// retries of failed targets while the rotation is held, and what then.
	retries    int
	oneByOne   bool
	afterwards string // skip, abort, cancel or neglect
}

const skipFailed = "skip"

func (i intentions) String() string {
	return fmt.Sprintf("%s; %v; held: %d retries, then %s", i.decision, i.deeds, i.retries, i.afterwards)
}

// calm tells that nothing is meant to keep a rotation from success.
func (i intentions) calm() bool {
	harmful := func(d deed) bool { return slices.Contains([]string{skipPending, abort, cancel, restart}, d.what) }
	return i.decision != reject && i.decision != neglect && !slices.ContainsFunc(i.deeds, harmful)
}

func drawIntentions(d dice, p *plan, input workflows.RotateClusterInput) intentions {
	i := intentions{
		decision:   pick(d, approve, approve, approve, approveAfterOwn, approveChanged, reject, neglect),
		pausedFor:  d.between(1, 5),
		retries:    pick(d, 0, 1, 2, 3, 4),
		oneByOne:   d.chance(30),
		afterwards: pick(d, skipFailed, skipFailed, skipFailed, abort, cancel, string(neglect)),
	}
	if !input.RequireApproval {
		i.decision = approve
	}
	if d.chance(50) {
		for range d.between(1, 3) {
			i.deeds = append(i.deeds, deed{drawDeed(d), d.between(0, 5+4*p.targets())})
		}
		slices.SortStableFunc(i.deeds, func(a, b deed) int { return a.after - b.after })
	}
	return i
}

func drawDeed(d dice) string {
	switch n := d.IntN(100); {
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
	default:
		return terminate
	}
}
