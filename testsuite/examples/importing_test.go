// Package examples_test builds and tests the example module that imports keyturn
// the way another team's repository does.
package examples_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// importingModule is the folder of the example module. It has its own go.mod, so
// that `go test ./...` of keyturn does not enter it.
const importingModule = "importing"

// goCommand runs the go tool in the example module and returns its standard
// output. The flags and workspaces of the caller do not apply there.
func goCommand(t *testing.T, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", arguments...)
	command.Dir = importingModule
	command.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	var stderr strings.Builder
	command.Stderr = &stderr
	stdout, err := command.Output()
	require.NoError(t, err, "go %s: %s%s\nIf its go.mod is out of date: go -C testsuite/examples/importing mod tidy",
		strings.Join(arguments, " "), stdout, stderr.String())
	return string(stdout)
}

func TestModuleThatImportsKeyturn(t *testing.T) {
	goCommand(t, "build", "-o", t.TempDir(), "./...")
	goCommand(t, "vet", "./...")
	goCommand(t, "test", "-count=1", "./...")
}

// Another team needs the package workflows and no other one of keyturn.
func TestModuleImportsWorkflowsAlone(t *testing.T) {
	listed := goCommand(t, "list", "-f", `{{join .Imports "\n"}}{{"\n"}}{{join .TestImports "\n"}}`, "./...")
	var imported []string
	for _, path := range strings.Fields(listed) {
		if strings.HasPrefix(path, "keyturn/") {
			imported = append(imported, path)
		}
	}
	require.NotEmpty(t, imported, "the module must import keyturn")
	for _, path := range imported {
		assert.Equal(t, "keyturn/workflows", path)
	}
}
