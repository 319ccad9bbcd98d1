package pykmip

import (
	"errors"
	"testing"

	"keyturn/testsuite/support/kmipkeys"
)

// StartForTest starts a server for one test and stops it when the test ends. The
// test is skipped where pykmip-server is missing. The last lines that the server
// wrote are logged if the test has failed.
func StartForTest(t testing.TB) *Server {
	t.Helper()
	server, err := Start(t.Context(), t.TempDir())
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		if t.Failed() {
			t.Logf("the KMIP server's last lines:\n%s", server.LastLines())
		}
	})
	return server
}

// MakeKey makes a key as the client of that name.
func (s *Server) MakeKey(t testing.TB, client, keyName string) (id string) {
	t.Helper()
	id, err := s.KeyMakerForTest(t, client).Create(t.Context(), keyName)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// KeyMakerForTest connects as the client of that name until the test ends.
func (s *Server) KeyMakerForTest(t testing.TB, client string) *kmipkeys.KeyMaker {
	t.Helper()
	maker, err := s.NewKeyMaker(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(maker.Close)
	return maker
}
