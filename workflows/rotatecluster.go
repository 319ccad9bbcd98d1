package workflows

import (
	"cmp"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// RotateCluster rotates the master key of every target of a cluster. Its input
// is a RotateClusterInput, its result a RotateClusterResult; it takes the raw
// input so that one that does not fit is InvalidInput like any other. second is
// its own, a carriedState for continue-as-new.
func RotateCluster(ctx workflow.Context, raw, second converter.RawValue) (*RotateClusterResult, error) {
	input, err := parseRotateClusterInput(raw, workflow.Now(ctx))
	if err != nil {
		countRefusal(ctx, err)
		return nil, err
	}
	carried, err := decodeCarried[carriedState](ctx, second)
	if err != nil {
		return nil, err
	}
	id := RotateClusterID(input.Connection, input.ProjectID, input.ClusterID)
	if workflow.GetInfo(ctx).WorkflowExecution.ID != id {
		return handOver(ctx, raw, handover[RotateClusterResult]{
			workflowType: RotateClusterType, id: id, summary: RotateClusterSummary(input), busy: clusterBusy, resultOf: RotateClusterResultOf,
			memo: memoOf(input.settings(), lower(input.ClusterID)),
		})
	}
	if carried != nil {
		if err := carried.unpack(&input); err != nil {
			return nil, unreadable(err)
		}
	}
	r := newClusterRotation(ctx, input, raw, carried)
	records, err := r.run(ctx)
	r.countEnd(ctx, err)
	result, _ := records.(*RotateClusterResult)
	return result, err
}

// handover is what a workflow that has another ID than its rotation starts under that.
type handover[Result any] struct {
	workflowType, id, summary string
	// memo describes the rotation.
	memo Memo
	// busy is the error of a rotation that is already running.
	busy func(id string) error
	// resultOf finds the result in the rotation's failure.
	resultOf func(error) (*Result, bool)
}

// handOver has the rotation done under the one id that is its lock. The child
// outlives this workflow: a rotation is ended by its own id only. A copy of this
// workflow that a reset made starts no second one.
func handOver[Result any, R interface {
	*Result
	describedResult
}](ctx workflow.Context, input converter.RawValue, h handover[Result]) (*Result, error) {
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Handed over to workflow `%s`. Send queries and updates to that workflow ID.", h.id))
	h.memo.HandedOverTo = h.id
	memo := memoKeeper{}
	memo.set(ctx, h.memo)
	result, err := h.run(ctx, input)
	records := cmp.Or(result, h.inFailure(err))
	if described := R(records); described != nil {
		described.describeIn(&h.memo)
	}
	h.memo.Phase, h.memo.Error = PhaseDone, ErrorTypeOf(err)
	memo.set(ctx, h.memo)
	if isPeoplesEnd(h.memo.Error) {
		return nil, peoplesEnd(ctx, err, records)
	}
	return result, err
}

// inFailure is the result in a failure; nil if it has none.
func (h handover[Result]) inFailure(err error) *Result {
	result, _ := h.resultOf(err)
	return result
}

func (h handover[Result]) run(ctx workflow.Context, input converter.RawValue) (*Result, error) {
	wasReset := isResetCopy(ctx)
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            h.id,
		WorkflowIDReusePolicy: childReusePolicy(ctx),
		ParentClosePolicy:     parentClosePolicy,
		StaticSummary:         h.summary,
	})
	var result Result
	err := workflow.ExecuteChildWorkflow(ctx, h.workflowType, input).Get(ctx, &result)
	switch {
	case temporal.IsWorkflowExecutionAlreadyStartedError(err) && wasReset:
		return nil, failure(ErrorClusterBusy, nil, "this workflow was reset; a reset starts no second rotation: "+
			"see workflow %s for the result of the rotation; to rotate again, start a new rotation", h.id)
	case temporal.IsWorkflowExecutionAlreadyStartedError(err):
		return nil, h.busy(h.id)
	}
	if err != nil {
		return nil, causeOf(err)
	}
	return &result, nil
}

// clusterRotation is one run of RotateCluster: the rotation of keys that Ops
// Manager replaces by a PUT for each.
type clusterRotation struct {
	*rotation
	input       RotateClusterInput
	clusterName string
	// clusterTargets are the records of the rotation's targets.
	clusterTargets []TargetRecord
	// readings are those of the targets' keys, by cluster id.
	readings map[string]*keyReading
}

func newClusterRotation(ctx workflow.Context, input RotateClusterInput, raw converter.RawValue, carried *carriedState) *clusterRotation {
	r := &clusterRotation{
		rotation: newRotation(ctx, input.settings(), raw),
		input:    input,
		readings: map[string]*keyReading{},
	}
	r.kind = r
	if carried != nil {
		r.restore(carried.Result.common(), carried.Operators, carried.Approval, carried.FleetID)
		r.clusterName = carried.Result.ClusterName
		r.setTargets(carried.Result.Targets)
		r.entryRunID, r.sendsEvents = entryRunOf(ctx, &carried.Writer), carried.SendsEvents
		r.inheritReadings(ctx, carried.Readings)
	}
	return r
}

func (r *clusterRotation) setTargets(records []TargetRecord) {
	r.clusterTargets, r.targets = records, make([]target, len(records))
	for i := range records {
		r.targets[i] = &records[i]
	}
}

func (r *clusterRotation) title() string { return cmp.Or(r.clusterName, r.input.ClusterID) }

func (r *clusterRotation) header() []string { return []string{"Previous key", "New key"} }

// result is the result so far, which shares no list with the rotation.
func (r *clusterRotation) result() *RotateClusterResult {
	return &RotateClusterResult{
		Connection: r.input.Connection, ProjectID: r.input.ProjectID, ClusterID: r.input.ClusterID, ClusterName: r.clusterName,
		Outcome: r.common.Outcome, StartedAt: r.common.StartedAt, FinishedAt: r.common.FinishedAt,
		Change: r.common.Change, Approval: r.common.Approval,
		Actions: append([]Action{}, r.common.Actions...), ActionsNotListed: r.common.ActionsNotListed,
		Targets: append([]TargetRecord{}, r.clusterTargets...),
	}
}

func (r *clusterRotation) records() any { return r.fittedResult() }

func (r *clusterRotation) fittedResult() *RotateClusterResult {
	result := r.result()
	result.fit(maxPayload)
	return result
}

func (r *clusterRotation) currentProgress() any {
	p := r.progress()
	p.fit(maxPayload)
	return p
}

func (r *clusterRotation) updateAnswer() any {
	p := r.progress()
	p.fitAnswer()
	return p
}

func (r *clusterRotation) progress() *Progress {
	return &Progress{RotateClusterResult: *r.result(), Phase: r.currentPhase(), Counts: r.counts(), WaitingFor: r.waitingFor()}
}

// common is what the results of all rotations have.
func (r *RotateClusterResult) common() commonResult {
	return commonResult{
		Outcome: r.Outcome, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, Change: r.Change, Approval: r.Approval,
		Actions: r.Actions, ActionsNotListed: r.ActionsNotListed,
	}
}

// countEnd counts and logs the end of the run.
func (r *clusterRotation) countEnd(ctx workflow.Context, err error) {
	countEnd(ctx, r.rotation, err)
	if oldest, known := r.result().keysSince(); known && err == nil {
		gaugeLastVerified(ctx, lastVerifiedLabels(r.input.Connection, r.input.ProjectID, r.input.ClusterID), oldest)
	}
}

func gaugeLastVerified(ctx workflow.Context, cluster labels, at time.Time) {
	workflow.GetMetricsHandler(ctx).WithTags(cluster).Gauge(LastVerifiedMetric).Update(float64(at.Unix()))
}
