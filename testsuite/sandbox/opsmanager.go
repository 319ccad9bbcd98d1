package main

import (
	"fmt"
	"strconv"
	"time"

	"keyturn/testsuite/simulator"
)

const (
	project = simulator.DefaultProjectID
	// keptRequests bounds the memory of a sandbox that is left up for days.
	keptRequests = 100_000
)

// startOpsManager starts the simulated Ops Manager; port 0 takes a free one.
func startOpsManager(port int, latency time.Duration) (*simulator.Server, error) {
	om := simulator.New(simulator.Options{Latency: latency, KeepRequests: keptRequests})
	server, err := simulator.Listen(om, loopbackAddress(port), nil)
	if err != nil {
		om.Close()
		return nil, fmt.Errorf("starting the simulated Ops Manager: %w", err)
	}
	om.AddProject(simulator.Project{ID: project, Name: "sandbox"})
	return server, nil
}

// addClusters adds orders, orders2 and so on.
func addClusters(om *simulator.Server, clusters, shards int) []simulator.ShardedCluster {
	added := []simulator.ShardedCluster{om.AddShardedCluster(project, "orders", shards)}
	for i := 2; i <= clusters; i++ {
		added = append(added, om.AddShardedCluster(project, "orders"+strconv.Itoa(i), shards))
	}
	return added
}
