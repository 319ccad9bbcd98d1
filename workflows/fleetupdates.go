package workflows

import (
	"errors"

	"go.temporal.io/sdk/workflow"
)

// registerHandlers registers the query and the updates for the whole of the
// fleet; those of a cluster are sent to its own rotation.
func (f *fleet) registerHandlers(ctx workflow.Context) error {
	return errors.Join(
		registerQuery(ctx, f),
		registerPausing(ctx, f, pausing{
			pauses: `Start no new clusters, and no new targets in clusters in progress: {"by": "...", "reason": "..."}`, pause: f.pause, resume: f.resume,
			aborts: `Start no new clusters, abort those in progress, then stop: {"by": "...", "reason": "..."}`, abort: f.abort,
		}),
	)
}

func (f *fleet) isClosed() bool { return f.phase == PhaseRecording || f.phase == PhaseDone }

func (f *fleet) actionLog() actionLog {
	log := f.result.actionLog()
	log.actors = &f.actors
	return log
}

func (f *fleet) recordAction(ctx workflow.Context, name string, request operatorRequest) {
	f.actionLog().add(ctx, actionOf(name, request))
}

func (f *fleet) currentProgress() any { return f.progress() }

func (f *fleet) updateAnswer() any {
	p := f.progress()
	p.RotateFleetResult.fit(maxFleetAnswer)
	return p
}

func (f *fleet) standing() (what string, paused, aborted *OperatorRequest) {
	return "fleet rotation", f.paused, f.aborted
}

func (f *fleet) abort(_ workflow.Context, q OperatorRequest) {
	f.aborted = &q
	f.cancelList()
	f.broadcast()
}

func (f *fleet) pause(_ workflow.Context, q OperatorRequest) {
	f.paused = &q
	f.broadcast()
}

func (f *fleet) resume(_ workflow.Context, _ OperatorRequest) {
	f.paused = nil
	f.broadcast()
}
