package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each mutation has its one place in the code as it is: the mutations themselves
// take too long to find out.
func TestMutationsAreUpToDate(t *testing.T) {
	for _, m := range mutations {
		whole, err := os.ReadFile(filepath.Join("..", "..", m.file))
		require.NoError(t, err, m.name)
		assert.Equal(t, 1, strings.Count(string(whole), m.old), "%s: its place in %s", m.name, m.file)
	}
}
