package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"
)

const (
	// maxActions is the number of the newest actions that a result lists.
	maxActions = 200
	// maxActionTargets is the number of targets that an action lists.
	maxActionTargets = 100
	// maxActorBytes limits the names of all who acted: more than two thousand.
	maxActorBytes = 50_000
)

// Action is one thing that an operator did to a rotation.
type Action struct {
	// At is when the rotation took the request, in UTC, to the millisecond.
	At time.Time `json:"at"`
	// By is the operator; "workflow cancellation" if someone canceled the
	// workflow, and the fleet's workflow ID where the fleet ended its pause.
	By string `json:"by"`
	// Action is the name of the update, or ActionCancel.
	Action string `json:"action"`
	// Targets are the targets of a retry or skip, by name, or by ID where
	// several targets have that name. At most 100.
	Targets []string `json:"targets,omitempty"`
	// TargetsNotListed is the number of targets beyond those in Targets.
	TargetsNotListed int `json:"targetsNotListed,omitempty"`
	// Reason is the request's reason or comment.
	Reason string `json:"reason,omitempty"`
}

// ActionCancel is the Action of a cancellation of the workflow. It has the same
// effect as abort.
const ActionCancel = "cancel"

// actionLog is what operators did, the newest maxActions.
type actionLog struct {
	actions   *[]Action
	notListed *int
	// actors, if not nil, are all who acted, also those whose actions are not listed
	// any more.
	actors *actors
}

// actors are operators who sent updates, for the ledger.
type actors []string

// add adds who did an action. A cancellation names nobody.
func (a *actors) add(action Action) {
	if action.Action == ActionCancel || slices.Contains(*a, action.By) {
		return
	}
	bytes := len(action.By)
	for _, name := range *a {
		bytes += len(name)
	}
	if bytes <= maxActorBytes {
		*a = append(*a, action.By)
	}
}

// addAll adds those of actions whose actors were not kept, as in a state that an
// earlier version wrote.
func (a *actors) addAll(actions []Action) {
	for _, action := range actions {
		a.add(action)
	}
}

func (l actionLog) add(ctx workflow.Context, action Action) {
	action.At = timestamp(ctx)
	if more := len(action.Targets) - maxActionTargets; more > 0 {
		action.Targets, action.TargetsNotListed = action.Targets[:maxActionTargets], more
	}
	if l.actors != nil {
		l.actors.add(action)
	}
	*l.actions = append(*l.actions, action)
	l.keepNewest(maxActions)
}

// keepNewest drops the oldest actions beyond n.
func (l actionLog) keepNewest(n int) {
	if more := len(*l.actions) - n; more > 0 {
		*l.actions = slices.Clone((*l.actions)[more:])
		*l.notListed += more
	}
}

// countTargets counts the targets of actions instead of naming them.
func (l actionLog) countTargets() {
	for i := range *l.actions {
		action := &(*l.actions)[i]
		action.TargetsNotListed += len(action.Targets)
		action.Targets = nil
	}
}

// actionOf is the record of an update.
func actionOf(name string, request operatorRequest) Action {
	_, comment := request.comment()
	return Action{By: request.requester(), Action: name, Reason: comment}
}

func (r *rotation) actionLog() actionLog {
	return actionLog{&r.common.Actions, &r.common.ActionsNotListed, &r.operators.Actors}
}

func (r *RotateClusterResult) actionLog() actionLog {
	return actionLog{actions: &r.Actions, notListed: &r.ActionsNotListed}
}

// recordAction records an update before it is applied: a retry and a skip
// change what they select.
func (r *rotation) recordAction(ctx workflow.Context, name string, request operatorRequest) {
	action := actionOf(name, request)
	switch request := request.(type) {
	case RetryRequest:
		action.Targets = r.labels(r.selectTargets(request.Targets, StatusFailed))
	case SkipRequest:
		action.Targets = r.labels(r.selectTargets(request.Targets, StatusFailed, StatusPending))
	}
	r.actionLog().add(ctx, action)
}

// labels are the targets' names, or their IDs where a name is not unique.
func (r *rotation) labels(targets []target) (labels []string) {
	named := map[string]int{}
	for _, t := range r.targets {
		named[t.label()]++
	}
	for _, t := range targets {
		if label := t.label(); label == "" || named[label] > 1 {
			labels = append(labels, t.id())
		} else {
			labels = append(labels, label)
		}
	}
	return labels
}

// recordCancellation records that the workflow was canceled.
func (l actionLog) recordCancellation(ctx workflow.Context) {
	l.add(ctx, Action{By: cancellationActor, Action: ActionCancel})
}

// recordFleetAction records what the fleet's operators did to all clusters.
func (r *rotation) recordFleetAction(ctx workflow.Context, name string, request OperatorRequest) {
	r.actionLog().add(ctx, actionOf(name, request))
}
