package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"keyturn/testsuite/support/childproc"
)

// commandError is a failed command of the command line.
type commandError struct {
	command string
	err     error
}

func (e *commandError) Error() string {
	return "keyturn " + e.command + " failed: " + e.err.Error()
}
func (e *commandError) Unwrap() error { return e.err }

// exitCode is the exit code of the command line, if it had one.
func (e *commandError) exitCode() int {
	var exited *exec.ExitError
	if errors.As(e.err, &exited) && exited.ExitCode() > 0 {
		return exited.ExitCode()
	}
	return exitFailed
}

// rotateAndVerify runs the rotations one after the other and verifies their
// records against the ledger.
func (s *sandbox) rotateAndVerify(ctx context.Context) error {
	ctx, stopWatching := childproc.WhileWorkerRuns(ctx, s.worker)
	defer stopWatching()
	started := time.Now()
	for _, r := range s.kind.rotations() {
		if err := s.rotate(ctx, r); err != nil {
			return err
		}
	}
	took := time.Since(started)
	reports, err := s.reports(ctx)
	if err != nil {
		return err
	}
	found, err := s.kind.verify(s.om, reports)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "\n%s\n%s\nrotated in %.1f seconds\n", found.table(), found, took.Seconds())
	return found.err()
}

func (s *sandbox) rotate(ctx context.Context, r rotation) error {
	arguments := r.rotateArguments("--requested-by", "sandbox", "--wait")
	fmt.Fprintf(s.stdout, "\nkeyturn %s\n", strings.Join(arguments, " "))
	return s.runStarter(ctx, s.stdout, arguments...)
}

// reports are those of the command line about all rotations, in JSON.
func (s *sandbox) reports(ctx context.Context) (reports [][]byte, err error) {
	for _, r := range s.kind.rotations() {
		var report bytes.Buffer
		if err := s.runStarter(ctx, &report, r.arguments("report", "-o", "json")...); err != nil {
			return nil, err
		}
		reports = append(reports, report.Bytes())
	}
	return reports, nil
}

// runStarter runs the command line with stdout, which may be a terminal.
func (s *sandbox) runStarter(ctx context.Context, stdout io.Writer, arguments ...string) error {
	command := exec.Command(s.folder.binary("starter"), arguments...)
	command.Env = childproc.Environment(s.variables()...)
	command.Stdout, command.Stderr = stdout, s.stderr
	starter, err := childproc.StartAttached(command)
	if err == nil {
		err = starter.Wait(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &commandError{arguments[0], err}
	}
	return nil
}
