package faultinjection

import (
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
)

// A worker is suspended, as on a suspended machine, when it is about to repeat
// its PUT after a stale nonce. By the time it continues, another worker has
// rotated the key: the first one must notice that and send nothing.
func TestWorkerSuspendedBeforePut(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	s.OM.Inject(simulator.StaleNonce(http.MethodPut, cluster.ID))
	var suspended *workerProcess
	started := make(chan struct{})
	var puts atomic.Int32
	var g *interceptProxy
	g = newInterceptProxy(s, func(p killPoint) bool {
		<-started
		if p.after && p.name == "PUT encryptionKey" && puts.Add(1) == 1 {
			assert.NoError(t, suspended.command.Process.Signal(syscall.SIGSTOP))
			g.endPolls()
			startProcess(s)
			awaitRotations(s, 1)
			assert.NoError(t, suspended.command.Process.Signal(syscall.SIGCONT))
		}
		return false
	})
	suspended = startWorkerProcess(s, g.temporalAddress, g.opsManagerURL)
	close(started)
	s.RequireRotated(s.Start(inputOf(s, cluster.ID)), 1)
	// By now it has received the stale nonce and would have repeated the PUT.
	assert.EqualValues(t, 1, puts.Load())
}

// A task arrives at its worker so late that Temporal has given it to another
// worker in the meantime. The first worker must notice that and send nothing.
func TestTaskDeliveredLate(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	g := newInterceptProxy(s, nil)
	var tasks atomic.Int32
	delivered := make(chan struct{})
	g.onActivityTask = func() {
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

func awaitRotations(s fixture.Server, n int) {
	s.Helper()
	s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Rotations) >= n })
}
