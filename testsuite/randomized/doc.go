// Package randomized runs randomized, seeded tests of rotations.
//
// Each seed generates a cluster, the input of a rotation, faults and latencies
// of Ops Manager, killed and stopped workers, resets of activities and of the
// workflow, early continue-as-new, and what operators do. The test runs the
// rotation in the SDK's test environment, with the real workflow and the real
// activities against a simulated Ops Manager, and then checks the records
// against the simulator's ledger.
//
// A tenth as many seeds generate deployments, with other publishers and failing agents,
// for RotateDeployment.
//
//	go test ./testsuite/randomized              # seeds 1 to 1000 (with -race: 200)
//	go test ./testsuite/randomized -seeds 20000 # more seeds
//	go test ./testsuite/randomized -from 5000   # start at another seed
//	go test ./testsuite/randomized -seed 1234 -v
//
// A seed determines what is generated. Which request is the first to meet a
// fault still depends on the scheduling of goroutines, so a rare failure may
// need several runs of its seed to occur again.
package randomized
