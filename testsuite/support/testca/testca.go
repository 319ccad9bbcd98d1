// Package testca creates certificates for tests, signed by test CAs.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

const lifetime = 24 * time.Hour

// CA signs certificates.
type CA struct {
	// PEM is the certificate of the CA.
	PEM  []byte
	pair tls.Certificate
}

// Make creates a self-signed CA, for programs; each adjust may change the template.
func Make(name string, adjust ...Adjustment) (*CA, error) {
	template := newTemplate(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	pair, err := sign(template, nil, adjust)
	if err != nil {
		return nil, err
	}
	return Load(pair)
}

// Load returns a CA that was created before.
func Load(pair tls.Certificate) (*CA, error) {
	if _, isECDSA := pair.PrivateKey.(*ecdsa.PrivateKey); !isECDSA {
		return nil, errors.New("the CA's key is not an ECDSA key")
	}
	return &CA{PEM: encode("CERTIFICATE", pair.Certificate[0]), pair: pair}, nil
}

// New creates a self-signed CA for a test.
func New(t testing.TB, name string) *CA {
	t.Helper()
	made, err := Make(name)
	must(t, err)
	return made
}

// Adjustment changes what a certificate will say.
type Adjustment = func(*x509.Certificate)

// Sign creates an ECDSA certificate for the loopback addresses, for servers and
// clients, for programs; each adjust may change the template.
func (a *CA) Sign(name string, adjust ...Adjustment) (tls.Certificate, error) {
	template := newTemplate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	return sign(template, &a.pair, adjust)
}

// Issue is Sign for a test.
func (a *CA) Issue(t testing.TB, name string, adjust ...Adjustment) tls.Certificate {
	t.Helper()
	pair, err := a.Sign(name, adjust...)
	must(t, err)
	return pair
}

// Pair is the CA's own certificate and key.
func (a *CA) Pair() tls.Certificate { return a.pair }

// Pool returns a pool with only this CA.
func (a *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM)
	return pool
}

// Expired makes a certificate that expired an hour ago.
func Expired(template *x509.Certificate) {
	template.NotBefore = time.Now().Add(-lifetime)
	template.NotAfter = time.Now().Add(-time.Hour)
}

// For makes a certificate for one host name only.
func For(host string) Adjustment {
	return func(template *x509.Certificate) { template.DNSNames, template.IPAddresses = []string{host}, nil }
}

// Encode encodes a certificate and its key in PEM.
func Encode(pair tls.Certificate) (certificate, key []byte, err error) {
	encoded, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return encode("CERTIFICATE", pair.Certificate[0]), encode("PRIVATE KEY", encoded), nil
}

// PEM is Encode for a test.
func PEM(t testing.TB, pair tls.Certificate) (certificate, key []byte) {
	t.Helper()
	certificate, key, err := Encode(pair)
	must(t, err)
	return certificate, key
}

func encode(kind string, content []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
}

func newTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		// Allow for clock skew.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(lifetime),
	}
}

// sign signs the adjusted template with the issuer, or self-signs it if there is
// none.
func sign(template *x509.Certificate, issuer *tls.Certificate, adjust []Adjustment) (tls.Certificate, error) {
	for _, change := range adjust {
		change(template)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	parent, parentKey := template, any(key)
	if issuer != nil {
		parent, parentKey = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// must fails the test without testify: the simulator program contains this
// package.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("testca: %v", err)
	}
}
