package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"keyturn/testsuite/authority"
)

// Host is what the certificate of a Site's gateway is for: not the address that
// it is reached at, so that a client must be told the name.
const Host = "temporal.example.net"

// Site is a gateway that demands all that one can, and the files that a client
// of it needs.
type Site struct {
	*Gateway
	// Authority has signed the gateway's certificate and the client's.
	Authority *authority.Authority
	// CAFile, CertificateFile and KeyFile are PEM files of the client's.
	CAFile, CertificateFile, KeyFile string

	directory string
	temporal  string
}

// NewSite starts a gateway that demands a certificate and the API key.
func NewSite(t testing.TB, temporal, apiKey string) *Site {
	t.Helper()
	s := &Site{Authority: authority.New(t, "private authority"), directory: t.TempDir(), temporal: temporal}
	s.Gateway = Start(t, temporal, Options{
		Certificate: s.Authority.Issue(t, "Temporal", authority.For(Host)), Clients: s.Authority.Pool(), APIKey: apiKey,
	})
	s.CAFile = s.write(t, "ca.pem", s.Authority.PEM)
	s.CertificateFile, s.KeyFile = s.Client(t, "client", s.Authority)
	return s
}

// Client writes a client's certificate and key that an authority has signed.
func (s *Site) Client(t testing.TB, name string, signer *authority.Authority, adjust ...func(*x509.Certificate)) (certificateFile, keyFile string) {
	t.Helper()
	certificate, key := authority.PEM(t, signer.Issue(t, name, adjust...))
	return s.write(t, name+".pem", certificate), s.write(t, name+".key", key)
}

// Impostor starts a gateway to the same server, whose certificate is another,
// and which demands nothing.
func (s *Site) Impostor(t testing.TB, certificate tls.Certificate) *Gateway {
	t.Helper()
	return Start(t, s.temporal, Options{Certificate: certificate})
}

// Variables are the environment of a client that the gateway lets through.
func (s *Site) Variables() map[string]string {
	return map[string]string{
		"TEMPORAL_ADDRESS":                 s.Address,
		"TEMPORAL_API_KEY":                 s.options.APIKey,
		"TEMPORAL_TLS_SERVER_CA_CERT_PATH": s.CAFile,
		"TEMPORAL_TLS_SERVER_NAME":         Host,
		"TEMPORAL_TLS_CLIENT_CERT_PATH":    s.CertificateFile,
		"TEMPORAL_TLS_CLIENT_KEY_PATH":     s.KeyFile,
	}
}

func (s *Site) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(s.directory, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatalf("gateway: %v", err)
	}
	return path
}

// Profile writes a temporal.toml with a profile of that name that says the same
// as Variables, and the namespace.
func (s *Site) Profile(t testing.TB, name, namespace string) (file string) {
	t.Helper()
	return s.write(t, "temporal.toml", []byte(`
[profile.`+name+`]
address = "`+s.Address+`"
namespace = "`+namespace+`"
api_key = "`+s.options.APIKey+`"

[profile.`+name+`.tls]
server_ca_cert_path = "`+s.CAFile+`"
server_name = "`+Host+`"
client_cert_path = "`+s.CertificateFile+`"
client_key_path = "`+s.KeyFile+`"
`))
}
