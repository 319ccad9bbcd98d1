// Package kmipsimulator is a simulated KMIP server, in this process or as the
// program kmip-simulator: keys are made in it, and it is asked about them. It is
// built on kmip-go's server, keeps no key material, and counts what it is asked.
package kmipsimulator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipserver"
	"github.com/ovh/kmip-go/payloads"

	"keyturn/testsuite/support/kmipkeys"
)

// operations are all that the server offers. Get is not among them: it has no key
// material.
var operations = []kmip.Operation{
	kmip.OperationQuery, kmip.OperationLocate, kmip.OperationGetAttributes,
	kmip.OperationCreate, kmip.OperationActivate, kmip.OperationRevoke, kmip.OperationDestroy,
}

// Options are the settings of a server. The zero value is a working one.
type Options struct {
	// Address is where it listens; empty = a free port of the loopback address.
	Address string
	// Hosts are further names in its certificate.
	Hosts []string
	// Directory is where it keeps its authority and its keys; empty = nowhere.
	Directory string
	// OwnersOnly shows a key only to the client that made it, by common name.
	OwnersOnly bool
}

// key is what the server knows about one key.
type key struct {
	Owner   string     `json:"owner"`
	Name    string     `json:"name,omitempty"`
	State   kmip.State `json:"state"`
	Length  int32      `json:"length"`
	Made    time.Time  `json:"made"`
	Enabled *time.Time `json:"activated,omitempty"`
}

// Request is one request that the server has received.
type Request struct {
	Operation kmip.Operation
	// ID is the key that it is about; empty = none.
	ID string
}

// Server is a KMIP server. It requires a client certificate of its authority.
type Server struct {
	options   Options
	authority *kmipkeys.Authority
	listener  net.Listener
	server    *kmipserver.Server

	mu       sync.Mutex
	keys     map[string]*key
	requests []Request
	failure  error
	delay    time.Duration
}

// Start starts a server.
func Start(options Options) (*Server, error) {
	if options.Address == "" {
		options.Address = "127.0.0.1:0"
	}
	s := &Server{options: options, keys: map[string]*key{}}
	if err := s.load(); err != nil {
		return nil, err
	}
	config, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	if s.listener, err = tls.Listen("tcp", options.Address, config); err != nil {
		return nil, err
	}
	// The library logs each connection to the default logger, which it takes when
	// the server is made.
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	s.server = kmipserver.NewServer(s.listener, s.handler())
	slog.SetDefault(before)
	go func() { _ = s.server.Serve() }() // it ends when the server is closed
	return s, nil
}

// Close ends the server.
func (s *Server) Close() { _ = s.server.Shutdown() }

// Address is host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Authority signs its certificate and those of its clients.
func (s *Server) Authority() *kmipkeys.Authority { return s.authority }

// Client is a connection for the client of that name.
func (s *Server) Client(name string) (kmipkeys.Connection, error) {
	certificate, private, err := s.authority.Issue(name)
	return kmipkeys.Connection{Address: s.Address(), ServerName: "localhost", CA: s.authority.PEM, Certificate: certificate, Key: private}, err
}

// WriteClient writes the authority's certificate and a client's into a directory.
func (s *Server) WriteClient(directory, name string) (caFile, certificateFile, keyFile string, err error) {
	caFile = filepath.Join(directory, "ca.pem")
	if err := os.WriteFile(caFile, s.authority.PEM, 0o600); err != nil {
		return "", "", "", err
	}
	certificateFile, keyFile, err = s.authority.WriteClient(directory, name)
	return caFile, certificateFile, keyFile, err
}

// Requests are those that the server has received, with an operation, in their
// order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Asked are the keys whose attributes were asked for, in their order.
func (s *Server) Asked() (ids []string) {
	for _, request := range s.Requests() {
		if request.Operation == kmip.OperationGetAttributes {
			ids = append(ids, request.ID)
		}
	}
	return ids
}

// Fail has the server answer everything but Query with an error from now on; nil
// ends that.
func (s *Server) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// Delay has the server wait before each answer but those to Query.
func (s *Server) Delay(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = delay
}

func (s *Server) tlsConfig() (*tls.Config, error) {
	certificate, private, err := s.authority.Issue("kmip-simulator", func(template *x509.Certificate) {
		template.DNSNames = append(template.DNSNames, s.options.Hosts...)
	})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, private)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(s.authority.PEM)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}, nil
}

func (s *Server) handler() kmipserver.RequestHandler {
	executor := kmipserver.NewBatchExecutor()
	route(s, executor, kmip.OperationQuery, func(string, *payloads.QueryRequestPayload) (*payloads.QueryResponsePayload, error) {
		return &payloads.QueryResponsePayload{Operations: operations}, nil
	})
	route(s, executor, kmip.OperationLocate, s.locate)
	route(s, executor, kmip.OperationGetAttributes, s.attributes)
	route(s, executor, kmip.OperationCreate, s.create)
	route(s, executor, kmip.OperationActivate, func(client string, request *payloads.ActivateRequestPayload) (*payloads.ActivateResponsePayload, error) {
		return &payloads.ActivateResponsePayload{UniqueIdentifier: request.UniqueIdentifier}, s.change(client, request.UniqueIdentifier, func(k *key) {
			now := wholeSeconds()
			k.State, k.Enabled = kmip.StateActive, &now
		})
	})
	route(s, executor, kmip.OperationRevoke, func(client string, request *payloads.RevokeRequestPayload) (*payloads.RevokeResponsePayload, error) {
		return &payloads.RevokeResponsePayload{UniqueIdentifier: request.UniqueIdentifier}, s.change(client, request.UniqueIdentifier, func(k *key) {
			k.State = kmip.StateDeactivated
			if request.RevocationReason.RevocationReasonCode == kmip.RevocationReasonCodeKeyCompromise {
				k.State = kmip.StateCompromised
			}
		})
	})
	route(s, executor, kmip.OperationDestroy, func(client string, request *payloads.DestroyRequestPayload) (*payloads.DestroyResponsePayload, error) {
		return &payloads.DestroyResponsePayload{UniqueIdentifier: request.UniqueIdentifier}, s.change(client, request.UniqueIdentifier, func(k *key) { k.State = kmip.StateDestroyed })
	})
	return executor
}

// route counts a request and answers it as the client whose certificate it is.
func route[Request, Response kmip.OperationPayload](s *Server, executor *kmipserver.BatchExecutor, operation kmip.Operation, answer func(client string, request Request) (Response, error)) {
	executor.Route(operation, kmipserver.HandleFunc(func(ctx context.Context, request Request) (response Response, err error) {
		delay, failure := s.note(operation, request)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		if failure != nil {
			return response, failure
		}
		certificates := kmipserver.PeerCertificates(ctx)
		if len(certificates) == 0 {
			return response, kmipserver.Errorf(kmip.ResultReasonAuthenticationNotSuccessful, "no client certificate")
		}
		return answer(certificates[0].Subject.CommonName, request)
	}))
}

func (s *Server) note(operation kmip.Operation, request kmip.OperationPayload) (delay time.Duration, failure error) {
	noted := Request{Operation: operation}
	if asked, isAsked := request.(*payloads.GetAttributesRequestPayload); isAsked {
		noted.ID = asked.UniqueIdentifier
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, noted)
	if operation == kmip.OperationQuery {
		return 0, nil
	}
	return s.delay, s.failure
}

// find returns a key that the client may see. The caller holds s.mu.
func (s *Server) find(client, id string) (*key, error) {
	found := s.keys[id]
	switch {
	case found == nil:
		return nil, kmipserver.ErrItemNotFound
	case s.options.OwnersOnly && found.Owner != client:
		return nil, kmipserver.ErrPermissionDenied
	}
	return found, nil
}

func (s *Server) locate(client string, request *payloads.LocateRequestPayload) (*payloads.LocateResponsePayload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	response := &payloads.LocateResponsePayload{}
	for id := range s.keys {
		if _, err := s.find(client, id); err != nil {
			continue
		}
		response.UniqueIdentifier = append(response.UniqueIdentifier, id)
		if request.MaximumItems > 0 && len(response.UniqueIdentifier) >= int(request.MaximumItems) {
			break
		}
	}
	return response, nil
}

func (s *Server) attributes(client string, request *payloads.GetAttributesRequestPayload) (*payloads.GetAttributesResponsePayload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(client, request.UniqueIdentifier)
	if err != nil {
		return nil, err
	}
	attributes := []kmip.Attribute{
		{AttributeName: kmip.AttributeNameObjectType, AttributeValue: kmip.ObjectTypeSymmetricKey},
		{AttributeName: kmip.AttributeNameState, AttributeValue: found.State},
		{AttributeName: kmip.AttributeNameInitialDate, AttributeValue: found.Made},
		{AttributeName: kmip.AttributeNameCryptographicAlgorithm, AttributeValue: kmip.CryptographicAlgorithmAES},
		{AttributeName: kmip.AttributeNameCryptographicLength, AttributeValue: found.Length},
	}
	if found.Enabled != nil {
		attributes = append(attributes, kmip.Attribute{AttributeName: kmip.AttributeNameActivationDate, AttributeValue: *found.Enabled})
	}
	if found.Name != "" {
		attributes = append(attributes, kmip.Attribute{AttributeName: kmip.AttributeNameName, AttributeValue: kmip.Name{NameValue: found.Name, NameType: kmip.NameTypeUninterpretedTextString}})
	}
	return &payloads.GetAttributesResponsePayload{UniqueIdentifier: request.UniqueIdentifier, Attribute: attributes}, nil
}

func (s *Server) create(client string, request *payloads.CreateRequestPayload) (*payloads.CreateResponsePayload, error) {
	if request.ObjectType != kmip.ObjectTypeSymmetricKey {
		return nil, kmipserver.Errorf(kmip.ResultReasonInvalidField, "only symmetric keys can be made")
	}
	made := &key{Owner: client, State: kmip.StatePreActive, Made: wholeSeconds()}
	for _, attribute := range request.TemplateAttribute.Attribute {
		switch value := attribute.AttributeValue.(type) {
		case int32:
			if attribute.AttributeName == kmip.AttributeNameCryptographicLength {
				made.Length = value
			}
		case kmip.Name:
			made.Name = value.NameValue
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := uuid.NewString()
	s.keys[id] = made
	if err := s.save(); err != nil {
		delete(s.keys, id)
		return nil, err
	}
	return &payloads.CreateResponsePayload{ObjectType: kmip.ObjectTypeSymmetricKey, UniqueIdentifier: id}, nil
}

func (s *Server) change(client, id string, change func(*key)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(client, id)
	if err != nil {
		return err
	}
	change(found)
	return s.save()
}

// wholeSeconds is the time as KMIP has it.
func wholeSeconds() time.Time { return time.Now().UTC().Truncate(time.Second) }

var errNoDirectory = errors.New("requires a directory")

// ReadClient reads what WriteClient wrote, for a server at an address.
func ReadClient(directory, name, address string) (client kmipkeys.Connection, err error) {
	if directory == "" {
		return client, errNoDirectory
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return client, fmt.Errorf("%s: %w", address, err)
	}
	client = kmipkeys.Connection{Address: address, ServerName: host}
	for file, into := range map[string]*[]byte{"ca.pem": &client.CA, "client-" + name + ".pem": &client.Certificate, "client-" + name + ".key": &client.Key} {
		if *into, err = os.ReadFile(filepath.Join(directory, file)); err != nil {
			return client, err
		}
	}
	return client, nil
}
