// Package faultinjection injects faults into rotations on a real Temporal
// server, with the worker as a process that can be killed, against a simulated
// Ops Manager. Whatever happens, exactly one PUT must be applied for each
// target, and the records must match the simulator's ledger.
//
// Two tests can do more than by default:
//
//	go test ./testsuite/faultinjection -run '(EveryPoint|DuringContinueAsNew)/^Cluster' -long
//	go test ./testsuite/faultinjection -run TestRandomizedProcessFaults -seeds 200 -timeout 2h
package faultinjection

import (
	"flag"
	"testing"
	"time"

	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/parallel"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

var long = flag.Bool("long", false, "test every point of a larger rotation, with targets in parallel")

func TestMain(m *testing.M) {
	parallel.Tests(24)
	dnsServer.install()
	temporalserver.Main(m)
}

// Durations of the rotations of these tests. What is applied late is applied
// and visible well within settleTime.
const (
	settleTime    = 2 * time.Second
	verifyTimeout = 20 * time.Second
	retryTimeout  = 90 * time.Second
	// requestTimeout is the request timeout of workers in this process.
	requestTimeout = time.Second
	// The measured times are in the tests' logs. These limits only separate the
	// cases, on a busy machine, too: another worker continues after the
	// heartbeat timeout (10 s) and not after retryTimeout; permanent errors,
	// and what a Retry-After has delayed, do not wait for retryTimeout either.
	resumedWithin  = retryTimeout / 2
	reportedWithin = retryTimeout / 3
)

// startWorker starts a worker in this process whose requests time out.
func startWorker(s fixture.Server) (stop func()) {
	s.Helper()
	s.RequestTimeout = requestTimeout
	return s.StartWorker()
}

func inputOf(s fixture.Server, clusterID string) workflows.RotateClusterInput {
	input := s.Input(clusterID)
	input.SettleTime = workflows.Duration(settleTime)
	input.VerifyTimeout = workflows.Duration(verifyTimeout)
	input.RetryTimeout = workflows.Duration(retryTimeout)
	return input
}
