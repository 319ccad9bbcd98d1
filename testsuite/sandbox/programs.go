package main

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

	"keyturn/testsuite/temporalserver"
)

// module is the module that worker and starter are built from.
const module = "keyturn"

// folder is a temporary one for all that the sandbox writes.
type folder string

func newFolder() (folder, error) {
	made, err := os.MkdirTemp("", "keyturn-sandbox-")
	if err != nil {
		return "", err
	}
	f := folder(made)
	return f, errors.Join(os.Mkdir(f.binaries(), 0o700), os.Mkdir(f.scratch(), 0o700))
}

func (f folder) path(name string) string   { return filepath.Join(string(f), name) }
func (f folder) binaries() string          { return f.path("bin") }
func (f folder) binary(name string) string { return filepath.Join(f.binaries(), name) }
func (f folder) scratch() string           { return f.path("build") }
func (f folder) workerLog() string         { return f.path("worker.log") }
func (f folder) privateKey() string        { return f.path("private-key") }
func (f folder) removeAll() error          { return os.RemoveAll(string(f)) }

// removeAllButLog leaves what may tell why something has failed.
func (f folder) removeAllButLog() error {
	return errors.Join(os.RemoveAll(f.binaries()), os.RemoveAll(f.scratch()), os.RemoveAll(f.privateKey()))
}

// moduleRoot is where the module is, seen from the working directory.
func moduleRoot(ctx context.Context) (string, error) {
	// Named, so that a workspace with other modules gives no more lines.
	listed, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("no go is on the PATH, to build the worker and the starter with")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("the working directory isn't in the module %s, from which the worker and the starter are built: %s", module, complaintOf(err))
	}
	return strings.TrimSpace(string(listed)), nil
}

func complaintOf(err error) string {
	var failed *exec.ExitError
	if errors.As(err, &failed) && len(failed.Stderr) > 0 {
		return strings.TrimSpace(string(failed.Stderr))
	}
	return err.Error()
}

// buildPrograms builds the worker and the starter into the folder. What Go says
// of it, such as which modules it downloads, goes to stderr.
func buildPrograms(ctx context.Context, root string, to folder, stderr io.Writer) error {
	// The state of the repository is of no use, and asking for it fails where
	// git doesn't trust the folder's owner; so is what debuggers need, which
	// takes time to link.
	command := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-w", "-o", to.binaries()+string(filepath.Separator), "./worker", "./starter")
	command.Dir = root
	command.Env = append(os.Environ(), "GOTMPDIR="+to.scratch())
	command.Stderr = stderr
	build, err := startInBackground(command)
	if err == nil {
		err = build.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("building the worker and the starter: %w", err)
	}
	return nil
}

// temporalExecutable finds Temporal's tool, or has it built: the one thing that
// goes on where the sandbox is ended with SIGKILL meanwhile.
func temporalExecutable(ctx context.Context, progress func(string)) (string, error) {
	path, err := temporalserver.Executable(ctx, progress)
	if errors.Is(err, temporalserver.ErrStillBuilding) {
		endToolBuild()
		return "", context.Cause(ctx)
	}
	return path, err
}

// endToolBuild ends the tool's build, which would outlive this process. It is
// the only child at this time; what it has compiled stays in Go's cache.
func endToolBuild() {
	for _, pid := range childrenOf(os.Getpid()) {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have ended by itself
	}
}
