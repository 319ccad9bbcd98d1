package containers

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The build context has all packages that the programs need, and nothing else
// of the repository.
func TestBuildContext(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	require.Contains(t, lines, "*", "only what is listed may be in the build context")
	list := exec.Command("go", "list", "-deps", "-f", `{{if and .Module .Module.Main}}{{.ImportPath}}{{end}}`,
		"keyturn/worker", "keyturn/starter", "keyturn/testsuite/simulator/opsmanager-simulator", "keyturn/testsuite/simulator/kmip-simulator")
	packages := strings.Fields(outputOf(t, list))
	require.NotEmpty(t, packages)
	for _, name := range packages {
		folder := strings.TrimPrefix(name, "keyturn/")
		for folder != "." && !slices.Contains(lines, "!"+folder) {
			folder = path.Dir(folder)
		}
		assert.NotEqual(t, ".", folder, "%s must be in the build context", name)
	}
}
