// Package tlsdiag finds out why no TLS connection to Temporal can be made, and
// which of Temporal's environment variables is the cause. gRPC does not report it
// reliably: a server that requires a client certificate closes the connection,
// and the error is as often "broken pipe" as the server's reason.
package tlsdiag

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// The variables that a Problem may name.
const (
	TLSVariable        = "TEMPORAL_TLS"
	anyTLSVariable     = "TEMPORAL_TLS_*"
	CAVariable         = "TEMPORAL_TLS_SERVER_CA_CERT_PATH"
	ServerNameVariable = "TEMPORAL_TLS_SERVER_NAME"
	ClientVariable     = "TEMPORAL_TLS_CLIENT_CERT_PATH"
	AddressVariable    = "TEMPORAL_ADDRESS"
)

// timeout bounds a diagnosis. A server that refuses the client certificate may
// take all of it to say so; one that accepts it sends its HTTP/2 settings at once.
const timeout = 5 * time.Second

// Problem is what prevents a TLS connection.
type Problem struct {
	// Setting is the variable to look at.
	Setting string
	// Text says what is wrong.
	Text string
	// Refused reports whether the server refuses the client, so that it is of no
	// use to try again.
	Refused bool
}

func (p *Problem) Error() string { return p.Setting + ": " + p.Text }

// Diagnose connects to the address as the configuration says (nil = without TLS) and
// closes the connection; it sends nothing over it. It returns nil if it finds no
// problem with TLS.
func Diagnose(ctx context.Context, address string, config *tls.Config) *Problem {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	address = strings.TrimPrefix(address, "dns:///")
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil // nothing listens there: TLS is not the problem
	}
	defer func() { _ = connection.Close() }() // nothing was sent
	if config == nil {
		return diagnosePlaintext(ctx, connection, address)
	}
	session := tls.Client(connection, configFor(config, address))
	err = session.HandshakeContext(ctx)
	if err == nil {
		err = readAlert(ctx, session)
	}
	return problemOf(err, config)
}

func configFor(config *tls.Config, address string) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	if host, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	return config
}

// diagnosePlaintext recognizes a server that speaks TLS to a client that does not.
func diagnosePlaintext(ctx context.Context, connection net.Conn, address string) *Problem {
	err := tls.Client(connection, configFor(&tls.Config{}, address)).HandshakeContext(ctx)
	if err == nil || errors.As(err, new(*tls.CertificateVerificationError)) || isAlert(err) {
		return &Problem{Setting: TLSVariable, Text: "Temporal speaks TLS at that address: set it to true"}
	}
	return nil
}

// readAlert returns the server's alert about the client certificate, which in
// TLS 1.3 comes after the handshake. Other errors mean that none came.
func readAlert(ctx context.Context, session *tls.Conn) error {
	deadline, _ := ctx.Deadline()         // Diagnose has set one
	_ = session.SetReadDeadline(deadline) // a connection has one
	_, err := session.Read(make([]byte, 1))
	return err
}

func problemOf(err error, config *tls.Config) *Problem {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var otherHost x509.HostnameError
	switch {
	case errors.As(err, &otherHost):
		return &Problem{Setting: ServerNameVariable, Text: "Temporal's certificate is not valid for this server name: " + otherHost.Error()}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &Problem{Setting: AddressVariable, Text: "Temporal's certificate at that address is not valid at this machine's time: " + invalid.Error()}
	case errors.As(err, &unknown):
		return &Problem{Setting: CAVariable, Text: "Temporal's certificate is signed by an unknown authority: set this to the authority's certificate"}
	case errors.As(err, new(tls.RecordHeaderError)):
		return &Problem{Setting: TLSVariable, Text: "TLS is on, but the server at that address does not speak TLS"}
	case isAlert(err):
		return refusal(err, config)
	}
	return nil
}

// isAlert reports whether the error comes from the server, not from the network.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

// refusal explains a server's alert. One about a certificate can only be about
// the client's.
func refusal(err error, config *tls.Config) *Problem {
	switch reason := err.Error(); {
	case !strings.Contains(reason, "certificate") && !strings.Contains(reason, "access denied"):
		return &Problem{Setting: anyTLSVariable, Text: fmt.Sprintf("Temporal refuses the TLS handshake (%s)", reason)}
	case len(config.Certificates) == 0 && config.GetClientCertificate == nil:
		return &Problem{Setting: ClientVariable, Text: fmt.Sprintf("Temporal requires a client certificate (%s)", reason), Refused: true}
	default:
		return &Problem{Setting: ClientVariable, Text: fmt.Sprintf("Temporal refuses the client certificate (%s)", reason), Refused: true}
	}
}
