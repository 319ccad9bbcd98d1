package pipeline

import (
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// Child rotates by a child workflow, with the types of the package workflows:
// for pipelines in Go, in the namespace of the rotation's worker.
type Child struct {
	// TaskQueue is the one of the rotation's worker.
	TaskQueue string
}

// Rotate gives the rotation's result, or the records in its failure.
func (c Child) Rotate(ctx workflow.Context, change Change) (any, error) {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		TaskQueue:           c.TaskQueue,
		WaitForCancellation: true, // the records come at the end of an abort
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

// recordsOf finds the records of a rotation, however it has ended; nil = it was
// refused, or never began.
func recordsOf(result *workflows.RotateClusterResult, err error) any {
	if err == nil {
		return result
	}
	if records, found := workflows.ResultOf(err); found {
		return records
	}
	return nil
}
