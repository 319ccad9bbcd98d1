package freeport

import (
	"net"
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
