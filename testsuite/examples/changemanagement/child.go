package changemanagement

import (
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// Child rotates with a child workflow and the types of the package workflows:
// for pipelines in Go in the namespace of keyturn's worker.
type Child struct {
	// TaskQueue is the task queue of keyturn's worker.
	TaskQueue string
}

// Rotate returns the result of the rotation, or the records in its failure.
func (c Child) Rotate(ctx workflow.Context, change Change) (any, error) {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		TaskQueue:           c.TaskQueue,
		WaitForCancellation: true, // the records are complete at the end of an abort
		ParentClosePolicy:   enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	})
	var result workflows.RotateClusterResult
	err := workflow.ExecuteChildWorkflow(ctx, workflows.RotateClusterType, rotationOf(change)).Get(ctx, &result)
	return recordsOf(&result, err), err
}

func rotationOf(change Change) workflows.RotateClusterInput {
	return workflows.RotateClusterInput{
		ProjectID: change.ProjectID,
		ClusterID: change.ClusterID,
		OnFailure: workflows.OnFailureStop,
		Change:    workflows.Change{Ticket: change.Ticket, RequestedBy: change.RequestedBy},
	}
}

// recordsOf returns the records of a rotation, whether it succeeded or failed;
// nil if it did not start.
func recordsOf(result *workflows.RotateClusterResult, err error) any {
	if err == nil {
		return result
	}
	if records, found := workflows.RotateClusterResultOf(err); found {
		return records
	}
	return nil
}
