package kmipevidence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/ovh/kmip-go"

	"keyturn/internal/ellipsis"
	"keyturn/internal/setting"
)

// maxMessageLength bounds what is quoted of a server's message, in characters.
const maxMessageLength = 200

// resultError is a KMIP server's answer that says no.
type resultError struct {
	operation kmip.Operation
	reason    kmip.ResultReason
	message   string
}

func (e *resultError) Error() string {
	text := fmt.Sprintf("the KMIP server answers %s with %s", enumName(e.operation), enumName(e.reason))
	if e.message != "" {
		text += ": " + shorten(e.message, maxMessageLength)
	}
	return text
}

// outcomeOf classifies a call's error.
func outcomeOf(err error) Outcome {
	var refusal *resultError
	if !errors.As(err, &refusal) {
		return OutcomeUnreachable
	}
	switch refusal.reason {
	case kmip.ResultReasonItemNotFound:
		return OutcomeAbsent
	case kmip.ResultReasonPermissionDenied, kmip.ResultReasonAuthenticationNotSuccessful:
		return OutcomeForbidden
	}
	return OutcomeUnreachable
}

func isInvalidMessage(err error) bool {
	var refusal *resultError
	return errors.As(err, &refusal) && refusal.reason == kmip.ResultReasonInvalidMessage
}

// orContext prefers the reason why the caller has stopped waiting: the network's
// own error then only says that a deadline has passed.
func orContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// explain turns a call's error into the setting to look at and what to do.
func (c Config) explain(err error) *setting.Error {
	var (
		fault            *setting.Error
		refusal          *resultError
		otherName        x509.HostnameError
		invalid          x509.CertificateInvalidError
		unknownAuthority x509.UnknownAuthorityError
		notTLS           tls.RecordHeaderError
		dialing          *net.OpError
		unresolved       *net.DNSError
	)
	switch {
	case errors.As(err, &fault):
		return fault
	case errors.As(err, &refusal) && refusal.reason == kmip.ResultReasonAuthenticationNotSuccessful:
		return c.fault(SettingClientCertFile, "the KMIP server does not accept the client certificate (%v): use one that it knows, with the extended key usage clientAuth", refusal)
	case errors.As(err, &refusal) && refusal.reason == kmip.ResultReasonInvalidMessage:
		return c.fault(SettingAddress, "%v: it must speak KMIP 1.0, 1.1 or 1.2", refusal)
	case errors.As(err, &refusal):
		return c.fault(SettingAddress, "%v", refusal)
	case errors.Is(err, context.DeadlineExceeded):
		return c.fault(SettingAddress, "the KMIP server gave no answer in time (%s at most): is it overloaded, or is %s not its port?", c.timeout(), c.Address)
	case errors.Is(err, context.Canceled):
		return c.fault(SettingAddress, "the caller stopped waiting before the KMIP server answered")
	case errors.As(err, &otherName):
		return c.fault(SettingServerName, "the KMIP server's certificate is not for the name %q: set this to a name in it (%s)", c.serverName(), shorten(otherName.Error(), maxMessageLength))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return c.fault(SettingAddress, "the KMIP server's certificate is not valid by this machine's clock: %v", invalid)
	case errors.As(err, &unknownAuthority):
		return c.fault(SettingCAFile, "the KMIP server's certificate is signed by an authority that is not trusted: name that authority's certificate here")
	case errors.As(err, &notTLS):
		return c.fault(SettingAddress, "the server does not speak TLS at %s: is this KMIP's port?", c.Address)
	case isAlert(err):
		return c.explainAlert(err)
	case errors.As(err, &unresolved):
		return c.fault(SettingAddress, "the host name cannot be resolved: %v", unresolved)
	case errors.As(err, &dialing) && dialing.Op == "dial":
		return c.fault(SettingAddress, "no connection to the KMIP server: %v", dialing)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return c.fault(SettingAddress, "the KMIP server closed the connection without an answer: does it accept the client certificate?")
	}
	return c.fault(SettingAddress, "no usable answer from the KMIP server: %s", shorten(err.Error(), maxMessageLength))
}

// isAlert distinguishes what the server says from what the network does.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

// explainAlert explains a server's TLS alert. Those about a certificate can only
// be about the client's.
func (c Config) explainAlert(err error) *setting.Error {
	reason := err.Error()
	switch {
	case strings.Contains(reason, "protocol version"):
		return c.fault(SettingAddress, "the KMIP server must offer TLS 1.2 or later (%s)", reason)
	case c.ClientCertFile == "":
		return c.fault(SettingClientCertFile, "the KMIP server refuses a client without a certificate (%s)", reason)
	case strings.Contains(reason, "handshake failure"):
		return c.fault(SettingAddress, "the KMIP server refuses the TLS handshake (%s): it must offer a cipher suite that fits its certificate (an ECDHE one)", reason)
	}
	return c.fault(SettingClientCertFile, "the KMIP server refuses the client certificate (%s)", reason)
}

// shorten makes a foreign text one line of at most limit characters.
func shorten(text string, limit int) string {
	return ellipsis.Cut(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text), limit)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
