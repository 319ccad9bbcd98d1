package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/text/unicode/norm"
)

// ApproveRequest is the input of approve.
type ApproveRequest struct {
	// By is the operator, required, up to 256 characters. It must not be the
	// rotation's Change.RequestedBy.
	By string `json:"by"`
	// Comment is recorded with the approval, up to 2,000 characters.
	Comment string `json:"comment,omitempty"`
}

// OperatorRequest is the input of reject, pause, resume and abort.
type OperatorRequest struct {
	// By is the operator, required, up to 256 characters.
	By string `json:"by"`
	// Reason is free text, up to 2,000 characters.
	Reason string `json:"reason,omitempty"`
}

// RetryRequest is the input of retry.
type RetryRequest struct {
	// By is the operator, required, up to 256 characters.
	By string `json:"by"`
	// Targets are failed targets, by name or ID; empty = all failed targets.
	Targets []string `json:"targets,omitempty"`
}

// SkipRequest is the input of skip.
type SkipRequest struct {
	// By is the operator, required, up to 256 characters.
	By string `json:"by"`
	// Targets are failed or pending targets, by name or ID; required.
	Targets []string `json:"targets"`
	// Reason is recorded with each target, up to 2,000 characters.
	Reason string `json:"reason,omitempty"`
}

func (q ApproveRequest) requester() string  { return q.By }
func (q OperatorRequest) requester() string { return q.By }
func (q RetryRequest) requester() string    { return q.By }
func (q SkipRequest) requester() string     { return q.By }

func (q ApproveRequest) comment() (field, text string)  { return "comment", q.Comment }
func (q OperatorRequest) comment() (field, text string) { return "reason", q.Reason }
func (q RetryRequest) comment() (field, text string)    { return "", "" }
func (q SkipRequest) comment() (field, text string)     { return "reason", q.Reason }

// operatorRequest is the input of an update.
type operatorRequest interface {
	// requester commands.
	requester() string
	// comment is what is said for the records, and the name of its field.
	comment() (field, text string)
}

// update is an update: it is refused with a reason, or carried out at once.
type update[R operatorRequest] struct {
	name        string
	description string // what the Web UI and the command line say of it
	validate    func(R) error
	apply       func(workflow.Context, R)
}

// updatable is a workflow that operators command.
type updatable interface {
	// isClosed reports that nothing can be commanded any more.
	isClosed() bool
	// changed shows everybody that a command was carried out.
	changed(ctx workflow.Context)
	// recordAction records a command for the result.
	recordAction(ctx workflow.Context, name string, request operatorRequest)
	// standing is what the workflow is called, and what operators have asked of it.
	standing() (what string, paused, aborted *OperatorRequest)
	// currentProgress is the progress.
	currentProgress() any
	// updateAnswer is the progress as an update's answer.
	updateAnswer() any
}

func parseRequest[R operatorRequest](raw converter.RawValue) (R, error) {
	var request R
	var f fieldErrors
	decodeStrictly(raw, &request, &f)
	if f.none() {
		if visible(request.requester()) == "" {
			f.add("by", "is required")
		}
		f.checkText("by", request.requester(), maxName)
	}
	return request, f.err()
}

// registerUpdate registers a command. Its request is decoded strictly, as an input is.
func registerUpdate[R operatorRequest](ctx workflow.Context, w updatable, c update[R]) error {
	handler := func(ctx workflow.Context, raw converter.RawValue) (any, error) {
		request, err := parseRequest[R](raw)
		if err != nil {
			return nil, err
		}
		w.recordAction(ctx, c.name, request)
		c.apply(ctx, request)
		workflow.GetLogger(ctx).Info("operator request applied", "command", c.name, "by", request.requester())
		w.changed(ctx)
		return w.updateAnswer(), nil
	}
	validator := func(_ workflow.Context, raw converter.RawValue) error {
		request, err := parseRequest[R](raw)
		if err != nil {
			return err
		}
		if err := validateComment(request); err != nil {
			return err
		}
		if w.isClosed() {
			return errors.New("the rotation has ended")
		}
		return c.validate(request)
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, c.name, handler, workflow.UpdateHandlerOptions{Validator: validator, Description: c.description})
}

// pausing are the updates that every workflow has: what they say of themselves,
// and what they do.
type pausing struct {
	pauses        string
	pause, resume func(workflow.Context, OperatorRequest)
	aborts        string
	abort         func(workflow.Context, OperatorRequest)
}

// registerPausing registers pause, resume and abort.
func registerPausing(ctx workflow.Context, w updatable, p pausing) error {
	return errors.Join(
		registerUpdate(ctx, w, update[OperatorRequest]{PauseUpdate, p.pauses, func(OperatorRequest) error { return checkPause(w) }, p.pause}),
		registerUpdate(ctx, w, update[OperatorRequest]{
			ResumeUpdate, `Continue after a pause: {"by": "...", "reason": "..."}`, func(OperatorRequest) error { return checkResume(w) }, p.resume,
		}),
		registerUpdate(ctx, w, update[OperatorRequest]{AbortUpdate, p.aborts, func(OperatorRequest) error { return checkNotAborting(w) }, p.abort}),
	)
}

func checkPause(w updatable) error {
	if what, paused, _ := w.standing(); paused != nil {
		return fmt.Errorf("the %s is already paused", what)
	}
	return checkNotAborting(w)
}

func checkResume(w updatable) error {
	if what, paused, _ := w.standing(); paused == nil {
		return fmt.Errorf("the %s is not paused", what)
	}
	return checkNotAborting(w)
}

func checkNotAborting(w updatable) error {
	if what, _, aborted := w.standing(); aborted != nil {
		return fmt.Errorf("the %s is being aborted", what)
	}
	return nil
}

// validateComment keeps the records within what fits into a result. It is asked
// before a command is taken only, not in a replay: what was once taken is
// carried out.
func validateComment(q operatorRequest) error {
	var f fieldErrors
	field, text := q.comment()
	f.checkText(field, text, maxText)
	return f.err()
}

func (r *rotation) isClosed() bool {
	phase := r.currentPhase()
	return phase == PhaseRecording || phase == PhaseDone
}

// hasEnded reports whether the records are closed.
func (r *rotation) hasEnded() bool { return r.common.FinishedAt != nil }

func (r *rotation) currentProgress() any { return r.kind.currentProgress() }

func (r *rotation) updateAnswer() any { return r.kind.updateAnswer() }

// registerQuery registers the query for the progress.
func registerQuery(ctx workflow.Context, w updatable) error {
	return workflow.SetQueryHandlerWithOptions(ctx, ProgressQuery, func() (any, error) { return w.currentProgress(), nil },
		workflow.QueryHandlerOptions{Description: "Current records, phase and what the rotation is waiting for"})
}

// registerHandlers registers the query and the updates.
func (r *rotation) registerHandlers(ctx workflow.Context) error {
	return errors.Join(
		registerQuery(ctx, r),
		registerUpdate(ctx, r, update[ApproveRequest]{
			ApproveUpdate, `Approve and continue: {"by": "...", "comment": "..."}`, r.checkApprove, r.approve,
		}),
		registerUpdate(ctx, r, update[OperatorRequest]{
			RejectUpdate, `Reject; nothing is rotated: {"by": "...", "reason": "..."}`, r.checkReject, r.reject,
		}),
		registerPausing(ctx, r, pausing{
			pauses: `Start no new targets; targets in progress finish: {"by": "...", "reason": "..."}`, pause: r.pause, resume: r.resume,
			aborts: `Finish targets in progress, then stop: {"by": "...", "reason": "..."}`, abort: r.abort,
		}),
		registerUpdate(ctx, r, update[RetryRequest]{
			RetryUpdate, `Retry failed targets, all or the named ones: {"by": "...", "targets": ["..."]}`, r.checkRetry, r.retry,
		}),
		registerUpdate(ctx, r, update[SkipRequest]{
			SkipUpdate, `Skip failed or pending targets: {"by": "...", "targets": ["..."], "reason": "..."}`, r.checkSkip, r.skip,
		}),
	)
}

func (r *rotation) checkAwaiting() error {
	if r.currentPhase() != PhaseAwaitingApproval {
		return fmt.Errorf("the rotation is not waiting for approval: it is %s", r.currentPhase())
	}
	return r.checkNotAborting()
}

func (r *rotation) checkApprove(q ApproveRequest) error {
	if err := r.checkAwaiting(); err != nil {
		return err
	}
	if samePerson(q.By, r.settings.Change.RequestedBy) {
		return fmt.Errorf("%s requested the rotation; another person must approve it", q.By)
	}
	return nil
}

// samePerson compares names as people see them: without regard to case, to
// forms of one letter, such as full-width ones, and to what is invisible.
func samePerson(a, b string) bool {
	return strings.EqualFold(visible(a), visible(b))
}

// visible is the part of a name that people see, with one space between words.
//
// The tables of Unicode are fixed.
//
//workflowcheck:ignore
func visible(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) || r == brailleBlank {
			return -1
		}
		return r
	}, norm.NFKC.String(name))
	return strings.Join(strings.Fields(name), " ")
}

// brailleBlank is invisible without being a space.
const brailleBlank = '\u2800'

func (r *rotation) approve(ctx workflow.Context, q ApproveRequest) {
	r.common.Approval = &Approval{By: q.By, At: timestamp(ctx), Comment: q.Comment}
}

func (r *rotation) checkReject(OperatorRequest) error { return r.checkAwaiting() }

func (r *rotation) reject(_ workflow.Context, q OperatorRequest) { r.rejected = &q }

func (r *rotation) checkNotAborting() error { return checkNotAborting(r) }

func (r *rotation) standing() (what string, paused, aborted *OperatorRequest) {
	return "rotation", r.operators.Paused, r.aborted
}

func (r *rotation) pause(_ workflow.Context, q OperatorRequest) { r.operators.Paused = &q }

func (r *rotation) resume(workflow.Context, OperatorRequest) {
	r.operators.Paused, r.operators.PausedByFleet = nil, false
}

func (r *rotation) checkRetry(q RetryRequest) error {
	if err := r.checkNotAborting(); err != nil {
		return err
	}
	if len(q.Targets) == 0 && r.count(StatusFailed) == 0 {
		return errors.New("no target has failed")
	}
	return r.checkTargets(q.Targets, StatusFailed)
}

func (r *rotation) retry(ctx workflow.Context, q RetryRequest) {
	for _, t := range r.selectTargets(q.Targets, StatusFailed) {
		t.prepareRetry()
		keepFirstError(t)
		setStatus(t, StatusPending, nil)
	}
}

func (r *rotation) checkSkip(q SkipRequest) error {
	if len(q.Targets) == 0 {
		return errors.New("targets: is required")
	}
	if err := r.checkNotAborting(); err != nil {
		return err
	}
	return r.checkTargets(q.Targets, StatusFailed, StatusPending)
}

func (r *rotation) skip(ctx workflow.Context, q SkipRequest) {
	for _, t := range r.selectTargets(q.Targets, StatusFailed, StatusPending) {
		text := "skipped by " + q.By
		if q.Reason != "" {
			text += ": " + q.Reason
		}
		if failure := failureOf(t); failure != nil {
			text += " (it had failed: " + string(failure.Type) + ": " + failure.Message + ")"
		}
		keepFirstError(t)
		setStatus(t, StatusSkipped, &TargetError{Type: skippedType, Message: text})
		countTarget(ctx, t)
	}
}

// skippedType is the error type in the record of a skipped target.
const skippedType ErrorType = "Skipped"

func (r *rotation) abort(_ workflow.Context, q OperatorRequest) {
	r.aborted = &q
	r.cancelPreparation()
}

// selectTargets are the targets of these statuses that are named; all, if none is.
func (r *rotation) selectTargets(names []string, statuses ...Status) []target {
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = name != ""
	}
	isWanted := func(name string) bool { return wanted[name] }
	var targets []target
	for _, t := range r.targets {
		if hasStatus(t, statuses...) && (len(names) == 0 || slices.ContainsFunc(t.names(), isWanted)) {
			targets = append(targets, t)
		}
	}
	return targets
}

// checkTargets refuses a name that fits no target of these statuses, or several
// targets: a shard and the config server may share one. It looks at each target
// once: a request may name thousands of them.
func (r *rotation) checkTargets(names []string, statuses ...Status) error {
	labeled, named := map[string][]string{}, map[string]target{} // the best target of a name
	for _, t := range r.targets {
		labeled[t.label()] = append(labeled[t.label()], t.id())
		for _, name := range t.names() {
			if best, found := named[name]; !found || !hasStatus(best, statuses...) && hasStatus(t, statuses...) {
				named[name] = t
			}
		}
	}
	for _, name := range names {
		if ids := labeled[name]; len(ids) > 1 {
			return fmt.Errorf("targets: %d targets are named %.*q; use one of the IDs %s", len(ids), maxFieldQuoted, name, someNames(ids))
		}
		switch t, found := named[name]; {
		case !found || name == "":
			return fmt.Errorf("targets: no target is named %.*q", maxFieldQuoted, name)
		case !hasStatus(t, statuses...):
			return fmt.Errorf("targets: %s is %s, not %s", t.label(), statusOf(t), joinOr(statuses))
		}
	}
	return nil
}

func joinOr(statuses []Status) string {
	var names []string
	for _, status := range statuses {
		names = append(names, string(status))
	}
	return strings.Join(names, " or ")
}
