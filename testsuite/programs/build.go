package programs

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

// module is the module that the programs are built from.
const module = "keyturn"

// ModuleRoot is where the module that the programs are built from is, seen from
// the working directory.
func ModuleRoot(ctx context.Context) (string, error) {
	// Named, so that a workspace with other modules gives no more lines.
	listed, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("no go is on the PATH, to build the programs with")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("the working directory isn't in the module %s, from which the programs are built: %s", module, complaintOf(err))
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

// Build builds programs of the module, such as "./worker", into a folder, with
// scratch as the place for what is thrown away. What Go says of it, such as which
// modules it downloads, goes to stderr.
func Build(ctx context.Context, root, into, scratch string, stderr io.Writer, packages ...string) error {
	// The state of the repository is of no use, and asking for it fails where
	// git doesn't trust the folder's owner; so is what debuggers need, which
	// takes time to link.
	arguments := []string{"build", "-buildvcs=false", "-ldflags=-w", "-o", into + string(filepath.Separator)}
	command := exec.Command("go", append(arguments, packages...)...)
	command.Dir = root
	command.Env = append(os.Environ(), "GOTMPDIR="+scratch)
	command.Stderr = stderr
	build, err := StartInBackground(command)
	if err == nil {
		err = build.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("building %s: %w", strings.Join(packages, " and "), err)
	}
	return nil
}

// TemporalExecutable finds Temporal's tool, or has it built: the one thing that
// goes on where this program is ended with SIGKILL meanwhile.
func TemporalExecutable(ctx context.Context, progress func(string)) (string, error) {
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
