package kmipevidence_test

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipclient"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/support/pykmip"
	"keyturn/testsuite/support/testca"
)

// Tags and operations by the KMIP specification: what goes over the wire is not
// judged by the library that wrote it.
const (
	tagBatchItem   = 0x42000f
	tagKeyBlock    = 0x420040
	tagKeyMaterial = 0x420043
	tagKeyValue    = 0x420045
	tagOperation   = 0x42005c

	operationLocate        = 0x08
	operationGet           = 0x0a
	operationGetAttributes = 0x0b
	operationQuery         = 0x18
)

// recorder terminates TLS between a client and a KMIP server and keeps all that
// both send.
type recorder struct {
	listener net.Listener
	dial     func() (net.Conn, error)

	mu                sync.Mutex
	requests, answers [][]byte // one of each per connection
}

func startRecorder(t *testing.T, dial func() (net.Conn, error)) (r *recorder, ca *testca.CA) {
	ca = testca.New(t, "recorder")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "recorder")}})
	require.NoError(t, err)
	r = &recorder{listener: listener, dial: dial}
	go r.serve()
	t.Cleanup(func() { _ = listener.Close() })
	return r, ca
}

func (r *recorder) serve() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := r.dial()
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		i := len(r.requests)
		r.requests, r.answers = append(r.requests, nil), append(r.answers, nil)
		r.mu.Unlock()
		go r.pass(client, server, &r.requests, i)
		go r.pass(server, client, &r.answers, i)
	}
}

func (r *recorder) pass(from, to net.Conn, into *[][]byte, i int) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		(*into)[i] = append((*into)[i], buffer[:n]...)
		r.mu.Unlock()
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// seen returns the operations that were asked for, and all tags of the answers.
func (r *recorder) seen(t *testing.T) (operations, answerTags []uint32) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sent := range r.requests {
		items := 0
		walk(t, sent, func(tag uint32, value []byte) {
			switch tag {
			case tagBatchItem:
				items++
			case tagOperation:
				operations = append(operations, binary.BigEndian.Uint32(value))
				items--
			}
		})
		assert.Zero(t, items, "each request names its operation")
	}
	for _, sent := range r.answers {
		walk(t, sent, func(tag uint32, _ []byte) { answerTags = append(answerTags, tag) })
	}
	return operations, answerTags
}

// walk visits each item of TTLV messages: three bytes of tag, one of type, four
// of length, the value, padding to eight bytes; a value of type 1 is made of
// items.
func walk(t *testing.T, content []byte, visit func(tag uint32, value []byte)) {
	t.Helper()
	for len(content) > 0 {
		require.GreaterOrEqual(t, len(content), 8)
		tag, kind := binary.BigEndian.Uint32(content)>>8, content[3]
		length := int(binary.BigEndian.Uint32(content[4:]))
		padded := (length + 7) / 8 * 8
		require.GreaterOrEqual(t, len(content), 8+padded)
		value := content[8 : 8+length]
		visit(tag, value)
		if kind == 1 {
			walk(t, value, visit)
		}
		content = content[8+padded:]
	}
}

// TestKeyMaterialIsNeverAskedFor reads all that goes over the wire, in both
// directions, whatever the client meets.
func TestKeyMaterialIsNeverAskedFor(t *testing.T) {
	server := pykmip.StartForTest(t)
	id := server.MakeKey(t, owner, "key")
	certificateFile, keyFile, err := server.ClientFiles(owner)
	require.NoError(t, err)
	pair, err := tls.LoadX509KeyPair(certificateFile, keyFile)
	require.NoError(t, err)
	strangerCertificate, strangerKey, err := server.ClientFiles("stranger")
	require.NoError(t, err)
	stranger, err := tls.LoadX509KeyPair(strangerCertificate, strangerKey)
	require.NoError(t, err)
	dialAs := func(pair tls.Certificate) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			return tls.Dial("tcp", server.Address(), &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}) //nolint:gosec // the recorder is the one in the middle
		}
	}

	own, ownCA := startRecorder(t, dialAs(pair))
	foreign, foreignCA := startRecorder(t, dialAs(stranger))
	outcomes := map[kmipevidence.Outcome]bool{}
	for _, side := range []struct {
		*recorder
		ca *testca.CA
	}{{own, ownCA}, {foreign, foreignCA}} {
		client := newClient(t, kmipevidence.Config{Address: side.listener.Addr().String(), CAFile: writeCA(t, side.ca), Timeout: time.Minute})
		require.NoError(t, client.Check(t.Context()))
		for _, asked := range []string{id, "no-such-key", ""} {
			outcomes[client.Ask(t.Context(), asked).Outcome] = true
		}
		client.Close()
	}
	assert.Len(t, outcomes, 4, "every outcome was met: %v", outcomes)

	for _, side := range []*recorder{own, foreign} {
		operations, answerTags := side.seen(t)
		for _, allowed := range []uint32{operationQuery, operationLocate, operationGetAttributes} {
			assert.Contains(t, operations, allowed)
		}
		for _, operation := range operations {
			assert.Contains(t, []uint32{operationQuery, operationLocate, operationGetAttributes}, operation)
		}
		assertNoKeyMaterial(t, answerTags)
	}

	t.Run("the recorder sees a client that asks for it", func(t *testing.T) {
		greedy, err := kmipclient.DialContext(t.Context(), own.listener.Addr().String(), kmipclient.WithRootCAPem(ownCA.PEM), kmipclient.EnforceVersion(kmip.V1_2))
		require.NoError(t, err)
		defer func() { _ = greedy.Close() }()
		_, err = greedy.Get(id).ExecContext(t.Context())
		require.NoError(t, err)
		operations, answerTags := own.seen(t)
		assert.Contains(t, operations, uint32(operationGet))
		assert.True(t, slices.Contains(answerTags, tagKeyMaterial))
	})
}

func assertNoKeyMaterial(t *testing.T, tags []uint32) {
	t.Helper()
	for _, secret := range []uint32{tagKeyBlock, tagKeyMaterial, tagKeyValue} {
		assert.NotContains(t, tags, secret)
	}
}
