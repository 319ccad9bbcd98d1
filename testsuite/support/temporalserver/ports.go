package temporalserver

import (
	"fmt"

	"keyturn/testsuite/support/freeport"
)

// ports of one server, which stay the same after a restart.
type ports struct {
	frontend, http, metrics int
	ui                      int // 0 = no Web UI
}

// choosePorts uses the ports in the options, which must be free, and chooses
// free ports for the others.
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
	for _, port := range wanted {
		if *port != 0 {
			continue
		}
		free, err := freeport.Choose(options.Port, options.UIPort)
		if err != nil {
			return ports{}, fmt.Errorf("temporalserver: %w", err)
		}
		*port = free
	}
	return chosen, nil
}

// checkPort returns an error if the port is in use; 0 is always free.
func checkPort(option string, port int) error {
	if port == 0 {
		return nil
	}
	if err := freeport.Check(port); err != nil {
		return fmt.Errorf("temporalserver: %s: cannot use port %d: %w", option, port, err)
	}
	return nil
}
