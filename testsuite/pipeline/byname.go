package pipeline

import (
	"encoding/json"
	"errors"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// ByName rotates by a child workflow that it knows by its type name and its
// JSON only: for pipelines that share nothing else with this module, in any
// language.
type ByName struct {
	// TaskQueue is the one of the rotation's worker.
	TaskQueue string
}

// Rotate gives the rotation's result, or the records in its failure, as they
// come.
func (b ByName) Rotate(ctx workflow.Context, change Change) (any, error) {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		TaskQueue:           b.TaskQueue,
		WaitForCancellation: true, // the records come at the end of an abort
		ParentClosePolicy:   enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	})
	var records json.RawMessage
	err := workflow.ExecuteChildWorkflow(ctx, "RotateCluster", map[string]any{
		"projectId": change.ProjectID,
		"clusterId": change.ClusterID,
		"onFailure": "stop",
		"change":    map[string]string{"ticket": change.Ticket, "requestedBy": change.RequestedBy},
	}).Get(ctx, &records)
	var failure *temporal.ApplicationError
	if errors.As(err, &failure) && failure.HasDetails() {
		_ = failure.Details(&records) // records that can't be had must not hide the failure
	}
	return records, err
}
