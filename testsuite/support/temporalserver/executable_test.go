package temporalserver

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExecutableOnPathIsPreferred(t *testing.T) {
	script := writeScript(t, "#!/bin/sh\n")
	t.Setenv("PATH", filepath.Dir(script))
	path, err := Executable(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, script, path)
}

func TestExecutableIsBuiltInTheSurroundingModule(t *testing.T) {
	built := writeScript(t, "#!/bin/sh\n")
	fakeGo(t, "echo downloading >&2; pwd; echo $GOFLAGS,$GOWORK,$@; echo "+built)
	t.Setenv("GOFLAGS", "-mod=vendor")
	root := fakeModule(t)
	t.Chdir(filepath.Join(root, "some", "package"))
	path, err := Executable(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, built, path)
	printed, err := os.ReadFile(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "keyturn", "temporal-build.out"))
	require.NoError(t, err)
	want := "-mod=readonly,off,-C " + filepath.Join(root, "tools", "temporal") + " tool -n temporal"
	assert.Contains(t, string(printed), want)
}

func TestBuildOutlivesItsCaller(t *testing.T) {
	built := writeScript(t, "#!/bin/sh\n")
	release := filepath.Join(t.TempDir(), "release")
	builds := filepath.Join(t.TempDir(), "builds")
	fakeGo(t, "echo one >> "+builds+"; while ! [ -e "+release+" ]; do sleep 0.05; done; echo "+built)
	t.Chdir(fakeModule(t))

	first, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Executable(first, nil)
	require.ErrorIs(t, err, ErrNotReady)
	// The running build holds the lock: a second one does not start.
	second, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = Executable(second, nil)
	require.ErrorIs(t, err, ErrNotReady)
	started, err := os.ReadFile(builds)
	require.NoError(t, err)
	require.Equal(t, "one\n", string(started), "only one build may start")
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	path, err := Executable(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, built, path)
}

func TestFailedBuildReportsOutput(t *testing.T) {
	fakeGo(t, "echo no such module >&2; exit 1")
	t.Chdir(fakeModule(t))
	_, err := Executable(t.Context(), nil)
	assert.ErrorContains(t, err, "no such module")
}

func TestBuildWithoutPathFails(t *testing.T) {
	fakeGo(t, "echo nowhere")
	t.Chdir(fakeModule(t))
	_, err := Executable(t.Context(), nil)
	assert.ErrorContains(t, err, "nowhere")
}

func TestErrorNamesWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	_, err := Executable(t.Context(), nil)
	assert.ErrorContains(t, err, "PATH")
	t.Chdir(fakeModule(t))
	_, err = Executable(t.Context(), nil)
	assert.ErrorContains(t, err, "`go`")
}

func TestLongBuildIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		reporter := newReporter(func(line string) { lines = append(lines, line) }, time.Duration.String)
		time.Sleep(quietTime + 2*progressInterval + time.Second)
		reporter.stop()
		assert.Equal(t, []string{"3s", "33s", "1m3s"}, lines)
	})
}

func TestShortBuildIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reporter := newReporter(func(line string) { assert.Fail(t, "a short build must report nothing", line) }, time.Duration.String)
		time.Sleep(quietTime - time.Millisecond)
		reporter.stop()
	})
}

// fakeGo replaces the go command with a shell script, with a cache of its own
// for the lock.
func fakeGo(t *testing.T, script string) {
	t.Helper()
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go"), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	t.Setenv("PATH", directory+":/usr/bin:/bin")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(DownloadVariable, "off")
}

// fakeModule is a directory with tools/temporal and a package.
func fakeModule(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, directory := range []string{toolDirectory, filepath.Join("some", "package")} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, directory), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, toolDirectory, "go.mod"), []byte("module tools\n\nrequire (\n\tgithub.com/temporalio/cli v9.8.7 // indirect\n)\n"), 0o600))
	return root
}

// writeScript writes an executable file named temporal.
func writeScript(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "temporal")
	require.NoError(t, os.WriteFile(path, []byte(script), 0o700))
	return path
}
