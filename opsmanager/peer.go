package opsmanager

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
)

// CertificateFault is why a server's certificate was not accepted.
type CertificateFault string

const (
	// CertificateUntrusted: signed by an authority that is not trusted.
	CertificateUntrusted CertificateFault = "untrusted"
	// CertificateExpired: expired or not yet valid, by this machine's clock.
	CertificateExpired CertificateFault = "expired"
	// CertificateHostMismatch: valid, but not for the host that was called.
	CertificateHostMismatch CertificateFault = "host mismatch"
)

// CertificateFault reports what is wrong with the server's certificate, if that
// is why no response came; otherwise it is empty. No request was sent then, and
// the Kind is Unavailable: it may work once the server has a new certificate.
func (e *Error) CertificateFault() CertificateFault {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var mismatch x509.HostnameError
	switch {
	case errors.As(e.cause, &mismatch):
		return CertificateHostMismatch
	case errors.As(e.cause, &invalid) && invalid.Reason == x509.Expired:
		return CertificateExpired
	case errors.As(e.cause, &unknown):
		return CertificateUntrusted
	}
	return ""
}

// ConnectionFault is why a connection was refused before the API was reached.
// Such a refusal is no outage: it lasts until a setting is changed.
type ConnectionFault string

const (
	// ProxyAuthenticationRequired: the proxy that HTTPS_PROXY or HTTP_PROXY names
	// requires a user name and a password, or refuses those in the variable.
	ProxyAuthenticationRequired ConnectionFault = "proxy authentication required"
	// ProxyRefused: the proxy does not connect to Ops Manager.
	ProxyRefused ConnectionFault = "refused by the proxy"
	// ProxyUnreachable: no connection to the proxy can be made, and none could
	// since the client was made. (Later it is an outage: Unavailable.)
	ProxyUnreachable ConnectionFault = "proxy unreachable"
	// ClientCertificateRequired: the server requires a client certificate, and
	// the config has none.
	ClientCertificateRequired ConnectionFault = "client certificate required"
	// ClientCertificateRefused: the server does not accept the client
	// certificate.
	ClientCertificateRefused ConnectionFault = "client certificate refused"
	// NotTLS: BaseURL begins with https, and the server does not use TLS.
	NotTLS ConnectionFault = "not TLS"
)

// ConnectionFault reports why the connection was refused, if that is why no
// response of the API came; otherwise it is empty. The Kind is
// UnexpectedResponse then.
func (e *Error) ConnectionFault() ConnectionFault { return e.fault }

// peer is what a session knows about the servers that it connects to.
type peer struct {
	proxy *url.URL // nil = none is used
	// hasCertificate: the config has a client certificate.
	hasCertificate bool
	// certificateRequested: a server has asked for a client certificate.
	certificateRequested atomic.Bool
	// answered: at least one HTTP response came, which a proxy's answer to CONNECT
	// is not.
	answered atomic.Bool
}

// proxyResponse is a proxy's answer to CONNECT, other than 200.
type proxyResponse struct {
	status int
	text   string
}

func (r *proxyResponse) Error() string {
	return fmt.Sprintf("the proxy answered CONNECT with %s", r.text)
}

func checkProxyResponse(_ context.Context, _ *url.URL, _ *http.Request, response *http.Response) error {
	if response.StatusCode/100 == 2 {
		return nil
	}
	return &proxyResponse{response.StatusCode, response.Status}
}

// connectionRefusal is what refused a connection; fault is empty if nothing did.
type connectionRefusal struct {
	fault  ConnectionFault
	detail string
	// certain: the request has not reached the API.
	certain bool
}

// refusalOf classifies the error of a request without a response. sent means that
// the request may have reached a server.
func (p *peer) refusalOf(err error, sent bool) connectionRefusal {
	var operation *net.OpError
	var proxy *proxyResponse
	isOperation := errors.As(err, &operation)
	switch {
	case errors.As(err, &proxy):
		return proxy.refusal()
	case isOperation && operation.Op == "proxyconnect":
		if p.answered.Load() || errors.Is(err, context.Canceled) {
			return connectionRefusal{}
		}
		return connectionRefusal{ProxyUnreachable, fmt.Sprintf("cannot connect to the proxy %s: %v", p.proxyHost(), operation.Err), true}
	case isOperation && operation.Op == "socks connect" && strings.Contains(operation.Error(), "authentication"):
		return connectionRefusal{ProxyAuthenticationRequired, operation.Error(), true}
	case errors.Is(err, http.ErrSchemeMismatch), !sent && errors.As(err, new(tls.RecordHeaderError)):
		return connectionRefusal{NotTLS, "the base URL begins with https://, and the server does not use TLS", true}
	case isOperation && operation.Op == "remote error":
		return p.alert(operation.Err.Error())
	case sent && p.lacksCertificate() && !p.answered.Load() && !isTimeout(err) && !errors.Is(err, context.Canceled):
		// The alert of TLS 1.3 comes after the handshake and can be lost when the
		// server closes the connection.
		return connectionRefusal{ClientCertificateRequired, fmt.Sprintf("the server asked for a client certificate and closed the connection without one (%v)", err), false}
	}
	return connectionRefusal{}
}

func (p *peer) lacksCertificate() bool { return p.certificateRequested.Load() && !p.hasCertificate }

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// alert classifies a TLS alert of the server. Those about a certificate can only
// be about the client's. A handshake that fails without a reason after a
// certificate was requested and not sent is TLS 1.2's way to require one.
func (p *peer) alert(text string) connectionRefusal {
	about := strings.Contains(text, "certificate") || strings.Contains(text, "unknown certificate authority") || strings.Contains(text, "access denied")
	switch {
	case p.hasCertificate && about:
		return connectionRefusal{ClientCertificateRefused, fmt.Sprintf("the server refuses the client certificate (%s)", text), true}
	case about || strings.Contains(text, "handshake failure") && p.lacksCertificate():
		return connectionRefusal{ClientCertificateRequired, fmt.Sprintf("the server requires a client certificate (%s)", text), true}
	}
	return connectionRefusal{}
}

func (p *peer) proxyHost() string {
	if p.proxy == nil {
		return ""
	}
	return p.proxy.Host
}

// refusal: a 5xx and a 429 of a proxy are outages.
func (r *proxyResponse) refusal() connectionRefusal {
	switch {
	case r.status == http.StatusProxyAuthRequired:
		return connectionRefusal{ProxyAuthenticationRequired, r.Error(), true}
	case r.status >= 500 || r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout:
		return connectionRefusal{}
	}
	return connectionRefusal{ProxyRefused, r.Error(), true}
}

// certificateFor returns the client certificate to whatever server asks, as
// OpenSSL does: crypto/tls by itself sends none if the server does not name its
// issuer, which may be an intermediate one.
func (p *peer) certificateFor(certificate *tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p.certificateRequested.Store(true)
		if certificate == nil {
			return new(tls.Certificate), nil
		}
		return certificate, nil
	}
}
