package tlsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/testca"
)

// Host is the host name in the proxy's certificate. It differs from the proxy's
// address, so that clients need the server name setting.
const Host = "temporal.example.net"

// Fixture is a proxy that requires a client certificate and an API key, with
// the files that its clients need.
type Fixture struct {
	*Proxy
	// Authority has signed the certificates of the proxy and of the client.
	Authority *testca.CA
	// CAFile, CertificateFile and KeyFile are PEM files for the client.
	CAFile, CertificateFile, KeyFile string

	directory string
	temporal  string
}

// NewFixture starts a proxy that requires a client certificate and the API key.
func NewFixture(t testing.TB, temporal, apiKey string) *Fixture {
	t.Helper()
	f := &Fixture{Authority: testca.New(t, "private CA"), directory: t.TempDir(), temporal: temporal}
	f.Proxy = Start(t, temporal, Options{
		Certificate: f.Authority.Issue(t, "Temporal", testca.For(Host)), Clients: f.Authority.Pool(), APIKey: apiKey,
	})
	f.CAFile = f.write(t, "ca.pem", f.Authority.PEM)
	f.CertificateFile, f.KeyFile = f.Client(t, "client", f.Authority)
	return f
}

// Client writes the certificate and the key of a client, signed by signer.
func (f *Fixture) Client(t testing.TB, name string, signer *testca.CA, adjust ...func(*x509.Certificate)) (certificateFile, keyFile string) {
	t.Helper()
	certificate, key := testca.PEM(t, signer.Issue(t, name, adjust...))
	return f.write(t, name+".pem", certificate), f.write(t, name+".key", key)
}

// WithCertificate starts another proxy to the same server, with this
// certificate and without requirements.
func (f *Fixture) WithCertificate(t testing.TB, certificate tls.Certificate) *Proxy {
	t.Helper()
	return Start(t, f.temporal, Options{Certificate: certificate})
}

// Variables are the environment of a client that the proxy accepts.
func (f *Fixture) Variables() map[string]string {
	return map[string]string{
		"TEMPORAL_ADDRESS":                 f.Address,
		"TEMPORAL_API_KEY":                 f.options.Load().APIKey,
		"TEMPORAL_TLS_SERVER_CA_CERT_PATH": f.CAFile,
		"TEMPORAL_TLS_SERVER_NAME":         Host,
		"TEMPORAL_TLS_CLIENT_CERT_PATH":    f.CertificateFile,
		"TEMPORAL_TLS_CLIENT_KEY_PATH":     f.KeyFile,
	}
}

func (f *Fixture) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(f.directory, name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// Profile writes a temporal.toml with a profile that has the settings of
// Variables and the namespace.
func (f *Fixture) Profile(t testing.TB, name, namespace string) (file string) {
	t.Helper()
	return f.write(t, "temporal.toml", []byte(`
[profile.`+name+`]
address = "`+f.Address+`"
namespace = "`+namespace+`"
api_key = "`+f.options.Load().APIKey+`"

[profile.`+name+`.tls]
server_ca_cert_path = "`+f.CAFile+`"
server_name = "`+Host+`"
client_cert_path = "`+f.CertificateFile+`"
client_key_path = "`+f.KeyFile+`"
`))
}
