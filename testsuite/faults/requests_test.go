package faults

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/workflows"
)

// verifying meets a target's second GET: the first one reads the key before
// anything is changed.
func verifying(f simulator.Fault) simulator.Fault { return f.Skipping(1) }

func shownLate(f simulator.Fault) simulator.Fault {
	f.ShowAfter = settleTime / 2
	return f
}

func withRetryAfter(f simulator.Fault, value string) simulator.Fault {
	f.Header = map[string]string{"Retry-After": value}
	return f
}

// passing are faults that a rotation gets over, of the target that is given.
var passing = []struct {
	name string
	// faults, all of which must be met.
	faults func(target string) []simulator.Fault
	// ambiguous: the outcome of a PUT was unknown until it was read.
	ambiguous bool
}{
	{"AnswerLostAfterItTookEffect", one(func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyBefore) }), true},
	{"PutLostBeforeItTookEffect", one(func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyNo) }), true},
	{"HalfAnAnswerOfAPut", one(func(id string) simulator.Fault { return simulator.PutCutHalfBody(id, simulator.ApplyBefore) }), false},
	{"NoAnswerAfterItTookEffect", one(func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyBefore) }), true},
	{"NoAnswerAndNoEffect", one(func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyNo) }), true},
	{"TakingEffectAfterItsCallerHasGone", one(func(id string) simulator.Fault { return simulator.PutAppliedLate(id, requestTimeout+settleTime/2) }), true},
	{"ServerErrorAfterItTookEffect", one(func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) }), true},
	{"ServerErrorAndTheNewIDShowsLate", one(func(id string) simulator.Fault {
		return shownLate(simulator.PutServerError(id, simulator.ApplyBefore))
	}), true},
	{"ServerErrorAndItTakesEffectLate", one(func(id string) simulator.Fault {
		return simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(settleTime / 2)
	}), true},
	{"ServerErrorAndNoEffect", one(func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) }), true},
	{"BadGatewayAfterItTookEffect", one(func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) }), true},
	{"BadGatewayAndNoEffect", one(func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyNo) }), true},
	{"InvalidState", one(func(id string) simulator.Fault { return simulator.InvalidState(http.MethodPut, id).Repeated(2) }), false},
	{"RateLimitedWithoutRetryAfter", one(func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "").Repeated(2) }), false},
	{"StaleNonceOfAPut", one(func(id string) simulator.Fault { return simulator.StaleNonce(http.MethodPut, id) }), false},
	{"StaleNonceOfAGet", one(func(id string) simulator.Fault { return verifying(simulator.StaleNonce(http.MethodGet, id)) }), false},
	{"StaleIDAfterANewerOne", func(id string) []simulator.Fault {
		return []simulator.Fault{simulator.PutServerError(id, simulator.ApplyBefore), simulator.KeyStale(id)}
	}, true},
	{"HalfABody", one(func(id string) simulator.Fault { return verifying(simulator.KeyHalfBody(id)) }), false},
	{"BodyThatBreaksOff", one(func(id string) simulator.Fault { return verifying(simulator.KeyCutHalfBody(id)) }), false},
	{"Garbage", one(func(id string) simulator.Fault { return verifying(simulator.KeyGarbage(id)) }), false},
	{"EmptyObject", one(func(id string) simulator.Fault { return verifying(simulator.KeyEmptyObject(id)) }), false},
	{"MissingID", one(func(id string) simulator.Fault { return verifying(simulator.KeyMissing(id)) }), false},
	{"NullID", one(func(id string) simulator.Fault { return verifying(simulator.KeyNull(id)) }), false},
	{"GetThatIsCut", one(func(id string) simulator.Fault { return verifying(simulator.KeyCut(id)) }), false},
	{"GetWithoutAnAnswer", one(func(id string) simulator.Fault { return verifying(simulator.KeyHang(id)) }), false},
	{"ServerErrorOfAGet", one(func(id string) simulator.Fault {
		return verifying(simulator.ServerError(http.MethodGet, id, "").On(simulator.KindKey))
	}), false},
	{"OddAnswersToTheFirstReading", one(func(id string) simulator.Fault { return simulator.KeyGarbage(id).Repeated(2) }), false},
	{"OddAnswersWhenAPutIsInTheOpen", func(id string) []simulator.Fault {
		return []simulator.Fault{
			simulator.PutServerError(id, simulator.ApplyBefore),
			verifying(simulator.KeyMissing(id)), verifying(simulator.KeyHalfBody(id)),
		}
	}, true},
	{"TroubleUponTrouble", func(id string) []simulator.Fault {
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

// The fault meets the second of three targets.
func TestFaultOfARequest(t *testing.T) {
	t.Parallel()
	for _, c := range passing {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := stage.New(t, simulator.Options{})
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
			target := cluster.ShardIDs[1]
			for _, f := range c.faults(target) {
				s.OM.Inject(f)
			}
			s.StartWorker()
			result := s.RequireRotated(s.Start(inputOf(s, cluster.ID)), 3)
			assert.Zero(t, s.OM.FaultsLeft(), "every fault must be met")
			for _, record := range result.Targets {
				assert.Equal(t, c.ambiguous && record.ClusterID == target, record.Ambiguous, record.Name)
			}
		})
	}
}

// Every target meets another fault, many at a time.
func TestFaultsOfAllTargetsAtOnce(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{Latency: 5 * time.Millisecond})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", len(passing))
	for i, c := range passing {
		for _, f := range c.faults(cluster.ShardIDs[i]) {
			s.OM.Inject(f)
		}
	}
	s.StartWorker()
	input := inputOf(s, cluster.ID)
	input.Concurrency = 16
	s.RequireRotated(s.Start(input), len(passing)+1)
	assert.Zero(t, s.OM.FaultsLeft(), "every fault must be met")
}

// Retry-After is kept to, to the moment: what was asked for meets no request
// before.
func TestRetryAfterIsKeptTo(t *testing.T) {
	t.Parallel()
	const wait = 3 * time.Second
	date := func() string { return time.Now().Add(2 * wait).UTC().Format(http.TimeFormat) }
	for name, fault := range map[string]func(id string) simulator.Fault{
		"OfAPut":            func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "3") },
		"OfTheFirstReading": func(id string) simulator.Fault { return simulator.RateLimited(http.MethodGet, id, "3") },
		"OfTheVerification": func(id string) simulator.Fault { return verifying(simulator.RateLimited(http.MethodGet, id, "3")) },
		"AsADate": func(id string) simulator.Fault {
			return simulator.RateLimited(http.MethodPut, id, date())
		},
		"OfAnUnavailableAPI": func(id string) simulator.Fault {
			return withRetryAfter(simulator.InvalidState(http.MethodPut, id), "3")
		},
		"OfAProxysPage": func(id string) simulator.Fault {
			return verifying(withRetryAfter(simulator.ProxyError(http.MethodGet, id, http.StatusServiceUnavailable, ""), "3"))
		},
		"WhenAPutIsInTheOpen": func(id string) simulator.Fault { return verifying(simulator.RateLimited(http.MethodGet, id, "3")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage.New(t, simulator.Options{})
			cluster := s.OM.AddReplicaSet(s.Project, "orders")
			if name == "WhenAPutIsInTheOpen" {
				s.OM.Inject(simulator.PutCut(cluster.ID, simulator.ApplyBefore))
			}
			limited := fault(cluster.ID).On(simulator.KindKey)
			limited.Name = "limited"
			s.OM.Inject(limited)
			s.StartWorker()
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
			assert.Less(t, late, toldWithin)
		})
	}
}

// permanent are answers that no waiting mends.
var permanent = []struct {
	name      string
	fault     func(method, id string) simulator.Fault
	errorType string
}{
	{"Unauthorized", simulator.Unauthorized, activities.ErrorUnauthorized},
	{"Forbidden", simulator.AccessListRefusal, activities.ErrorForbidden},
	{"NotFound", func(method, id string) simulator.Fault {
		return simulator.APIError(method, id, http.StatusNotFound, "BACKUP_CONFIG_NOT_FOUND", simulator.ApplyNo)
	}, activities.ErrorNotFound},
	{"Redirect", func(method, id string) simulator.Fault {
		return simulator.RedirectElsewhere(method, id, "https://elsewhere.example.net/")
	}, activities.ErrorUnexpectedResponse},
}

// A permanent error reaches the caller soon, whichever request meets it.
func TestPermanentErrorIsToldSoon(t *testing.T) {
	t.Parallel()
	var told durations
	t.Cleanup(func() { t.Logf("from the answer until the caller is told: %s", &told) })
	for _, c := range permanent {
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
				toldSoon(t, f, c.errorType, &told)
			})
		}
	}
	for name, f := range map[string]simulator.Fault{
		"NoEncryption/MissingID":   simulator.KeyMissing(""),
		"NoEncryption/NullID":      simulator.KeyNull(""),
		"NoEncryption/EmptyObject": simulator.KeyEmptyObject(""),
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); toldSoon(t, f.Always(), activities.ErrorEncryptionOff, &told) })
	}
	for name, f := range map[string]simulator.Fault{
		"NotTheAPI/HalfABody": simulator.KeyHalfBody(""),
		"NotTheAPI/Garbage":   simulator.KeyGarbage(""),
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); toldSoon(t, f.Always(), activities.ErrorUnexpectedResponse, &told) })
	}
}

func toldSoon(t *testing.T, f simulator.Fault, errorType string, told *durations) {
	s := stage.New(t, simulator.Options{})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	f.Name = "permanent"
	s.OM.Inject(f)
	s.StartWorker()
	_, err := s.Result(s.Start(inputOf(s, cluster.ID)))
	ended := time.Now()
	if records, found := workflows.ResultOf(err); found {
		stage.RequireFailure(t, err, activities.ErrorPartialFailure)
		s.RequireTrue(records.Targets)
		require.NotNil(t, records.Targets[0].Error)
		require.Equal(t, errorType, records.Targets[0].Error.Type)
	} else {
		stage.RequireFailure(t, err, errorType)
		assert.Empty(t, s.OM.Ledger().Rotations)
	}
	met := s.OM.Ledger().Select(func(r simulator.Request) bool { return r.Fault == "permanent" })
	require.NotEmpty(t, met)
	took := ended.Sub(met[0].End)
	told.add(took)
	assert.Less(t, took, toldWithin)
}
