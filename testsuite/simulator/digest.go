package simulator

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	auth "github.com/abbot/go-http-auth"
)

// Realm is the realm of Ops Manager's digest challenges.
const Realm = "MMS Public API"

// maxNonces bounds what is remembered: when so many nonces are known, all are
// forgotten, and a client that uses one of them gets stale=true.
const maxNonces = 10_000

// Reasons in the ledger for refused credentials.
const (
	RefusalNoCredentials = "no credentials"
	RefusalMalformed     = "malformed credentials"
	RefusalURI           = "the digest's uri is not the request's"
	RefusalWrongKey      = "wrong key or response"
	RefusalNonceCount    = "nonce count not greater than the last one"
	RefusalStaleNonce    = "stale nonce"
)

var nonceCountPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}$`)

// digestGuard hands out nonces and checks digest credentials. The check itself
// is the library's; around it are the nonces' ages and uses, and what the
// library is lenient about.
type digestGuard struct {
	lifetime   time.Duration
	uses       int
	relaxed    bool
	neverStale bool
	form       *ChallengeForm // nil = Ops Manager's
	privateKey func(publicKey string) (string, bool)

	// mu also guards the library's table of nonces, which it writes unlocked
	// when it makes one.
	mu      sync.Mutex
	library *auth.DigestAuth
	nonces  map[string]*nonceState
}

type nonceState struct {
	issued time.Time
	uses   int
	// lastCount is the last count that was accepted, for another form.
	lastCount uint64
}

// credentials is what a request's Authorization header turned out to be. An
// empty refusal means that it is right.
type credentials struct {
	publicKey  string
	nonce      string
	nonceCount uint64
	refusal    string
	stale      bool
}

func newDigestGuard(o Options, privateKey func(string) (string, bool)) *digestGuard {
	g := &digestGuard{
		lifetime:   o.NonceLifetime,
		uses:       o.NonceUses,
		relaxed:    o.RelaxedNonceCount,
		neverStale: o.NeverStale,
		form:       o.ChallengeForm,
		privateKey: privateKey,
	}
	g.reset()
	return g
}

func (g *digestGuard) reset() {
	g.library = auth.NewDigestAuthenticator(Realm, g.hashedSecret)
	// Ops Manager's challenge has no opaque.
	g.library.Opaque = ""
	g.library.IgnoreNonceCount = g.relaxed
	// The guard bounds the table itself, so that both forget at one time.
	g.library.ClientCacheSize = 2 * maxNonces
	g.nonces = map[string]*nonceState{}
}

// hashedSecret is the digest's HA1 of a key. The library takes an empty one as
// a secret like any other, so an unknown key gets one that nobody can guess.
func (g *digestGuard) hashedSecret(publicKey, realm string) string {
	private, known := g.privateKey(publicKey)
	if !known {
		return auth.RandomKey()
	}
	return auth.H(publicKey + ":" + realm + ":" + private)
}

func (g *digestGuard) forgetAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reset()
}

func (g *digestGuard) forget(nonce string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.nonces, nonce)
}

// challenge returns the values of WWW-Authenticate headers with a new nonce.
func (g *digestGuard) challenge(stale bool) []string {
	if g.form != nil {
		return g.form.lines(g.newNonce(), stale)
	}
	return []string{fmt.Sprintf(`Digest realm="%s", domain="", nonce="%s", algorithm=MD5, qop="auth", stale=%t`,
		Realm, g.newNonce(), stale)}
}

func (g *digestGuard) newNonce() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.nonces) >= maxNonces {
		g.reset()
	}
	// The library makes a nonce for a request that has no credentials.
	issued := auth.FromContext(g.library.NewContext(context.Background(), &http.Request{}))
	nonce := auth.DigestAuthParams(issued.ResponseHeaders.Get("WWW-Authenticate"))["nonce"]
	g.nonces[nonce] = &nonceState{issued: time.Now()}
	return nonce
}

// check judges a request's credentials, and counts the use of its nonce.
func (g *digestGuard) check(r *http.Request) credentials {
	header := r.Header.Get("Authorization")
	if header == "" {
		return credentials{refusal: RefusalNoCredentials}
	}
	if g.form != nil {
		return g.checkForm(r, header)
	}
	given := parseCredentials(header)
	c := credentials{publicKey: given["username"], nonce: given["nonce"]}
	c.nonceCount, _ = strconv.ParseUint(given["nc"], 16, 64)
	if !wellFormed(given) {
		c.refusal = RefusalMalformed
		return c
	}
	// The library accepts a uri without the query.
	if given["uri"] != r.RequestURI {
		c.refusal = RefusalURI
		return c
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.refusal = g.judge(r, given)
	c.stale = c.refusal == RefusalStaleNonce && !g.neverStale
	return c
}

func (g *digestGuard) judge(r *http.Request, given map[string]string) string {
	if !g.responseIsRight(r.Method, given) {
		return RefusalWrongKey
	}
	nonce, known := g.nonces[given["nonce"]]
	if !known || g.wornOut(nonce) {
		delete(g.nonces, given["nonce"])
		return RefusalStaleNonce
	}
	if user, _ := g.library.CheckAuth(r); user == "" {
		return RefusalNonceCount
	}
	nonce.uses++
	return ""
}

func (g *digestGuard) wornOut(n *nonceState) bool {
	return time.Since(n.issued) > g.lifetime || (g.uses > 0 && n.uses >= g.uses)
}

// responseIsRight distinguishes a right response with a stale nonce, which gets
// stale=true, from a wrong response: the library refuses both.
func (g *digestGuard) responseIsRight(method string, given map[string]string) bool {
	want := auth.H(strings.Join([]string{
		g.hashedSecret(given["username"], Realm),
		given["nonce"], given["nc"], given["cnonce"], given["qop"],
		auth.H(method + ":" + given["uri"]),
	}, ":"))
	return subtle.ConstantTimeCompare([]byte(want), []byte(given["response"])) == 1
}

// parseCredentials is nil for what is no digest header. The library's parser
// panics at an empty value.
func parseCredentials(header string) (given map[string]string) {
	defer func() {
		if recover() != nil {
			given = nil
		}
	}()
	return auth.DigestAuthParams(header)
}

// wellFormed checks what the library takes as it comes, and what it would
// refuse without saying why.
func wellFormed(given map[string]string) bool {
	algorithm, hasAlgorithm := given["algorithm"]
	return given["realm"] == Realm &&
		given["username"] != "" && given["nonce"] != "" && given["cnonce"] != "" &&
		given["qop"] == "auth" &&
		(!hasAlgorithm || algorithm == "MD5") && given["opaque"] == "" &&
		nonceCountPattern.MatchString(given["nc"])
}
