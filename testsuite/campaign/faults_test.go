package campaign

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"keyturn/testsuite/simulator"
)

// drawnFault is a fault of the simulator, for one target or for any cluster.
type drawnFault struct {
	simulator.Fault
	target int // anyTarget = whatever cluster comes
}

const anyTarget = -1

func (f drawnFault) String() string {
	return fmt.Sprintf("%s on target %d after %d, %d times", f.Name, f.target, f.Skip, max(f.Times, 1))
}

// numbered keeps the fault apart from others of its kind.
func (f drawnFault) numbered(n int) drawnFault {
	f.Name += fmt.Sprintf("#%d", n)
	return f
}

// kindOfFault is a fault's name without the number that keeps it apart from
// others of its kind.
func kindOfFault(name string) string {
	kind, _, _ := strings.Cut(name, "#")
	return kind
}

func drawFaults(d dice, p *plan, mayBeStale bool) []drawnFault {
	var drawn []drawnFault
	for i := range d.between(1, 6) {
		drawn = append(drawn, drawFault(d, p, mayBeStale).numbered(i))
	}
	return drawn
}

func drawFault(d dice, p *plan, mayBeStale bool) drawnFault {
	f := drawnFault{target: d.IntN(p.targets())}
	if d.chance(10) {
		f.target = anyTarget
	}
	switch n := d.IntN(100); {
	case n < 55:
		f.Fault = pick(d, faultsOfPut...)(d, p.pace)
		f.Skip = pick(d, 0, 0, 0, 1)
	case n < 92:
		f.Fault = drawFaultOfRead(d, mayBeStale)
		f.Skip = pick(d, 0, 1, 1, 1, 2, 2, 3) // the first reading is that before any PUT
	default:
		f.Fault, f.target = pick(d, faultsOfListing...)(d), anyTarget
	}
	if d.chance(20) {
		f.Times = 2
	}
	return f
}

func drawFaultOfRead(d dice, mayBeStale bool) simulator.Fault {
	if mayBeStale && d.chance(12) {
		return simulator.KeyStale("")
	}
	return pick(d, faultsOfRead...)(d)
}

var faultsOfPut = []func(dice, pace) simulator.Fault{
	func(dice, pace) simulator.Fault { return simulator.PutEmptyObject("") },
	func(dice, pace) simulator.Fault { return simulator.PutEmptyBody("") },
	func(dice, pace) simulator.Fault { return simulator.PutAccepted("") },
	func(dice, pace) simulator.Fault { return simulator.PutOKWithObject("") },
	func(d dice, p pace) simulator.Fault { return simulator.PutShownLate("", d.share(p.late, 10, 100)) },
	func(dice, pace) simulator.Fault { return simulator.PutUnchanging("") },
	func(d dice, p pace) simulator.Fault {
		return lateOrNot(d, p, simulator.PutServerError("", simulator.ApplyNo))
	},
	func(d dice, p pace) simulator.Fault {
		return lateOrNot(d, p, simulator.PutServerError("", simulator.ApplyNo))
	},
	func(d dice, p pace) simulator.Fault {
		return lateOrNot(d, p, simulator.PutBadGateway("", simulator.ApplyNo))
	},
	func(d dice, p pace) simulator.Fault { return lateOrNot(d, p, simulator.PutHang("", simulator.ApplyNo)) },
	func(d dice, p pace) simulator.Fault { return lateOrNot(d, p, simulator.PutHang("", simulator.ApplyNo)) },
	func(d dice, p pace) simulator.Fault { return lateOrNot(d, p, simulator.PutCut("", simulator.ApplyNo)) },
	func(d dice, p pace) simulator.Fault { return lateOrNot(d, p, simulator.PutCut("", simulator.ApplyNo)) },
	func(d dice, p pace) simulator.Fault { return simulator.PutCutHalfBody("", simulator.ApplyBefore) },
	func(d dice, p pace) simulator.Fault { return simulator.PutAppliedLate("", lateness(d, p)) },
	func(d dice, p pace) simulator.Fault { return simulator.PutDelayed("", d.share(p.request, 20, 130)) },
	func(d dice, p pace) simulator.Fault { return lateOrNot(d, p, putStatus(http.StatusRequestTimeout)) },
	func(d dice, p pace) simulator.Fault { return lateOrNot(d, p, putStatus(http.StatusServiceUnavailable)) },
	func(dice, pace) simulator.Fault { return putStatus(http.StatusNotFound) },
	func(dice, pace) simulator.Fault { return putStatus(http.StatusBadRequest) },
	func(dice, pace) simulator.Fault { return putStatus(http.StatusMethodNotAllowed) },
	func(dice, pace) simulator.Fault { return portal(http.MethodPut) },
	slowChallenge,
	func(d dice, _ pace) simulator.Fault { return inFront(d, http.MethodPut) },
	func(d dice, _ pace) simulator.Fault { return refusal(d, http.MethodPut) },
	func(d dice, _ pace) simulator.Fault { return refusal(d, http.MethodPut) },
	func(d dice, _ pace) simulator.Fault { return refusal(d, http.MethodPut) },
}

// lateOrNot draws what becomes of a PUT whose answer says nothing about it. The
// name tells.
func lateOrNot(d dice, p pace, f simulator.Fault) simulator.Fault {
	f.Name = "put " + strings.TrimPrefix(f.Name, "put ")
	switch d.IntN(3) {
	case 0:
		f.Name += ", not applied"
		f.Apply = simulator.ApplyNo
	case 1:
		f.Name += ", applied"
		f.Apply = simulator.ApplyBefore
		if d.chance(30) {
			f.ShowAfter = d.share(p.late, 10, 100)
		}
	default:
		f.Name += ", applied late"
		f = f.AppliedAfter(lateness(d, p))
	}
	return f
}

// lateness leaves time for the key to show after that.
func lateness(d dice, p pace) time.Duration { return d.share(p.late, 20, 80) }

func putStatus(status int) simulator.Fault {
	return simulator.APIError(http.MethodPut, "", status, "", simulator.ApplyNo).On(simulator.KindKey)
}

// refusal is an answer that says that nothing was done.
func refusal(d dice, method string) simulator.Fault {
	f := pick(d,
		simulator.InvalidState(method, ""),
		simulator.InvalidState(method, ""),
		simulator.RateLimited(method, "", ""),
		simulator.RateLimited(method, "", pick(d, "", "0", "0", "1")),
		simulator.RedirectElsewhere(method, "", "http://127.0.0.1:1/elsewhere"),
		simulator.StaleNonce(method, ""),
		simulator.StaleNonce(method, ""),
		simulator.Unauthorized(method, ""),
		simulator.AccessListRefusal(method, ""),
	).On(simulator.KindKey)
	f.Name = strings.ToLower(method) + " " + f.Name
	return f
}

// portal answers 200 with a page of its own, as a proxy that wants a log-in.
func portal(method string) simulator.Fault {
	return simulator.Fault{
		Name: strings.ToLower(method) + " portal", Method: method, Kind: simulator.KindKey, Apply: simulator.ApplyNo,
		Status: http.StatusOK, Body: "<html><title>Log in</title></html>", ContentType: "text/html",
	}
}

// inFront is what a proxy does before Ops Manager sees the request.
func inFront(d dice, method string) simulator.Fault {
	f := simulator.Fault{Method: method, Kind: simulator.KindKey, Apply: simulator.ApplyNo, BeforeAuthentication: true}
	switch d.IntN(3) {
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

// slowChallenge keeps a PUT from going out at once: it is answered late that its
// nonce is stale, and with a nonce that the server does not know either.
func slowChallenge(d dice, p pace) simulator.Fault {
	return simulator.Fault{
		Name: "put slow challenge", Method: http.MethodPut, Kind: simulator.KindKey, Apply: simulator.ApplyNo,
		Delay: d.share(p.request, 70, 90), Status: http.StatusUnauthorized, Body: "{}",
		Header: map[string]string{"WWW-Authenticate": `Digest realm="` + simulator.Realm + `", nonce="slow", algorithm=MD5, qop="auth", stale=true`},
	}
}

var faultsOfRead = []func(dice) simulator.Fault{
	func(dice) simulator.Fault { return simulator.KeyMissing("") },
	func(dice) simulator.Fault { return simulator.KeyNull("") },
	func(dice) simulator.Fault { return simulator.KeyEmptyObject("") },
	func(dice) simulator.Fault { return simulator.KeyHalfBody("") },
	func(dice) simulator.Fault { return simulator.KeyGarbage("") },
	func(dice) simulator.Fault { return named("get", simulator.KeyNotFound("")) },
	func(dice) simulator.Fault { return simulator.KeyCut("") },
	func(dice) simulator.Fault { return simulator.KeyCut("") },
	func(dice) simulator.Fault { return simulator.KeyCutHalfBody("") },
	func(dice) simulator.Fault { return simulator.KeyCutHalfBody("") },
	func(dice) simulator.Fault { return simulator.KeyHang("") },
	func(dice) simulator.Fault { return simulator.KeyHang("") },
	func(d dice) simulator.Fault { return simulator.KeyDelayed("", d.milliseconds(5, 120)) },
	func(dice) simulator.Fault { return foreignKey() },
	func(dice) simulator.Fault { return portal(http.MethodGet) },
	func(d dice) simulator.Fault { return inFront(d, http.MethodGet) },
	func(d dice) simulator.Fault { return refusal(d, http.MethodGet) },
	func(d dice) simulator.Fault { return refusal(d, http.MethodGet) },
	func(d dice) simulator.Fault { return refusal(d, http.MethodGet) },
	func(dice) simulator.Fault {
		return named("get", simulator.ServerError(http.MethodGet, "", "").On(simulator.KindKey))
	},
	func(dice) simulator.Fault {
		return named("get", simulator.ProxyError(http.MethodGet, "", http.StatusBadGateway, "").On(simulator.KindKey))
	},
}

func named(prefix string, f simulator.Fault) simulator.Fault {
	f.Name = prefix + " " + f.Name
	return f
}

// strangersKey is an id that no record may ever hold.
const strangersKey = "a-strangers-key"

// foreignKey answers about another cluster, as a confused cache in between.
func foreignKey() simulator.Fault {
	return simulator.Fault{
		Name: "key of another cluster", Method: http.MethodGet, Kind: simulator.KindKey, Status: http.StatusOK,
		Body: `{"clusterId":"ffffffffffffffffffffffff","groupId":"` + simulator.DefaultProjectID + `","encryptionKeyUUID":"` + strangersKey + `"}`,
	}
}

var faultsOfListing = []func(dice) simulator.Fault{
	func(d dice) simulator.Fault { return listing(d, simulator.ServerError(http.MethodGet, "", "")) },
	func(d dice) simulator.Fault { return listing(d, simulator.ProxyError(http.MethodGet, "", 503, "")) },
	func(d dice) simulator.Fault { return listing(d, simulator.RateLimited(http.MethodGet, "", "")) },
	func(d dice) simulator.Fault { return listing(d, simulator.StaleNonce(http.MethodGet, "")) },
	func(d dice) simulator.Fault { return listing(d, simulator.AccessListRefusal(http.MethodGet, "")) },
	func(d dice) simulator.Fault {
		return listing(d, simulator.Fault{Name: "half body", Method: http.MethodGet, Answer: simulator.AnswerHalfBody})
	},
	func(d dice) simulator.Fault {
		return listing(d, simulator.Fault{Name: "cut in body", Method: http.MethodGet, Cut: simulator.CutHalfBody})
	},
	func(d dice) simulator.Fault {
		return listing(d, simulator.Fault{Name: "hang", Method: http.MethodGet, Hang: true})
	},
}

func listing(d dice, f simulator.Fault) simulator.Fault {
	return named("list", f.On(pick(d, simulator.KindCluster, simulator.KindClusters)))
}
