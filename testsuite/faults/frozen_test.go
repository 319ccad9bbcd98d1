package faults

import (
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
)

// A worker is frozen, as a suspended machine's is, when it is about to send its
// PUT once more after a stale nonce. Another worker has done the work by the time
// it goes on: it must notice that, and send nothing.
func TestWorkerFrozenBeforeItsPut(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	s.OM.Inject(simulator.StaleNonce(http.MethodPut, cluster.ID))
	var frozen *workerProcess
	started := make(chan struct{})
	var puts atomic.Int32
	var g *gate
	g = newGate(s, func(p point) bool {
		<-started
		if p.after && p.name == "PUT encryptionKey" && puts.Add(1) == 1 {
			assert.NoError(t, frozen.command.Process.Signal(syscall.SIGSTOP))
			g.endPolls()
			startProcess(s)
			awaitRotations(s, 1)
			assert.NoError(t, frozen.command.Process.Signal(syscall.SIGCONT))
		}
		return false
	})
	frozen = startWorkerProcess(s, g.temporalAddress, g.opsManagerURL)
	close(started)
	s.RequireRotated(s.Start(inputOf(s, cluster.ID)), 1)
	// It has been told of the stale nonce, and would have sent the PUT by now.
	assert.EqualValues(t, 1, puts.Load())
}

// A task comes to its worker so late that Temporal has given it to another one
// meanwhile: it was on the way to a machine that was suspended. The late one must
// notice that, and send nothing.
func TestTaskDeliveredLate(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	g := newGate(s, nil)
	var tasks atomic.Int32
	delivered := make(chan struct{})
	g.deliver = func() {
		if tasks.Add(1) == 3 { // after ListTargets and ReadKeys: RotateKey
			s.StartWorkerWith(s.Temporal, clientOf(t, s.OM.URL))
			awaitRotations(s, 1)
			close(delivered)
		}
	}
	s.StartWorkerWith(g.dial(s), clientOf(t, g.opsManagerURL), fewPollers, func(options *sdkworker.Options) {
		options.DisableEagerActivities = true
	})
	run := s.Start(inputOf(s, cluster.ID))
	s.RequireRotated(run, 1)
	awaitClosed(s, delivered)
	g.awaitMessages(len(g.messages())+2, settleTime)
	require.Len(t, s.OM.Ledger().Applied(cluster.ID), 1)
}

func awaitRotations(s stage.Stage, n int) {
	s.Helper()
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Rotations) >= n })
}
