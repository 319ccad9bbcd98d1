package main

import (
	"fmt"
	"time"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/freeport"
)

const (
	project = simulator.DefaultProjectID
	// keptRequests limits the memory of a sandbox that runs for days.
	keptRequests = 100_000
	// snapshotEvery is the interval of a deployment's snapshots.
	snapshotEvery = 5 * time.Second
	// deployTimeout and proofTimeout are those of the rotations of a deployment.
	deployTimeout = 30 * time.Second
	proofTimeout  = time.Minute
)

// startOpsManager starts the simulated Ops Manager; port 0 means a free port.
func startOpsManager(port int, options simulator.Options) (*simulator.Server, error) {
	options.KeepRequests = keptRequests
	om := simulator.New(options)
	server, err := simulator.Listen(om, freeport.Address(port), nil)
	if err != nil {
		om.Close()
		return nil, fmt.Errorf("starting the simulated Ops Manager: %w", err)
	}
	om.AddProject(simulator.Project{ID: project, Name: "sandbox"})
	return server, nil
}
