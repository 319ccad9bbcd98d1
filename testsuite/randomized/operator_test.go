package randomized

import (
	"time"

	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/workflows"
)

// maxSteps limits what the operator does in a rotation that makes no progress:
// it then has to end by its timeouts.
const maxSteps = 4000

// operator sends the updates of the operator plan. It reads the progress
// whenever something has happened, in the main loop of the test environment.
type operator struct {
	r                *rotation
	plan             operatorPlan
	steps            int
	waiting          bool // for the result of an update
	ownApprovalTried bool // the requester has tried to approve
	changed          bool // a key has changed since the targets were listed
	ending           *run // the terminated run whose workflow was aborted
	pausedSteps      int  // steps since the rotation was paused
}

func newOperator(r *rotation) *operator { return &operator{r: r, plan: r.plan.operator} }

// begin prepares for a new run, which has no pending update.
func (o *operator) begin() { o.waiting, o.pausedSteps = false, 0 }

// afterReset restores what a reset run may need again. The part of the history
// that is kept includes the approval.
func (o *operator) afterReset() {
	o.plan.retries += 2
	o.plan.decision = approve
}

func (o *operator) step(r *run) {
	o.steps++
	if o.steps > maxSteps || o.waiting {
		return
	}
	p, ok := r.progress()
	if !ok { // the workflow has not started yet
		r.scheduleStep(time.Millisecond)
		return
	}
	if p.Phase == workflows.PhaseDone {
		return
	}
	o.r.env.checkNoSecrets("the progress", p)
	if r.isTerminated() {
		o.endTerminated(r)
		return
	}
	if !r.isReplaying() && len(o.plan.events) > 0 && o.plan.events[0].kind == daysPass {
		o.applyEvent(r, p)
	}
	switch p.Phase {
	case workflows.PhaseAwaitingApproval:
		o.decide(r)
	case workflows.PhasePaused:
		o.resumeWhenDue(r)
	case workflows.PhaseHeld:
		o.handleFailed(r, p)
	}
	if !o.waiting && !r.isReplaying() {
		o.applyEvent(r, p)
	}
}

// endTerminated aborts a workflow that a server would simply terminate: the
// test environment cannot.
func (o *operator) endTerminated(r *run) {
	if o.ending != r {
		o.ending = r
		o.update(r, workflows.AbortUpdate, workflows.OperatorRequest{By: operator1})
	}
}

// update sends an update. The workflow may reject it if the rotation has
// progressed in the meantime.
func (o *operator) update(r *run, name string, request any) {
	o.waiting = true
	answered := func(outcome string) func(error) {
		return func(err error) {
			o.waiting = false
			if err != nil {
				outcome = "rejected"
				o.r.env.checkNoSecrets("the rejection of "+name, err.Error())
			}
			o.r.env.counters.addUpdate(name, outcome)
			o.r.logf("%s: %s %s", r.id, name, outcome)
			r.scheduleStep(time.Millisecond)
		}
	}
	complete := answered("done")
	r.testEnv.UpdateWorkflow(name, "", &sdktestsuite.TestUpdateCallback{
		OnReject:   answered("rejected"),
		OnAccept:   func() {},
		OnComplete: func(_ any, err error) { complete(err) },
	}, request)
}

func (o *operator) decide(r *run) {
	switch o.plan.decision {
	case neverDecide:
	case reject:
		o.update(r, workflows.RejectUpdate, workflows.OperatorRequest{By: operator1, Reason: "not tonight"})
	case approveAfterOwn:
		if !o.ownApprovalTried {
			o.ownApprovalTried = true
			o.update(r, workflows.ApproveUpdate, workflows.ApproveRequest{By: requester})
			return
		}
		o.approve(r)
	case approveChanged:
		if !o.changed {
			o.changed = true
			o.r.env.rotateExternally(len(o.r.env.targets) - 1)
		}
		o.approve(r)
	default:
		o.approve(r)
	}
}

func (o *operator) approve(r *run) {
	o.update(r, workflows.ApproveUpdate, workflows.ApproveRequest{By: operator2, Comment: "the window is open"})
}

func (o *operator) resumeWhenDue(r *run) {
	o.pausedSteps++
	if o.pausedSteps < o.plan.pausedSteps {
		r.scheduleStep(10 * time.Millisecond)
		return
	}
	o.pausedSteps = 0
	o.update(r, workflows.ResumeUpdate, workflows.OperatorRequest{By: operator2})
}

// handleFailed handles a held rotation: it retries as often as planned, then
// does what is planned after that.
func (o *operator) handleFailed(r *run, p workflows.Progress) {
	failed := namesOf(p, workflows.StatusFailed)
	if o.plan.retries > 0 {
		o.plan.retries--
		request := workflows.RetryRequest{By: operator1}
		if o.plan.oneByOne {
			request.Targets = failed[:1]
		}
		o.update(r, workflows.RetryUpdate, request)
		return
	}
	switch o.plan.afterRetries {
	case skipFailed:
		o.update(r, workflows.SkipUpdate, workflows.SkipRequest{By: operator1, Targets: failed, Reason: "it never works"})
	case abort:
		o.update(r, workflows.AbortUpdate, workflows.OperatorRequest{By: operator1, Reason: "enough"})
	case cancel:
		o.cancel(r)
	}
}

func (o *operator) cancel(r *run) {
	o.r.env.counters.addUpdate("cancel", "done")
	o.r.logf("%s: cancel", r.id)
	r.testEnv.CancelWorkflow()
}

func namesOf(p workflows.Progress, status workflows.Status) (names []string) {
	for _, t := range p.Targets {
		if t.Status == status {
			names = append(names, t.Name)
		}
	}
	return names
}

// applyEvent applies the next event if it is due.
func (o *operator) applyEvent(r *run, p workflows.Progress) {
	if len(o.plan.events) == 0 || int(o.r.transitions.Load()) < o.plan.events[0].after {
		return
	}
	next := o.plan.events[0].kind
	if next == daysPass && p.Phase != workflows.PhasePaused && p.Phase != workflows.PhaseHeld {
		return
	}
	o.plan.events = o.plan.events[1:]
	o.r.env.counters.add("event: "+next, 1)
	o.r.logf("%s: %s", r.id, next)
	switch next {
	case pause:
		o.update(r, workflows.PauseUpdate, workflows.OperatorRequest{By: operator1, Reason: "peak hour"})
	case skipPending:
		if pending := namesOf(p, workflows.StatusPending); len(pending) > 0 {
			o.update(r, workflows.SkipUpdate, workflows.SkipRequest{By: operator1, Targets: pending[len(pending)-1:]})
		}
	case abort:
		o.update(r, workflows.AbortUpdate, workflows.OperatorRequest{By: operator2, Reason: "the window has closed"})
	case cancel:
		o.cancel(r)
	case continueAsNew:
		r.testEnv.SetContinueAsNewSuggested(true)
	case restart:
		o.r.env.running.add()
		go func() {
			defer o.r.env.running.done()
			o.r.env.om.Restart()
		}()
	case forgetNonces:
		o.r.env.om.ForgetNonces()
	case daysPass:
		o.r.env.skipped.Add(int64(72 * time.Hour))
		if o.plan.external && o.r.alwaysKnowsFirstAttempts() {
			o.rotateWaitingTarget(r, p)
		}
	case resetRunning:
		r.terminate()
		r.scheduleStep(time.Millisecond)
	}
}

// rotateWaitingTarget rotates the last target that waits and that no PUT of the
// rotation can have changed, without keyturn.
func (o *operator) rotateWaitingTarget(r *run, p workflows.Progress) {
	for i := len(p.Targets) - 1; i >= 0; i-- {
		if t := p.Targets[i]; t.Status == workflows.StatusPending && t.Attempts == 0 {
			o.r.env.counters.add("external rotations while days passed", 1)
			o.r.logf("%s: external rotation of %s", r.id, t.Name)
			o.r.env.rotateExternally(i)
			return
		}
	}
}
