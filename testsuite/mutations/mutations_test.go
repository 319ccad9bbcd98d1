package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The original text of each mutation occurs exactly once in its file. Running all
// mutations would show the same but takes too long.
func TestMutationsAreUpToDate(t *testing.T) {
	for _, m := range mutations {
		whole, err := os.ReadFile(filepath.Join("..", "..", m.file))
		require.NoError(t, err, m.name)
		assert.Equal(t, 1, strings.Count(string(whole), m.old), "%s: the original text in %s", m.name, m.file)
	}
}
