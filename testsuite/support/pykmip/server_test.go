package pykmip_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/pykmip"
)

func TestMissingServerIsSaid(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := pykmip.Start(t.Context(), t.TempDir())
	require.ErrorIs(t, err, pykmip.ErrMissing)
	assert.ErrorContains(t, err, "python3-pykmip")
}

func TestServerKeepsItsKeysOverARestart(t *testing.T) {
	server := pykmip.StartForTest(t)
	id := server.MakeKey(t, "client", "name")
	server.Stop()
	require.NoError(t, server.Restart(t.Context()))
	maker := server.KeyMakerForTest(t, "client")
	assert.NoError(t, maker.Activate(t.Context(), id))
	assert.Error(t, maker.Destroy(t.Context(), id), "an Active key cannot be destroyed")
	assert.NoError(t, maker.Deactivate(t.Context(), id))
	assert.NoError(t, maker.Destroy(t.Context(), id))
	assert.ErrorContains(t, maker.Activate(t.Context(), id), "ItemNotFound")
}
