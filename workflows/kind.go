package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"
)

// kind is what the rotations of different kinds of keys do differently. The rest
// is the same: approval, hold, retry, skip, pause, abort, continuing as new.
type kind interface {
	// title names what is rotated.
	title() string
	// newMemo is a memo that says what is rotated, and for whom.
	newMemo() Memo
	// header names the columns of the targets' cells.
	header() []string
	// plan finds the targets and reads what is to be approved. It changes nothing.
	plan(ctx workflow.Context) error
	// confirmPlan reads the same again after an approval. What it returns says what
	// has changed since, which needs another approval; empty = nothing.
	confirmPlan(ctx workflow.Context) (changed string, err error)
	// doneWord is what the rotation has done to a target that is done.
	doneWord() string
	// outcome is that of a rotation whose targets are all done or skipped.
	outcome() Outcome
	// parallelism is how many pieces of work may be in progress now.
	parallelism() int
	// nextWork picks the pending targets of the piece of work to start next; none
	// if nothing is left to start.
	nextWork() []target
	// work works on these targets until each is done or has failed.
	work(ctx workflow.Context, targets []target)
	// startBackground starts, without waiting, what is to be done about targets that
	// are done and does not keep others from being started. It counts it in
	// rotation.inBackground, and starts nothing twice.
	startBackground(ctx workflow.Context)
	// stopBackground ends it; the next run may start it again.
	stopBackground()
	// waitingForBackground says what it waits for, with no target in progress.
	waitingForBackground() string
	// holdsOn reports whether such a failure holds the rotation although OnFailure is
	// to continue.
	holdsOn(failure *TargetError) bool
	// records is a copy of the result so far that fits into a payload.
	records() any
	// currentProgress answers the query, updateAnswer an update, and eventProgress is
	// what events say.
	currentProgress() any
	updateAnswer() any
	eventProgress() any
	// continueAsNew starts a fresh history with every record.
	continueAsNew(ctx workflow.Context) error
}

// target is a target's record, as every kind of rotation sees it.
type target interface {
	// id distinguishes the target from all others of the rotation.
	id() string
	// label is what people call it. Several targets may have the same.
	label() string
	// names are those by which an operator's request may mean the target, its ID
	// among them.
	names() []string
	// fields are those that a rotation of any kind sets.
	fields() targetFields
	// isDone reports whether the rotation has done what it was asked to do.
	isDone() bool
	// isCarriedOver reports whether an earlier run did it.
	isCarriedOver() bool
	// mayHaveChanged reports whether this rotation may have sent a request that
	// changes the target.
	mayHaveChanged() bool
	// prepareRetry removes what a failed attempt has left.
	prepareRetry()
	// cells are the target's row in the details, without its status.
	cells() []string
	// Remark is what a person should know besides.
	Remark() string
}

// targetFields point into a record.
type targetFields struct {
	status              *Status
	failure, firstError **TargetError
}

func statusOf(t target) Status { return *t.fields().status }

func hasStatus(t target, statuses ...Status) bool { return slices.Contains(statuses, statusOf(t)) }

func failureOf(t target) *TargetError { return *t.fields().failure }

func setStatus(t target, status Status, failure *TargetError) {
	fields := t.fields()
	*fields.status, *fields.failure = status, failure
}

// keepFirstError keeps the failure of a target that will have another status.
func keepFirstError(t target) {
	if fields := t.fields(); *fields.firstError == nil {
		*fields.firstError = *fields.failure
	}
}
