// Package containers runs rotations with the Dockerfile and docker-compose.yml
// on a Docker engine: with containers that crash, networks that are
// disconnected, and a new version in the middle of a rotation.
//
//	go test -v -parallel 4 -timeout 1h ./testsuite/containers -trials
//
// After a change, the image builds compile everything twice: on a busy machine,
// that takes longer than the default timeout of ten minutes.
//
// If the base images cannot be pulled, the test creates replacements and
// removes them at the end. If you create them before, they remain, with their
// build cache:
//
//	go run ./testsuite/support/offlineimages
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

var runContainers = flag.Bool("trials", false, "build the images and run rotations in containers; takes minutes and requires a Docker engine")

const offlineImages = "keyturn/testsuite/support/offlineimages"

// root is the directory of the Dockerfile.
const root = "../.."

// requireEngine skips the test if containers cannot be run.
func requireEngine(t *testing.T) {
	t.Helper()
	if !*runContainers {
		t.Skip("requires the flag -trials")
	}
	if err := exec.Command("docker", "version").Run(); err != nil {
		t.Skip("requires a Docker engine: docker version: ", err)
	}
	if composeCommand() == nil {
		t.Skip("requires docker compose or docker-compose")
	}
}

// composeCommand is the command of Compose 2 or 1.29; nil if neither is
// installed.
func composeCommand() []string {
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() == nil {
			return command
		}
	}
	return nil
}

// requireImages creates replacements for images that cannot be pulled.
func requireImages(t *testing.T) {
	t.Helper()
	created := output(t, "go", "run", offlineImages)
	t.Log(created)
	if strings.Contains(created, "was replaced") {
		t.Cleanup(func() { t.Log(output(t, "go", "run", offlineImages, "-remove")) })
	}
}

// output runs a command that must succeed, also during cleanup.
func output(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	return outputOf(t, exec.CommandContext(context.Background(), name, arguments...))
}

func outputOf(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	require.NoError(t, err, "%s: %s", command, stderr.String())
	return strings.TrimSpace(string(out))
}

// cleanEnvironment is the environment of this process without a developer's own
// settings.
func cleanEnvironment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		own := false
		for _, prefix := range []string{"KEYTURN_", "OPS_MANAGER_", "KMIP_", "TEMPORAL_", "COMPOSE_"} {
			own = own || strings.HasPrefix(entry, prefix)
		}
		if !own {
			kept = append(kept, entry)
		}
	}
	return kept
}
