package workflows

import (
	"errors"

	"go.temporal.io/sdk/workflow"
)

// serveOperators registers the query and the updates for the whole of the
// fleet; those of a cluster are sent to its own rotation.
func (f *fleet) serveOperators(ctx workflow.Context) error {
	return errors.Join(
		serveQuery(ctx, f),
		serve(ctx, f, command[ReasonRequest]{
			PauseUpdate, `starts no new cluster, and no new target of those in work: {"by": "...", "reason": "..."}`, f.checkPause, f.pause,
		}),
		serve(ctx, f, command[ReasonRequest]{
			ResumeUpdate, `goes on after a pause: {"by": "...", "reason": "..."}`, f.checkResume, f.resume,
		}),
		serve(ctx, f, command[ReasonRequest]{
			AbortUpdate, `starts no new cluster and aborts those in work, then ends it: {"by": "...", "reason": "..."}`, f.checkAbort, f.abort,
		}),
	)
}

func (f *fleet) isClosed() bool { return f.phase == PhaseDone }

func (f *fleet) answer() any { return f.progress() }

func (f *fleet) checkAbort(ReasonRequest) error {
	if f.aborted != nil {
		return errors.New("the fleet's rotation is being aborted")
	}
	return nil
}

func (f *fleet) abort(_ workflow.Context, q ReasonRequest) {
	f.aborted = &q
	f.cancelList()
	f.tellAll()
}

func (f *fleet) checkPause(q ReasonRequest) error {
	if f.paused != nil {
		return errors.New("the fleet's rotation is paused already")
	}
	return f.checkAbort(q)
}

func (f *fleet) pause(_ workflow.Context, q ReasonRequest) {
	f.paused = &q
	f.tellAll()
}

func (f *fleet) checkResume(q ReasonRequest) error {
	if f.paused == nil {
		return errors.New("the fleet's rotation is not paused")
	}
	return f.checkAbort(q)
}

func (f *fleet) resume(_ workflow.Context, _ ReasonRequest) {
	f.paused = nil
	f.tellAll()
}
