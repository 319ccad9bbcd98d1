package faultinjection

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer is the only name server that this program uses. It resolves the
// names that tests have registered for this host, and fails for names that are
// down.
var dnsServer = nameServer{known: map[string]bool{}}

type nameServer struct {
	mu    sync.Mutex
	known map[string]bool // false = down
}

func (n *nameServer) install() {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		asking, answering := net.Pipe()
		go n.serve(answering)
		return asking, nil
	}}
}

// set registers a name for this host, or takes it down.
func (n *nameServer) set(name string, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[name] = up
}

func (n *nameServer) isUp(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[strings.TrimSuffix(name, ".")]
}

// serve answers questions in the format of DNS over a stream, with a length
// before each message. It ends with the connection.
func (n *nameServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		var length uint16
		if binary.Read(conn, binary.BigEndian, &length) != nil {
			return
		}
		question := make([]byte, length)
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		answer, err := n.answer(question)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (n *nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.Additionals = true, nil
	asked := m.Questions[0]
	switch {
	case !n.isUp(asked.Name.String()):
		m.RCode = dnsmessage.RCodeServerFailure
	case asked.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: asked.Name, Type: asked.Type, Class: asked.Class},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	return m.Pack()
}
