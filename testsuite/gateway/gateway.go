// Package gateway is what stands before Temporal where it is used in earnest: it
// speaks TLS, and may demand a client's certificate, or an API key. The
// development server can do neither.
package gateway

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

// Options of a gateway.
type Options struct {
	// Certificate of the gateway.
	Certificate tls.Certificate
	// Clients are the authorities whose certificates a client must have one of;
	// nil = it needs none.
	Clients *x509.CertPool
	// APIKey that each call must bear; empty = none.
	APIKey string
}

// Gateway passes calls on to a Temporal server.
type Gateway struct {
	// Address is host:port.
	Address string

	options Options
	passed  atomic.Int64
}

// Start runs a gateway to the Temporal server at an address, on a free loopback
// port, until the test ends.
func Start(t testing.TB, temporal string, options Options) *Gateway {
	t.Helper()
	g := &Gateway{options: options}
	server := httptest.NewUnstartedServer(g.handler(temporal))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{options.Certificate}}
	if options.Clients != nil {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, options.Clients
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes
	server.StartTLS()
	// Long polls would keep Close waiting.
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	g.Address = server.Listener.Addr().String()
	return g
}

// Passed is how many calls were let through.
func (g *Gateway) Passed() int { return int(g.passed.Load()) }

func (g *Gateway) handler(temporal string) http.Handler {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: temporal})
	proxy.Transport = &http.Transport{Protocols: protocols}
	proxy.ErrorLog = log.New(io.Discard, "", 0) // calls that end with their caller
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.Header.Get("Authorization")
		switch {
		case g.options.APIKey == "" || given == "Bearer "+g.options.APIKey:
			g.passed.Add(1)
			proxy.ServeHTTP(w, r)
		case given == "":
			refuse(w, codes.Unauthenticated)
		default:
			refuse(w, codes.PermissionDenied)
		}
	})
}

// refuse answers as a gRPC server does that has nothing but a status to say.
func refuse(w http.ResponseWriter, code codes.Code) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", strconv.Itoa(int(code)))
	w.Header().Set("Grpc-Message", "Request unauthorized.")
	w.WriteHeader(http.StatusOK)
}
