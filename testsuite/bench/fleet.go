package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// fleetWorkflowType is RotateFleet's name; its input and result are used here as
// the JSON that they are for who shares no code with keyturn.
const fleetWorkflowType = "RotateFleet"

// Display names of the clusters, by which a fleet chooses.
const (
	warmUpFleet   = "warmup"
	measuredFleet = "orders"
)

// Whether the worker can run a fleet at all is looked at at these intervals; so
// many looks in a row that show a task's retry mean that it can't.
const (
	fleetTaskInterval = 500 * time.Millisecond
	fleetTaskLooks    = 4
)

type fleetInput struct {
	Connection      string        `json:"connection"`
	ProjectIDs      []string      `json:"projectIds"`
	ClusterNames    string        `json:"clusterNames"`
	ClustersAtATime int           `json:"clustersAtATime"`
	Rotation        fleetRotation `json:"rotation"`
}

type fleetRotation struct {
	Concurrency int    `json:"concurrency"`
	OnFailure   string `json:"onFailure"`
}

type fleetResult struct {
	Outcome string         `json:"outcome"`
	Counts  map[string]int `json:"counts"`
}

// addFleet adds the clusters of a fleet, ten a project, and one to warm up with.
func addFleet(om *simulator.Server, targets int) (ids []string) {
	om.AddProject(simulator.Project{ID: project, Name: "warmup"})
	addCluster(om, project, warmUpFleet, warmUpTargets)
	for i := range targets / clusterTargets {
		in := fmt.Sprintf("65a1f0c2%016x", 1+i/clustersPerProject)
		ids = append(ids, addCluster(om, in, fmt.Sprintf("%s%d", measuredFleet, i), clusterTargets).targets...)
	}
	return ids
}

// rotateFleet rotates the clusters whose names begin so, in all projects.
func (s *site) rotateFleet(ctx context.Context, names string, clusters int) error {
	started, err := s.rig.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "bench-fleet:" + s.taskQueue + ":" + names, TaskQueue: s.taskQueue,
	}, fleetWorkflowType, fleetInput{
		Connection: workflows.DefaultConnection, ProjectIDs: []string{}, ClusterNames: "^" + names, ClustersAtATime: fleetClustersAtATime,
		Rotation: fleetRotation{Concurrency: fleetConcurrency, OnFailure: workflows.OnFailureStop},
	})
	if err != nil {
		return causeOf(ctx, err)
	}
	ctx, stop := s.whileTasksSucceed(ctx, started)
	defer stop()
	var result fleetResult
	if err := started.Get(ctx, &result); err != nil {
		return causeOf(ctx, err)
	}
	if result.Counts["clusters"] != clusters || result.Counts["rotated"] != clusters {
		return fmt.Errorf("%s: outcome %s, %v of %d clusters", fleetWorkflowType, result.Outcome, result.Counts, clusters)
	}
	return nil
}

// whileTasksSucceed returns a context that ends when a task of the workflow is
// tried again and again, as it is where the worker does not know the workflow.
func (s *site) whileTasksSucceed(ctx context.Context, started client.WorkflowRun) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for failed := 0; failed < fleetTaskLooks; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(fleetTaskInterval):
			}
			described, err := s.rig.temporal.DescribeWorkflowExecution(ctx, started.GetID(), "")
			if err == nil && described.GetPendingWorkflowTask().GetAttempt() > 1 {
				failed++
			} else {
				failed = 0
			}
		}
		cancel(fmt.Errorf("%s: the workflow's tasks fail: %s", fleetWorkflowType, s.taskFailure(ctx, started)))
	}()
	return ctx, func() { cancel(nil) }
}

// taskFailure is what the worker said of a task's failure.
func (s *site) taskFailure(ctx context.Context, started client.WorkflowRun) string {
	pages := s.rig.temporal.GetWorkflowHistory(ctx, started.GetID(), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	said := "no reason is recorded"
	for pages.HasNext() {
		event, err := pages.Next()
		if err != nil {
			break
		}
		if failed := event.GetWorkflowTaskFailedEventAttributes(); failed != nil {
			said = strings.TrimSpace(failed.GetFailure().GetMessage())
		}
	}
	return said
}
