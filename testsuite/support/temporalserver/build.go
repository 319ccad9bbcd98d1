package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// buildPolicy is what happens to a build when the context of its caller ends.
type buildPolicy bool

const (
	// buildInBackground: the build survives this program, so that a test binary
	// that is killed during a first build loses nothing.
	buildInBackground buildPolicy = false
	// buildEndsWithContext: what is compiled stays in Go's build cache.
	buildEndsWithContext buildPolicy = true
)

// buildTool is the command that builds a tool, or gets it from Go's build cache,
// and prints its path.
func buildTool(directory, name string) (*exec.Cmd, error) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return nil, errors.New("neither `temporal` nor `go` (to build it) is on the PATH")
	}
	build := exec.Command(goCommand, "-C", directory, "tool", "-n", name)
	build.Env = buildEnvironment()
	return build, nil
}

// buildEnvironment removes settings for the caller's module: the pinned tool
// has its own go.mod and needs default flags. GOFLAGS is set explicitly: an
// empty value would be looked up in the `go env -w` file.
func buildEnvironment() []string {
	kept := environmentWithout(os.Environ(), "GOFLAGS", "GOWORK", "GOOS", "GOARCH")
	return append(kept, "GOFLAGS=-mod=readonly", "GOWORK=off")
}

// isBuilt reports whether Go's build cache has the pinned version.
func (f finder) isBuilt(cache cache) bool {
	path, err := os.ReadFile(cache.built(f.tool.version))
	if err != nil {
		return false
	}
	_, err = os.Stat(string(path))
	return err == nil
}

// build builds the pinned version, or gets it from Go's build cache. reason says
// why. The lock is held until the build has ended, even if this program has not
// lived as long.
func (f finder) build(ctx context.Context, cache cache, lock *lockFile, reason string) (string, error) {
	reporter := newReporter(f.progress, func(running time.Duration) string {
		return fmt.Sprintf("%s; building it for %s, the first build takes 2 to 15 minutes", reason, running)
	})
	path, err := f.runBuild(ctx, cache, lock)
	reporter.stop()
	if err != nil {
		return "", err
	}
	f.progress(fmt.Sprintf("%s; built as %s", reason, path))
	return path, os.WriteFile(cache.built(f.tool.version), []byte(path), 0o600)
}

// runBuild runs the build so that it can survive this program: in a session of
// its own, with files instead of pipes as output, and holding the lock itself.
func (f finder) runBuild(ctx context.Context, cache cache, lock *lockFile) (string, error) {
	build, err := buildTool(f.tool.directory, "temporal")
	if err != nil {
		return "", err
	}
	output, err := os.Create(cache.buildOutput())
	if err != nil {
		return "", fmt.Errorf("building the Temporal CLI: %w", err)
	}
	defer output.Close()
	stderr, err := os.Create(cache.buildErrors())
	if err != nil {
		return "", fmt.Errorf("building the Temporal CLI: %w", err)
	}
	defer stderr.Close()
	build.Stdout, build.Stderr = output, stderr
	build.ExtraFiles = []*os.File{lock}
	build.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := build.Start(); err != nil {
		return "", fmt.Errorf("building the Temporal CLI: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- build.Wait() }()
	select {
	case <-ctx.Done():
		if f.policy == buildEndsWithContext {
			_ = syscall.Kill(-build.Process.Pid, syscall.SIGKILL) // it may have ended already
			<-ended
		}
		return "", ErrNotReady
	case err := <-ended:
		if err != nil {
			return "", fmt.Errorf("building the Temporal CLI (%s): %w\n%s", strings.Join(build.Args, " "), err, contents(stderr))
		}
	}
	return builtPath(contents(output))
}

// builtPath returns the last line of the output of `go tool -n`.
func builtPath(printed string) (string, error) {
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	path := strings.TrimSpace(lines[len(lines)-1])
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("`go tool -n temporal` printed %q, which does not exist: %w", path, err)
	}
	return path, nil
}

// contents reads a file that a child process wrote.
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
