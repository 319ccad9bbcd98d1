// Package faults runs rotations into trouble: on a real Temporal server, with
// the worker as a process that can be killed, against a simulated Ops Manager.
// Whatever happens, one PUT must be applied for each target, and the records
// must be the simulator's own.
//
// Two campaigns go further than a usual run of the tests does:
//
//	go test ./testsuite/faults -run AtEveryPoint -long
//	go test ./testsuite/faults -run TestProcessCampaign -campaign-seeds 200 -timeout 2h
package faults

import (
	"flag"
	"testing"
	"time"

	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

var long = flag.Bool("long", false, "take every point of a larger rotation, with targets in parallel")

// atATime is how many tests run at a time: nearly all that they do is to wait.
const atATime = "24"

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", atATime) // the flag is there, and the value fits
	}
	names.install()
	temporalserver.Main(m)
}

// Times of the rotations of these tests. What takes effect late does so, and
// shows, well within settleTime.
const (
	settleTime    = 2 * time.Second
	verifyTimeout = 20 * time.Second
	retryTimeout  = 90 * time.Second
	// requestTimeout is that of the clients of workers in this process.
	requestTimeout = time.Second
	// The figures are in the tests' logs. These bounds only tell the cases apart,
	// on a busy machine, too: a dead worker's target is taken up when its
	// heartbeat times out (10 s), not its time for retries; a permanent error,
	// and what a Retry-After has held back, waits for no such time either.
	takenUpWithin = retryTimeout / 2
	toldWithin    = retryTimeout / 3
	// patience is how long a test waits for what takes a moment.
	patience = time.Minute
)

func inputOf(s stage.Stage, clusterID string) workflows.RotateClusterInput {
	input := s.Input(clusterID)
	input.SettleTime = workflows.Duration(settleTime)
	input.VerifyTimeout = workflows.Duration(verifyTimeout)
	input.RetryTimeout = workflows.Duration(retryTimeout)
	return input
}
