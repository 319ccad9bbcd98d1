package main

import (
	"fmt"
	"net"
	"testing"

	"keyturn/testsuite/support/freeport"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExplicitPortsAreUsed(t *testing.T) {
	want := ports{temporal: freePort(t), ui: freePort(t), simulator: freePort(t)}
	got, err := choosePorts(settings{temporalPort: want.temporal, uiPort: want.ui, simulatorPort: want.simulator})
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestExplicitPortInUseFails(t *testing.T) {
	taken := occupy(t)
	for flag, configured := range map[string]settings{
		temporalPortFlag: {temporalPort: taken}, uiPortFlag: {uiPort: taken}, simulatorPortFlag: {simulatorPort: taken},
	} {
		_, err := choosePorts(configured)
		assert.EqualError(t, err, fmt.Sprintf("--%s: port %d is in use", flag, taken))
	}
}

func TestSamePortTwiceFails(t *testing.T) {
	port := freePort(t)
	_, err := choosePorts(settings{temporalPort: port, simulatorPort: port})
	assert.EqualError(t, err, fmt.Sprintf("--simulator-port: port %d is already used by --temporal-port", port))
}

func TestDefaultPortsInUseAreReplaced(t *testing.T) {
	if listener, err := net.Listen("tcp", freeport.Address(defaultUIPort)); err == nil {
		defer listener.Close() // otherwise, another process uses it already
	}
	got, err := choosePorts(settings{})
	require.NoError(t, err)
	assert.Zero(t, got.ui, "the Web UI gets any free port if its default port is in use")
	assert.Contains(t, portInUseNote(got.ui, defaultUIPort), "8233 is in use")
	assert.Empty(t, portInUseNote(defaultUIPort, defaultUIPort))
}

func occupy(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", freeport.Address(0))
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}
