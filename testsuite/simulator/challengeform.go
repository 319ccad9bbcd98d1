package simulator

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"sync"

	"github.com/icholy/digest"
)

// ChallengeForm is another way to write digest challenges than Ops Manager's, for
// the servers and proxies that a client may meet.
type ChallengeForm struct {
	// Lines are the values of the WWW-Authenticate headers. {nonce} and {stale} are
	// replaced.
	Lines []string
	// Realm, Algorithm and QOP are what the credentials must contain. An empty
	// Algorithm is MD5 and must not be repeated; an empty QOP is RFC 2069.
	Realm, Algorithm, QOP string
}

var digestHashes = map[string]func() hash.Hash{
	"": md5.New, "MD5": md5.New, "SHA-256": sha256.New, "SHA-512-256": sha512.New512_256,
}

func (f ChallengeForm) lines(nonce string, stale bool) []string {
	lines := make([]string, len(f.Lines))
	for i, line := range f.Lines {
		lines[i] = strings.NewReplacer("{nonce}", nonce, "{stale}", fmt.Sprint(stale)).Replace(line)
	}
	return lines
}

// responseIsRight computes the response as RFC 7616 (section 3.4.1) defines it.
func (f ChallengeForm) responseIsRight(r *http.Request, given *digest.Credentials, privateKey string) bool {
	base, session := strings.CutSuffix(strings.ToUpper(f.Algorithm), "-SESS")
	h := func(parts ...string) string {
		sum := digestHashes[base]()
		sum.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(sum.Sum(nil))
	}
	a1 := h(given.Username, f.Realm, privateKey)
	if session {
		a1 = h(a1, given.Nonce, given.Cnonce)
	}
	a2 := []string{r.Method, given.URI}
	if f.QOP == "auth-int" {
		a2 = append(a2, h("")) // requests have no body
	}
	want := h(a1, given.Nonce, h(a2...))
	if f.QOP != "" {
		want = h(a1, given.Nonce, fmt.Sprintf("%08x", given.Nc), given.Cnonce, f.QOP, h(a2...))
	}
	return subtle.ConstantTimeCompare([]byte(want), []byte(given.Response)) == 1
}

// checkForm judges credentials for a challenge in another form.
func (g *digestGuard) checkForm(r *http.Request, header string) credentials {
	given, err := digest.ParseCredentials(header)
	if err != nil {
		return credentials{refusal: RefusalMalformed}
	}
	c := credentials{publicKey: given.Username, nonce: given.Nonce, nonceCount: uint64(given.Nc)}
	privateKey, known := g.privateKey(given.Username)
	g.mu.Lock()
	defer g.mu.Unlock()
	nonce := g.nonces[given.Nonce]
	switch {
	case given.Realm != g.form.Realm, given.Algorithm != g.form.Algorithm, given.QOP != g.form.QOP,
		g.form.QOP != "" && (given.Nc < 1 || given.Cnonce == ""):
		c.refusal = RefusalMalformed
	case given.URI != r.RequestURI:
		c.refusal = RefusalURI
	case !known || !g.form.responseIsRight(r, given, privateKey):
		c.refusal = RefusalWrongKey
	case nonce == nil || g.wornOut(nonce):
		c.refusal = RefusalStaleNonce
	case g.form.QOP != "" && !g.relaxed && c.nonceCount <= nonce.lastCount:
		c.refusal = RefusalNonceCount
	default:
		nonce.uses++
		nonce.lastCount = c.nonceCount
	}
	c.stale = c.refusal == RefusalStaleNonce && !g.neverStale
	return c
}

// balancer chooses one of several servers behind the address, each with nonces of
// its own.
type balancer struct {
	guards     []*digestGuard
	byRequests bool

	mu          sync.Mutex
	next        int
	connections map[string]int // by the client's address
}

func newBalancer(o Options, privateKey func(string) (string, bool)) *balancer {
	b := &balancer{byRequests: o.BalanceRequests, connections: map[string]int{}}
	for range max(o.Servers, 1) {
		b.guards = append(b.guards, newDigestGuard(o, privateKey))
	}
	return b
}

// choose returns the server that a request reaches: they take turns, either at
// the connections or at the requests.
func (b *balancer) choose(r *http.Request) *digestGuard {
	if len(b.guards) == 1 {
		return b.guards[0]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	chosen, known := b.connections[r.RemoteAddr]
	if b.byRequests || !known {
		chosen = b.next % len(b.guards)
		b.connections[r.RemoteAddr] = chosen
		b.next++
	}
	return b.guards[chosen]
}

func (b *balancer) forgetAll() {
	for _, guard := range b.guards {
		guard.forgetAll()
	}
}
