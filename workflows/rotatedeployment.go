package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
)

// RotateDeployment rotates the master keys of the processes of a project's
// deployments, by the time that each process's automation configuration has for it.
// Its input is a RotateDeploymentInput, its result a RotateDeploymentResult. second is
// its own, a carriedDeployment for continue-as-new.
func RotateDeployment(ctx workflow.Context, raw, second converter.RawValue) (*RotateDeploymentResult, error) {
	input, err := parseRotateDeploymentInput(raw, workflow.Now(ctx))
	if err != nil {
		countRefusal(ctx, err)
		return nil, err
	}
	carried, err := decodeCarried[carriedDeployment](ctx, second)
	if err != nil {
		return nil, err
	}
	id := RotateDeploymentID(input.Connection, input.ProjectID)
	if workflow.GetInfo(ctx).WorkflowExecution.ID != id {
		return handOver(ctx, raw, handover[RotateDeploymentResult]{
			workflowType: RotateDeploymentType, id: id, summary: RotateDeploymentSummary(input), busy: deploymentBusy, resultOf: RotateDeploymentResultOf,
			memo: memoOf(input.settings(), ""),
		})
	}
	r := newDeploymentRotation(ctx, input, raw)
	if carried != nil {
		if err := r.takeUp(carried); err != nil {
			return nil, unreadable(err)
		}
		r.entryRunID, r.sendsEvents = entryRunOf(ctx, &carried.Writer), carried.SendsEvents
	}
	records, err := r.run(ctx)
	countEnd(ctx, r.rotation, err)
	if oldest, known := r.result().keysSince(); known && err == nil {
		gaugeLastVerified(ctx, lastVerifiedLabels(input.Connection, input.ProjectID, DeploymentsLabel), oldest)
	}
	result, _ := records.(*RotateDeploymentResult)
	return result, err
}

func deploymentBusy(id string) error {
	return failure(ErrorClusterBusy, nil, "a rotation of this project's deployments is already running: see workflow %s", id)
}

// deploymentRotation is one run of RotateDeployment: the rotation of keys that agents
// replace when the automation configuration has a later time for their process.
type deploymentRotation struct {
	*rotation
	input RotateDeploymentInput
	// processes are the records of the rotation's targets.
	processes []ProcessRecord
	// sets are their replica sets, in the order of the processes, and members those of
	// each. They are found once: looking through all processes for each of a thousand
	// replica sets takes too long for every turn of the work loop.
	sets    []replicaSet
	members map[replicaSet][]*ProcessRecord
	// replicaSets: see RotateDeploymentResult. recordOf has the index of each one's.
	replicaSets []ReplicaSetRecord
	recordOf    map[replicaSet]int
	// latest is the latest time of a rotation that is known of any process of the
	// project: a new one must be later.
	latest time.Time
	// clockOffset is by how much Ops Manager's clock is ahead of Temporal's, or a bit
	// less.
	clockOffset time.Duration
	// isCopy: see isOfThisRun.
	isCopy bool
	// earlierKeys are those that snapshots of a replica set named before the rotation.
	earlierKeys map[replicaSet][]string
	// proving are the replica sets whose proof is waited for.
	proving map[replicaSet]workflow.CancelFunc
}

// replicaSet identifies a replica set of the project.
type replicaSet struct{ clusterID, name string }

func (t *ProcessRecord) set() replicaSet { return replicaSet{t.ClusterID, t.ReplicaSet} }

func newDeploymentRotation(ctx workflow.Context, input RotateDeploymentInput, raw converter.RawValue) *deploymentRotation {
	r := &deploymentRotation{
		rotation:    newRotation(ctx, input.settings(), raw),
		input:       input,
		recordOf:    map[replicaSet]int{},
		earlierKeys: map[replicaSet][]string{},
		proving:     map[replicaSet]workflow.CancelFunc{},
	}
	r.kind = r
	return r
}

func (r *deploymentRotation) setTargets(records []ProcessRecord) {
	r.processes, r.targets = records, make([]target, len(records))
	for i := range records {
		r.targets[i] = &records[i]
	}
	r.groupMembers()
}

// groupMembers finds the replica sets of the processes.
func (r *deploymentRotation) groupMembers() {
	r.sets, r.members = nil, map[replicaSet][]*ProcessRecord{}
	for i := range r.processes {
		t := &r.processes[i]
		if len(r.members[t.set()]) == 0 {
			r.sets = append(r.sets, t.set())
		}
		r.members[t.set()] = append(r.members[t.set()], t)
	}
}

func (r *deploymentRotation) title() string { return "deployments of project " + r.input.ProjectID }

func (r *deploymentRotation) header() []string {
	return []string{"Replica set", "Rotate at", "New key"}
}

func (r *deploymentRotation) doneWord() string { return "rotated" }

// outcome is that of a rotation with nothing left to do.
func (r *deploymentRotation) outcome() Outcome {
	if r.count(StatusSkipped) > 0 {
		return OutcomeRotatedWithSkips
	}
	if r.input.Proof != ProofAgent && slices.ContainsFunc(r.sets, func(set replicaSet) bool { return !r.isProven(set) }) {
		return OutcomeRotatedUnproven
	}
	return OutcomeRotated
}

// holdsOn: an agent that could not rotate a key is a reason to look before the next
// replica set loses a member, and so is a change of somebody else's that may be lost.
func (r *deploymentRotation) holdsOn(failure *TargetError) bool {
	return failure.Type == ErrorDeploymentFailed || failure.Type == ErrorOverwroteConcurrentChange
}

// result is the result so far, which shares no list with the rotation.
func (r *deploymentRotation) result() *RotateDeploymentResult {
	return &RotateDeploymentResult{
		Connection: r.input.Connection, ProjectID: r.input.ProjectID, Proof: r.input.Proof,
		Outcome: r.common.Outcome, StartedAt: r.common.StartedAt, FinishedAt: r.common.FinishedAt,
		Change: r.common.Change, Approval: r.common.Approval,
		Actions: append([]Action{}, r.common.Actions...), ActionsNotListed: r.common.ActionsNotListed,
		Targets:     append([]ProcessRecord{}, r.processes...),
		ReplicaSets: append([]ReplicaSetRecord{}, r.replicaSets...),
	}
}

func (r *deploymentRotation) records() any { return r.fittedResult() }

func (r *deploymentRotation) fittedResult() *RotateDeploymentResult {
	result := r.result()
	result.fit(maxPayload)
	return result
}

func (r *deploymentRotation) currentProgress() any {
	p := r.progress()
	p.fit(maxPayload)
	return p
}

func (r *deploymentRotation) updateAnswer() any {
	p := r.progress()
	p.fitAnswer()
	return p
}

func (r *deploymentRotation) progress() *DeploymentProgress {
	return &DeploymentProgress{RotateDeploymentResult: *r.result(), Phase: r.currentPhase(), Counts: r.counts(), WaitingFor: r.waitingFor()}
}

// common is what the results of all rotations have.
func (r *RotateDeploymentResult) common() commonResult {
	return commonResult{
		Outcome: r.Outcome, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, Change: r.Change, Approval: r.Approval,
		Actions: r.Actions, ActionsNotListed: r.ActionsNotListed,
	}
}
