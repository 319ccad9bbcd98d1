package workflows_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// The input of a rotation that waits for approval. Fields that are left out have
// the worker's defaults.
func ExampleRotateClusterInput() {
	input := workflows.RotateClusterInput{
		ProjectID:       "5196d3628d022db4cbc26d9e",
		ClusterID:       "5196e5b0e4b0fca9cc88334a",
		RequireApproval: true,
		ApprovalTimeout: workflows.Duration(36 * time.Hour),
		Change:          workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana"},
	}
	text, err := json.Marshal(input)
	if err != nil {
		panic(err)
	}
	fmt.Println(workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID))
	fmt.Println(string(text))
	// Output:
	// rotate-cluster:default:5196d3628d022db4cbc26d9e:5196e5b0e4b0fca9cc88334a
	// {"projectId":"5196d3628d022db4cbc26d9e","clusterId":"5196e5b0e4b0fca9cc88334a","requireApproval":true,"approvalTimeout":"36h0m0s","change":{"ticket":"CHG0031337","requestedBy":"dana"}}
}

// The records of a rotation that failed are in its error. Pass them as Completed
// to the next rotation, which then leaves the verified targets alone.
func ExampleRotateClusterResultOf() {
	err := failedRotation() // from WorkflowRun.Get, or from a child workflow's future
	result, found := workflows.RotateClusterResultOf(err)
	if !found {
		return
	}
	fmt.Println(workflows.ErrorTypeOf(err), result.Outcome)
	for _, target := range result.Targets {
		fmt.Println(target.Name, target.Status)
	}
	next := workflows.RotateClusterInput{ProjectID: result.ProjectID, ClusterID: result.ClusterID, Completed: result.Targets}
	fmt.Println(len(next.Completed), "records to continue from")
	// Output:
	// PartialFailure partial
	// orders-0 verified
	// orders-1 failed
	// 2 records to continue from
}

// A workflow of another team that rotates a cluster as one of its steps. A
// rotation that is already running is no reason to fail.
func ExampleRotateCluster_childWorkflow() {
	quarterlyMaintenance := func(ctx workflow.Context, input workflows.RotateClusterInput) error {
		ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID:    workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID),
			TaskQueue:     workflows.DefaultTaskQueue,
			StaticSummary: workflows.RotateClusterSummary(input),
		})
		var result workflows.RotateClusterResult
		err := workflow.ExecuteChildWorkflow(ctx, workflows.RotateClusterType, input).Get(ctx, &result)
		if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			workflow.GetLogger(ctx).Info("the cluster is already being rotated")
			return nil
		}
		return err
	}
	_ = quarterlyMaintenance // register it with a worker of your own
}

// failedRotation is the error of a rotation with a failed target.
func failedRotation() error {
	record := func(name string, status workflows.Status) workflows.TargetRecord {
		return workflows.TargetRecord{Target: workflows.Target{Name: name, Role: workflows.RoleShard}, Status: status}
	}
	result := workflows.RotateClusterResult{
		ProjectID: "5196d3628d022db4cbc26d9e", ClusterID: "5196e5b0e4b0fca9cc88334a", Outcome: workflows.OutcomePartial,
		Targets: []workflows.TargetRecord{record("orders-0", workflows.StatusVerified), record("orders-1", workflows.StatusFailed)},
	}
	return fmt.Errorf("workflow execution error: %w", errors.Join(
		temporal.NewNonRetryableApplicationError("1 of 2 targets verified", string(workflows.ErrorPartialFailure), nil, result)))
}
