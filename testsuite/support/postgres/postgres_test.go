package postgres

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServerKeepsDataOverACrashAndLeavesNothingBehind(t *testing.T) {
	server, err := Start()
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer func() {
		require.NoError(t, server.Stop())
		require.NoDirExists(t, server.directory)
	}()
	require.FileExists(t, server.PasswordFile())
	password, err := os.ReadFile(server.PasswordFile())
	require.NoError(t, err)
	require.Equal(t, server.password+"\n", string(password))

	_, database := server.Database(t)
	_, err = database.Exec(`CREATE TABLE kept (value TEXT)`)
	require.NoError(t, err)
	require.NoError(t, server.Crash())
	require.Error(t, database.Ping())
	require.NoError(t, server.Restart())
	_, err = database.Exec(`INSERT INTO kept VALUES ('one')`)
	require.NoError(t, err)
}
