package faults

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	workflowpb "go.temporal.io/api/workflow/v1"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// outage is a way in which Ops Manager is out of reach for a while.
type outage struct {
	stage.Stage
	client   *opsmanager.Client
	down, up func()
}

var outages = map[string]func(t *testing.T) outage{
	"ConnectionRefused": func(t *testing.T) outage {
		s := stage.New(t, simulator.Options{})
		return outage{s, clientOf(t, s.OM.URL), s.OM.Stop, s.OM.Restart}
	},
	"NoSuchName": func(t *testing.T) outage {
		s := stage.New(t, simulator.Options{})
		name := s.Project + ".test"
		names.set(name, true)
		return outage{s, newClient(t, opsmanager.Config{BaseURL: strings.Replace(s.OM.URL, "127.0.0.1", name, 1), AllowHTTP: true}),
			func() { names.set(name, false); s.OM.Restart() }, // no connection made before is left
			func() { names.set(name, true) },
		}
	},
	"WrongCertificate": func(t *testing.T) outage {
		om := simulator.StartTLS(t, simulator.Options{})
		s := stage.With(t, temporalserver.Shared(t), om)
		var impostor *httptest.Server
		return outage{s, newClient(t, opsmanager.Config{BaseURL: om.URL, CAPEM: om.CAPEM}),
			func() { om.Stop(); impostor = startImpostor(t, strings.TrimPrefix(om.Address, "https://")) },
			func() { impostor.Close(); om.Restart() },
		}
	},
}

func newClient(t *testing.T, config opsmanager.Config) *opsmanager.Client {
	t.Helper()
	config.PublicKey, config.PrivateKey, config.RequestTimeout = simulator.DefaultPublicKey, simulator.DefaultPrivateKey, requestTimeout
	c, err := opsmanager.New(config)
	require.NoError(t, err)
	return c
}

// startImpostor serves an address with a certificate of an authority that
// nobody trusts.
func startImpostor(t *testing.T, address string) *httptest.Server {
	t.Helper()
	impostor := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		assert.Fail(t, "a request was sent to the impostor")
	}))
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	impostor.Listener, impostor.Config.ErrorLog = listener, log.New(io.Discard, "", 0)
	impostor.StartTLS()
	t.Cleanup(impostor.Close)
	return impostor
}

// afterActivity reaches the moment when Temporal has the n-th completed
// activity, and the worker does not know it yet; 0 is the rotation's beginning.
func afterActivity(n int, do func()) func(point) bool {
	var completed atomic.Int64 // messages come side by side
	return func(p point) bool {
		isBeginning := n == 0 && p.number == 1 && !p.after
		isCompletion := p.after && p.name == "RespondActivityTaskCompleted"
		if isBeginning || isCompletion && completed.Add(1) == int64(n) {
			do()
		}
		return false
	}
}

// The outage begins before each activity of the first target, so that every kind
// of request meets it.
func TestOpsManagerOutOfReach(t *testing.T) {
	t.Parallel()
	for name, begin := range outages {
		for done, next := range []string{"Listing", "Reading", "Put", "Verifying"} {
			t.Run(name+"/"+next, func(t *testing.T) {
				t.Parallel()
				o := begin(t)
				cluster := o.OM.AddShardedCluster(o.Project, "orders", 1)
				begun := make(chan struct{})
				g := newGate(o.Stage, afterActivity(done, func() { o.down(); close(begun) }))
				o.StartWorkerWith(g.dial(o.Stage), o.client, fewPollers)
				run := o.Start(inputOf(o.Stage, cluster.ID))
				awaitClosed(o.Stage, begun) // an attempt before it may have been too slow for its timeout
				awaitPending(o.Stage, run, func(p *workflowpb.PendingActivityInfo) bool { return p.GetAttempt() > 1 })
				o.up()
				o.RequireRotated(run, 2)
			})
		}
	}
}

// awaitPending waits for a pending activity that fulfils a condition.
func awaitPending(s stage.Stage, run workflowRun, fulfils func(*workflowpb.PendingActivityInfo) bool) *workflowpb.PendingActivityInfo {
	s.Helper()
	var found *workflowpb.PendingActivityInfo
	require.Eventually(s, func() bool {
		described, err := s.Temporal.DescribeWorkflowExecution(s.Context(), run.GetID(), "")
		if err != nil {
			return false
		}
		for _, p := range described.GetPendingActivities() {
			if fulfils(p) {
				found = p
				return true
			}
		}
		return false
	}, patience, 50*time.Millisecond)
	return found
}

// An outage that lasts longer than the input's patience is told, with what was
// done until then.
func TestOutageThatLasts(t *testing.T) {
	t.Parallel()
	for name, begin := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := begin(t)
			o.Unrecorded = true
			cluster := o.OM.AddShardedCluster(o.Project, "orders", 1)
			g := newGate(o.Stage, afterActivity(4, o.down))
			o.StartWorkerWith(g.dial(o.Stage), o.client, fewPollers)
			input := inputOf(o.Stage, cluster.ID)
			input.RetryTimeout = workflows.Duration(3 * time.Second)
			_, err := o.Result(o.Start(input))
			stage.RequireFailure(t, err, activities.ErrorPartialFailure)
			records, found := workflows.ResultOf(err)
			require.True(t, found)
			o.RequireTrue(records.Targets)
			assert.Equal(t, workflows.StatusVerified, records.Targets[0].Status)
			require.Equal(t, workflows.StatusFailed, records.Targets[1].Status)
			assert.Equal(t, activities.ErrorOpsManagerUnavailable, records.Targets[1].Error.Type)
			o.up()
			input.Completed = records.Targets
			completed := o.RequireRotated(o.Start(input), 2)
			assert.True(t, completed.Targets[0].CarriedOver)
		})
	}
}

// The simulator is restarted before and after each request: connections are cut,
// nonces forgotten, answers lost.
func TestSimulatorRestartedAtEveryRequest(t *testing.T) {
	t.Parallel()
	points := pointsOf(t, temporalserver.Shared(t))
	for _, p := range points {
		if strings.HasPrefix(p.name, "Respond") {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, temporalserver.Shared(t))
			g := newGate(s.Stage, func(reached point) bool {
				if reached.is(p) {
					s.OM.Restart()
				}
				return false
			})
			g.startWorker(s.Stage)
			s.requireRotated(s.Start(s.input()))
		})
	}
}

// A PUT is on its way when the simulator is restarted, and has taken effect, or
// never will.
func TestSimulatorRestartedWithAPutInTheOpen(t *testing.T) {
	t.Parallel()
	for _, apply := range []simulator.Apply{simulator.ApplyBefore, simulator.ApplyNo} {
		t.Run("applied-"+string(apply), func(t *testing.T) {
			t.Parallel()
			s := stage.New(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
			s.OM.Inject(simulator.PutHang(cluster.ConfigID, apply))
			s.StartWorkerWith(s.Temporal, clientOf(t, s.OM.URL))
			run := s.Start(inputOf(s, cluster.ID))
			s.AwaitLedger(func(l simulator.Ledger) bool {
				return len(l.Select(func(r simulator.Request) bool { return r.Outcome == simulator.OutcomeHung })) > 0
			})
			s.OM.Restart()
			result := s.RequireRotated(run, 2)
			assert.True(t, result.Targets[1].Ambiguous)
		})
	}
}
