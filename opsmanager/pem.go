package opsmanager

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"keyturn/internal/pemtext"
)

// trustedRoots adds the config's authorities to the system's; nil = only the
// system's.
func (c Config) trustedRoots() (*x509.CertPool, error) {
	if len(c.CAPEM) == 0 {
		return nil, nil
	}
	certificates, err := pemtext.Certificates(c.CAPEM)
	if err != nil {
		return nil, refuse(fieldCAPEM, "%v", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, refuse(fieldCAPEM, "the system's certificates cannot be read: %v", err)
	}
	for _, certificate := range certificates {
		roots.AddCert(certificate)
	}
	return roots, nil
}

// clientCertificate checks and combines the client certificate and its key; nil =
// there is none.
func (c Config) clientCertificate(now time.Time) (*tls.Certificate, error) {
	switch {
	case len(c.ClientCertPEM) == 0 && len(c.ClientKeyPEM) == 0:
		return nil, nil
	case len(c.ClientCertPEM) == 0:
		return nil, refuse(fieldClientCertPEM, "is required with a client key")
	case len(c.ClientKeyPEM) == 0:
		return nil, refuse(fieldClientKeyPEM, "is required with a client certificate")
	}
	pair, certificateErr, keyErr := pemtext.KeyPair(c.ClientCertPEM, c.ClientKeyPEM)
	switch {
	case certificateErr != nil:
		return nil, refuse(fieldClientCertPEM, "%v", certificateErr)
	case keyErr != nil:
		return nil, refuse(fieldClientKeyPEM, "%v", keyErr)
	}
	if err := pemtext.CheckValidity(pair.Leaf, now); err != nil {
		return nil, refuse(fieldClientCertPEM, "%v", err)
	}
	return &pair, nil
}
