package changemanagement

import (
	"encoding/json"
	"errors"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// ByName rotates with a child workflow, of which it knows only the type name
// and the JSON: for pipelines in any language that share no code with keyturn.
type ByName struct {
	// TaskQueue is the task queue of keyturn's worker.
	TaskQueue string
}

// Rotate returns the result of the rotation, or the records in its failure, as
// JSON.
func (b ByName) Rotate(ctx workflow.Context, change Change) (any, error) {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		TaskQueue:           b.TaskQueue,
		WaitForCancellation: true, // the records are complete at the end of an abort
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
		_ = failure.Details(&records) // unreadable records must not hide the failure
	}
	return records, err
}
