package main

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/client"

	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

const project = simulator.DefaultProjectID

// cluster is what is rotated: a sharded cluster, or a replica set.
type cluster struct {
	projectID, id string
	targets       []string
}

// addCluster adds a cluster with so many targets: shards and a config server,
// or, for one target, a replica set.
func addCluster(om *simulator.Server, projectID, name string, targets int) cluster {
	if targets == 1 {
		set := om.AddReplicaSet(projectID, name)
		return cluster{projectID, set.ID, []string{set.ID}}
	}
	sharded := om.AddShardedCluster(projectID, name, targets-1)
	return cluster{projectID, sharded.ID, sharded.TargetIDs()}
}

func (c cluster) workflowID() string {
	return workflows.RotateClusterID(workflows.DefaultConnection, c.projectID, c.id)
}

// start starts RotateCluster as any caller does.
func (s *site) start(ctx context.Context, c cluster, concurrency int) (client.WorkflowRun, error) {
	return s.rig.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: c.workflowID(), TaskQueue: s.taskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateClusterType, workflows.RotateClusterInput{
		ProjectID: c.projectID, ClusterID: c.id, Concurrency: concurrency, OnFailure: workflows.OnFailureStop, ExpectedTargets: len(c.targets),
	})
}

// await waits for a rotation's result.
func (s *site) await(ctx context.Context, c cluster, started client.WorkflowRun) (*workflows.RotateClusterResult, error) {
	var result workflows.RotateClusterResult
	if err := started.Get(ctx, &result); err != nil {
		return nil, causeOf(ctx, err)
	}
	if result.Outcome != workflows.OutcomeRotated || len(result.Targets) != len(c.targets) {
		return nil, fmt.Errorf("%s: outcome %s with %d targets, not %d", c.workflowID(), result.Outcome, len(result.Targets), len(c.targets))
	}
	return &result, nil
}

// rotation is one measured run of keyturn.
type rotation struct {
	seconds   float64
	account   account
	histories histories
	runs      []workflowRun
}

// rotate measures a rotation as its caller sees it: from asking for it to having
// its result, so listing and reading included. The records are compared with the
// ledger, and so are the requests in flight.
func (s *site) rotate(ctx context.Context, c cluster, concurrency, inFlight int) (measured rotation, err error) {
	ctx, stop := s.whileWorkersRun(ctx)
	defer stop()
	s.om.ResetLedger()
	begun := time.Now()
	started, err := s.start(ctx, c, concurrency)
	if err != nil {
		return measured, causeOf(ctx, err)
	}
	result, err := s.await(ctx, c, started)
	if err != nil {
		return measured, err
	}
	measured.seconds = time.Since(begun).Seconds()
	ledger := s.om.Ledger()
	if err := environment.CheckRecords(ledger, result.Targets); err != nil {
		return measured, err
	}
	if measured.account, err = accountOf(ledger, c.targets, inFlight); err != nil {
		return measured, err
	}
	if measured.runs, err = s.runsSince(ctx, begun, 1); err != nil {
		return measured, err
	}
	measured.histories = historiesOf(measured.runs)
	return measured, nil
}

// warmUp does what a first rotation costs more: connections, digests, caches.
func (s *site) warmUp(ctx context.Context, small cluster) error {
	_, err := s.rotate(ctx, small, len(small.targets), len(small.targets))
	return err
}

// causeOf is err, unless it is but a consequence of ctx having ended.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
