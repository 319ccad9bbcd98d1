// Package tlsproxy is a TLS proxy in front of a Temporal development server, as
// in production: it can require a client certificate or an API key. The
// development server itself supports neither.
package tlsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
)

// Options of a proxy.
type Options struct {
	// Certificate of the proxy.
	Certificate tls.Certificate
	// Clients are the CAs of client certificates; nil means that no client
	// certificate is required.
	Clients *x509.CertPool
	// APIKey is required in each call; empty means none.
	APIKey string
}

// Proxy forwards calls to a Temporal server.
type Proxy struct {
	// Address is host:port.
	Address string

	options atomic.Pointer[Options]
	server  *httptest.Server
	passed  atomic.Int64
	client  atomic.Pointer[string]
}

// Start runs a proxy for the Temporal server at this address, on a free
// loopback port, until the test ends.
func Start(t testing.TB, temporal string, options Options) *Proxy {
	t.Helper()
	p := &Proxy{}
	p.options.Store(&options)
	p.server = httptest.NewUnstartedServer(p.handler(temporal))
	p.server.EnableHTTP2 = true
	p.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	p.server.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := p.options.Load()
		config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{now.Certificate}}
		if now.Clients != nil {
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, now.Clients
		}
		return config, nil
	}
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes
	p.server.StartTLS()
	// Close would wait for long polls.
	t.Cleanup(func() { p.server.CloseClientConnections(); p.server.Close() })
	p.Address = p.server.Listener.Addr().String()
	return p
}

// Change changes the options for later calls, and for later connections.
func (p *Proxy) Change(change func(*Options)) {
	changed := *p.options.Load()
	change(&changed)
	p.options.Store(&changed)
}

// Disconnect closes all connections.
func (p *Proxy) Disconnect() { p.server.CloseClientConnections() }

// LastClient is the name in the client certificate of the last forwarded call.
func (p *Proxy) LastClient() string {
	if name := p.client.Load(); name != nil {
		return *name
	}
	return ""
}

// Passed is the number of forwarded calls.
func (p *Proxy) Passed() int { return int(p.passed.Load()) }

func (p *Proxy) handler(temporal string) http.Handler {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: temporal})
	proxy.Transport = &http.Transport{Protocols: protocols}
	proxy.ErrorLog = log.New(io.Discard, "", 0) // canceled calls
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, apiKey := r.Header.Get("Authorization"), p.options.Load().APIKey
		switch {
		case apiKey == "" || given == "Bearer "+apiKey:
			p.passed.Add(1)
			if certificates := r.TLS.PeerCertificates; len(certificates) > 0 {
				p.client.Store(&certificates[0].Subject.CommonName)
			}
			proxy.ServeHTTP(w, r)
		case given == "":
			refuse(w, codes.Unauthenticated)
		default:
			refuse(w, codes.PermissionDenied)
		}
	})
}

// refuse responds like a gRPC server with nothing but a status.
func refuse(w http.ResponseWriter, code codes.Code) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", strconv.Itoa(int(code)))
	w.Header().Set("Grpc-Message", "Request unauthorized.")
	w.WriteHeader(http.StatusOK)
}
