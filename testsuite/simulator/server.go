package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/testca"
)

// rebindTimeout is how long Restart waits for its port to be free again.
const rebindTimeout = 10 * time.Second

// Server is a simulator that listens on an address of its own.
type Server struct {
	*Simulator
	// URL is the base address, with the path prefix: what a client is
	// configured with. The control endpoints are under Address.
	URL string
	// Address is scheme, host and port without a path prefix.
	Address string
	// CAPEM is the certificate of the authority that StartTLS made, in PEM.
	CAPEM []byte

	bound     string
	tlsConfig *tls.Config
	mu        sync.Mutex
	running   *instance
}

// instance is one run of a Server between a start and a stop.
type instance struct {
	server   *http.Server
	handlers gate
	served   chan struct{}
	end      context.CancelFunc
}

// Start runs a new simulator on a free loopback port until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	return start(t, o, nil)
}

// StartTLS is Start with https, by a certificate for 127.0.0.1, ::1 and
// localhost that an authority of its own has signed: see CAPEM.
func StartTLS(t testing.TB, o Options) *Server {
	t.Helper()
	signer := testca.New(t, "simulated authority")
	server := StartWith(t, o, signer.Issue(t, "simulated Ops Manager"))
	server.CAPEM = signer.PEM
	return server
}

// StartWith is Start with https, by a certificate of the caller's.
func StartWith(t testing.TB, o Options, certificate tls.Certificate) *Server {
	t.Helper()
	return start(t, o, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}})
}

func start(t testing.TB, o Options, config *tls.Config) *Server {
	t.Helper()
	// While the server is stopped, no other connection may get its port.
	port, err := freeport.Choose()
	if err != nil {
		t.Fatalf("simulator: %v", err)
	}
	simulator := New(o)
	server, err := Listen(simulator, freeport.Address(port), config)
	if err != nil {
		simulator.Close()
		t.Fatalf("simulator: %v", err)
	}
	t.Cleanup(server.Close)
	return server
}

// Listen runs a simulator on an address, with https if there is a
// configuration for it. Call Close at the end.
func Listen(s *Simulator, address string, config *tls.Config) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	scheme := "http://"
	if config != nil {
		scheme = "https://"
	}
	bound := listener.Addr().String()
	server := &Server{
		Simulator: s, bound: bound, tlsConfig: config,
		Address: scheme + bound, URL: scheme + bound + s.options.PathPrefix,
	}
	server.serve(listener)
	return server, nil
}

// Stop cuts every connection, ends the requests that are under way and lets go
// of the address; the data and the faults stay, the nonces are forgotten. No
// PUT is applied after it, but for those that a fault applies late.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// Restart is Stop, if it runs, and a new start at the same address. It panics
// if something else keeps the address for ten seconds.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	listener, err := s.rebind()
	if err != nil {
		panic("simulator: restart: " + err.Error())
	}
	s.serve(listener)
}

// Close stops the server and closes the simulator; it may be called again.
func (s *Server) Close() {
	s.Stop()
	s.Simulator.Close()
}

// rebind takes the address again, which another program may have got as the
// port of a connection of its own for a moment.
func (s *Server) rebind() (net.Listener, error) {
	deadline := time.Now().Add(rebindTimeout)
	for {
		listener, err := net.Listen("tcp", s.bound)
		if err == nil || time.Now().After(deadline) {
			return listener, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *Server) serve(listener net.Listener) {
	base, end := context.WithCancel(context.Background())
	run := &instance{served: make(chan struct{}), end: end}
	run.server = &http.Server{
		Handler:     run.guard(s.Simulator),
		BaseContext: func(net.Listener) context.Context { return base },
		// A fault cuts connections, which is HTTP/1.1's way to fail.
		Protocols: new(http.Protocols),
		// What it says of clients that end a handshake helps nobody.
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute,
	}
	run.server.Protocols.SetHTTP1(true)
	if s.tlsConfig != nil {
		listener = tls.NewListener(listener, s.tlsConfig)
	}
	s.running = run
	go run.serve(listener)
}

func (i *instance) serve(listener net.Listener) {
	defer close(i.served)
	if err := i.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		panic("simulator: " + err.Error())
	}
}

// guard lets no request in once the instance stops, and counts those inside.
func (i *instance) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !i.handlers.enter() {
			panic(http.ErrAbortHandler)
		}
		defer i.handlers.leave()
		h.ServeHTTP(w, r)
	})
}

func (s *Server) stop() {
	run := s.running
	if run == nil {
		return
	}
	s.running = nil
	// Closing the listener and the connections can only fail where they are
	// closed already.
	_ = run.server.Close()
	run.end()
	<-run.served
	run.handlers.close()
	s.ForgetNonces()
}
