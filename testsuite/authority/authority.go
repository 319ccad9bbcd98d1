// Package authority makes certificates for tests, signed by authorities of
// their own.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

const lifetime = 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	// PEM is its own certificate.
	PEM  []byte
	pair tls.Certificate
}

// New makes an authority that nobody trusts yet.
func New(t testing.TB, name string) *Authority {
	t.Helper()
	template := newTemplate(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	pair := sign(t, template, nil)
	return &Authority{PEM: encode("CERTIFICATE", pair.Certificate[0]), pair: pair}
}

// Issue makes a certificate for the loopback addresses, for a server as well as
// for a client; each adjust may change what it says.
func (a *Authority) Issue(t testing.TB, name string, adjust ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := newTemplate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, change := range adjust {
		change(template)
	}
	return sign(t, template, &a.pair)
}

// Pool trusts the authority and no other.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM)
	return pool
}

// Expired makes a certificate one that was good until an hour ago.
func Expired(template *x509.Certificate) {
	template.NotBefore = time.Now().Add(-lifetime)
	template.NotAfter = time.Now().Add(-time.Hour)
}

// For makes a certificate one for a name only.
func For(host string) func(*x509.Certificate) {
	return func(template *x509.Certificate) { template.DNSNames, template.IPAddresses = []string{host}, nil }
}

// PEM is a certificate and its key as files have them.
func PEM(t testing.TB, pair tls.Certificate) (certificate, key []byte) {
	t.Helper()
	encoded, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	return encode("CERTIFICATE", pair.Certificate[0]), encode("PRIVATE KEY", encoded)
}

func encode(kind string, content []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
}

func newTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		// A clock that is a little behind must not make it invalid.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(lifetime),
	}
}

// sign has the issuer sign what the template says; without one it signs itself.
func sign(t testing.TB, template *x509.Certificate, issuer *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	parent, parentKey := template, any(key)
	if issuer != nil {
		parent, parentKey = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
