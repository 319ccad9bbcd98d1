package temporalserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// cliModule is the module whose version tools/temporal pins.
	cliModule = "github.com/temporalio/cli"
	// checksumFile, beside the go.mod, has the SHA-256 checksums of the official
	// archives of that version, as the release's own checksums.txt has them.
	checksumFile = "checksums.txt"
	// versionTime limits how long the CLI may take to print its version.
	versionTime = time.Minute
	// busyInterval is the time between two attempts to run a file that a child
	// which is just starting still has open for writing.
	busyInterval = 10 * time.Millisecond
)

// toolDirectory has the tool's own go.mod, relative to the root of the module.
var toolDirectory = filepath.Join("tools", "temporal")

// tool is the pinned version of Temporal's CLI.
type tool struct {
	directory string // with its go.mod
	version   string // such as 1.5.1
}

// findTool searches the working directory and its parents: `go test` runs in
// the package's directory, users run programs anywhere in the module.
func findTool() (tool, error) {
	start, err := os.Getwd()
	if err != nil {
		return tool{}, fmt.Errorf("finding the pinned Temporal CLI: %w", err)
	}
	for directory := start; ; directory = filepath.Dir(directory) {
		candidate := filepath.Join(directory, toolDirectory)
		requirements, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
		if err == nil {
			version, err := pinnedVersion(string(requirements))
			return tool{directory: candidate, version: version}, err
		}
		if directory == filepath.Dir(directory) {
			return tool{}, fmt.Errorf("`temporal` is not on the PATH, and there is no %s in or above %s that pins a version", toolDirectory, start)
		}
	}
}

// pinnedVersion reads a go.mod.
func pinnedVersion(requirements string) (string, error) {
	for line := range strings.Lines(requirements) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == cliModule {
			return strings.TrimPrefix(fields[1], "v"), nil
		}
	}
	return "", fmt.Errorf("%s pins no version of %s", filepath.Join(toolDirectory, "go.mod"), cliModule)
}

// archive is the name of the official archive for this machine.
func (t tool) archive() string {
	return fmt.Sprintf("temporal_cli_%s_%s_%s.tar.gz", t.version, runtime.GOOS, runtime.GOARCH)
}

// checksum returns the SHA-256 checksum of the archive, in hex.
func (t tool) checksum() (string, error) {
	text, err := os.ReadFile(filepath.Join(t.directory, checksumFile))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[1] == t.archive() {
			return fields[0], nil
		}
	}
	return "", fmt.Errorf("no checksum of %s is pinned", t.archive())
}

// checkVersion runs an official CLI: it may be for another kind of system, or
// on a file system that executes nothing. (One that Go has built does not know
// its version.)
func checkVersion(ctx context.Context, path, version string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	printed, err := printedVersion(ctx, path)
	for errors.Is(err, syscall.ETXTBSY) && ctx.Err() == nil {
		time.Sleep(busyInterval)
		printed, err = printedVersion(ctx, path)
	}
	if err != nil {
		return fmt.Errorf("%s --version: %w", path, err)
	}
	if !strings.HasPrefix(printed, "temporal version "+version+" ") {
		return fmt.Errorf("%s --version prints %q, not version %s", path, printed, version)
	}
	return nil
}

func printedVersion(ctx context.Context, path string) (string, error) {
	command := exec.CommandContext(ctx, path, "--version")
	command.Env = toolEnvironment()
	command.WaitDelay = outputTime
	printed, err := command.Output()
	return string(bytes.TrimSpace(printed)), err
}
