// Package programs builds keyturn's programs for tests.
package programs

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/childproc"
)

// Build builds a program of the module, such as "./worker", and returns its path. The
// program is gone when the test has ended.
func Build(t testing.TB, name string) string {
	t.Helper()
	root, err := childproc.ModuleRoot(t.Context())
	require.NoError(t, err)
	folder := t.TempDir()
	var output bytes.Buffer
	require.NoError(t, childproc.Build(t.Context(), root, folder, folder, &output, name), "%s", &output)
	return filepath.Join(folder, filepath.Base(name))
}
