package freeport

import (
	"net"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A port stays taken before its server listens and while it is restarted.
func TestChosenPortIsNotChosenAgain(t *testing.T) {
	port, err := Choose()
	require.NoError(t, err)
	require.Error(t, reserve(port), "another process would choose it")
	server, err := net.Listen("tcp", Address(port))
	require.NoError(t, err, "its server can listen")
	assert.NoError(t, server.Close())
}

func TestPortInUseIsNotChosen(t *testing.T) {
	server, err := net.Listen("tcp", Address(0))
	require.NoError(t, err)
	defer server.Close()
	require.Error(t, reserve(server.Addr().(*net.TCPAddr).Port))
}

// A process that is started at the same moment has a copy of the open port until it
// runs its own program.
func TestPortIsFreeBesideStartingProcesses(t *testing.T) {
	stop := make(chan struct{})
	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					assert.NoError(t, exec.Command("true").Run())
				}
			}
		})
	}
	defer func() { close(stop); starting.Wait() }()
	for range 300 {
		port, err := Choose()
		require.NoError(t, err)
		server, err := net.Listen("tcp", Address(port))
		require.NoError(t, err)
		require.NoError(t, server.Close())
	}
}
