// Package containers runs Dockerfile and docker-compose.yml as they stand, on a
// Docker engine, and rotations on what comes of them: with containers that
// crash, networks that part, and a new version in the middle.
//
//	go test -v -parallel 4 -timeout 1h ./testsuite/containers -trials
//
// All that is compiled in the images' builds is compiled anew after a change, and
// twice: on a busy machine, that takes longer than the ten minutes that go test
// allows by itself.
//
// Where the public images can't be pulled, it makes stand-ins for them, and
// removes those in the end. Made before, they stay, and what was compiled with
// them:
//
//	go run ./testsuite/containers/standins
package containers

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var withTrials = flag.Bool("trials", false, "build the images and run rotations in containers; takes minutes, and a Docker engine")

// root is where the Dockerfile is, seen from the package.
const root = "../.."

// needEngine skips where containers can't be run, which is no fault of keyturn's.
func needEngine(t *testing.T) {
	t.Helper()
	if !*withTrials {
		t.Skip("containers are tried with the flag -trials only")
	}
	if err := exec.Command("docker", "version").Run(); err != nil {
		t.Skip("there is no Docker engine: docker version: ", err)
	}
	if composeCommand() == nil {
		t.Skip("there is neither docker compose nor docker-compose")
	}
}

// composeCommand is Compose 2 or 1.29; nil = there is neither.
func composeCommand() []string {
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() == nil {
			return command
		}
	}
	return nil
}

// needImages makes stand-ins for images that can't be had.
func needImages(t *testing.T) {
	t.Helper()
	said := output(t, "go", "run", "./standins")
	t.Log(said)
	if strings.Contains(said, "has a stand-in") {
		t.Cleanup(func() { t.Log(output(t, "go", "run", "./standins", "-remove")) })
	}
}

// output runs a command that must succeed, also in a cleanup.
func output(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	return outputOf(t, exec.CommandContext(context.Background(), name, arguments...))
}

func outputOf(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	require.NoError(t, err, "%s: %s", command, complaint.String())
	return strings.TrimSpace(string(out))
}

// cleanEnvironment is this process's, without what would turn the trials to a
// developer's own settings.
func cleanEnvironment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		own := false
		for _, prefix := range []string{"KEYTURN_", "OPS_MANAGER_", "TEMPORAL_", "COMPOSE_"} {
			own = own || strings.HasPrefix(entry, prefix)
		}
		if !own {
			kept = append(kept, entry)
		}
	}
	return kept
}
