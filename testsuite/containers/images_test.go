package containers

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The versions of the images that are built.
const (
	first  = "v1"
	second = "v2"
)

// maxImageSize is the worker's image with both programs, in bytes.
const maxImageSize = 64 << 20

// images are those that docker-compose.yml builds.
type images struct {
	prefix string // of their versions: nobody else's images have it
}

// buildImages builds two versions, and removes them when the test ends.
func buildImages(t *testing.T) images {
	t.Helper()
	i := images{prefix: "keyturn-trial-" + strconv.Itoa(os.Getpid())}
	t.Cleanup(func() { i.remove(t) })
	settings := emptySettings(t)
	i.compose(t, first, nil, "--env-file", settings, "--profile", "simulator", "build")
	i.compose(t, second, nil, "--env-file", settings, "build", workerService)
	return i
}

// version is the whole of a version's name.
func (i images) version(name string) string { return i.prefix + "-" + name }

// compose runs docker compose with the images of a version.
func (i images) compose(t *testing.T, version string, variables []string, arguments ...string) string {
	t.Helper()
	words := slices.Concat(composeCommand(), arguments)
	command := exec.Command(words[0], words[1:]...)
	command.Dir = root
	command.Env = append(cleanEnvironment(), "KEYTURN_VERSION="+i.version(version))
	command.Env = append(command.Env, variables...)
	return outputOf(t, command)
}

// emptySettings is a file in place of a developer's own .env, which may name a
// real Ops Manager.
func emptySettings(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "none.env")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	return path
}

func (i images) remove(t *testing.T) {
	names := output(t, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=keyturn*:"+i.prefix+"*")
	for _, name := range strings.Fields(names) {
		output(t, "docker", "image", "rm", name)
	}
}

// check looks at the worker's image: what is in it, and what it says.
func (i images) check(t *testing.T) {
	t.Helper()
	image := "keyturn:" + i.version(first)
	for _, program := range []string{"worker", "starter"} {
		assert.Equal(t, program+" version "+i.version(first), output(t, "docker", "run", "--rm", image, program, "--version"))
	}
	said, err := exec.Command("docker", "run", "--rm", image).CombinedOutput()
	assert.Error(t, err, "it is the worker, without settings")
	assert.Contains(t, string(said), "OPS_MANAGER_URL: is missing")

	inspected := strings.Fields(output(t, "docker", "image", "inspect", "--format",
		`{{.Size}} {{.Config.User}} {{index .Config.Labels "org.opencontainers.image.version"}}`, image))
	size, err := strconv.Atoi(inspected[0])
	require.NoError(t, err)
	assert.Less(t, size, maxImageSize)
	assert.Equal(t, []string{"65532", i.version(first)}, inspected[1:], "user and version")
	t.Logf("the worker's image: %.1f MB", float64(size)/1e6)
	i.checkBytes(t, image)
}

// checkBytes builds the programs a second time, here and not in a container,
// with the Go that the Dockerfile names: they must be the same to the byte.
func (i images) checkBytes(t *testing.T, image string) {
	t.Helper()
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	toolchain := regexp.MustCompile(`(?m)^FROM golang:([0-9.]+)`).FindSubmatch(dockerfile)
	require.NotNil(t, toolchain)
	folder := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X keyturn/internal/version.linked="+i.version(first), "-o", folder, "keyturn/worker", "keyturn/starter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOTOOLCHAIN=go"+string(toolchain[1]))
	outputOf(t, build)

	container := output(t, "docker", "create", "--label", "keyturn.trial="+i.prefix, image)
	defer output(t, "docker", "rm", container)
	for _, program := range []string{"worker", "starter"} {
		fromImage := filepath.Join(folder, program+".image")
		output(t, "docker", "cp", container+":/usr/local/bin/"+program, fromImage)
		assert.Equal(t, hashOf(t, filepath.Join(folder, program)), hashOf(t, fromImage), program)
		t.Logf("%s, built twice: sha256 %s", program, hashOf(t, fromImage))
	}
}

func hashOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
