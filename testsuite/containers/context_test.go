package containers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// All packages that the programs are compiled from, and none of the other
// things that lie in the repository's folder, are sent to the engine.
func TestBuildContext(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	require.Contains(t, lines, "*", "nothing is sent but what is named")
	list := exec.Command("go", "list", "-deps", "-f", `{{if and .Module .Module.Main}}{{.ImportPath}}{{end}}`,
		"keyturn/worker", "keyturn/starter", "keyturn/testsuite/simulator/opsmanager-simulator")
	packages := strings.Fields(outputOf(t, list))
	require.NotEmpty(t, packages)
	for _, name := range packages {
		parts := strings.Split(strings.TrimPrefix(name, "keyturn/"), "/")
		folder := parts[0]
		if folder == "testsuite" {
			folder += "/" + parts[1]
		}
		assert.Contains(t, lines, "!"+folder, "%s is not in the build context", name)
	}
}
