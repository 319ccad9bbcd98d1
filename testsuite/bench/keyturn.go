package main

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

const project = simulator.DefaultProjectID

// cluster is a sharded cluster or a replica set.
type cluster struct {
	projectID, id string
	targets       []string
}

// addCluster adds a cluster with this number of targets: shards and a config
// server, or a replica set for one target.
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

// start starts RotateCluster like any caller.
func (s *target) start(ctx context.Context, c cluster, concurrency int) (client.WorkflowRun, error) {
	return s.harness.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: c.workflowID(), TaskQueue: s.taskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateClusterType, workflows.RotateClusterInput{
		ProjectID: c.projectID, ClusterID: c.id, Concurrency: concurrency, OnFailure: workflows.OnFailureStop, ExpectedTargets: len(c.targets),
	})
}

// await waits for the result of a rotation.
func (s *target) await(ctx context.Context, c cluster, started client.WorkflowRun) (*workflows.RotateClusterResult, error) {
	var result workflows.RotateClusterResult
	if err := started.Get(ctx, &result); err != nil {
		return nil, causeOf(ctx, err)
	}
	if result.Outcome != workflows.OutcomeRotated || len(result.Targets) != len(c.targets) {
		return nil, fmt.Errorf("%s: outcome %s with %d targets, expected %d", c.workflowID(), result.Outcome, len(result.Targets), len(c.targets))
	}
	return &result, nil
}

// rotation is one measured rotation by keyturn.
type rotation struct {
	seconds   float64
	requests  requestCounts
	histories histories
	runs      []workflowRun
}

// rotate measures a rotation from its start to its result, which includes
// listing and reading. It checks the records and the requests in flight against
// the ledger.
func (s *target) rotate(ctx context.Context, c cluster, concurrency, inFlight int) (measured rotation, err error) {
	ctx, stop := s.whileWorkersRun(ctx)
	defer stop()
	s.om.ResetLedger()
	startedAt := time.Now()
	started, err := s.start(ctx, c, concurrency)
	if err != nil {
		return measured, causeOf(ctx, err)
	}
	result, err := s.await(ctx, c, started)
	if err != nil {
		return measured, err
	}
	measured.seconds = time.Since(startedAt).Seconds()
	ledger := s.om.Ledger()
	if err := invariants.CheckRecords(ledger, result.Targets); err != nil {
		return measured, err
	}
	if measured.requests, err = countRequests(ledger, c.targets, inFlight); err != nil {
		return measured, err
	}
	if measured.runs, err = s.runsSince(ctx, startedAt, 1); err != nil {
		return measured, err
	}
	measured.histories = historiesOf(measured.runs)
	return measured, nil
}

// warmUp has the additional costs of a first rotation: connections, digests,
// caches.
func (s *target) warmUp(ctx context.Context, small cluster) error {
	_, err := s.rotate(ctx, small, len(small.targets), len(small.targets))
	return err
}

// causeOf is err, or the cause of ctx if err is a consequence of its end.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
