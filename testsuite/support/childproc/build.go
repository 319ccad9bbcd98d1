package childproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// module is the Go module of the programs.
const module = "keyturn"

// ModuleRoot returns the root of the module, seen from the working directory.
func ModuleRoot(ctx context.Context) (string, error) {
	// With the name, a workspace with other modules gives only one line.
	listed, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("`go` is not on the PATH; it is required to build the programs")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("the working directory is not in the module %s: %s", module, stderrOf(err))
	}
	return strings.TrimSpace(string(listed)), nil
}

func stderrOf(err error) string {
	var failed *exec.ExitError
	if errors.As(err, &failed) && len(failed.Stderr) > 0 {
		return strings.TrimSpace(string(failed.Stderr))
	}
	return err.Error()
}

// Build builds programs of the module, such as "./worker", into a directory.
// scratch is a directory for temporary files. The output of Go, such as the
// modules it downloads, goes to stderr.
func Build(ctx context.Context, root, into, scratch string, stderr io.Writer, packages ...string) error {
	for _, name := range packages {
		if err := build(ctx, root, filepath.Join(into, path.Base(name)), scratch, stderr, name); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
	}
	return nil
}

// build has go run copy the program rather than run it: unlike go build, go run keeps
// what it has linked in Go's cache, which saves seconds each time.
func build(ctx context.Context, root, program, scratch string, stderr io.Writer, name string) error {
	// VCS stamping fails if git does not trust the owner of the directory, and
	// is not needed. Debug information takes time to link.
	command := exec.Command("go", "run", "-buildvcs=false", "-ldflags=-w", "-exec", "cp", name, program)
	command.Dir = root
	command.Env = append(os.Environ(), "GOTMPDIR="+scratch)
	command.Stderr = stderr
	build, err := StartInBackground(command)
	if err != nil {
		return err
	}
	return build.Wait(ctx)
}
