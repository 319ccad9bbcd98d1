package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// The deployment of -deployment.
const (
	deploymentSets    = 100
	deploymentMembers = 3
	memberTime        = 100 * time.Millisecond // of an agent for the restart of a member
)

// deploymentRow has the costs of a rotation of the deployment.
type deploymentRow struct {
	concurrency, puts, requests int
	events, bytes, runs         int64
	took                        time.Duration
}

// runDeployments measures one rotation of a deployment for each concurrency, each with
// its own worker, and checks it against the simulator's ledger.
func (r *harness) runDeployments(ctx context.Context, s settings, stdout io.Writer) error {
	machine, err := r.machine(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n%d replica sets of %d members, %s a member, %s a request, proof agent\n\n", machine, deploymentSets, deploymentMembers, memberTime, s.latency)
	for _, concurrency := range s.deployment {
		row, err := r.measureDeployment(ctx, s.latency, deploymentSets, concurrency)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "concurrency %2d: %.1f s, %d PUTs, %d requests, %d events in %d runs, %d bytes of history\n",
			row.concurrency, row.took.Seconds(), row.puts, row.requests, row.events, row.runs, row.bytes)
	}
	return nil
}

func (r *harness) measureDeployment(ctx context.Context, latency time.Duration, sets, concurrency int) (row deploymentRow, err error) {
	var d *simulator.Deployment
	t, err := r.newTarget(ctx, latency, 1, 0, func(om *simulator.Server) {
		options := simulator.DeploymentOptions{ProjectID: project, MemberTime: memberTime}
		for i := range sets {
			options.Clusters = append(options.Clusters, simulator.DeployedCluster{Name: fmt.Sprintf("set-%03d", i), Members: deploymentMembers})
		}
		om.AddProject(simulator.Project{ID: project, Name: "deployment"})
		d = om.AddDeployment(options)
	})
	if err != nil {
		return row, err
	}
	defer t.close()
	r.progressf("rotating %d replica sets, %d at a time", sets, concurrency)
	startedAt := time.Now()
	started, err := r.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.RotateDeploymentID(workflows.DefaultConnection, project), TaskQueue: t.taskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateDeploymentType, workflows.RotateDeploymentInput{
		ProjectID: project, Concurrency: concurrency, Proof: workflows.ProofAgent, OnFailure: workflows.OnFailureStop,
	})
	if err != nil {
		return row, err
	}
	var result workflows.RotateDeploymentResult
	if err := started.Get(ctx, &result); err != nil {
		return row, t.withWorkerLogs(err)
	}
	row = deploymentRow{concurrency: concurrency, took: time.Since(startedAt), puts: len(d.Puts()), requests: len(t.om.Ledger().Requests)}
	if err := checkDeployment(d); err != nil {
		return row, err
	}
	runs, err := t.runsSince(ctx, startedAt, 1)
	for _, run := range runs {
		row.runs++
		row.events += run.events
		row.bytes += run.bytes
	}
	return row, err
}

// checkDeployment requires one new key for each process, and no other changed byte.
func checkDeployment(d *simulator.Deployment) error {
	if violations := d.Violations(); len(violations) > 0 {
		return fmt.Errorf("the ledger has %d violations, such as: %s", len(violations), violations[0])
	}
	for _, p := range d.Processes() {
		if n := len(d.Rotations(p.Name)); !p.Mongos && n != 1 {
			return fmt.Errorf("%s was rotated %d times", p.Name, n)
		}
	}
	return nil
}
