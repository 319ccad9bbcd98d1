package faultinjection

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
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// outage is a way in which Ops Manager is unreachable for some time.
type outage struct {
	fixture.Server
	client   *opsmanager.Client
	down, up func()
}

var outages = map[string]func(t *testing.T) outage{
	"ConnectionRefused": func(t *testing.T) outage {
		s := fixture.NewServer(t, simulator.Options{})
		return outage{s, clientOf(t, s.OM.URL), s.OM.Stop, s.OM.Restart}
	},
	"NoSuchName": func(t *testing.T) outage {
		s := fixture.NewServer(t, simulator.Options{})
		name := s.Project + ".test"
		dnsServer.set(name, true)
		return outage{s, newClient(t, opsmanager.Config{BaseURL: strings.Replace(s.OM.URL, "127.0.0.1", name, 1), AllowHTTP: true}),
			func() { dnsServer.set(name, false); s.OM.Restart() }, // closes existing connections
			func() { dnsServer.set(name, true) },
		}
	},
	"WrongCertificate": func(t *testing.T) outage {
		om := simulator.StartTLS(t, simulator.Options{})
		s := fixture.NewServerWith(t, temporalserver.Shared(t), om)
		var untrusted *httptest.Server
		return outage{s, newClient(t, opsmanager.Config{BaseURL: om.URL, CAPEM: om.CAPEM}),
			func() { om.Stop(); untrusted = startUntrustedServer(t, strings.TrimPrefix(om.Address, "https://")) },
			func() { untrusted.Close(); om.Restart() },
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

// startUntrustedServer serves an address with a certificate of an untrusted CA.
func startUntrustedServer(t *testing.T, address string) *httptest.Server {
	t.Helper()
	untrusted := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		assert.Fail(t, "a request was sent to a server with an untrusted certificate")
	}))
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	untrusted.Listener, untrusted.Config.ErrorLog = listener, log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	return untrusted
}

// afterActivity calls do when Temporal has recorded the completion of the n-th
// activity and the worker does not know it yet; 0 is the start of the rotation.
func afterActivity(n int, do func()) func(killPoint) bool {
	var completed atomic.Int64 // messages arrive concurrently
	return func(p killPoint) bool {
		isStart := n == 0 && p.number == 1 && !p.after
		isCompletion := p.after && p.name == "RespondActivityTaskCompleted"
		if isStart || isCompletion && completed.Add(1) == int64(n) {
			do()
		}
		return false
	}
}

// The outage starts before each activity of the first target, so that it
// affects every kind of request.
func TestOpsManagerUnreachable(t *testing.T) {
	t.Parallel()
	for name, newOutage := range outages {
		for done, next := range []string{"Listing", "Reading", "Put", "Verifying"} {
			t.Run(name+"/"+next, func(t *testing.T) {
				t.Parallel()
				o := newOutage(t)
				cluster := o.OM.AddShardedCluster(o.Project, "orders", 1)
				started := make(chan struct{})
				g := newInterceptProxy(o.Server, afterActivity(done, func() { o.down(); close(started) }))
				o.StartWorkerWith(g.dial(o.Server), o.client, fewPollers)
				run := o.Start(inputOf(o.Server, cluster.ID))
				awaitClosed(o.Server, started) // an earlier attempt may have exceeded its timeout
				awaitPending(o.Server, run, func(p *workflowpb.PendingActivityInfo) bool {
					// ReadKeys retries within its attempt, and sends heartbeats meanwhile.
					isRetrying := p.GetActivityType().GetName() == activities.ReadKeysName && p.GetLastHeartbeatTime() != nil
					return p.GetAttempt() > 1 || isRetrying
				})
				o.up()
				o.RequireRotated(run, 2)
			})
		}
	}
}

// awaitPending waits for a pending activity that meets a condition.
func awaitPending(s fixture.Server, run workflowRun, fulfils func(*workflowpb.PendingActivityInfo) bool) *workflowpb.PendingActivityInfo {
	s.Helper()
	var found *workflowpb.PendingActivityInfo
	waiting.UntilAnswer(s, func() (bool, error) {
		described, err := s.Temporal.DescribeWorkflowExecution(s.Context(), run.GetID(), "")
		for _, p := range described.GetPendingActivities() {
			if fulfils(p) {
				found = p
				return true, nil
			}
		}
		return false, err
	}, "no pending activity meets the condition")
	return found
}

// An outage that lasts longer than the input's retryTimeout fails the rotation,
// with the records so far.
func TestOutageLongerThanRetryTimeout(t *testing.T) {
	t.Parallel()
	for name, newOutage := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			o.Unrecorded = true
			cluster := o.OM.AddShardedCluster(o.Project, "orders", 1)
			g := newInterceptProxy(o.Server, afterActivity(4, o.down))
			o.StartWorkerWith(g.dial(o.Server), o.client, fewPollers)
			input := inputOf(o.Server, cluster.ID)
			input.RetryTimeout = workflows.Duration(3 * time.Second)
			_, err := o.Result(o.Start(input))
			fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
			records, found := workflows.RotateClusterResultOf(err)
			require.True(t, found)
			o.RequireMatchesLedger(records.Targets)
			assert.Equal(t, workflows.StatusVerified, records.Targets[0].Status)
			require.Equal(t, workflows.StatusFailed, records.Targets[1].Status)
			assert.Equal(t, workflows.ErrorOpsManagerUnavailable, records.Targets[1].Error.Type)
			o.up()
			input.Completed = records.Targets
			completed := o.RequireRotated(o.Start(input), 2)
			assert.True(t, completed.Targets[0].CarriedOver)
		})
	}
}

// The simulator is restarted before and after each request: connections are
// cut, nonces forgotten, responses lost.
func TestSimulatorRestartedAtEveryRequest(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for _, p := range testedPointsOf(t, temporalserver.Shared(t), k) {
				if strings.HasPrefix(p.name, "Respond") {
					continue
				}
				t.Run(p.String(), func(t *testing.T) {
					t.Parallel()
					s := newRotationFixture(t, temporalserver.Shared(t), k)
					g := newInterceptProxy(s.Server, func(reached killPoint) bool {
						if reached.equals(p) {
							s.OM.Restart()
						}
						return false
					})
					g.startWorker(s.Server)
					s.requireRotated(s.start())
				})
			}
		})
	}
}

// A PUT is pending when the simulator is restarted. It has been applied, or
// never will be.
func TestSimulatorRestartedWithPendingPut(t *testing.T) {
	t.Parallel()
	for _, apply := range []simulator.Apply{simulator.ApplyBefore, simulator.ApplyNo} {
		t.Run("applied-"+string(apply), func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
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
