// Package campaign tests rotations by the thousand instead of by example.
//
// Each seed draws a cluster, the input of a rotation, faults and latencies of
// Ops Manager, deaths and stops of workers, resets of activities and of the
// workflow, early continue-as-new, and what operators do. It runs the rotation
// in the SDK's test environment, with the real workflow and the real activities
// against a simulated Ops Manager, and then compares what is recorded with the
// simulator's own ledger.
//
//	go test ./testsuite/campaign              # seeds 1 to 1000 (with -race: 200)
//	go test ./testsuite/campaign -seeds 20000 # more of them
//	go test ./testsuite/campaign -from 5000   # others
//	go test ./testsuite/campaign -seed 1234 -v
//
// A seed fixes what is drawn. Which request meets a fault first still depends
// on the order in which goroutines run, so a rare failure may take several runs
// of its seed to show again.
package campaign
