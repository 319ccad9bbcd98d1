package kmipsimulator

import (
	"testing"
	"time"

	"keyturn/internal/kmipevidence"
)

// StartForTest starts a server that ends with the test.
func StartForTest(t testing.TB, options Options) *Server {
	t.Helper()
	s, err := Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// EvidenceClient returns a client of the server, as a worker has one, under that
// name.
func (s *Server) EvidenceClient(t testing.TB, name string) *kmipevidence.Client {
	t.Helper()
	ca, certificate, key, err := s.WriteClient(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kmipevidence.New(kmipevidence.Config{Address: s.Address(), CAFile: ca, ClientCertFile: certificate, ClientKeyFile: key, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// MakeKey makes an active key for the client of that name, as an Ops Manager does,
// and returns its id.
func (s *Server) MakeKey(t testing.TB, name string) (id string) {
	t.Helper()
	connection, err := s.Client("ops-manager")
	if err != nil {
		t.Fatal(err)
	}
	id, err = connection.NewActiveKey(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
