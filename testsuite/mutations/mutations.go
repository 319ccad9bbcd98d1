package main

import "slices"

// mutation replaces one place in the code.
type mutation struct {
	name     string
	file     string
	old, new string
	// tests are the arguments of the go test command that must fail.
	tests []string
}

var (
	clientTests     = []string{"./opsmanager"}
	retryAfterTests = []string{"./internal/retryafter"}
	activityTests   = []string{"./activities"}
	replayTests     = []string{"./testsuite/replay"}
	settingTests    = []string{"./internal/temporalclient"}
	reloadTests     = []string{"./internal/reload"}
	pipelineTests   = []string{"./testsuite/examples", "-run", "Pipeline"}
	schemaTests     = workflowTests("SchemasAgree")
)

// serverTests selects tests that need a real server by their names: running all
// of them would take minutes for each mutation.
func serverTests(named string) []string { return []string{"./testsuite/endtoend", "-run", named} }

func workflowTests(named string) []string { return []string{"./workflows", "-run", named} }

func workerTests(named string) []string { return []string{"./worker", "-run", named} }

func commandLineTests(named string) []string { return []string{"./starter", "-run", named} }

// mutations are all of them. Each area has a file of its own.
var mutations = slices.Concat(activitiesMutations, clientMutations, engineMutations, rotateDeploymentMutations, fleetMutations, keyMutations, evidenceMutations, ledgerMutations, workerMutations, commandLineMutations, simulatorMutations, deploymentMutations, ledgerCommandMutations, temporalServerMutations, eventMutations)
