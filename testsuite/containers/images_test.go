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

// The versions of the images.
const (
	first  = "v1"
	second = "v2"
)

// maxImageSize is the limit for the worker's image with both programs, in
// bytes.
const maxImageSize = 80 << 20

// images are the images built by docker-compose.yml.
type images struct {
	prefix string // of their versions, unique to this process
}

// buildImages builds two versions, and removes them when the test ends.
func buildImages(t *testing.T) images {
	t.Helper()
	i := images{prefix: "keyturn-test-" + strconv.Itoa(os.Getpid())}
	t.Cleanup(func() { i.remove(t) })
	settings := settingsFile(t)
	i.compose(t, first, nil, "--env-file", settings, "--profile", "simulator", "build")
	i.compose(t, second, nil, "--env-file", settings, "build", workerService)
	return i
}

// version is the full name of a version.
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

// settingsFile replaces a developer's own .env, which may name a real Ops Manager.
func settingsFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.env")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return path
}

func (i images) remove(t *testing.T) {
	names := output(t, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=keyturn*:"+i.prefix+"*")
	for _, name := range strings.Fields(names) {
		output(t, "docker", "image", "rm", name)
	}
}

// programs of the worker's image, and the package that each is built from.
var programs = map[string]string{"keyturn": "starter", "keyturn-worker": "worker"}

// check checks the contents and the output of the worker's image.
func (i images) check(t *testing.T) {
	t.Helper()
	image := "keyturn:" + i.version(first)
	for program := range programs {
		assert.Equal(t, program+" version "+i.version(first), output(t, "docker", "run", "--rm", image, program, "--version"))
	}
	said, err := exec.Command("docker", "run", "--rm", image).CombinedOutput()
	assert.Error(t, err, "without settings, the worker must fail")
	assert.Contains(t, string(said), "OPS_MANAGER_URL: is required")

	inspected := strings.Fields(output(t, "docker", "image", "inspect", "--format",
		`{{.Size}} {{.Config.User}} {{index .Config.Labels "org.opencontainers.image.version"}}`, image))
	size, err := strconv.Atoi(inspected[0])
	require.NoError(t, err)
	assert.Less(t, size, maxImageSize)
	assert.Equal(t, []string{"65532", i.version(first)}, inspected[1:], "user and version")
	t.Logf("size of the worker's image: %.1f MB", float64(size)/1e6)
	i.checkBytes(t, image)
}

// checkBytes builds the programs again outside of a container, with the Go
// version of the Dockerfile: the executables must be identical.
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

	container := output(t, "docker", "create", "--label", "keyturn.test="+i.prefix, image)
	defer output(t, "docker", "rm", container)
	for program, folderName := range programs {
		fromImage := filepath.Join(folder, program+".image")
		output(t, "docker", "cp", container+":/usr/local/bin/"+program, fromImage)
		assert.Equal(t, hashOf(t, filepath.Join(folder, folderName)), hashOf(t, fromImage), program)
		t.Logf("%s, both builds: sha256 %s", program, hashOf(t, fromImage))
	}
}

func hashOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
