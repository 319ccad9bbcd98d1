// Package handshake finds out why no TLS connection to Temporal comes about, and
// which of Temporal's environment variables that is about. gRPC doesn't say it
// reliably: a server that demands a client's certificate closes the connection,
// and what is told of that is as often "broken pipe" as the server's reason.
package handshake

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
)

// The variables that a Fault may name, or a part of them.
const (
	tlsVariable        = "TEMPORAL_TLS"
	anyTLSVariable     = "TEMPORAL_TLS_*"
	caVariable         = "TEMPORAL_TLS_SERVER_CA_CERT_PATH"
	serverNameVariable = "TEMPORAL_TLS_SERVER_NAME"
	clientVariable     = "TEMPORAL_TLS_CLIENT_CERT_PATH"
	addressVariable    = "TEMPORAL_ADDRESS"
)

// examinationTime bounds it all. All of it is a server's to say what it thinks of
// the client's certificate; one that is content sends its HTTP/2 settings at once.
const examinationTime = 5 * time.Second

// Fault is what keeps a connection from coming about.
type Fault struct {
	// Setting is the variable to look at.
	Setting string
	Problem string
	// Refused: the server refuses the client, which no waiting mends.
	Refused bool
}

func (f *Fault) Error() string { return f.Setting + ": " + f.Problem }

// Examine makes a connection to where the options lead and closes it; nothing is
// sent over it. The error is a *[Fault], or nil where there is none to be seen:
// then the trouble is not with TLS.
func Examine(ctx context.Context, options client.Options) error {
	ctx, cancel := context.WithTimeout(ctx, examinationTime)
	defer cancel()
	address := strings.TrimPrefix(options.HostPort, "dns:///")
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil // nobody is there: that is no fault of a handshake
	}
	defer func() { _ = connection.Close() }() // nothing was sent
	config := options.ConnectionOptions.TLS
	if config == nil {
		return examinePlain(ctx, connection, address)
	}
	session := tls.Client(connection, configFor(config, address))
	err = session.HandshakeContext(ctx)
	if err == nil {
		err = verdict(ctx, session)
	}
	if fault := faultOf(err, config); fault != nil {
		return fault
	}
	return nil
}

func configFor(config *tls.Config, address string) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	if host, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	return config
}

// examinePlain tells a server that speaks TLS to a client that doesn't.
func examinePlain(ctx context.Context, connection net.Conn, address string) error {
	err := tls.Client(connection, configFor(&tls.Config{}, address)).HandshakeContext(ctx)
	if err == nil || errors.As(err, new(*tls.CertificateVerificationError)) || isAlert(err) {
		return &Fault{Setting: tlsVariable, Problem: "Temporal speaks TLS at that address: set it to true"}
	}
	return nil
}

// verdict is the server's on the client's certificate, which in TLS 1.3 comes
// after the handshake; nil = none came.
func verdict(ctx context.Context, session *tls.Conn) error {
	deadline, _ := ctx.Deadline()         // Examine has set one
	_ = session.SetReadDeadline(deadline) // a connection has one
	_, err := session.Read(make([]byte, 1))
	return err
}

func faultOf(err error, config *tls.Config) *Fault {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var otherHost x509.HostnameError
	switch {
	case errors.As(err, &otherHost):
		return &Fault{Setting: serverNameVariable, Problem: "Temporal's certificate is not for the name that was called: " + otherHost.Error()}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &Fault{Setting: addressVariable, Problem: "the certificate of the Temporal there is not valid by this machine's clock: " + invalid.Error()}
	case errors.As(err, &unknown):
		return &Fault{Setting: caVariable, Problem: "Temporal's certificate is signed by an authority that is not trusted: name that authority's certificate there"}
	case errors.As(err, new(tls.RecordHeaderError)):
		return &Fault{Setting: tlsVariable, Problem: "TLS is on, and is not spoken at that address"}
	case isAlert(err):
		return refusal(err, config)
	}
	return nil
}

// isAlert tells what the server says from what the network does.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

// refusal is what a server's alert means. Those about a certificate can only be
// about the client's.
func refusal(err error, config *tls.Config) *Fault {
	switch reason := err.Error(); {
	case !strings.Contains(reason, "certificate") && !strings.Contains(reason, "access denied"):
		return &Fault{Setting: anyTLSVariable, Problem: fmt.Sprintf("Temporal refuses the handshake (%s)", reason)}
	case len(config.Certificates) == 0:
		return &Fault{Setting: clientVariable, Problem: fmt.Sprintf("Temporal demands a client certificate (%s)", reason), Refused: true}
	default:
		return &Fault{Setting: clientVariable, Problem: fmt.Sprintf("Temporal refuses the client certificate (%s)", reason), Refused: true}
	}
}
