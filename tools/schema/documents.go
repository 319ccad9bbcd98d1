package main

import (
	"reflect"

	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// document is one file.
type document struct {
	file  string
	title string
	of    reflect.Type
	// isInput: the worker refuses fields that it does not know, takes null for a field
	// that is left out, and fills in defaults.
	isInput  bool
	defaults any
}

var documents = []document{
	{"rotate-cluster-input.json", "Input of the workflow RotateCluster", reflect.TypeFor[workflows.RotateClusterInput](), true, workflows.DefaultRotateClusterInput()},
	{"rotate-cluster-result.json", "Result of the workflow RotateCluster, or the first detail of its failure", reflect.TypeFor[workflows.RotateClusterResult](), false, nil},
	{"rotate-cluster-progress.json", "Answer of RotateCluster to the query progress and to every update", reflect.TypeFor[workflows.Progress](), false, nil},
	{"rotate-deployment-input.json", "Input of the workflow RotateDeployment", reflect.TypeFor[workflows.RotateDeploymentInput](), true, workflows.DefaultRotateDeploymentInput()},
	{"rotate-deployment-result.json", "Result of the workflow RotateDeployment, or the first detail of its failure", reflect.TypeFor[workflows.RotateDeploymentResult](), false, nil},
	{"rotate-deployment-progress.json", "Answer of RotateDeployment to the query progress and to every update", reflect.TypeFor[workflows.DeploymentProgress](), false, nil},
	{"rotate-fleet-input.json", "Input of the workflow RotateFleet", reflect.TypeFor[workflows.RotateFleetInput](), true, workflows.DefaultRotateFleetInput()},
	{"rotate-fleet-result.json", "Result of the workflow RotateFleet, or the first detail of its failure", reflect.TypeFor[workflows.RotateFleetResult](), false, nil},
	{"rotate-fleet-progress.json", "Answer of RotateFleet to the query progress and to every update", reflect.TypeFor[workflows.FleetProgress](), false, nil},
	{"list-clusters-input.json", "Input of the workflow ListClusters", reflect.TypeFor[workflows.ListClustersInput](), true, workflows.ListClustersInput{Connection: workflows.DefaultConnection}},
	{"list-clusters-result.json", "Result of the workflow ListClusters", reflect.TypeFor[workflows.ListClustersResult](), false, nil},
	{"list-keys-input.json", "Input of the workflow ListKeys", reflect.TypeFor[workflows.ListKeysInput](), true, workflows.ListKeysInput{Connection: workflows.DefaultConnection}},
	{"list-keys-result.json", "Result of the workflow ListKeys", reflect.TypeFor[workflows.ListKeysResult](), false, nil},
	{"list-keys-page.json", "Result of a page that the result of ListKeys names", reflect.TypeFor[workflows.KeyPage](), false, nil},
	{"approve-request.json", "Input of the update approve", reflect.TypeFor[workflows.ApproveRequest](), true, nil},
	{"operator-request.json", "Input of the updates reject, pause, resume and abort", reflect.TypeFor[workflows.OperatorRequest](), true, nil},
	{"retry-request.json", "Input of the update retry", reflect.TypeFor[workflows.RetryRequest](), true, nil},
	{"skip-request.json", "Input of the update skip", reflect.TypeFor[workflows.SkipRequest](), true, nil},
	{"ledger-entry.json", "Entry of the ledger, as the commands evidence and history write it in JSON", reflect.TypeFor[ledgerentry.Entry](), false, nil},
}
