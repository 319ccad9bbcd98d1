package simulator

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Defaults that hold where Options leave a field empty.
const (
	// DefaultPublicKey is the user name of the API key that sees everything.
	DefaultPublicKey = "omsimkey"
	// DefaultPrivateKey is the password of DefaultPublicKey.
	DefaultPrivateKey = "0f1e2d3c-4b5a-4968-8776-655443322110"
	// DefaultServiceVersion is the X-MongoDB-Service-Version of 200 answers: the
	// last major version whose endpoint serves backups.
	DefaultServiceVersion = "gitHash=4c1f0d2e9b; versionString=7.0.15.500.20250401T1200Z"
	// UnservedServiceVersion is that of an Ops Manager whose endpoint serves no
	// backup.
	UnservedServiceVersion = "gitHash=51d0c7ab3e; versionString=8.0.6.500.20250401T1200Z"
	// DefaultNonceLifetime is how long a nonce is good for.
	DefaultNonceLifetime = 5 * time.Minute
	// DefaultMaxItemsPerPage is what itemsPerPage is clamped to. Ops Manager
	// 3.6 and 4.0 clamp to 100.
	DefaultMaxItemsPerPage = 500
)

const (
	apiPath          = "/api/public/v1.0"
	maxDiscardedBody = 1 << 20
	// maxConfigBody is the most that is read of a configuration.
	maxConfigBody = 64 << 20
)

// Options are the settings of a simulator. The zero value is a working one.
type Options struct {
	// PublicKey and PrivateKey are the API key that may do everything in every
	// project; empty means DefaultPublicKey and DefaultPrivateKey.
	PublicKey, PrivateKey string
	// NoAuthentication takes every request as one of PublicKey, whatever its
	// header says: a proxy in front authenticates.
	NoAuthentication bool
	// PathPrefix, "/om" for example, stands before the API's path: the API is
	// then under /om/api/public/v1.0. The control endpoints have no prefix.
	PathPrefix string
	// CentralURL is the server's own idea of its address, without the path
	// prefix, which the href of every link starts with. Empty means the address
	// that the request was sent to.
	CentralURL string
	// Latency is waited before every authenticated answer. A PUT is applied
	// before the wait, a GET reads after it.
	Latency time.Duration
	// ShowAfter is how long after a rotation a GET still shows the previous key.
	ShowAfter time.Duration
	// NonceLifetime is how long a nonce is good for; 0 means
	// DefaultNonceLifetime.
	NonceLifetime time.Duration
	// NonceUses is how many requests may use one nonce, after which it is
	// stale; 0 means no limit.
	NonceUses int
	// RelaxedNonceCount accepts a nonce's counts out of order and repeated. By
	// default each count must be greater than the one before.
	RelaxedNonceCount bool
	// NeverStale leaves stale=true out, as a server does that takes an unknown
	// nonce for wrong credentials.
	NeverStale bool
	// NextNonce names a new nonce in the Authentication-Info header of every
	// authenticated answer.
	NextNonce bool
	// ChallengeForm is how challenges are written; nil = as Ops Manager does.
	ChallengeForm *ChallengeForm
	// Servers is how many servers are behind the address, with nonces of their own
	// and the same data; 0 = 1. They take turns at new connections, or, with
	// BalanceRequests, at requests.
	Servers int
	// BalanceRequests makes the Servers take turns at requests.
	BalanceRequests bool
	// MaxItemsPerPage is what itemsPerPage is clamped to; 0 means
	// DefaultMaxItemsPerPage.
	MaxItemsPerPage int
	// ServiceVersion is sent as X-MongoDB-Service-Version with 200 answers;
	// empty means DefaultServiceVersion.
	ServiceVersion string
	// AccessList holds the IP addresses and CIDR blocks that may call the API;
	// empty means every address.
	AccessList []string
	// NewKey makes a new master key and returns its id; it has to make a new one at
	// each call, is called one call at a time and must not call the simulator. If
	// it fails, a rotation is answered with 500 and not applied, and no cluster can
	// be added. nil means random UUIDs, of keys that are nowhere.
	NewKey func() (string, error)
	// Now is the server's clock, which deployments and the Date of every answer go
	// by; nil means time.Now.
	Now func() time.Time
	// KeepRequests is how many requests the ledger keeps, the latest ones; 0
	// means all of them. Rotations are always kept.
	KeepRequests int
}

func (o Options) withDefaults() Options {
	if o.PublicKey == "" {
		o.PublicKey = DefaultPublicKey
	}
	if o.PrivateKey == "" {
		o.PrivateKey = DefaultPrivateKey
	}
	if o.NonceLifetime <= 0 {
		o.NonceLifetime = DefaultNonceLifetime
	}
	if o.MaxItemsPerPage <= 0 {
		o.MaxItemsPerPage = DefaultMaxItemsPerPage
	}
	if o.ServiceVersion == "" {
		o.ServiceVersion = DefaultServiceVersion
	}
	if o.NewKey == nil {
		o.NewKey = func() (string, error) { return uuid.NewString(), nil }
	}
	if trimmed := strings.Trim(o.PathPrefix, "/"); trimmed != "" {
		o.PathPrefix = "/" + trimmed
	} else {
		o.PathPrefix = ""
	}
	o.CentralURL = strings.TrimRight(o.CentralURL, "/")
	return o
}

// Simulator is a simulated Ops Manager, as an http.Handler. All its methods may
// be called at any time from any goroutine.
type Simulator struct {
	options Options
	access  *accessControl
	digest  *balancer

	// life ends with Close; late applications and hung requests end with it.
	life    context.Context
	endLife context.CancelFunc
	late    gate

	mu        sync.Mutex
	data      *dataset
	requests  []*Request
	dropped   int
	arrived   int
	changed   chan struct{}
	faults    []*armedFault
	cleared   chan struct{} // until the next ClearFaults
	injected  int
	stateFile string
}

// New makes a simulator without any project. It panics if an entry of
// o.AccessList is neither an IP address nor a CIDR block. Call Close at the end.
func New(o Options) *Simulator {
	o = o.withDefaults()
	s := &Simulator{
		options: o,
		access:  newAccessControl(o),
		data:    newDataset(),
		changed: make(chan struct{}),
		cleared: make(chan struct{}),
	}
	s.digest = newBalancer(o, s.access.privateKey)
	s.life, s.endLife = context.WithCancel(context.Background())
	return s
}

// Close ends hung requests and gives up the rotations that are still to be
// applied late; when it returns, the simulator has no goroutine left.
func (s *Simulator) Close() {
	s.endLife()
	s.late.close()
}

// ForgetNonces makes every nonce that was handed out so far stale, as a restart
// of Ops Manager does.
func (s *Simulator) ForgetNonces() {
	s.digest.forgetAll()
}

// APIPath is the path of the API's root, the path prefix included.
func (s *Simulator) APIPath() string {
	return s.options.PathPrefix + apiPath
}

// ServeHTTP answers the API below APIPath and the control endpoints below
// /simulator/.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPath) {
		s.serveControl(w, r)
		return
	}
	path, inAPI := strings.CutPrefix(r.URL.Path, s.APIPath())
	if !inAPI || (path != "" && path[0] != '/') {
		http.NotFound(w, r)
		return
	}
	if s.options.Now != nil {
		w.Header().Set("Date", s.options.Now().UTC().Format(http.TimeFormat))
	}
	c := s.begin(w, r, parseRoute(path))
	// The server notices that a caller has gone only when the body is read.
	if c.isPublication() {
		c.body, c.bodyErr = io.ReadAll(io.LimitReader(r.Body, maxConfigBody))
	} else {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxDiscardedBody))
	}
	s.serveAPI(c)
}

// serveAPI handles a request in the same steps as the real API:
// authentication, access list, then the resource itself.
func (s *Simulator) serveAPI(c *call) {
	if f, met := s.takeFault(c, true); met {
		s.respond(c, f)
		return
	}
	credentials := s.authenticate(c)
	s.noteCredentials(c, credentials)
	if credentials.refusal != "" {
		c.send(challenge(credentials.stale))
		return
	}
	if refused := s.access.refuseAddress(c.r.RemoteAddr); refused != nil {
		c.send(*refused)
		return
	}
	f, _ := s.takeFault(c, false)
	s.respond(c, f)
}

func (s *Simulator) authenticate(c *call) credentials {
	if s.options.NoAuthentication {
		return credentials{publicKey: s.options.PublicKey}
	}
	return c.guard.check(c.r)
}

// respond applies what is to be applied and answers as the fault says; the zero
// Fault is an undisturbed request.
func (s *Simulator) respond(c *call, f Fault) {
	if f.StaleNonce {
		s.waitOrAbandon(c, f.Delay)
		s.refuseAsStale(c)
		return
	}
	s.letRivalAct(c, f, RivalBefore)
	refused := s.beginPut(c, f)
	if f.Gated {
		s.waitAtGate(c)
	}
	wait := f.Delay
	if c.entry.Authenticated {
		wait += s.options.Latency
	}
	s.waitOrAbandon(c, wait)
	var a answer
	if !f.Hang && f.Cut != CutNoAnswer {
		a = s.answer(c, f, refused)
	}
	s.letRivalAct(c, f, RivalAfter)
	switch {
	case f.Hang:
		c.hang()
	case f.Cut == CutNoAnswer:
		c.cut()
	case f.Cut == CutHalfBody:
		c.sendHalf(a)
	default:
		c.send(a)
	}
}

// waitAtGate lasts until ClearFaults.
func (s *Simulator) waitAtGate(c *call) {
	select {
	case <-c.cleared:
	case <-c.r.Context().Done():
		c.abandon()
	case <-s.life.Done():
		c.abandon()
	}
}

// waitOrAbandon ends the request when the caller has gone or the simulator is
// closed.
func (s *Simulator) waitOrAbandon(c *call, d time.Duration) {
	if !s.wait(c, d) {
		c.abandon()
	}
}

func (c *call) abandon() {
	c.finish(OutcomeAbandoned, 0)
	panic(http.ErrAbortHandler)
}

// wait reports false when the caller has gone or the simulator is closed.
func (s *Simulator) wait(c *call, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.r.Context().Done():
	case <-s.life.Done():
	}
	return false
}

// gate counts what is under way, lets nothing in once it is closed, and waits
// for the rest to end.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside.Add(1)
	return true
}

func (g *gate) leave() { g.inside.Done() }

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
}
