package workflows

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// stateWriter is the run that wrote a state for the one that continues it.
type stateWriter struct {
	RunID string `json:"runId"`
	// FirstRunID is the first run of the chain of runs.
	FirstRunID string `json:"firstRunId"`
	// EntryRunID names the rotation in the ledger; empty from an earlier version.
	EntryRunID string `json:"entryRunId,omitempty"`
}

func writerOf(ctx workflow.Context) stateWriter {
	info := workflow.GetInfo(ctx)
	return stateWriter{RunID: info.WorkflowExecution.RunID, FirstRunID: info.FirstRunID}
}

func (r *rotation) writer(ctx workflow.Context) stateWriter { return rotationWriter(ctx, r.entryRunID) }

func rotationWriter(ctx workflow.Context, entryRunID string) stateWriter {
	writer := writerOf(ctx)
	writer.EntryRunID = entryRunID
	return writer
}

// decodeCarried returns the state that the previous run wrote for this one; nil
// if this run starts afresh. A second argument that is not such a state is
// InvalidInput.
//
// The argument is part of the history.
//
//workflowcheck:ignore
func decodeCarried[T any](ctx workflow.Context, second converter.RawValue) (carried *T, err error) {
	if second.Payload() == nil {
		return nil, nil
	}
	var state struct {
		Writer stateWriter `json:"writer"`
	}
	err = converter.GetDefaultDataConverter().FromPayload(second.Payload(), &carried)
	if err == nil && carried == nil {
		return nil, nil
	}
	if workflow.GetInfo(ctx).ContinuedExecutionRunID == "" {
		return nil, failure(ErrorInvalidInput, nil, "input: expected one argument, got two")
	}
	if err == nil {
		err = converter.GetDefaultDataConverter().FromPayload(second.Payload(), &state)
	}
	if err != nil {
		return nil, unreadable(err)
	}
	isPrevious, err := checkWriter(ctx, state.Writer)
	if err != nil || !isPrevious {
		return nil, err
	}
	return carried, nil
}

// checkWriter reports whether a state was written by the run that this one
// continues. It was not if a cron schedule or a retry policy has started this
// run with the arguments of the one before: then this is a new rotation. A state
// of no run of this workflow is InvalidInput.
func checkWriter(ctx workflow.Context, writer stateWriter) (isPrevious bool, err error) {
	if workflow.GetVersion(ctx, "carried-state-names-its-writer", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return true, nil
	}
	info := workflow.GetInfo(ctx)
	switch {
	case writer == stateWriter{} && info.CronSchedule == "" && info.RetryPolicy == nil:
		// An earlier version wrote it: only workflow code, a cron schedule or a
		// retry policy can start a run that continues another one.
		return true, nil
	case writer.FirstRunID != info.FirstRunID:
		return false, failure(ErrorInvalidInput, nil, "input: expected one argument, got two: the second is not the state of an earlier run of this workflow")
	default:
		return writer.RunID == info.ContinuedExecutionRunID, nil
	}
}

func unreadable(err error) error {
	return failure(ErrorInvalidInput, nil, "input: cannot decode the state of the previous run: %v", err)
}

// packed are records as one run hands them to the next: compressed to a third, so
// that a cluster of a thousand shards stays far below what Temporal takes as one
// payload.
type packed[Record any] []byte

type packedRecords = packed[TargetRecord]

// Neither function depends on anything but its input, which is part of the
// history: workflowcheck distrusts encoding/json and what gzip is made of.
//
//workflowcheck:ignore
func pack[Record any](records []Record) (packed[Record], error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if err := json.NewEncoder(w).Encode(records); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

//workflowcheck:ignore
func (p packed[Record]) unpack() (records []Record, err error) {
	r, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		return nil, err
	}
	err = json.NewDecoder(r).Decode(&records)
	return records, err
}

// carriedState is what a run hands to the one that it continues as.
type carriedState struct {
	// Result has no targets where Targets has them.
	Result    RotateClusterResult `json:"result"`
	Targets   packedRecords       `json:"targets,omitempty"`
	Operators operatorState       `json:"steering"`
	// Readings say what is known of the targets' keys, in the targets' order.
	Readings []carriedReadings `json:"readings,omitempty"`
	// Approval is set while the rotation waits for approval.
	Approval *carriedApproval `json:"approval,omitempty"`
	// Completed are the input's, which the input has no more.
	Completed packedRecords `json:"completed,omitempty"`
	// FleetID is the fleet that has asked for a report at the end.
	FleetID string `json:"fleetId,omitempty"`
	// SendsEvents: see rotation.
	SendsEvents bool        `json:"sendsEvents,omitempty"`
	Writer      stateWriter `json:"writer,omitzero"`
}

// continueAsNew starts a fresh history, with every record and with what
// operators have set.
func (r *clusterRotation) continueAsNew(ctx workflow.Context) error {
	records := r.fittedResult()
	targets, err := pack(records.Targets)
	if err != nil {
		return err
	}
	raw := r.raw
	carried := carriedState{Result: *records, Targets: targets, Operators: r.operators, FleetID: r.fleetID, SendsEvents: r.sendsEvents, Writer: r.writer(ctx)}
	carried.Result.Targets, carried.Readings, carried.Approval = nil, r.carriedReadings(), r.carriedApproval()
	if len(r.input.Completed) > 0 {
		if raw, err = r.inputWithoutCompleted(); err != nil {
			return err
		}
		if carried.Approval != nil {
			carried.Completed, err = pack(fittingRecords(r.input.Completed))
		}
	}
	if err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, RotateClusterType, raw, carried)
}

// inputWithoutCompleted takes the earlier records out of the input: together with
// the state they would be too large. The next run needs them while it waits for
// approval.
//
// The input is part of the history.
//
//workflowcheck:ignore
func (r *rotation) inputWithoutCompleted() (converter.RawValue, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(r.raw.Payload().GetData(), &fields); err != nil {
		return r.raw, err
	}
	delete(fields, "completed")
	payload, err := converter.GetDefaultDataConverter().ToPayload(fields)
	return converter.NewRawValue(payload), err
}

// carriedApproval is what the next run must know of an approval that is waited for;
// nil if none is.
func (r *rotation) carriedApproval() *carriedApproval {
	if r.phase != PhaseAwaitingApproval {
		return nil
	}
	return &carriedApproval{Deadline: r.approvalDeadline, Notice: r.notice}
}

// carriedApproval is the state of a run that waits for approval.
type carriedApproval struct {
	Deadline time.Time `json:"deadline"`
	Notice   string    `json:"notice,omitempty"`
}

// unpack restores the records of the state and of the input.
func (c *carriedState) unpack(input *RotateClusterInput) (err error) {
	if c.Targets != nil {
		c.Result.Targets, err = c.Targets.unpack()
	}
	if err == nil && c.Completed != nil {
		input.Completed, err = c.Completed.unpack()
	}
	return err
}

// carriedDeployment is what a run of RotateDeployment hands to the one that it
// continues as. The times that were published are in the targets' records.
type carriedDeployment struct {
	// Result has no targets: Targets has them.
	Result    RotateDeploymentResult `json:"result"`
	Targets   packed[ProcessRecord]  `json:"targets"`
	Operators operatorState          `json:"operators"`
	// Latest, ClockOffset, IsCopy and EarlierKeys: see deploymentRotation.
	Latest      time.Time                      `json:"latest,omitzero"`
	ClockOffset Duration                       `json:"clockOffset,omitempty"`
	IsCopy      bool                           `json:"isCopy,omitempty"`
	EarlierKeys packed[activities.EarlierKeys] `json:"earlierKeys,omitempty"`
	// Approval is set while the rotation waits for approval.
	Approval *carriedApproval `json:"approval,omitempty"`
	// Completed are the input's, which the input has no more.
	Completed packed[ProcessRecord] `json:"completed,omitempty"`
	// FleetID is the fleet that has asked for a report at the end.
	FleetID string `json:"fleetId,omitempty"`
	// SendsEvents: see rotation.
	SendsEvents bool        `json:"sendsEvents,omitempty"`
	Writer      stateWriter `json:"writer,omitzero"`
}

func (r *deploymentRotation) continueAsNew(ctx workflow.Context) (err error) {
	records, raw := r.fittedResult(), r.raw
	carried := carriedDeployment{
		Result: *records, Operators: r.operators, Latest: r.latest, ClockOffset: Duration(r.clockOffset), IsCopy: r.isCopy, Approval: r.carriedApproval(), FleetID: r.fleetID, SendsEvents: r.sendsEvents, Writer: r.writer(ctx),
	}
	carried.Result.Targets = nil
	if carried.Targets, err = pack(records.Targets); err != nil {
		return err
	}
	if carried.EarlierKeys, err = pack(r.carriedEarlierKeys()); err != nil {
		return err
	}
	if len(r.input.Completed) > 0 {
		if raw, err = r.inputWithoutCompleted(); err != nil {
			return err
		}
		if carried.Approval != nil {
			if carried.Completed, err = pack(r.input.Completed); err != nil {
				return err
			}
		}
	}
	return workflow.NewContinueAsNewError(ctx, RotateDeploymentType, raw, carried)
}

// maxCarriedKeys bounds the earlier keys that a run hands over: hardly compressible,
// they would not fit for a thousand replica sets. A proof needs them only where
// their snapshots have been deleted since.
const maxCarriedKeys = 10_000

// carriedEarlierKeys are those of replica sets that may still have to be proven.
func (r *deploymentRotation) carriedEarlierKeys() (carried []activities.EarlierKeys) {
	for _, set := range r.sets {
		if !r.isProven(set) && len(r.earlierKeys[set]) > 0 {
			carried = append(carried, activities.EarlierKeys{ClusterID: set.clusterID, ReplicaSet: set.name, KeyUUIDs: r.earlierKeys[set]})
		}
	}
	for i := range carried {
		carried[i].KeyUUIDs = carried[i].KeyUUIDs[:min(len(carried[i].KeyUUIDs), maxCarriedKeys/len(carried))]
	}
	return carried
}

// takeUp goes on where the previous run has ended.
func (r *deploymentRotation) takeUp(carried *carriedDeployment) error {
	records, err := carried.Targets.unpack()
	if err != nil {
		return err
	}
	earlierKeys, err := carried.EarlierKeys.unpack()
	if err != nil {
		return err
	}
	if carried.Completed != nil {
		if r.input.Completed, err = carried.Completed.unpack(); err != nil {
			return err
		}
	}
	r.restore(carried.Result.common(), carried.Operators, carried.Approval, carried.FleetID)
	r.setTargets(records)
	r.latest, r.clockOffset, r.isCopy = carried.Latest, carried.ClockOffset.Std(), carried.IsCopy
	for _, record := range carried.Result.ReplicaSets {
		r.addReplicaSetRecord(record)
	}
	r.addEarlierKeys(earlierKeys)
	return nil
}

// carriedFleet is what a run of a fleet passes to the one that it continues as.
type carriedFleet struct {
	Result     RotateFleetResult    `json:"result"`
	Listed     listedClusters       `json:"listed"`
	InProgress []*clusterInProgress `json:"inWork"`
	Paused     *OperatorRequest     `json:"paused,omitempty"`
	Aborted    *OperatorRequest     `json:"aborted,omitempty"`
	// Revision counts the changes of Paused and Aborted.
	Revision int `json:"revision,omitempty"`
	// Actors are all who acted: see actionLog.
	Actors actors `json:"actors,omitempty"`
	// IsCopy: this run, or one that it continues, is a copy made by a reset.
	IsCopy bool `json:"isCopy,omitempty"`
	// MayHaveRotated: a cluster's rotation may have sent a PUT.
	MayHaveRotated bool        `json:"mayHaveRotated,omitempty"`
	Writer         stateWriter `json:"writer,omitzero"`
}

// isHistoryLong reports whether a workflow with many children should continue as
// new.
func isHistoryLong(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > maxFleetHistory
}

// continueAsNew starts a fresh history with what is known, and with the
// rotations in progress.
func (f *fleet) continueAsNew(ctx workflow.Context) error {
	return workflow.NewContinueAsNewError(ctx, RotateFleetType, f.raw, carriedFleet{
		Result: *f.records(), Listed: f.listed, InProgress: f.inProgress, Paused: f.paused, Aborted: f.aborted, Revision: f.revision, Actors: f.actors,
		IsCopy: f.isCopy, MayHaveRotated: f.mayHaveRotated, Writer: rotationWriter(ctx, f.entryRunID),
	})
}
