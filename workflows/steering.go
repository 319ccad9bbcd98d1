package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
)

// ApproveRequest, and the like below, are the inputs of the updates. By is who
// commands, and is required.
type ApproveRequest struct {
	By      string `json:"by"`
	Comment string `json:"comment,omitempty"`
}

// ReasonRequest is the input of reject, pause, resume and abort.
type ReasonRequest struct {
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
}

// RetryRequest names failed targets, by name or id; none = all failed ones.
type RetryRequest struct {
	By      string   `json:"by"`
	Targets []string `json:"targets,omitempty"`
}

// SkipRequest names failed or pending targets, by name or id.
type SkipRequest struct {
	By      string   `json:"by"`
	Targets []string `json:"targets"`
	Reason  string   `json:"reason,omitempty"`
}

func (q ApproveRequest) who() string { return q.By }
func (q ReasonRequest) who() string  { return q.By }
func (q RetryRequest) who() string   { return q.By }
func (q SkipRequest) who() string    { return q.By }

func (q ApproveRequest) remark() (field, text string) { return "comment", q.Comment }
func (q ReasonRequest) remark() (field, text string)  { return "reason", q.Reason }
func (q RetryRequest) remark() (field, text string)   { return "", "" }
func (q SkipRequest) remark() (field, text string)    { return "reason", q.Reason }

// operatorRequest is the input of an update.
type operatorRequest interface {
	// who commands.
	who() string
	// remark is what is said for the records, and the name of its field.
	remark() (field, text string)
}

// command is an update: it is refused with a reason, or carried out at once.
type command[R operatorRequest] struct {
	name  string
	does  string // what the Web UI and the command line say of it
	check func(R) error
	apply func(workflow.Context, R)
}

// commanded is a workflow that operators command.
type commanded interface {
	// isClosed tells that nothing can be commanded any more.
	isClosed() bool
	// changed tells everybody that a command was carried out.
	changed(ctx workflow.Context)
	// answer is the progress.
	answer() any
}

// serve registers a command. Its request is decoded strictly, as an input is.
func serve[R operatorRequest](ctx workflow.Context, w commanded, c command[R]) error {
	parse := func(raw converter.RawValue) (R, error) {
		var request R
		var f faults
		decodeStrictly(raw, &request, &f)
		if len(f) == 0 {
			if strings.TrimSpace(request.who()) == "" {
				f.add("by", "is required")
			}
			f.checkText("by", request.who(), maxName)
		}
		return request, f.err()
	}
	handler := func(ctx workflow.Context, raw converter.RawValue) (any, error) {
		request, err := parse(raw)
		if err != nil {
			return nil, err
		}
		c.apply(ctx, request)
		workflow.GetLogger(ctx).Info("operator's command", "command", c.name, "by", request.who())
		w.changed(ctx)
		return w.answer(), nil
	}
	validator := func(_ workflow.Context, raw converter.RawValue) error {
		request, err := parse(raw)
		if err != nil {
			return err
		}
		if err := checkRemark(request); err != nil {
			return err
		}
		if w.isClosed() {
			return errors.New("the rotation is over")
		}
		return c.check(request)
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, c.name, handler, workflow.UpdateHandlerOptions{Validator: validator, Description: c.does})
}

// checkRemark keeps the records within what fits into a result. It is asked
// before a command is taken only, not in a replay: what was once taken is
// carried out.
func checkRemark(q operatorRequest) error {
	var f faults
	field, text := q.remark()
	f.checkText(field, text, maxText)
	return f.err()
}

func (r *rotation) isClosed() bool { return r.currentPhase() == PhaseDone }

func (r *rotation) answer() any { return r.progress() }

// serveQuery registers the query for the progress.
func serveQuery(ctx workflow.Context, w commanded) error {
	return workflow.SetQueryHandlerWithOptions(ctx, ProgressQuery, func() (any, error) { return w.answer(), nil },
		workflow.QueryHandlerOptions{Description: "the records so far, the phase, and what is waited for"})
}

// serveOperators registers the query and the updates.
func (r *rotation) serveOperators(ctx workflow.Context) error {
	return errors.Join(
		serveQuery(ctx, r),
		serve(ctx, r, command[ApproveRequest]{
			ApproveUpdate, `lets the rotation go on: {"by": "...", "comment": "..."}`, r.checkApprove, r.approve,
		}),
		serve(ctx, r, command[ReasonRequest]{
			RejectUpdate, `ends it with nothing rotated: {"by": "...", "reason": "..."}`, r.checkReject, r.reject,
		}),
		serve(ctx, r, command[ReasonRequest]{
			PauseUpdate, `starts no new target: {"by": "...", "reason": "..."}`, r.checkPause, r.pause,
		}),
		serve(ctx, r, command[ReasonRequest]{
			ResumeUpdate, `goes on after a pause: {"by": "...", "reason": "..."}`, r.checkResume, r.resume,
		}),
		serve(ctx, r, command[RetryRequest]{
			RetryUpdate, `puts failed targets back to work, all or those named: {"by": "...", "targets": ["..."]}`, r.checkRetry, r.retry,
		}),
		serve(ctx, r, command[SkipRequest]{
			SkipUpdate, `leaves failed or pending targets alone: {"by": "...", "targets": ["..."], "reason": "..."}`, r.checkSkip, r.skip,
		}),
		serve(ctx, r, command[ReasonRequest]{
			AbortUpdate, `lets those in work finish, then ends it: {"by": "...", "reason": "..."}`, r.checkAbort, r.abort,
		}),
	)
}

func (r *rotation) checkAwaiting() error {
	if r.currentPhase() != PhaseAwaitingApproval {
		return fmt.Errorf("the rotation does not wait for approval: it is %s", r.currentPhase())
	}
	return r.checkNotAborting()
}

func (r *rotation) checkApprove(q ApproveRequest) error {
	if err := r.checkAwaiting(); err != nil {
		return err
	}
	if samePerson(q.By, r.input.Change.RequestedBy) {
		return fmt.Errorf("%s requested the rotation: somebody else must approve it", q.By)
	}
	return nil
}

func samePerson(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

func (r *rotation) approve(ctx workflow.Context, q ApproveRequest) {
	r.result.Approval = &Approval{By: q.By, At: timestamp(ctx), Comment: q.Comment}
}

func (r *rotation) checkReject(ReasonRequest) error { return r.checkAwaiting() }

func (r *rotation) reject(_ workflow.Context, q ReasonRequest) { r.rejected = &q }

func (r *rotation) checkPause(ReasonRequest) error {
	if r.steering.Paused != nil {
		return errors.New("the rotation is paused already")
	}
	return r.checkNotAborting()
}

func (r *rotation) checkNotAborting() error {
	if r.aborted != nil {
		return errors.New("the rotation is being aborted")
	}
	return nil
}

func (r *rotation) pause(_ workflow.Context, q ReasonRequest) { r.steering.Paused = &q }

func (r *rotation) checkResume(ReasonRequest) error {
	if r.steering.Paused == nil {
		return errors.New("the rotation is not paused")
	}
	return r.checkNotAborting()
}

func (r *rotation) resume(workflow.Context, ReasonRequest) {
	r.steering.Paused, r.steering.PausedByFleet = nil, false
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
	for _, t := range r.chosen(q.Targets, StatusFailed) {
		if t.Error != nil && keyIsUnchanged(t.Error) {
			t.RotatedAt = nil // that PUT came to nothing
		}
		t.Status, t.Error = StatusPending, nil
	}
}

func (r *rotation) checkSkip(q SkipRequest) error {
	if len(q.Targets) == 0 {
		return errors.New("targets: name the targets to skip")
	}
	if err := r.checkNotAborting(); err != nil {
		return err
	}
	return r.checkTargets(q.Targets, StatusFailed, StatusPending)
}

func (r *rotation) skip(ctx workflow.Context, q SkipRequest) {
	for _, t := range r.chosen(q.Targets, StatusFailed, StatusPending) {
		text := "skipped by " + q.By
		if q.Reason != "" {
			text += ": " + q.Reason
		}
		if t.Error != nil {
			text += " (it had failed: " + t.Error.Type + ": " + t.Error.Message + ")"
		}
		t.Status, t.Error = StatusSkipped, &TargetError{Type: skippedType, Message: text}
		countTarget(ctx, t)
	}
}

// skippedType is the error type in the record of a skipped target.
const skippedType = "Skipped"

func (r *rotation) checkAbort(ReasonRequest) error { return r.checkNotAborting() }

func (r *rotation) abort(_ workflow.Context, q ReasonRequest) {
	r.aborted = &q
	r.cancelWork()
}

// chosen are the targets of these statuses that are named; all, if none is.
func (r *rotation) chosen(names []string, statuses ...string) []*TargetRecord {
	var targets []*TargetRecord
	for i := range r.result.Targets {
		t := &r.result.Targets[i]
		if slices.Contains(statuses, t.Status) && (len(names) == 0 || isNamed(t, names)) {
			targets = append(targets, t)
		}
	}
	return targets
}

func isNamed(t *TargetRecord, names []string) bool {
	return slices.Contains(names, t.Name) || slices.Contains(names, t.ClusterID)
}

// checkTargets refuses a name that fits no target of these statuses.
func (r *rotation) checkTargets(names []string, statuses ...string) error {
	for _, name := range names {
		if len(r.chosen([]string{name}, statuses...)) > 0 {
			continue
		}
		for i := range r.result.Targets {
			if t := &r.result.Targets[i]; isNamed(t, []string{name}) {
				return fmt.Errorf("targets: %s is %s, not %s", t.Name, t.Status, strings.Join(statuses, " or "))
			}
		}
		return fmt.Errorf("targets: there is no %.*q", maxFieldTold, name)
	}
	return nil
}
