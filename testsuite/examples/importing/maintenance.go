package main

import (
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// maintainType is the name that the workflow is registered under.
const maintainType = "Maintain"

// request is the input of the workflow Maintain.
type request struct {
	ProjectID   string `json:"projectId"`
	ClusterID   string `json:"clusterId"`
	Ticket      string `json:"ticket"`
	RequestedBy string `json:"requestedBy"`
}

// report is the result of the workflow Maintain.
type report struct {
	// Rotation holds the record of every target, also when the rotation did not
	// reach all of them. It is nil if the rotation was refused.
	Rotation *workflows.RotateClusterResult `json:"rotation"`
	// Postponed is true if another rotation of the cluster was running, so that
	// this one did not start.
	Postponed bool `json:"postponed"`
	// Problem is the error of a rotation that did not reach every target.
	Problem string `json:"problem,omitempty"`
}

// maintain rotates the keys of one cluster by a child workflow. It fails only if
// the rotation left no records.
func maintain(ctx workflow.Context, in request) (*report, error) {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		TaskQueue:           workflows.DefaultTaskQueue,
		WaitForCancellation: true, // an aborted rotation returns its records at its end
		ParentClosePolicy:   enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	})
	var result workflows.RotateClusterResult
	err := workflow.ExecuteChildWorkflow(ctx, workflows.RotateClusterType, workflows.RotateClusterInput{
		ProjectID: in.ProjectID,
		ClusterID: in.ClusterID,
		OnFailure: workflows.OnFailureStop,
		Change:    workflows.Change{Ticket: in.Ticket, RequestedBy: in.RequestedBy},
	}).Get(ctx, &result)
	if err == nil {
		return &report{Rotation: &result}, nil
	}
	if workflows.ErrorTypeOf(err) == workflows.ErrorClusterBusy {
		return &report{Postponed: true}, nil
	}
	if records, found := workflows.RotateClusterResultOf(err); found {
		return &report{Rotation: records, Problem: err.Error()}, nil
	}
	return nil, err
}
