package randomized

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"keyturn/testsuite/simulator"
)

// plannedFault is a fault of the simulator for one target or for any cluster.
type plannedFault struct {
	simulator.Fault
	target int // or anyTarget
}

const anyTarget = -1

func (f plannedFault) String() string {
	return fmt.Sprintf("%s on target %d after %d, %d times", f.Name, f.target, f.Skip, max(f.Times, 1))
}

// numbered makes the name of the fault unique among faults of its kind.
func (f plannedFault) numbered(n int) plannedFault {
	f.Name += fmt.Sprintf("#%d", n)
	return f
}

// faultKind is the name of a fault without its number.
func faultKind(name string) string {
	kind, _, _ := strings.Cut(name, "#")
	return kind
}

func generateFaults(rnd rng, p *plan, mayBeStale bool) []plannedFault {
	var generated []plannedFault
	for i := range rnd.between(1, 6) {
		generated = append(generated, generateFault(rnd, p, mayBeStale).numbered(i))
	}
	return generated
}

func generateFault(rnd rng, p *plan, mayBeStale bool) plannedFault {
	f := plannedFault{target: rnd.IntN(p.targets())}
	if rnd.chance(10) {
		f.target = anyTarget
	}
	switch n := rnd.IntN(100); {
	case n < 55:
		f.Fault = pick(rnd, putFaults...)(rnd, p.timing)
		f.Skip = pick(rnd, 0, 0, 0, 1)
	case n < 92:
		f.Fault = generateReadFault(rnd, mayBeStale)
		f.Skip = pick(rnd, 0, 1, 1, 1, 2, 2, 3, 5, 8) // the first read is the one before any PUT
	default:
		f.Fault, f.target = pick(rnd, listFaults...)(rnd), anyTarget
	}
	if rnd.chance(20) {
		f.Times = 2
	}
	return f
}

func generateReadFault(rnd rng, mayBeStale bool) simulator.Fault {
	if mayBeStale && rnd.chance(12) {
		return simulator.KeyStale("")
	}
	return pick(rnd, readFaults...)(rnd)
}

var putFaults = []func(rng, timing) simulator.Fault{
	func(rng, timing) simulator.Fault { return simulator.PutEmptyObject("") },
	func(rng, timing) simulator.Fault { return simulator.PutEmptyBody("") },
	func(rng, timing) simulator.Fault { return simulator.PutAccepted("") },
	func(rng, timing) simulator.Fault { return simulator.PutOKWithObject("") },
	func(rnd rng, p timing) simulator.Fault { return simulator.PutShownLate("", rnd.share(p.late, 10, 100)) },
	func(rng, timing) simulator.Fault { return simulator.PutUnchanging("") },
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutServerError("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutServerError("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutBadGateway("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutHang("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutHang("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutCut("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, simulator.PutCut("", simulator.ApplyNo))
	},
	func(rnd rng, p timing) simulator.Fault { return simulator.PutCutHalfBody("", simulator.ApplyBefore) },
	func(rnd rng, p timing) simulator.Fault { return simulator.PutAppliedLate("", lateness(rnd, p)) },
	func(rnd rng, p timing) simulator.Fault {
		return simulator.PutDelayed("", rnd.share(p.request, 20, 130))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, putStatus(http.StatusRequestTimeout))
	},
	func(rnd rng, p timing) simulator.Fault {
		return withOutcome(rnd, p, putStatus(http.StatusServiceUnavailable))
	},
	func(rng, timing) simulator.Fault { return putStatus(http.StatusNotFound) },
	func(rng, timing) simulator.Fault { return putStatus(http.StatusBadRequest) },
	func(rng, timing) simulator.Fault { return putStatus(http.StatusMethodNotAllowed) },
	func(rng, timing) simulator.Fault { return loginPage(http.MethodPut) },
	slowChallenge,
	func(rnd rng, _ timing) simulator.Fault { return proxyFault(rnd, http.MethodPut) },
	func(rnd rng, _ timing) simulator.Fault { return refusal(rnd, http.MethodPut) },
	func(rnd rng, _ timing) simulator.Fault { return refusal(rnd, http.MethodPut) },
	func(rnd rng, _ timing) simulator.Fault { return refusal(rnd, http.MethodPut) },
}

// withOutcome generates the outcome of a PUT whose response does not show it.
// The name of the fault says which one.
func withOutcome(rnd rng, p timing, f simulator.Fault) simulator.Fault {
	f.Name = "put " + strings.TrimPrefix(f.Name, "put ")
	switch rnd.IntN(3) {
	case 0:
		f.Name += ", not applied"
		f.Apply = simulator.ApplyNo
	case 1:
		f.Name += ", applied"
		f.Apply = simulator.ApplyBefore
		if rnd.chance(30) {
			f.ShowAfter = rnd.share(p.late, 10, 100)
		}
	default:
		f.Name += ", applied late"
		f = f.AppliedAfter(lateness(rnd, p))
	}
	return f
}

// lateness leaves time for the key to become visible after it.
func lateness(rnd rng, p timing) time.Duration { return rnd.share(p.late, 20, 80) }

func putStatus(status int) simulator.Fault {
	return simulator.APIError(http.MethodPut, "", status, "", simulator.ApplyNo).On(simulator.KindKey)
}

// refusal is a response that says that nothing was done.
func refusal(rnd rng, method string) simulator.Fault {
	f := pick(rnd,
		simulator.InvalidState(method, ""),
		simulator.InvalidState(method, ""),
		simulator.RateLimited(method, "", ""),
		simulator.RateLimited(method, "", pick(rnd, "", "0", "0", "1")),
		simulator.RedirectElsewhere(method, "", "http://127.0.0.1:1/elsewhere"),
		simulator.StaleNonce(method, ""),
		simulator.StaleNonce(method, ""),
		simulator.Unauthorized(method, ""),
		simulator.AccessListRefusal(method, ""),
	).On(simulator.KindKey)
	f.Name = strings.ToLower(method) + " " + f.Name
	return f
}

// loginPage responds with status 200 and an HTML page, like a proxy that
// requires a login.
func loginPage(method string) simulator.Fault {
	return simulator.Fault{
		Name: strings.ToLower(method) + " login page", Method: method, Kind: simulator.KindKey, Apply: simulator.ApplyNo,
		Status: http.StatusOK, Body: "<html><title>Log in</title></html>", ContentType: "text/html",
	}
}

// proxyFault is a fault of a proxy in front of Ops Manager, which does not see
// the request.
func proxyFault(rnd rng, method string) simulator.Fault {
	f := simulator.Fault{Method: method, Kind: simulator.KindKey, Apply: simulator.ApplyNo, BeforeAuthentication: true}
	switch rnd.IntN(3) {
	case 0:
		f.Name, f.Hang = "hang in front", true
	case 1:
		f.Name, f.Cut = "cut in front", simulator.CutNoAnswer
	default:
		f.Name, f.Status, f.Body, f.ContentType = "proxy in front", http.StatusGatewayTimeout, "<html>", "text/html"
	}
	f.Name = strings.ToLower(method) + " " + f.Name
	return f
}

// slowChallenge delays a PUT: after a while the response says that its nonce is
// stale, with a new nonce that the server does not know either.
func slowChallenge(rnd rng, p timing) simulator.Fault {
	return simulator.Fault{
		Name: "put slow challenge", Method: http.MethodPut, Kind: simulator.KindKey, Apply: simulator.ApplyNo,
		Delay: rnd.share(p.request, 70, 90), Status: http.StatusUnauthorized, Body: "{}",
		Header: map[string]string{"WWW-Authenticate": `Digest realm="` + simulator.Realm + `", nonce="slow", algorithm=MD5, qop="auth", stale=true`},
	}
}

var readFaults = []func(rng) simulator.Fault{
	func(rng) simulator.Fault { return simulator.KeyMissing("") },
	func(rng) simulator.Fault { return simulator.KeyNull("") },
	func(rng) simulator.Fault { return simulator.KeyEmptyObject("") },
	func(rng) simulator.Fault { return simulator.KeyHalfBody("") },
	func(rng) simulator.Fault { return simulator.KeyGarbage("") },
	func(rng) simulator.Fault { return named("get", simulator.KeyNotFound("")) },
	func(rng) simulator.Fault { return simulator.KeyCut("") },
	func(rng) simulator.Fault { return simulator.KeyCut("") },
	func(rng) simulator.Fault { return simulator.KeyCutHalfBody("") },
	func(rng) simulator.Fault { return simulator.KeyCutHalfBody("") },
	func(rng) simulator.Fault { return simulator.KeyHang("") },
	func(rng) simulator.Fault { return simulator.KeyHang("") },
	func(rnd rng) simulator.Fault { return simulator.KeyDelayed("", rnd.milliseconds(5, 120)) },
	func(rng) simulator.Fault { return otherClustersKey() },
	func(rng) simulator.Fault { return loginPage(http.MethodGet) },
	func(rnd rng) simulator.Fault { return proxyFault(rnd, http.MethodGet) },
	func(rnd rng) simulator.Fault { return refusal(rnd, http.MethodGet) },
	func(rnd rng) simulator.Fault { return refusal(rnd, http.MethodGet) },
	func(rnd rng) simulator.Fault { return refusal(rnd, http.MethodGet) },
	func(rng) simulator.Fault {
		return named("get", simulator.ServerError(http.MethodGet, "", "").On(simulator.KindKey))
	},
	func(rng) simulator.Fault {
		return named("get", simulator.ProxyError(http.MethodGet, "", http.StatusBadGateway, "").On(simulator.KindKey))
	},
}

func named(prefix string, f simulator.Fault) simulator.Fault {
	f.Name = prefix + " " + f.Name
	return f
}

// foreignKeyUUID is a key ID that no record may contain.
const foreignKeyUUID = "key-of-another-cluster"

// otherClustersKey responds with the key of another cluster, like a broken
// cache in between.
func otherClustersKey() simulator.Fault {
	return simulator.Fault{
		Name: "key of another cluster", Method: http.MethodGet, Kind: simulator.KindKey, Status: http.StatusOK,
		Body: `{"clusterId":"ffffffffffffffffffffffff","groupId":"` + simulator.DefaultProjectID + `","encryptionKeyUUID":"` + foreignKeyUUID + `"}`,
	}
}

var listFaults = []func(rng) simulator.Fault{
	func(rnd rng) simulator.Fault { return listing(rnd, simulator.ServerError(http.MethodGet, "", "")) },
	func(rnd rng) simulator.Fault { return listing(rnd, simulator.ProxyError(http.MethodGet, "", 503, "")) },
	func(rnd rng) simulator.Fault { return listing(rnd, simulator.RateLimited(http.MethodGet, "", "")) },
	func(rnd rng) simulator.Fault { return listing(rnd, simulator.StaleNonce(http.MethodGet, "")) },
	func(rnd rng) simulator.Fault { return listing(rnd, simulator.AccessListRefusal(http.MethodGet, "")) },
	func(rnd rng) simulator.Fault {
		return listing(rnd, simulator.Fault{Name: "half body", Method: http.MethodGet, Answer: simulator.AnswerHalfBody})
	},
	func(rnd rng) simulator.Fault {
		return listing(rnd, simulator.Fault{Name: "cut in body", Method: http.MethodGet, Cut: simulator.CutHalfBody})
	},
	func(rnd rng) simulator.Fault {
		return listing(rnd, simulator.Fault{Name: "hang", Method: http.MethodGet, Hang: true})
	},
}

func listing(rnd rng, f simulator.Fault) simulator.Fault {
	return named("list", f.On(pick(rnd, simulator.KindCluster, simulator.KindClusters)))
}
