package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
)

func health(ctx context.Context, arguments ...string) error {
	command := newCommand(io.Discard)
	command.SetArgs(append([]string{"health"}, arguments...))
	command.SetErr(io.Discard)
	return command.ExecuteContext(ctx)
}

// The program writes what its clients need, and then says that it is ready.
func TestClientsCanUseWhatIsWritten(t *testing.T) {
	directory := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	output, printed := io.Pipe()
	command := newCommand(printed)
	command.SetArgs([]string{"--listen", "127.0.0.1:0", "--directory", directory})
	ended := make(chan error, 1)
	go func() { ended <- command.ExecuteContext(ctx) }()
	address := ""
	for lines := bufio.NewScanner(output); address == "" && lines.Scan(); {
		if ready, found := strings.CutPrefix(lines.Text(), "ready"); found {
			address = strings.TrimSpace(ready)
		}
	}
	require.NotEmpty(t, address)
	require.NoError(t, health(t.Context(), "--directory", directory, "--address", address))
	assert.Error(t, health(t.Context(), "--directory", directory, "--address", address, "--client", "unknown"))
	assert.Error(t, health(t.Context(), "--address", address))

	client, err := kmipevidence.New(kmipevidence.Config{
		Address: address, CAFile: directory + "/ca.pem", ClientCertFile: directory + "/client-keyturn.pem", ClientKeyFile: directory + "/client-keyturn.key",
	})
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.Check(t.Context()))

	stop()
	require.NoError(t, <-ended)
	assert.Error(t, health(t.Context(), "--directory", directory, "--address", address))
}
