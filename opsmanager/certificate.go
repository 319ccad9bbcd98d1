package opsmanager

import (
	"crypto/x509"
	"errors"
)

// CertificateFault is why a server's certificate was not accepted.
type CertificateFault string

const (
	// CertificateUntrusted: signed by an authority that is not trusted.
	CertificateUntrusted CertificateFault = "untrusted"
	// CertificateExpired: no longer valid, or not yet, by this machine's clock.
	CertificateExpired CertificateFault = "expired"
	// CertificateOfAnother: valid, but not for the name that was called.
	CertificateOfAnother CertificateFault = "of another host"
)

// CertificateFault tells what was wrong with the server's certificate, where
// that is why no answer came; else it is empty. No request was sent then.
func (e *Error) CertificateFault() CertificateFault {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var otherHost x509.HostnameError
	switch {
	case errors.As(e.cause, &otherHost):
		return CertificateOfAnother
	case errors.As(e.cause, &invalid) && invalid.Reason == x509.Expired:
		return CertificateExpired
	case errors.As(e.cause, &unknown):
		return CertificateUntrusted
	}
	return ""
}
