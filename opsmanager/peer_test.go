package opsmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/testca"
)

func TestCertificates(t *testing.T) {
	private := testca.New(t, "private authority")
	foreign := testca.New(t, "foreign authority")
	for name, test := range map[string]struct {
		signer *testca.CA
		adjust []func(*x509.Certificate)
		fault  opsmanager.CertificateFault
		detail string
	}{
		"right":            {signer: private},
		"foreign":          {foreign, nil, opsmanager.CertificateUntrusted, "certificate signed by unknown authority"},
		"expired":          {private, []func(*x509.Certificate){testca.Expired}, opsmanager.CertificateExpired, "certificate has expired"},
		"for another name": {private, []func(*x509.Certificate){testca.For("om.example.net")}, opsmanager.CertificateHostMismatch, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.StartWith(t, simulator.Options{}, test.signer.Issue(t, "Ops Manager", test.adjust...))
			set := om.AddReplicaSet(project, "audit")
			config := configFor(om)
			config.CAPEM = private.PEM
			err := newClient(t, config).RotateEncryptionKey(t.Context(), project, set.ID, nil)
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			apiError := requireError(t, err, opsmanager.Unavailable)
			assert.False(t, apiError.OutcomeUnknown, "nothing was sent")
			assert.Equal(t, test.fault, apiError.CertificateFault())
			assert.Contains(t, err.Error(), test.detail)
			assert.Empty(t, om.Ledger().Requests)
		})
	}
}

// Without CAPEM, only the system's authorities are trusted.
func TestAPrivateAuthorityMustBeConfigured(t *testing.T) {
	om := simulator.StartTLS(t, simulator.Options{})
	config := configFor(om)
	config.CAPEM = nil
	_, err := newClient(t, config).EncryptionKey(t.Context(), project, om.AddReplicaSet(project, "audit").ID)
	assert.Equal(t, opsmanager.CertificateUntrusted, requireError(t, err, opsmanager.Unavailable).CertificateFault())
}

// startTLS starts a simulator with a TLS configuration and returns a config for
// it.
func startTLS(t *testing.T, adjust func(*tls.Config)) (*simulator.Server, opsmanager.Config) {
	t.Helper()
	ca := testca.New(t, "servers")
	server := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Issue(t, "Ops Manager")}}
	adjust(server)
	sim := simulator.New(simulator.Options{})
	om, err := simulator.Listen(sim, "127.0.0.1:0", server)
	require.NoError(t, err)
	t.Cleanup(om.Close)
	config := configFor(om)
	config.CAPEM = ca.PEM
	return om, config
}

// A server that requires a client certificate is not unavailable: the setting is
// missing.
func TestClientCertificates(t *testing.T) {
	clients, others := testca.New(t, "clients"), testca.New(t, "others")
	for version, name := range map[uint16]string{tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"} {
		start := func(t *testing.T) (*simulator.Server, opsmanager.Config) {
			return startTLS(t, func(c *tls.Config) {
				c.MinVersion, c.MaxVersion = version, version
				c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
			})
		}
		t.Run(name+"/accepted", func(t *testing.T) {
			om, config := start(t)
			set := om.AddReplicaSet(project, "audit")
			config.ClientCertPEM, config.ClientKeyPEM = testca.PEM(t, clients.Issue(t, "keyturn"))
			require.NoError(t, newClient(t, config).RotateEncryptionKey(t.Context(), project, set.ID, nil))
		})
		t.Run(name+"/missing", func(t *testing.T) {
			om, config := start(t)
			for range 20 {
				apiError := requireError(t, newClient(t, config).RotateEncryptionKey(t.Context(), project, project, nil), opsmanager.UnexpectedResponse)
				assert.Equal(t, opsmanager.ClientCertificateRequired, apiError.ConnectionFault(), "%v", apiError)
			}
			assert.Empty(t, om.Ledger().Requests)
		})
		t.Run(name+"/of another authority", func(t *testing.T) {
			om, config := start(t)
			config.ClientCertPEM, config.ClientKeyPEM = testca.PEM(t, others.Issue(t, "keyturn"))
			client := newClient(t, config)
			// The alert can be lost as the server closes the connection: then it is an
			// outage, and the next attempt may see the alert.
			assert.Eventually(t, func() bool {
				_, err := client.EncryptionKey(t.Context(), project, project)
				apiError, _ := opsmanager.AsError(err)
				return apiError.Kind == opsmanager.UnexpectedResponse && apiError.ConnectionFault() == opsmanager.ClientCertificateRefused
			}, 10*time.Second, time.Millisecond)
			assert.Empty(t, om.Ledger().Requests)
		})
	}
}

// A certificate that a server asks for and does not require changes nothing.
func TestAnOptionalClientCertificate(t *testing.T) {
	om, config := startTLS(t, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert })
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, config)
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	om.Inject(simulator.PutCut(set.ID, simulator.ApplyBefore))
	apiError := requireError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.Unavailable)
	assert.True(t, apiError.OutcomeUnknown)
	assert.Empty(t, apiError.ConnectionFault())
}

func TestAServerWithoutTLS(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	config := configFor(om)
	config.BaseURL = strings.Replace(om.URL, "http://", "https://", 1)
	apiError := requireError(t, newClient(t, config).RotateEncryptionKey(t.Context(), project, project, nil), opsmanager.UnexpectedResponse)
	assert.Equal(t, opsmanager.NotTLS, apiError.ConnectionFault())
	assert.False(t, apiError.OutcomeUnknown)
}

// proxyTo is a proxy that answers CONNECT with a status and, if that is 200,
// connects to a simulator, whatever the name.
func proxyTo(om *simulator.Server, status func() int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := status(); r.Method != http.MethodConnect || answer != http.StatusOK {
			w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
			w.WriteHeader(answer)
			return
		}
		target, err := net.Dial("tcp", strings.TrimPrefix(om.Address, "https://"))
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = client.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
		go func() { _, _ = io.Copy(target, client); _ = target.Close() }()
		_, _ = io.Copy(client, target)
		_ = client.Close()
	})
}

func proxied(t *testing.T) (*simulator.Server, opsmanager.Config) {
	t.Helper()
	ca := testca.New(t, "servers")
	om := simulator.StartWith(t, simulator.Options{}, ca.Issue(t, "Ops Manager", testca.For("om.example.net")))
	config := configFor(om)
	config.BaseURL, config.CAPEM = "https://om.example.net:8443", ca.PEM
	return om, config
}

// What a proxy refuses is no outage of Ops Manager; that the proxy cannot reach
// it, is one.
func TestProxyResponses(t *testing.T) {
	om, config := proxied(t)
	set := om.AddReplicaSet(project, "audit")
	status := 0
	proxy := httptest.NewServer(proxyTo(om, func() int { return status }))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "")
	for answer, want := range map[int]struct {
		kind  opsmanager.Kind
		fault opsmanager.ConnectionFault
	}{
		407: {opsmanager.UnexpectedResponse, opsmanager.ProxyAuthenticationRequired},
		403: {opsmanager.UnexpectedResponse, opsmanager.ProxyRefused},
		302: {opsmanager.UnexpectedResponse, opsmanager.ProxyRefused},
		429: {opsmanager.Unavailable, ""}, 502: {opsmanager.Unavailable, ""}, 503: {opsmanager.Unavailable, ""}, 504: {opsmanager.Unavailable, ""},
	} {
		status = answer
		apiError := requireError(t, newClient(t, config).RotateEncryptionKey(t.Context(), project, set.ID, nil), want.kind)
		assert.Equal(t, want.fault, apiError.ConnectionFault(), answer)
		assert.False(t, apiError.OutcomeUnknown)
		assert.Contains(t, apiError.Detail, strconv.Itoa(answer))
	}
	status = http.StatusOK
	require.NoError(t, newClient(t, config).RotateEncryptionKey(t.Context(), project, set.ID, nil))
}

func TestAProxyThatCannotBeReached(t *testing.T) {
	om, config := proxied(t)
	set := om.AddReplicaSet(project, "audit")
	port, err := freeport.Choose()
	require.NoError(t, err)
	closed := freeport.Address(port)
	t.Setenv("NO_PROXY", "")
	for _, proxy := range []string{"http://" + closed, "https://" + closed, "socks5://" + closed, "http://user:s3cret@name.invalid:3128"} {
		t.Setenv("HTTPS_PROXY", proxy)
		apiError := requireError(t, newClient(t, config).RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.UnexpectedResponse)
		assert.Equal(t, opsmanager.ProxyUnreachable, apiError.ConnectionFault(), proxy)
		assert.False(t, apiError.OutcomeUnknown)
		assert.NotContains(t, apiError.Error(), "s3cret")
	}
}

// A proxy that worked before and cannot be reached now is restarting.
func TestAProxyThatFailsLater(t *testing.T) {
	om, config := proxied(t)
	set := om.AddReplicaSet(project, "audit")
	target, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	proxy := &http.Server{Handler: proxyTo(om, func() int { return http.StatusOK })}
	go func() { _ = proxy.Serve(target) }()
	t.Setenv("HTTPS_PROXY", "http://"+target.Addr().String())
	t.Setenv("NO_PROXY", "")
	client := newClient(t, config)
	_, err = client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	require.NoError(t, proxy.Close())
	om.Restart() // cuts the tunnels
	apiError := requireError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.Unavailable)
	assert.Empty(t, apiError.ConnectionFault())
}
