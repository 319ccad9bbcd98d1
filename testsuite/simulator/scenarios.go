package simulator

import (
	"fmt"
	"net/http"
	"time"
)

// The constructors below name what is known to go wrong. An empty cluster id
// means any cluster, an empty method any method. Each makes a fault that meets
// one request; Repeated, Always, Skipping and On change that.

func putFault(name, clusterID string, apply Apply) Fault {
	return Fault{Name: name, Method: http.MethodPut, Kind: KindKey, ClusterID: clusterID, Apply: apply}
}

func readFault(name, clusterID string) Fault {
	return Fault{Name: name, Method: http.MethodGet, Kind: KindKey, ClusterID: clusterID}
}

func errorFault(method, clusterID string, apply Apply, status int, code, detail string) Fault {
	return Fault{
		Name: code, Method: method, ClusterID: clusterID, Apply: apply,
		Status: status, Body: string(marshal(errorBody(status, code, detail), false)),
	}
}

// PutEmptyObject applies a PUT and answers 201 with {}, as newer documentation
// shows it and as an undisturbed PUT is answered here.
func PutEmptyObject(clusterID string) Fault {
	f := putFault("put 201 {}", clusterID, ApplyBefore)
	f.Status, f.Answer = http.StatusCreated, AnswerEmptyObject
	return f
}

// PutEmptyBody applies a PUT and answers 201 without a body.
func PutEmptyBody(clusterID string) Fault {
	f := putFault("put 201 empty", clusterID, ApplyBefore)
	f.Status = http.StatusCreated
	return f
}

// PutAccepted applies a PUT and answers 202 with {}.
func PutAccepted(clusterID string) Fault {
	f := putFault("put 202", clusterID, ApplyBefore)
	f.Status, f.Answer = http.StatusAccepted, AnswerEmptyObject
	return f
}

// PutOKWithObject applies a PUT and answers 200 with what a GET shows.
func PutOKWithObject(clusterID string) Fault {
	f := putFault("put 200 object", clusterID, ApplyBefore)
	f.Status, f.Answer = http.StatusOK, AnswerKey
	return f
}

// PutShownLate applies a PUT, whose key GETs show only after the given time.
func PutShownLate(clusterID string, after time.Duration) Fault {
	f := putFault("put shown late", clusterID, ApplyBefore)
	f.ShowAfter = after
	return f
}

// PutUnchanging answers 201 and applies nothing.
func PutUnchanging(clusterID string) Fault {
	return putFault("put unchanging", clusterID, ApplyNo)
}

// PutServerError answers a PUT with 500 UNEXPECTED_ERROR.
func PutServerError(clusterID string, apply Apply) Fault {
	return ServerError(http.MethodPut, clusterID, apply).On(KindKey)
}

// PutBadGateway answers a PUT with a proxy's 502.
func PutBadGateway(clusterID string, apply Apply) Fault {
	return ProxyError(http.MethodPut, clusterID, http.StatusBadGateway, apply).On(KindKey)
}

// PutHang never answers a PUT: its caller runs into a timeout.
func PutHang(clusterID string, apply Apply) Fault {
	f := putFault("put hang", clusterID, apply)
	f.Hang = true
	return f
}

// PutCut closes a PUT's connection without an answer.
func PutCut(clusterID string, apply Apply) Fault {
	f := putFault("put cut", clusterID, apply)
	f.Cut = CutNoAnswer
	return f
}

// PutCutHalfBody closes a PUT's connection after half of a 200 answer's body.
func PutCutHalfBody(clusterID string, apply Apply) Fault {
	f := putFault("put cut in body", clusterID, apply)
	f.Cut, f.Status, f.Answer = CutHalfBody, http.StatusOK, AnswerKey
	return f
}

// PutAppliedLate never answers a PUT, and applies it after the given time, when
// its caller may have gone.
func PutAppliedLate(clusterID string, after time.Duration) Fault {
	f := putFault("put applied late", clusterID, ApplyNo).AppliedAfter(after)
	f.Hang = true
	return f
}

// PutDelayed applies a PUT at once and answers it after the given time.
func PutDelayed(clusterID string, delay time.Duration) Fault {
	f := putFault("put delayed", clusterID, ApplyBefore)
	f.Delay = delay
	return f
}

// PutsGated applies every PUT, and answers none before ClearFaults.
func PutsGated(clusterID string) Fault {
	f := putFault("put gated", clusterID, ApplyBefore)
	f.Gated = true
	return f.Always()
}

// KeyMissing answers a GET of the key without encryptionKeyUUID.
func KeyMissing(clusterID string) Fault {
	f := readFault("key missing", clusterID)
	f.Answer = AnswerKeyMissing
	return f
}

// KeyNull answers a GET of the key with null.
func KeyNull(clusterID string) Fault {
	f := readFault("key null", clusterID)
	f.Answer = AnswerKeyNull
	return f
}

// KeyEmptyObject answers a GET of the key with {}.
func KeyEmptyObject(clusterID string) Fault {
	f := readFault("key {}", clusterID)
	f.Answer = AnswerEmptyObject
	return f
}

// KeyHalfBody answers a GET of the key with the first half of its JSON.
func KeyHalfBody(clusterID string) Fault {
	f := readFault("key half body", clusterID)
	f.Answer = AnswerHalfBody
	return f
}

// KeyGarbage answers a GET of the key with bytes that are no JSON.
func KeyGarbage(clusterID string) Fault {
	f := readFault("key garbage", clusterID)
	f.Answer = AnswerGarbage
	return f
}

// KeyNotFound answers a GET of the key with 404 BACKUP_CONFIG_NOT_FOUND.
func KeyNotFound(clusterID string) Fault {
	return errorFault(http.MethodGet, clusterID, "", http.StatusNotFound, "BACKUP_CONFIG_NOT_FOUND",
		"No backup configuration exists for the cluster.").On(KindKey)
}

// KeyStale answers a GET of the key with the previous key, once a GET has shown
// the newer one, as a replica that lags behind.
func KeyStale(clusterID string) Fault {
	f := readFault("key stale", clusterID)
	f.StaleReads = true
	return f
}

// KeyCut closes the connection of a GET of the key without an answer. A Go
// client sends such a GET again by itself on another connection, with the
// nonce count that it has used already.
func KeyCut(clusterID string) Fault {
	f := readFault("key cut", clusterID)
	f.Cut = CutNoAnswer
	return f
}

// KeyCutHalfBody closes the connection of a GET of the key in the middle of the
// body.
func KeyCutHalfBody(clusterID string) Fault {
	f := readFault("key cut in body", clusterID)
	f.Cut = CutHalfBody
	return f
}

// KeyHang never answers a GET of the key.
func KeyHang(clusterID string) Fault {
	f := readFault("key hang", clusterID)
	f.Hang = true
	return f
}

// KeyGated answers no GET of the key before ClearFaults.
func KeyGated(clusterID string) Fault {
	f := readFault("key gated", clusterID)
	f.Gated = true
	return f.Always()
}

// PutFrozen takes a PUT and stands still: it answers nothing, and applies the PUT
// the given time after ClearFaults, whether or not its caller is still there.
func PutFrozen(clusterID string, after time.Duration) Fault {
	f := putFault("put frozen", clusterID, ApplyNo).AppliedAfter(after)
	f.Gated = true
	return f
}

// KeyDelayed answers a GET of the key after the given time, with the key of
// that moment.
func KeyDelayed(clusterID string, delay time.Duration) Fault {
	f := readFault("key delayed", clusterID)
	f.Delay = delay
	return f
}

// InvalidState answers 409 CANNOT_GET_BACKUP_CONFIG_INVALID_STATE; a PUT isn't
// applied.
func InvalidState(method, clusterID string) Fault {
	return errorFault(method, clusterID, ApplyNo, http.StatusConflict, "CANNOT_GET_BACKUP_CONFIG_INVALID_STATE",
		"Cannot get backup configuration while the cluster is in an invalid state.")
}

// RateLimited answers 429 RATE_LIMITED, with a Retry-After (seconds or an HTTP
// date) unless that is empty; a PUT isn't applied.
func RateLimited(method, clusterID, retryAfter string) Fault {
	f := errorFault(method, clusterID, ApplyNo, http.StatusTooManyRequests, "RATE_LIMITED", "Resource is limited. Try again later.")
	if retryAfter != "" {
		f.Header = map[string]string{"Retry-After": retryAfter}
	}
	return f
}

// ServerError answers 500 UNEXPECTED_ERROR.
func ServerError(method, clusterID string, apply Apply) Fault {
	return errorFault(method, clusterID, apply, http.StatusInternalServerError, "UNEXPECTED_ERROR", "Unexpected error.")
}

// ProxyError answers with the HTML page of a proxy in front: 502, 503 or 504.
func ProxyError(method, clusterID string, status int, apply Apply) Fault {
	text := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return Fault{
		Name: "proxy " + text, Method: method, ClusterID: clusterID, Apply: apply,
		Status: status, ContentType: contentTypeHTML,
		Body: "<html><head><title>" + text + "</title></head><body><center><h1>" + text + "</h1></center></body></html>\n",
	}
}

// RedirectElsewhere answers 302 to another address, which must not be followed
// with credentials; a PUT isn't applied.
func RedirectElsewhere(method, clusterID, location string) Fault {
	return Fault{
		Name: "redirect", Method: method, ClusterID: clusterID, Apply: ApplyNo,
		Status: http.StatusFound, Header: map[string]string{"Location": location},
	}
}

// StaleNonce answers 401 with stale=true; a PUT isn't applied.
func StaleNonce(method, clusterID string) Fault {
	return Fault{Name: "stale nonce", Method: method, ClusterID: clusterID, Apply: ApplyNo, StaleNonce: true}
}

// Unauthorized answers 401 USER_UNAUTHORIZED without a challenge, as to a key
// that lacks the role; a PUT isn't applied.
func Unauthorized(method, clusterID string) Fault {
	return errorFault(method, clusterID, ApplyNo, http.StatusUnauthorized, "USER_UNAUTHORIZED",
		"Current user is not authorized to perform this action.")
}

// AccessListRefusal answers 403 IP_ADDRESS_NOT_ON_ACCESS_LIST; a PUT isn't
// applied.
func AccessListRefusal(method, clusterID string) Fault {
	return errorFault(method, clusterID, ApplyNo, http.StatusForbidden, "IP_ADDRESS_NOT_ON_ACCESS_LIST",
		"IP address 127.0.0.1 is not allowed to access this resource.")
}

// APIError answers with any error of the API; code may be empty.
func APIError(method, clusterID string, status int, code string, apply Apply) Fault {
	f := errorFault(method, clusterID, apply, status, code, http.StatusText(status)+".")
	f.Name = fmt.Sprintf("%d %s", status, code)
	return f
}
