package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"keyturn/testsuite/support/freeport"
)

const (
	temporalPortFlag  = "temporal-port"
	uiPortFlag        = "ui-port"
	simulatorPortFlag = "simulator-port"

	// The default ports of Temporal, its Web UI and Ops Manager.
	defaultTemporalPort  = 7233
	defaultUIPort        = 8233
	defaultSimulatorPort = 8080
)

// ports to listen on; 0 means any free port because the default port is in use.
type ports struct{ temporal, ui, simulator int }

// choosePorts uses the ports set by flags, which must be free, and for the
// others the default ports that are free.
func choosePorts(s settings) (ports, error) {
	chosen := ports{s.temporalPort, s.uiPort, s.simulatorPort}
	wanted := []struct {
		flag     string
		standard int
		port     *int
	}{
		{temporalPortFlag, defaultTemporalPort, &chosen.temporal},
		{uiPortFlag, defaultUIPort, &chosen.ui},
		{simulatorPortFlag, defaultSimulatorPort, &chosen.simulator},
	}
	given := map[int]string{}
	for _, w := range wanted {
		if *w.port == 0 {
			continue
		}
		if other, twice := given[*w.port]; twice {
			return ports{}, fmt.Errorf("--%s: port %d is already used by --%s", w.flag, *w.port, other)
		}
		if err := freeport.Check(*w.port); err != nil {
			return ports{}, fmt.Errorf("--%s: port %d %s", w.flag, *w.port, portProblem(err))
		}
		given[*w.port] = w.flag
	}
	for _, w := range wanted {
		if _, isGiven := given[w.standard]; *w.port == 0 && !isGiven && freeport.Check(w.standard) == nil {
			*w.port = w.standard
		}
	}
	return chosen, nil
}

func portProblem(err error) string {
	var system *os.SyscallError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "is in use"
	case errors.As(err, &system):
		return "cannot be used: " + system.Err.Error()
	default:
		return "cannot be used: " + err.Error()
	}
}

// portInUseNote says that the default port is in use if another one was chosen.
func portInUseNote(chosen, standard int) string {
	if chosen != 0 {
		return ""
	}
	return fmt.Sprintf(" (port %d is in use)", standard)
}
