package kmipevidence_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipserver"
	"github.com/ovh/kmip-go/kmiptest"
	"github.com/ovh/kmip-go/payloads"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/support/testca"
)

// keyStore answers as a KMIP server that keeps these objects, by their ids.
type keyStore map[string][]kmip.Attribute

func (s keyStore) handler(versions ...kmip.ProtocolVersion) *kmipserver.BatchExecutor {
	executor := kmipserver.NewBatchExecutor()
	executor.SetSupportedProtocolVersions(versions...)
	executor.Route(kmip.OperationQuery, kmipserver.HandleFunc(func(context.Context, *payloads.QueryRequestPayload) (*payloads.QueryResponsePayload, error) {
		return &payloads.QueryResponsePayload{Operations: []kmip.Operation{kmip.OperationQuery, kmip.OperationLocate, kmip.OperationGetAttributes}}, nil
	}))
	executor.Route(kmip.OperationLocate, kmipserver.HandleFunc(func(context.Context, *payloads.LocateRequestPayload) (*payloads.LocateResponsePayload, error) {
		for id := range s {
			return &payloads.LocateResponsePayload{UniqueIdentifier: []string{id}}, nil
		}
		return &payloads.LocateResponsePayload{}, nil
	}))
	executor.Route(kmip.OperationGetAttributes, kmipserver.HandleFunc(func(_ context.Context, request *payloads.GetAttributesRequestPayload) (*payloads.GetAttributesResponsePayload, error) {
		attributes, there := s[request.UniqueIdentifier]
		if !there {
			return nil, kmipserver.ErrItemNotFound
		}
		return &payloads.GetAttributesResponsePayload{UniqueIdentifier: request.UniqueIdentifier, Attribute: attributes}, nil
	}))
	return executor
}

// failingWith has the operation answered with an error.
func failingWith(executor *kmipserver.BatchExecutor, operation kmip.Operation, err error) *kmipserver.BatchExecutor {
	executor.Route(operation, refusal{err})
	return executor
}

type refusal struct{ err error }

func (r refusal) HandleOperation(context.Context, kmip.OperationPayload) (kmip.OperationPayload, error) {
	return nil, r.err
}

// clientOf starts the library's test server with the handler and returns a client.
func clientOf(t *testing.T, handler kmipserver.RequestHandler) *kmipevidence.Client {
	t.Helper()
	address, ca := kmiptest.NewServer(t, handler)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, []byte(ca), 0o600))
	return newClient(t, kmipevidence.Config{Address: address, CAFile: file, Timeout: time.Minute})
}

func writeCA(t testing.TB, ca *testca.CA) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, ca.PEM, 0o600))
	return file
}

func attributesOf(state kmip.State, more ...kmip.Attribute) []kmip.Attribute {
	return append([]kmip.Attribute{
		{AttributeName: kmip.AttributeNameObjectType, AttributeValue: kmip.ObjectTypeSymmetricKey},
		{AttributeName: kmip.AttributeNameState, AttributeValue: state},
	}, more...)
}

func TestAttributesBecomeEvidence(t *testing.T) {
	made := time.Date(2026, 3, 1, 10, 0, 0, 0, time.FixedZone("", 3600))
	client := clientOf(t, keyStore{
		"full": attributesOf(kmip.StateActive,
			kmip.Attribute{AttributeName: kmip.AttributeNameInitialDate, AttributeValue: made},
			kmip.Attribute{AttributeName: kmip.AttributeNameActivationDate, AttributeValue: made.Add(time.Second)},
			kmip.Attribute{AttributeName: kmip.AttributeNameCryptographicAlgorithm, AttributeValue: kmip.CryptographicAlgorithmAES},
			kmip.Attribute{AttributeName: kmip.AttributeNameCryptographicLength, AttributeValue: int32(256)},
			kmip.Attribute{AttributeName: kmip.AttributeNameName, AttributeValue: kmip.Name{NameValue: "first\n" + strings.Repeat("ö", 300), NameType: kmip.NameTypeUninterpretedTextString}},
			kmip.Attribute{AttributeName: kmip.AttributeNameName, AttributeValue: kmip.Name{NameValue: "second", NameType: kmip.NameTypeUninterpretedTextString}}),
		"bare":                  {},
		"destroyed":             attributesOf(kmip.StateDestroyed, kmip.Attribute{AttributeName: kmip.AttributeNameInitialDate, AttributeValue: made}),
		"destroyed compromised": attributesOf(kmip.StateDestroyedCompromised),
		"compromised":           attributesOf(kmip.StateCompromised),
		"new state":             attributesOf(0x80000001),
		"certificate":           {{AttributeName: kmip.AttributeNameObjectType, AttributeValue: kmip.ObjectTypeCertificate}},
	}.handler())

	full := client.Ask(t.Context(), "full")
	require.Equal(t, kmipevidence.OutcomeWitnessed, full.Outcome, full.Message)
	assert.Equal(t, "2026-03-01T09:00:00Z", full.InitialDate.Format(time.RFC3339))
	assert.Equal(t, "2026-03-01T09:00:01Z", full.ActivationDate.Format(time.RFC3339))
	assert.Equal(t, "AES", full.Algorithm)
	assert.Equal(t, 256, full.Length)
	assert.True(t, strings.HasPrefix(full.Name, "first ö"))
	assert.Len(t, []rune(full.Name), 200)

	for id, want := range map[string]struct {
		outcome kmipevidence.Outcome
		state   string
	}{
		"bare":                  {kmipevidence.OutcomeWitnessed, ""},
		"destroyed":             {kmipevidence.OutcomeAbsent, kmipevidence.StateDestroyed},
		"destroyed compromised": {kmipevidence.OutcomeAbsent, kmipevidence.StateDestroyedCompromised},
		"compromised":           {kmipevidence.OutcomeWitnessed, kmipevidence.StateCompromised},
		"new state":             {kmipevidence.OutcomeWitnessed, "0x80000001"},
		"certificate":           {kmipevidence.OutcomeAbsent, ""},
	} {
		evidence := client.Ask(t.Context(), id)
		assert.Equal(t, want.outcome, evidence.Outcome, "%s: %s", id, evidence.Message)
		assert.Equal(t, want.state, evidence.State, id)
	}
	assert.NotNil(t, client.Ask(t.Context(), "destroyed").InitialDate)
}

func TestAnswersThatSayNo(t *testing.T) {
	one := keyStore{"1": attributesOf(kmip.StateActive)}
	for name, test := range map[string]struct {
		handler *kmipserver.BatchExecutor
		outcome kmipevidence.Outcome
		message string
	}{
		"not found":                          {one.handler(), kmipevidence.OutcomeAbsent, "ItemNotFound"},
		"not found, and no key is visible":   {keyStore{}.handler(), kmipevidence.OutcomeForbidden, "shows this client no key at all"},
		"not found, and Locate is forbidden": {failingWith(one.handler(), kmip.OperationLocate, kmipserver.ErrPermissionDenied), kmipevidence.OutcomeForbidden, "no key at all"},
		"not found, and there is no Locate":  {failingWith(one.handler(), kmip.OperationLocate, kmipserver.ErrOperationNotSupported), kmipevidence.OutcomeAbsent, "ItemNotFound"},
		"permission":                         {failingWith(one.handler(), kmip.OperationGetAttributes, kmipserver.ErrPermissionDenied), kmipevidence.OutcomeForbidden, "PermissionDenied"},
		"authentication":                     {failingWith(one.handler(), kmip.OperationGetAttributes, kmipserver.Errorf(kmip.ResultReasonAuthenticationNotSuccessful, "who?")), kmipevidence.OutcomeForbidden, "KMIP_CLIENT_CERT_FILE: "},
		"other failure":                      {failingWith(one.handler(), kmip.OperationGetAttributes, errors.New("disk\x1b[31m "+strings.Repeat("x", 5000))), kmipevidence.OutcomeUnreachable, "GeneralFailure: disk [31m xxx"},
		"no Get Attributes":                  {failingWith(one.handler(), kmip.OperationGetAttributes, kmipserver.ErrOperationNotSupported), kmipevidence.OutcomeUnreachable, "OperationNotSupported"},
	} {
		t.Run(name, func(t *testing.T) {
			evidence := clientOf(t, test.handler).Ask(t.Context(), "2")
			assert.Equal(t, test.outcome, evidence.Outcome)
			assert.Contains(t, evidence.Message, test.message)
			assert.Less(t, len(evidence.Message), 500)
			assert.Empty(t, evidence.State)
		})
	}
}

func TestAnswerAboutAnotherKeyIsNoEvidence(t *testing.T) {
	handler := keyStore{}.handler()
	handler.Route(kmip.OperationGetAttributes, kmipserver.HandleFunc(func(context.Context, *payloads.GetAttributesRequestPayload) (*payloads.GetAttributesResponsePayload, error) {
		return &payloads.GetAttributesResponsePayload{UniqueIdentifier: "another", Attribute: attributesOf(kmip.StateActive)}, nil
	}))
	assert.Equal(t, kmipevidence.OutcomeUnreachable, clientOf(t, handler).Ask(t.Context(), "1").Outcome)
}

func TestProtocolVersions(t *testing.T) {
	store := keyStore{"1": attributesOf(kmip.StateActive)}
	for _, version := range []kmip.ProtocolVersion{kmip.V1_0, kmip.V1_1, kmip.V1_2} {
		t.Run(version.String(), func(t *testing.T) {
			client := clientOf(t, store.handler(version))
			evidence := client.Ask(t.Context(), "1")
			assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
			assert.NoError(t, client.Check(t.Context()))
		})
	}
	t.Run("1.4 only", func(t *testing.T) {
		client := clientOf(t, store.handler(kmip.V1_4))
		assert.Equal(t, kmipevidence.OutcomeUnreachable, client.Ask(t.Context(), "1").Outcome)
		assert.ErrorContains(t, client.Check(t.Context()), "KMIP 1.0, 1.1 or 1.2")
	})
	t.Run("changed while connected", func(t *testing.T) {
		executor := store.handler(kmip.V1_2)
		var lock sync.Mutex
		client := clientOf(t, handlerFunc(func(ctx context.Context, request *kmip.RequestMessage) *kmip.ResponseMessage {
			lock.Lock()
			defer lock.Unlock()
			return executor.HandleRequest(ctx, request)
		}))
		require.Equal(t, kmipevidence.OutcomeWitnessed, client.Ask(t.Context(), "1").Outcome)
		lock.Lock()
		executor.SetSupportedProtocolVersions(kmip.V1_0)
		lock.Unlock()
		evidence := client.Ask(t.Context(), "1")
		assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
	})
}

type handlerFunc func(context.Context, *kmip.RequestMessage) *kmip.ResponseMessage

func (f handlerFunc) HandleRequest(ctx context.Context, request *kmip.RequestMessage) *kmip.ResponseMessage {
	return f(ctx, request)
}

func TestCheckNamesAMissingOperation(t *testing.T) {
	handler := keyStore{}.handler()
	handler.Route(kmip.OperationQuery, kmipserver.HandleFunc(func(context.Context, *payloads.QueryRequestPayload) (*payloads.QueryResponsePayload, error) {
		return &payloads.QueryResponsePayload{Operations: []kmip.Operation{kmip.OperationQuery, kmip.OperationGet}}, nil
	}))
	assert.ErrorContains(t, clientOf(t, handler).Check(t.Context()), "does not offer the operation GetAttributes")
}

// closingListener remembers its connections so that a test can reset them.
type closingListener struct {
	net.Listener
	mu       sync.Mutex
	accepted []net.Conn
}

func (l *closingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.accepted = append(l.accepted, conn)
		l.mu.Unlock()
	}
	return conn, err
}

func (l *closingListener) reset(t *testing.T) (connections int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.accepted {
		_ = conn.(*net.TCPConn).SetLinger(0) // it may be closed
		_ = conn.Close()
	}
	connections, l.accepted = len(l.accepted), nil
	return connections
}

// serveTLS serves the handler with a TLS configuration of the test's own.
func serveTLS(t *testing.T, config *tls.Config, handler kmipserver.RequestHandler) *closingListener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closing := &closingListener{Listener: listener}
	server := kmipserver.NewServer(tls.NewListener(closing, config), handler)
	go func() { _ = server.Serve() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return closing
}

func TestConnectionIsKeptAndMadeAnew(t *testing.T) {
	ca := testca.New(t, "authority")
	listener := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "server")}}, keyStore{"1": attributesOf(kmip.StateActive)}.handler())
	client := newClient(t, kmipevidence.Config{Address: listener.Addr().String(), CAFile: writeCA(t, ca), Timeout: time.Minute})
	for range 3 {
		for range 5 {
			evidence := client.Ask(t.Context(), "1")
			require.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
		}
		assert.Equal(t, 1, listener.reset(t), "connections of five calls in a row")
	}
}

func TestTLSVersions(t *testing.T) {
	ca, other := testca.New(t, "authority"), testca.New(t, "another")
	pair := []tls.Certificate{ca.Issue(t, "server")}
	handler := keyStore{"1": attributesOf(kmip.StateActive)}.handler()
	for name, versions := range map[string][2]uint16{"1.2": {tls.VersionTLS12, tls.VersionTLS12}, "1.3": {tls.VersionTLS13, tls.VersionTLS13}} {
		t.Run(name, func(t *testing.T) {
			listener := serveTLS(t, &tls.Config{Certificates: pair, MinVersion: versions[0], MaxVersion: versions[1], ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}, handler)
			config := kmipevidence.Config{Address: listener.Addr().String(), CAFile: writeCA(t, ca), Timeout: time.Minute}
			requireUnreachable(t, config, kmipevidence.SettingClientCertFile)
			config.ClientCertFile, config.ClientKeyFile = writePair(t, other)
			requireUnreachable(t, config, kmipevidence.SettingClientCertFile)
			config.ClientCertFile, config.ClientKeyFile = writePair(t, ca)
			evidence := newClient(t, config).Ask(t.Context(), "1")
			assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
		})
	}
	t.Run("1.1 only", func(t *testing.T) {
		listener := serveTLS(t, &tls.Config{Certificates: pair, MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}, handler) //nolint:gosec // that is what is refused
		requireUnreachable(t, kmipevidence.Config{Address: listener.Addr().String(), CAFile: writeCA(t, ca), Timeout: time.Minute}, kmipevidence.SettingAddress)
	})
	t.Run("expired server certificate", func(t *testing.T) {
		listener := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "server", testca.Expired)}}, handler)
		requireUnreachable(t, kmipevidence.Config{Address: listener.Addr().String(), CAFile: writeCA(t, ca), Timeout: time.Minute}, kmipevidence.SettingAddress)
	})
	t.Run("no TLS", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				_ = conn.Close()
			}
		}()
		requireUnreachable(t, kmipevidence.Config{Address: listener.Addr().String(), CAFile: writeCA(t, ca), Timeout: time.Minute}, kmipevidence.SettingAddress)
	})
}

func TestAskEndsWithItsContext(t *testing.T) {
	ca := testca.New(t, "authority")
	begun, release := make(chan struct{}, 1), make(chan struct{})
	listener := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "server")}}, handlerFunc(func(_ context.Context, request *kmip.RequestMessage) *kmip.ResponseMessage {
		select {
		case begun <- struct{}{}:
		default:
		}
		<-release
		return &kmip.ResponseMessage{}
	}))
	t.Cleanup(func() { close(release) }) // before the server is shut down
	client := newClient(t, kmipevidence.Config{Address: listener.Addr().String(), CAFile: writeCA(t, ca), Timeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 10 { // some wait for a connection, the others for an answer
		group.Go(func() {
			evidence := client.Ask(ctx, "1")
			assert.Equal(t, kmipevidence.OutcomeUnreachable, evidence.Outcome)
			assert.Contains(t, evidence.Message, "the caller stopped waiting")
		})
	}
	<-begun
	cancel()
	group.Wait()
}
