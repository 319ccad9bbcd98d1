package campaign

import (
	"time"

	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/workflows"
)

// maxLooks ends the patience of an operator with a rotation that goes round in
// circles: it is then left alone, and has to end by its timeouts.
const maxLooks = 4000

// operator does what is intended with a rotation. It looks at the progress
// whenever something has happened, in the main loop of the test environment.
type operator struct {
	r       *rotation
	intends intentions
	looks   int
	waiting bool // for the answer to a command
	asked   bool // the requester has tried to approve
	changed bool // a key has changed since the plan
	ending  *run // the terminated run whose workflow was told to end
	pausing int  // looks at the paused rotation
}

func newOperator(r *rotation) *operator { return &operator{r: r, intends: r.plan.operator} }

// begin turns to a new run, in which no command is under way.
func (o *operator) begin() { o.waiting, o.pausing = false, 0 }

// afterReset renews what a run may need once more. The part of the history that
// is kept has the plan approved.
func (o *operator) afterReset() {
	o.intends.retries += 2
	o.intends.decision = approve
}

func (o *operator) look(r *run) {
	o.looks++
	if o.looks > maxLooks || o.waiting {
		return
	}
	p, ok := r.progress()
	if !ok { // the test environment has not begun with the workflow yet
		r.look(time.Millisecond)
		return
	}
	if p.Phase == workflows.PhaseDone {
		return
	}
	o.r.w.inspect("the progress", p)
	if r.isTerminated() {
		o.letEnd(r)
		return
	}
	switch p.Phase {
	case workflows.PhaseAwaitingApproval:
		o.decide(r)
	case workflows.PhasePaused:
		o.considerResuming(r)
	case workflows.PhaseHeld:
		o.considerFailed(r, p)
	}
	if !o.waiting && !r.isReplaying() {
		o.interfere(r, p)
	}
}

// letEnd has the test environment end a workflow that a server would just have
// terminated.
func (o *operator) letEnd(r *run) {
	if o.ending != r {
		o.ending = r
		o.command(r, workflows.AbortUpdate, workflows.ReasonRequest{By: operator1})
	}
}

// command sends an update. It may be refused where the rotation has gone on
// meanwhile.
func (o *operator) command(r *run, name string, request any) {
	o.waiting = true
	answered := func(what string) func(error) {
		return func(err error) {
			o.waiting = false
			if err != nil {
				what = "refused"
				o.r.w.inspect("the refusal of "+name, err.Error())
			}
			o.r.w.tally.command(name, what)
			o.r.tell("%s: %s %s", r.id, name, what)
			r.look(time.Millisecond)
		}
	}
	complete := answered("done")
	r.env.UpdateWorkflow(name, "", &sdktestsuite.TestUpdateCallback{
		OnReject:   answered("refused"),
		OnAccept:   func() {},
		OnComplete: func(_ any, err error) { complete(err) },
	}, request)
}

func (o *operator) decide(r *run) {
	switch o.intends.decision {
	case neglect:
	case reject:
		o.command(r, workflows.RejectUpdate, workflows.ReasonRequest{By: operator1, Reason: "not tonight"})
	case approveAfterOwn:
		if !o.asked {
			o.asked = true
			o.command(r, workflows.ApproveUpdate, workflows.ApproveRequest{By: requester})
			return
		}
		o.approve(r)
	case approveChanged:
		if !o.changed {
			o.changed = true
			o.r.w.somebodyElseRotates(len(o.r.w.targets) - 1)
		}
		o.approve(r)
	default:
		o.approve(r)
	}
}

func (o *operator) approve(r *run) {
	o.command(r, workflows.ApproveUpdate, workflows.ApproveRequest{By: operator2, Comment: "the window is open"})
}

func (o *operator) considerResuming(r *run) {
	o.pausing++
	if o.pausing < o.intends.pausedFor {
		r.look(10 * time.Millisecond)
		return
	}
	o.pausing = 0
	o.command(r, workflows.ResumeUpdate, workflows.ReasonRequest{By: operator2})
}

// considerFailed ends the holding: by retrying as often as is intended, and
// then otherwise.
func (o *operator) considerFailed(r *run, p workflows.Progress) {
	failed := namesOf(p, workflows.StatusFailed)
	if o.intends.retries > 0 {
		o.intends.retries--
		request := workflows.RetryRequest{By: operator1}
		if o.intends.oneByOne {
			request.Targets = failed[:1]
		}
		o.command(r, workflows.RetryUpdate, request)
		return
	}
	switch o.intends.afterwards {
	case skipFailed:
		o.command(r, workflows.SkipUpdate, workflows.SkipRequest{By: operator1, Targets: failed, Reason: "it never works"})
	case abort:
		o.command(r, workflows.AbortUpdate, workflows.ReasonRequest{By: operator1, Reason: "enough"})
	case cancel:
		o.cancel(r)
	}
}

func (o *operator) cancel(r *run) {
	o.r.w.tally.command("cancel", "done")
	o.r.tell("%s: cancel", r.id)
	r.env.CancelWorkflow()
}

func namesOf(p workflows.Progress, status string) (names []string) {
	for _, t := range p.Targets {
		if t.Status == status {
			names = append(names, t.Name)
		}
	}
	return names
}

// interfere does the next deed whose time has come.
func (o *operator) interfere(r *run, p workflows.Progress) {
	if len(o.intends.deeds) == 0 || int(o.r.events.Load()) < o.intends.deeds[0].after {
		return
	}
	next := o.intends.deeds[0].what
	o.intends.deeds = o.intends.deeds[1:]
	o.r.w.tally.add("deed: "+next, 1)
	o.r.tell("%s: %s", r.id, next)
	switch next {
	case pause:
		o.command(r, workflows.PauseUpdate, workflows.ReasonRequest{By: operator1, Reason: "peak hour"})
	case skipPending:
		if pending := namesOf(p, workflows.StatusPending); len(pending) > 0 {
			o.command(r, workflows.SkipUpdate, workflows.SkipRequest{By: operator1, Targets: pending[len(pending)-1:]})
		}
	case abort:
		o.command(r, workflows.AbortUpdate, workflows.ReasonRequest{By: operator2, Reason: "the window has closed"})
	case cancel:
		o.cancel(r)
	case continueAsNew:
		r.env.SetContinueAsNewSuggested(true)
	case restart:
		o.r.w.crowd.enter()
		go func() {
			defer o.r.w.crowd.leave()
			o.r.w.om.Restart()
		}()
	case forgetNonces:
		o.r.w.om.ForgetNonces()
	case terminate:
		r.terminate()
		r.look(time.Millisecond)
	}
}
