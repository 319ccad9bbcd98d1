// Package simulator is a faithful simulator of the part of MongoDB Ops
// Manager's public API that rotating master keys needs: projects, clusters,
// backup configurations, snapshots, the encryption key of each component and
// automation configurations, behind HTTP Digest authentication that is checked on
// the server's side by an independent library.
//
// A test starts one on a loopback address:
//
//	om := simulator.Start(t, simulator.Options{})
//	orders := om.AddShardedCluster(simulator.DefaultProjectID, "orders", 3)
//	om.Inject(simulator.PutServerError(orders.ShardIDs[1], simulator.ApplyBefore))
//	// ... run what is tested against om.URL ...
//	require.Len(t, om.Ledger().Applied(orders.ShardIDs[1]), 1)
//
// A Fault is a declarative value that says which requests it applies to and what
// happens to them. The Ledger has all requests and the rotations that were
// applied.
//
// A project can have a Deployment: clusters that Ops Manager automates, whose
// processes have KMIP encryption at rest, each with a master key of its own. Its
// agents act on the automation configuration by themselves:
//
//	d := om.AddDeployment(simulator.DeploymentOptions{
//		Clusters: []simulator.DeployedCluster{{Name: "orders", Shards: 2}, {Name: "audit", Members: 5}},
//	})
//	// ... publish a time for d.Members("orders-0") through om.URL, and await it ...
//	d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"orders-0-1"}})
//	require.Len(t, d.Rotations("orders-0-1"), 1) // new keys of a process
//	require.Empty(t, d.Puts()[0].Changes)        // every byte but the times
//
// SetAgent and SetConduct say what its agents and Ops Manager do otherwise, Publish
// and Edit change the configuration as somebody else does.
//
// The program in opsmanager-simulator runs the same simulator outside a test.
package simulator
