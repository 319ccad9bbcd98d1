package temporalserver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestExecutableOnThePathComesFirst(t *testing.T) {
	script := writeScript(t, "#!/bin/sh\n")
	t.Setenv("PATH", filepath.Dir(script))
	path, err := Executable(t.Context(), nil)
	if err != nil || path != script {
		t.Errorf("got %q, %v; want %q", path, err, script)
	}
}

func TestExecutableIsBuiltInTheModuleAroundTheWorkingDirectory(t *testing.T) {
	built := writeScript(t, "#!/bin/sh\n")
	fakeGo(t, "echo downloading >&2; pwd; echo $GOFLAGS,$GOWORK,$@; echo "+built)
	t.Setenv("GOFLAGS", "-mod=vendor")
	root := fakeModule(t)
	t.Chdir(filepath.Join(root, "some", "package"))
	path, err := Executable(t.Context(), nil)
	if err != nil || path != built {
		t.Fatalf("got %q, %v; want %q", path, err, built)
	}
	printed, err := os.ReadFile(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "keyturn", "temporal-build.out"))
	if err != nil {
		t.Fatal(err)
	}
	want := "-mod=readonly,off,-C " + filepath.Join(root, "tools", "temporal") + " tool -n temporal"
	if !strings.Contains(string(printed), want) {
		t.Errorf("go was run as %q, want %q", printed, want)
	}
}

func TestBuildThatOutlivesItsCallerIsFoundDone(t *testing.T) {
	built := writeScript(t, "#!/bin/sh\n")
	release := filepath.Join(t.TempDir(), "release")
	builds := filepath.Join(t.TempDir(), "builds")
	fakeGo(t, "echo one >> "+builds+"; while ! [ -e "+release+" ]; do sleep 0.05; done; echo "+built)
	t.Chdir(fakeModule(t))

	first, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Executable(first, nil); !errors.Is(err, ErrStillBuilding) {
		t.Fatalf("got %v, want ErrStillBuilding", err)
	}
	// The build that goes on holds the lock: a second one does not begin.
	second, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Executable(second, nil); !errors.Is(err, ErrStillBuilding) {
		t.Fatalf("got %v, want ErrStillBuilding", err)
	}
	if begun, err := os.ReadFile(builds); err != nil || string(begun) != "one\n" {
		t.Fatalf("builds begun: %q, %v; want one", begun, err)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if path, err := Executable(t.Context(), nil); err != nil || path != built {
		t.Errorf("got %q, %v; want %q", path, err, built)
	}
}

func TestFailedBuildSaysWhy(t *testing.T) {
	fakeGo(t, "echo no such module >&2; exit 1")
	t.Chdir(fakeModule(t))
	if _, err := Executable(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no such module") {
		t.Errorf("got %v, want what go said", err)
	}
}

func TestBuildThatPrintsNoPathIsAnError(t *testing.T) {
	fakeGo(t, "echo nowhere")
	t.Chdir(fakeModule(t))
	if _, err := Executable(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("got %v, want what go printed", err)
	}
}

func TestOutsideTheModuleTheErrorSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	if _, err := Executable(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "PATH") {
		t.Errorf("got %v, want both ways to have the tool", err)
	}
	t.Chdir(fakeModule(t))
	if _, err := Executable(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "`go`") {
		t.Errorf("got %v, want that go is missing", err)
	}
}

func TestLongBuildIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		reporter := newReporter(func(line string) { lines = append(lines, line) })
		time.Sleep(quietBuildTime + 2*progressInterval + time.Second)
		reporter.stop()
		if len(lines) != 3 || !strings.Contains(lines[0], "takes minutes, once") || !strings.Contains(lines[2], "1m3s") {
			t.Errorf("got %q, want one line at first and one every %s", lines, progressInterval)
		}
	})
}

func TestShortBuildIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reporter := newReporter(func(line string) { t.Errorf("got %q, want silence", line) })
		time.Sleep(quietBuildTime - time.Millisecond)
		reporter.stop()
	})
}

// fakeGo puts a shell script in the place of the go command, with a cache of
// its own for the lock.
func fakeGo(t *testing.T, script string) {
	t.Helper()
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "go"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", directory+":/usr/bin:/bin")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
}

// fakeModule is a directory with a tools/temporal and a package in it.
func fakeModule(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, directory := range []string{toolDirectory, filepath.Join("some", "package")} {
		if err := os.MkdirAll(filepath.Join(root, directory), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, toolDirectory, "go.mod"), []byte("module tools\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

// writeScript writes an executable file named temporal.
func writeScript(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "temporal")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
