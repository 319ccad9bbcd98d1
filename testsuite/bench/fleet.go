package main

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// Display names of the clusters, which select the clusters of a fleet.
const (
	warmUpFleet   = "warmup"
	measuredFleet = "orders"
)

// addFleet adds the clusters of a fleet, ten per project, and one for the
// warm-up.
func addFleet(om *simulator.Server, targets int) (ids []string) {
	om.AddProject(simulator.Project{ID: project, Name: "warmup"})
	addCluster(om, project, warmUpFleet, warmUpTargets)
	for i := range targets / clusterTargets {
		in := fmt.Sprintf("65a1f0c2%016x", 1+i/clustersPerProject)
		ids = append(ids, addCluster(om, in, fmt.Sprintf("%s%d", measuredFleet, i), clusterTargets).targets...)
	}
	return ids
}

// bigProject is the project that addProject adds its clusters to.
const bigProject = "65a1f0c20000000000000001"

// addProject adds the clusters of a fleet that are all in one project, and one for
// the warm-up in another.
func addProject(om *simulator.Server, clusters int) (ids []string) {
	om.AddProject(simulator.Project{ID: project, Name: "warmup"})
	addCluster(om, project, warmUpFleet, warmUpTargets)
	for i := range clusters {
		ids = append(ids, addCluster(om, bigProject, fmt.Sprintf("%s%d", measuredFleet, i), smallClusterTargets).targets...)
	}
	return ids
}

// rotateFleet rotates the clusters whose names have this prefix, in all
// projects.
func (s *target) rotateFleet(ctx context.Context, names string, clusters int) error {
	started, err := s.harness.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.RotateFleetID(workflows.DefaultConnection), TaskQueue: s.taskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateFleetType, workflows.RotateFleetInput{
		ClusterNames: "^" + names, ClustersAtATime: fleetClustersAtATime,
		Rotation: workflows.FleetRotation{Concurrency: fleetConcurrency, OnFailure: workflows.OnFailureStop},
	})
	if err != nil {
		return causeOf(ctx, err)
	}
	var result workflows.RotateFleetResult
	if err := started.Get(ctx, &result); err != nil {
		return causeOf(ctx, err)
	}
	if result.Counts.Clusters != clusters || result.Counts.Rotated != clusters {
		return fmt.Errorf("%s: outcome %s, %s; expected %d clusters", started.GetID(), result.Outcome, result.Counts, clusters)
	}
	return nil
}
