// Package simulator is a faithful simulator of the part of MongoDB Ops
// Manager's public API that rotating backup master keys needs: projects,
// clusters, backup configurations, snapshots and the encryption key of each
// component, behind HTTP Digest authentication that is checked on the
// server's side by an independent library.
//
// A test starts one on a loopback address:
//
//	om := simulator.Start(t, simulator.Options{})
//	orders := om.AddShardedCluster(simulator.DefaultProjectID, "orders", 3)
//	om.Inject(simulator.PutServerError(orders.ShardIDs[1], simulator.ApplyBefore))
//	// ... run what is tested against om.URL ...
//	require.Len(t, om.Ledger().Applied(orders.ShardIDs[1]), 1)
//
// Everything that can go wrong is a Fault: a declarative value that says which
// requests it meets and what happens to them. The Ledger tells what was asked
// and which rotations were really applied.
//
// The program in opsmanager-simulator runs the same simulator outside a test.
package simulator
