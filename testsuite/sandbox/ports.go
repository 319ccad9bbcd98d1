package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

const (
	loopback = "127.0.0.1"

	temporalPortFlag  = "temporal-port"
	uiPortFlag        = "ui-port"
	simulatorPortFlag = "simulator-port"

	// Where Temporal's tools, its users and Ops Manager's look first.
	usualTemporalPort  = 7233
	usualUIPort        = 8233
	usualSimulatorPort = 8080
)

// ports to listen on; 0 = any free one, since the usual one is taken.
type ports struct{ temporal, ui, simulator int }

// choosePorts takes the ports that flags have fixed, which must be free, and for
// the others the usual ones that are free.
func choosePorts(s settings) (ports, error) {
	chosen := ports{s.temporalPort, s.uiPort, s.simulatorPort}
	wanted := []struct {
		flag  string
		usual int
		port  *int
	}{
		{temporalPortFlag, usualTemporalPort, &chosen.temporal},
		{uiPortFlag, usualUIPort, &chosen.ui},
		{simulatorPortFlag, usualSimulatorPort, &chosen.simulator},
	}
	given := map[int]string{}
	for _, w := range wanted {
		if *w.port == 0 {
			continue
		}
		if other, twice := given[*w.port]; twice {
			return ports{}, fmt.Errorf("--%s: port %d is also that of --%s", w.flag, *w.port, other)
		}
		if err := tryPort(*w.port); err != nil {
			return ports{}, fmt.Errorf("--%s: port %d %s", w.flag, *w.port, portProblem(err))
		}
		given[*w.port] = w.flag
	}
	for _, w := range wanted {
		if _, isGiven := given[w.usual]; *w.port == 0 && !isGiven && tryPort(w.usual) == nil {
			*w.port = w.usual
		}
	}
	return chosen, nil
}

func tryPort(port int) error {
	listener, err := net.Listen("tcp", loopbackAddress(port))
	if err != nil {
		return err
	}
	return listener.Close()
}

func portProblem(err error) string {
	var system *os.SyscallError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "is taken"
	case errors.As(err, &system):
		return "can't be had: " + system.Err.Error()
	default:
		return "can't be had: " + err.Error()
	}
}

func loopbackAddress(port int) string {
	return net.JoinHostPort(loopback, strconv.Itoa(port))
}

// unlessTaken remarks on a port that isn't the usual one because it was taken.
func unlessTaken(chosen, usual int) string {
	if chosen != 0 {
		return ""
	}
	return fmt.Sprintf(" (port %d is taken)", usual)
}
