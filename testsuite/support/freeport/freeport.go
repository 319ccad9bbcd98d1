// Package freeport chooses ports for servers that tests start.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

const (
	// Loopback is the address that the servers listen on.
	Loopback = "127.0.0.1"
	// Ports are below the range of ephemeral ports (32768 and up on Linux).
	// Otherwise, a client that keeps dialing a stopped server would eventually
	// get the very port that it dials, connect to itself and prevent the
	// restart of the server.
	lowest  = 20000
	highest = 29999
	tries   = 100
)

// Choose returns a free port of the loopback address, but none of those to leave out.
// No other test chooses it for as long as this process runs.
func Choose(except ...int) (int, error) {
	for range tries {
		port := lowest + rand.IntN(highest-lowest+1)
		if !slices.Contains(except, port) && reserve(port) == nil {
			return port, nil
		}
	}
	return 0, errors.New("no free port found")
}

// reservations keep other tests, also those of other processes, from choosing a
// port before its server listens on it, or while its server is restarted: a client
// would find another server there. They last as long as the process.
var (
	reservationsLock sync.Mutex
	reservations     []net.PacketConn
)

// reserve takes a free port. The server listens on TCP, so UDP is left to mark the
// port with.
func reserve(port int) error {
	mark, err := net.ListenPacket("udp", Address(port))
	if err != nil {
		return err
	}
	if err := Check(port); err != nil {
		return errors.Join(err, mark.Close())
	}
	reservationsLock.Lock()
	defer reservationsLock.Unlock()
	reservations = append(reservations, mark)
	return nil
}

// Go starts one process without syscall.ForkLock, when it first needs to know what the
// system can do: it does so here, before a port is examined.
func init() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
}

// Check returns an error if a server cannot listen on a port.
func Check(port int) error {
	// A process that starts now would get a copy of the listener, and keep the port
	// until it runs its own program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	listener, err := net.Listen("tcp", Address(port))
	if err != nil {
		return err
	}
	return listener.Close()
}

// Address is a port of the loopback address.
func Address(port int) string {
	return net.JoinHostPort(Loopback, strconv.Itoa(port))
}
