package kmipkeys

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"time"

	"keyturn/testsuite/support/testca"
)

// certificateLifetime is long enough for a sandbox that is left running.
const certificateLifetime = 90 * 24 * time.Hour

// Authority signs the certificates of one server and its clients. They are ECDSA
// certificates: pykmip's cipher suites leave Go none for an RSA one.
type Authority struct {
	// PEM is its certificate, KeyPEM its private key.
	PEM, KeyPEM []byte

	ca *testca.CA
}

// NewAuthority makes an authority.
func NewAuthority() (*Authority, error) {
	ca, err := testca.Make("KMIP test authority", lasting)
	if err != nil {
		return nil, err
	}
	certificate, key, err := testca.Encode(ca.Pair())
	if err != nil {
		return nil, err
	}
	return &Authority{PEM: certificate, KeyPEM: key, ca: ca}, nil
}

// LoadAuthority reads an authority that was made before.
func LoadAuthority(certificate, key []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	ca, err := testca.Load(pair)
	if err != nil {
		return nil, err
	}
	return &Authority{PEM: certificate, KeyPEM: key, ca: ca}, nil
}

func lasting(template *x509.Certificate) { template.NotAfter = time.Now().Add(certificateLifetime) }

// Issue returns a certificate for the loopback addresses and other hosts, for a
// server as well as for a client, and its key. Each adjust may change what the
// certificate says.
func (a *Authority) Issue(commonName string, adjust ...testca.Adjustment) (certificate, key []byte, err error) {
	pair, err := a.ca.Sign(commonName, append([]testca.Adjustment{lasting}, adjust...)...)
	if err != nil {
		return nil, nil, err
	}
	return testca.Encode(pair)
}

// WriteClient writes a certificate and its key for a client of that name. Each
// call makes a new certificate for the same identity; each adjust may change what
// it says.
func (a *Authority) WriteClient(directory, name string, adjust ...testca.Adjustment) (certificateFile, keyFile string, err error) {
	certificate, key, err := a.Issue(name, adjust...)
	if err != nil {
		return "", "", err
	}
	certificateFile, keyFile = filepath.Join(directory, "client-"+name+".pem"), filepath.Join(directory, "client-"+name+".key")
	if err := os.WriteFile(certificateFile, certificate, 0o600); err != nil {
		return "", "", err
	}
	return certificateFile, keyFile, os.WriteFile(keyFile, key, 0o600)
}
