package faultinjection

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// verifying applies a fault to a target's second GET: the first one reads the
// key before anything is changed.
func verifying(f simulator.Fault) simulator.Fault { return f.Skipping(1) }

func shownLate(f simulator.Fault) simulator.Fault {
	f.ShowAfter = settleTime / 2
	return f
}

func withRetryAfter(f simulator.Fault, value string) simulator.Fault {
	f.Header = map[string]string{"Retry-After": value}
	return f
}

// transientFaults are faults that a rotation recovers from, for the given
// target.
var transientFaults = []struct {
	name string
	// faults, all of which must be applied.
	faults func(target string) []simulator.Fault
	// ambiguous: the outcome of a PUT was unknown until the key was read.
	ambiguous bool
}{
	{"PutResponseLostApplied", one(func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyBefore) }), true},
	{"PutResponseLostNotApplied", one(func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyNo) }), true},
	{"TruncatedPutResponse", one(func(id string) simulator.Fault { return simulator.PutCutHalfBody(id, simulator.ApplyBefore) }), true},
	{"NoPutResponseApplied", one(func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyBefore) }), true},
	{"NoPutResponseNotApplied", one(func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyNo) }), true},
	{"AppliedAfterRequestTimeout", one(func(id string) simulator.Fault { return simulator.PutAppliedLate(id, requestTimeout+settleTime/2) }), true},
	{"ServerErrorApplied", one(func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) }), true},
	{"ServerErrorVisibleLate", one(func(id string) simulator.Fault {
		return shownLate(simulator.PutServerError(id, simulator.ApplyBefore))
	}), true},
	{"ServerErrorAppliedLate", one(func(id string) simulator.Fault {
		return simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(settleTime / 2)
	}), true},
	{"ServerErrorNotApplied", one(func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) }), true},
	{"BadGatewayApplied", one(func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) }), true},
	{"BadGatewayNotApplied", one(func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyNo) }), true},
	{"InvalidState", one(func(id string) simulator.Fault { return simulator.InvalidState(http.MethodPut, id).Repeated(2) }), false},
	{"RateLimitedWithoutRetryAfter", one(func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "").Repeated(2) }), false},
	{"StaleNonceOfPut", one(func(id string) simulator.Fault { return simulator.StaleNonce(http.MethodPut, id) }), false},
	{"StaleNonceOfGet", one(func(id string) simulator.Fault { return verifying(simulator.StaleNonce(http.MethodGet, id)) }), false},
	{"StaleIDAfterNewerOne", func(id string) []simulator.Fault {
		return []simulator.Fault{simulator.PutServerError(id, simulator.ApplyBefore), simulator.KeyStale(id)}
	}, true},
	{"TruncatedBody", one(func(id string) simulator.Fault { return verifying(simulator.KeyHalfBody(id)) }), false},
	{"ConnectionCutInBody", one(func(id string) simulator.Fault { return verifying(simulator.KeyCutHalfBody(id)) }), false},
	{"Garbage", one(func(id string) simulator.Fault { return verifying(simulator.KeyGarbage(id)) }), false},
	{"EmptyObject", one(func(id string) simulator.Fault { return verifying(simulator.KeyEmptyObject(id)) }), false},
	{"MissingID", one(func(id string) simulator.Fault { return verifying(simulator.KeyMissing(id)) }), false},
	{"NullID", one(func(id string) simulator.Fault { return verifying(simulator.KeyNull(id)) }), false},
	{"ConnectionCutInGet", one(func(id string) simulator.Fault { return verifying(simulator.KeyCut(id)) }), false},
	{"NoGetResponse", one(func(id string) simulator.Fault { return verifying(simulator.KeyHang(id)) }), false},
	{"ServerErrorOfGet", one(func(id string) simulator.Fault {
		return verifying(simulator.ServerError(http.MethodGet, id, "").On(simulator.KindKey))
	}), false},
	{"InvalidResponsesToFirstRead", one(func(id string) simulator.Fault { return simulator.KeyGarbage(id).Repeated(2) }), false},
	{"InvalidResponsesAfterAmbiguousPut", func(id string) []simulator.Fault {
		return []simulator.Fault{
			simulator.PutServerError(id, simulator.ApplyBefore),
			verifying(simulator.KeyMissing(id)), verifying(simulator.KeyHalfBody(id)),
		}
	}, true},
	{"ManyFaults", func(id string) []simulator.Fault {
		return []simulator.Fault{
			simulator.RateLimited(http.MethodPut, id, "1"), simulator.PutServerError(id, simulator.ApplyNo),
			simulator.StaleNonce(http.MethodPut, id), shownLate(simulator.PutCut(id, simulator.ApplyBefore)),
			verifying(simulator.KeyCut(id)), verifying(simulator.RateLimited(http.MethodGet, id, "1")),
		}
	}, true},
}

func one(f func(id string) simulator.Fault) func(id string) []simulator.Fault {
	return func(id string) []simulator.Fault { return []simulator.Fault{f(id)} }
}

// The fault applies to the second of three targets.
func TestRequestFault(t *testing.T) {
	t.Parallel()
	for _, c := range transientFaults {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
			target := cluster.ShardIDs[1]
			for _, f := range c.faults(target) {
				s.OM.Inject(f)
			}
			startWorker(s)
			result := s.RequireRotated(s.Start(inputOf(s, cluster.ID)), 3)
			assert.Zero(t, s.OM.FaultsLeft(), "every fault must be applied")
			for _, record := range result.Targets {
				assert.Equal(t, c.ambiguous && record.ClusterID == target, record.Ambiguous, record.Name)
			}
		})
	}
}

// Every target has a different fault, with many targets in parallel.
func TestRequestFaultsOfAllTargets(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{Latency: 5 * time.Millisecond})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", len(transientFaults))
	for i, c := range transientFaults {
		for _, f := range c.faults(cluster.ShardIDs[i]) {
			s.OM.Inject(f)
		}
	}
	startWorker(s)
	input := inputOf(s, cluster.ID)
	input.Concurrency = 16
	s.RequireRotated(s.Start(input), len(transientFaults)+1)
	assert.Zero(t, s.OM.FaultsLeft(), "every fault must be applied")
}

// Retry-After is honored exactly: there is no request before it has passed.
func TestRetryAfterIsHonored(t *testing.T) {
	t.Parallel()
	const wait = 3 * time.Second
	date := func() string { return time.Now().Add(2 * wait).UTC().Format(http.TimeFormat) }
	for name, fault := range map[string]func(id string) simulator.Fault{
		"OfPut":          func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "3") },
		"OfFirstRead":    func(id string) simulator.Fault { return simulator.RateLimited(http.MethodGet, id, "3") },
		"OfVerification": func(id string) simulator.Fault { return verifying(simulator.RateLimited(http.MethodGet, id, "3")) },
		"AsDate": func(id string) simulator.Fault {
			return simulator.RateLimited(http.MethodPut, id, date())
		},
		"OfUnavailableAPI": func(id string) simulator.Fault {
			return withRetryAfter(simulator.InvalidState(http.MethodPut, id), "3")
		},
		"OfProxyPage": func(id string) simulator.Fault {
			return verifying(withRetryAfter(simulator.ProxyError(http.MethodGet, id, http.StatusServiceUnavailable, ""), "3"))
		},
		"AfterAmbiguousPut": func(id string) simulator.Fault { return verifying(simulator.RateLimited(http.MethodGet, id, "3")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			cluster := s.OM.AddReplicaSet(s.Project, "orders")
			if name == "AfterAmbiguousPut" {
				s.OM.Inject(simulator.PutCut(cluster.ID, simulator.ApplyBefore))
			}
			limited := fault(cluster.ID).On(simulator.KindKey)
			limited.Name = "limited"
			s.OM.Inject(limited)
			startWorker(s)
			s.RequireRotated(s.Start(inputOf(s, cluster.ID)), 1)
			requests := s.OM.Ledger().Requests
			at := slices.IndexFunc(requests, func(r simulator.Request) bool { return r.Fault == "limited" })
			require.GreaterOrEqual(t, at, 0)
			next := slices.IndexFunc(requests[at+1:], func(r simulator.Request) bool { return r.Kind == simulator.KindKey })
			require.GreaterOrEqual(t, next, 0)
			until := requests[at].End.Add(wait)
			if at, err := http.ParseTime(limited.Header["Retry-After"]); err == nil {
				until = at
			}
			late := requests[at+1+next].Start.Sub(until)
			assert.GreaterOrEqual(t, late, time.Duration(0))
			assert.Less(t, late, reportedWithin)
		})
	}
}

// permanentFaults are responses that no retry fixes.
var permanentFaults = []struct {
	name      string
	fault     func(method, id string) simulator.Fault
	errorType workflows.ErrorType
}{
	{"Unauthorized", simulator.Unauthorized, workflows.ErrorUnauthorized},
	{"Forbidden", simulator.AccessListRefusal, workflows.ErrorForbidden},
	{"NotFound", func(method, id string) simulator.Fault {
		return simulator.APIError(method, id, http.StatusNotFound, "BACKUP_CONFIG_NOT_FOUND", simulator.ApplyNo)
	}, workflows.ErrorNotFound},
	{"Redirect", func(method, id string) simulator.Fault {
		return simulator.RedirectElsewhere(method, id, "https://elsewhere.example.net/")
	}, workflows.ErrorUnexpectedResponse},
}

// A permanent error reaches the caller promptly, whichever request gets it.
func TestPermanentErrorIsReportedPromptly(t *testing.T) {
	t.Parallel()
	var reported durations
	t.Cleanup(func() { t.Logf("time from the response to the failure of the rotation: %s", &reported) })
	for _, c := range permanentFaults {
		for _, request := range []struct {
			name, method string
			kind         simulator.Kind
			skip         int
		}{
			{"Listing", http.MethodGet, simulator.KindClusters, 0},
			{"Reading", http.MethodGet, simulator.KindKey, 0},
			{"Put", http.MethodPut, simulator.KindKey, 0},
			{"Verifying", http.MethodGet, simulator.KindKey, 3},
		} {
			t.Run(c.name+"/"+request.name, func(t *testing.T) {
				t.Parallel()
				f := c.fault(request.method, "").On(request.kind).Skipping(request.skip).Always()
				requireReportedPromptly(t, f, c.errorType, &reported)
			})
		}
	}
	for name, f := range map[string]simulator.Fault{
		"NoEncryption/MissingID":   simulator.KeyMissing(""),
		"NoEncryption/NullID":      simulator.KeyNull(""),
		"NoEncryption/EmptyObject": simulator.KeyEmptyObject(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireReportedPromptly(t, f.Always(), workflows.ErrorEncryptionOff, &reported)
		})
	}
	for name, f := range map[string]simulator.Fault{
		"NotTheAPI/TruncatedBody": simulator.KeyHalfBody(""),
		"NotTheAPI/Garbage":       simulator.KeyGarbage(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireReportedPromptly(t, f.Always(), workflows.ErrorUnexpectedResponse, &reported)
		})
	}
}

func requireReportedPromptly(t *testing.T, f simulator.Fault, errorType workflows.ErrorType, reported *durations) {
	s := fixture.NewServer(t, simulator.Options{})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	f.Name = "permanent"
	s.OM.Inject(f)
	startWorker(s)
	_, err := s.Result(s.Start(inputOf(s, cluster.ID)))
	ended := time.Now()
	if records, found := workflows.RotateClusterResultOf(err); found {
		fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
		s.RequireMatchesLedger(records.Targets)
		require.NotNil(t, records.Targets[0].Error)
		require.Equal(t, errorType, records.Targets[0].Error.Type)
	} else {
		fixture.RequireFailure(t, err, errorType)
		assert.Empty(t, s.OM.Ledger().Rotations)
	}
	met := s.OM.Ledger().Select(func(r simulator.Request) bool { return r.Fault == "permanent" })
	require.NotEmpty(t, met)
	took := ended.Sub(met[0].End)
	reported.add(took)
	assert.Less(t, took, reportedWithin)
}

// Ops Manager takes a PUT and stands still, for longer than the settle time; when
// it goes on, it first answers a GET with the old ID, and then carries out the PUT.
func TestFrozenOpsManagerAppliesThePutLater(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	s.OM.Inject(simulator.PutFrozen(cluster.ID, settleTime/2))
	s.OM.Inject(simulator.KeyGated(cluster.ID).Skipping(1)) // not the first reading
	startWorker(s)
	run := s.Start(inputOf(s, cluster.ID))
	s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodGet, cluster.ID) >= 4 })
	s.OM.ClearFaults()
	result := s.RequireRotated(run, 1)
	assert.True(t, result.Targets[0].Ambiguous)
	assert.Equal(t, 1, s.OM.Ledger().Count(http.MethodPut, cluster.ID))
}
