package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quietBuildTime is how long the build may take before something is said:
	// a tool that is in Go's cache is there within a second or two.
	quietBuildTime = 3 * time.Second
	// progressInterval is the time between two lines about a build going on.
	progressInterval = 30 * time.Second
	// lockInterval is the time between two looks at another's build.
	lockInterval = 200 * time.Millisecond
)

// toolDirectory is where the tool's own go.mod is, seen from the module's root.
var toolDirectory = filepath.Join("tools", "temporal")

// ErrStillBuilding is the error of [Executable] when its context ended before
// the tool's first build did. The build goes on in the background; asking again
// later finds it done.
var ErrStillBuilding = errors.New("the Temporal tool's first build is still going on")

// Executable returns the path of Temporal's command line tool: the `temporal` on
// the PATH, else the one pinned in tools/temporal of the Go module around the
// working directory, building it if need be.
//
// The first build takes minutes. progress gets a line when the tool isn't there
// after 3 seconds and one every 30 seconds after that; it may be nil. Only one build
// runs at a time, however many programs ask. When ctx ends first, the error is
// [ErrStillBuilding] and the build goes on.
func Executable(ctx context.Context, progress func(line string)) (path string, err error) {
	if path, err := exec.LookPath("temporal"); err == nil {
		return path, nil
	}
	directory, err := findToolDirectory()
	if err != nil {
		return "", err
	}
	if progress == nil {
		progress = func(string) {}
	}
	reporter := newReporter(progress)
	defer reporter.stop()
	return buildTool(ctx, directory)
}

// findToolDirectory walks up from the working directory: `go test` runs in the
// package's own directory, people run programs anywhere in the module.
func findToolDirectory() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the pinned Temporal tool: %w", err)
	}
	for directory := start; ; directory = filepath.Dir(directory) {
		candidate := filepath.Join(directory, toolDirectory)
		if _, err := os.Stat(filepath.Join(candidate, "go.mod")); err == nil {
			return candidate, nil
		}
		if directory == filepath.Dir(directory) {
			return "", fmt.Errorf("no `temporal` is on the PATH, and no %s is in or above %s to build it from", toolDirectory, start)
		}
	}
}

// buildTool has Go build the tool, or find it in its cache, under a lock that
// all programs of this user share.
func buildTool(ctx context.Context, directory string) (string, error) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return "", errors.New("neither `temporal` nor `go`, to build it with, is on the PATH")
	}
	state, err := stateDirectory()
	if err != nil {
		return "", err
	}
	lock, err := acquireLock(ctx, filepath.Join(state, "temporal-build.lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	return runBuild(ctx, goCommand, directory, state, lock)
}

// stateDirectory holds the lock and the output of the build under way.
func stateDirectory() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	directory := filepath.Join(base, "keyturn")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return "", fmt.Errorf("making a place for the Temporal tool's build: %w", err)
	}
	return directory, nil
}

// acquireLock waits for the lock on a file; closing the file gives it back.
func acquireLock(ctx context.Context, path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the Temporal tool's build: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ErrStillBuilding
		case <-time.After(lockInterval):
		}
	}
}

// runBuild runs the build so that it outlives this program: in a session of its
// own, writing to files rather than to pipes, and holding the lock itself. A
// test binary that is killed in the middle of a first build thus loses nothing.
func runBuild(ctx context.Context, goCommand, directory, state string, lock *os.File) (string, error) {
	output, err := os.Create(filepath.Join(state, "temporal-build.out"))
	if err != nil {
		return "", fmt.Errorf("building the Temporal tool: %w", err)
	}
	defer output.Close()
	complaints, err := os.Create(filepath.Join(state, "temporal-build.err"))
	if err != nil {
		return "", fmt.Errorf("building the Temporal tool: %w", err)
	}
	defer complaints.Close()

	build := exec.Command(goCommand, "-C", directory, "tool", "-n", "temporal")
	build.Env = buildEnvironment()
	build.Stdout, build.Stderr = output, complaints
	build.ExtraFiles = []*os.File{lock}
	build.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := build.Start(); err != nil {
		return "", fmt.Errorf("building the Temporal tool: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- build.Wait() }()
	select {
	case <-ctx.Done():
		return "", ErrStillBuilding
	case err := <-ended:
		if err != nil {
			return "", fmt.Errorf("building the Temporal tool (%s): %w\n%s", strings.Join(build.Args, " "), err, contents(complaints))
		}
	}
	return builtPath(contents(output))
}

// buildEnvironment drops what is meant for the caller's own module: the pinned
// tool has a go.mod of its own, and none but the default flags suits it. The
// flags are set to a default, since empty ones would be looked up in the
// `go env -w` file.
func buildEnvironment() []string {
	kept := environmentWithout(os.Environ(), "GOFLAGS", "GOWORK", "GOOS", "GOARCH")
	return append(kept, "GOFLAGS=-mod=readonly", "GOWORK=off")
}

// builtPath takes the path from the last line of what `go tool -n` printed.
func builtPath(printed string) (string, error) {
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	path := strings.TrimSpace(lines[len(lines)-1])
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("`go tool -n temporal` printed %q, which is not there: %w", path, err)
	}
	return path, nil
}

// contents reads what a child wrote to a file that it shares with us.
func contents(file *os.File) string {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// reporter tells how long a build has been going on, once it is a long one.
type reporter struct {
	quit chan struct{}
	done chan struct{}
}

func newReporter(progress func(string)) *reporter {
	r := &reporter{quit: make(chan struct{}), done: make(chan struct{})}
	go r.run(progress)
	return r
}

func (r *reporter) run(progress func(string)) {
	defer close(r.done)
	begun := time.Now()
	select {
	case <-r.quit:
		return
	case <-time.After(quietBuildTime):
		progress("waiting for the pinned Temporal tool: if it has not been built on this machine yet, that takes minutes, once")
	}
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-r.quit:
			return
		case <-ticker.C:
			progress(fmt.Sprintf("waiting for the pinned Temporal tool: its build has been going on for %s", time.Since(begun).Round(time.Second)))
		}
	}
}

// stop returns when no further line will be told.
func (r *reporter) stop() {
	close(r.quit)
	<-r.done
}

// environmentWithout returns the variables (as in [os.Environ]) whose name is
// not among the given ones; a name ending in "*" stands for all that begin so.
func environmentWithout(environment []string, names ...string) []string {
	var kept []string
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		if !matchesAny(name, names) {
			kept = append(kept, entry)
		}
	}
	return kept
}

func matchesAny(name string, patterns []string) bool {
	for _, pattern := range patterns {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		if name == pattern || isPrefix && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
