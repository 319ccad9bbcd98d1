package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

func TestFixedPortsAreTaken(t *testing.T) {
	want := ports{temporal: unusedPort(t), ui: unusedPort(t), simulator: unusedPort(t)}
	got, err := choosePorts(settings{temporalPort: want.temporal, uiPort: want.ui, simulatorPort: want.simulator})
	if err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestTakenFixedPortIsTold(t *testing.T) {
	taken := occupy(t)
	for flag, configured := range map[string]settings{
		temporalPortFlag: {temporalPort: taken}, uiPortFlag: {uiPort: taken}, simulatorPortFlag: {simulatorPort: taken},
	} {
		_, err := choosePorts(configured)
		if want := fmt.Sprintf("--%s: port %d is taken", flag, taken); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOnePortForTwoIsTold(t *testing.T) {
	port := unusedPort(t)
	_, err := choosePorts(settings{temporalPort: port, simulatorPort: port})
	if want := fmt.Sprintf("--simulator-port: port %d is also that of --temporal-port", port); err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestUsualPortsGiveWayToWhoeverHasThem(t *testing.T) {
	if listener, err := net.Listen("tcp", loopbackAddress(usualUIPort)); err == nil {
		defer listener.Close() // else somebody else has it, which is as good
	}
	got, err := choosePorts(settings{})
	if err != nil || got.ui != 0 {
		t.Errorf("got %+v, %v; want any port for the Web UI, whose usual one is taken", got, err)
	}
	if remark := unlessTaken(got.ui, usualUIPort); !strings.Contains(remark, "8233 is taken") {
		t.Errorf("got %q, want a remark that the usual port is taken", remark)
	}
	if remark := unlessTaken(usualUIPort, usualUIPort); remark != "" {
		t.Errorf("got %q of a port that was to be had", remark)
	}
}

func occupy(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", loopbackAddress(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}
