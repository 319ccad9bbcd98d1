package temporalserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	loopback = "127.0.0.1"
	// Ports are chosen below the range that systems take outgoing connections'
	// ports from (32768 and up on Linux). A client that keeps trying to reach a
	// server that is down would else sooner or later be given the very port it
	// dials, be connected to itself, and keep the server from coming back.
	lowestPort  = 20000
	highestPort = 29999
	portTries   = 100
)

// ports of one server; they stay the same over its restarts.
type ports struct {
	frontend, http, metrics int
	ui                      int // 0 = no Web UI
}

// choosePorts takes the ports that the options name, which must be free, and
// free ones for the others.
func choosePorts(options Options) (ports, error) {
	chosen := ports{frontend: options.Port, ui: options.UIPort}
	if err := checkPort("Port", chosen.frontend); err != nil {
		return ports{}, err
	}
	if err := checkPort("UIPort", chosen.ui); err != nil {
		return ports{}, err
	}
	wanted := []*int{&chosen.frontend, &chosen.http, &chosen.metrics}
	if options.UI {
		wanted = append(wanted, &chosen.ui)
	}
	taken := map[int]bool{options.Port: true, options.UIPort: true}
	for _, port := range wanted {
		if *port != 0 {
			continue
		}
		free, err := freePort(taken)
		if err != nil {
			return ports{}, err
		}
		*port, taken[free] = free, true
	}
	return chosen, nil
}

// checkPort refuses a port that something else listens on; 0 is always free.
func checkPort(option string, port int) error {
	if port == 0 {
		return nil
	}
	if err := tryPort(port); err != nil {
		return fmt.Errorf("temporalserver: %s: port %d can't be had: %w", option, port, err)
	}
	return nil
}

// FreePort finds a port for another server beside it, from the same range.
func FreePort() (int, error) { return freePort(nil) }

func freePort(taken map[int]bool) (int, error) {
	for range portTries {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if !taken[port] && tryPort(port) == nil {
			return port, nil
		}
	}
	return 0, errors.New("temporalserver: found no free port")
}

func tryPort(port int) error {
	listener, err := net.Listen("tcp", address(port))
	if err != nil {
		return err
	}
	return listener.Close()
}

func address(port int) string {
	return net.JoinHostPort(loopback, strconv.Itoa(port))
}
