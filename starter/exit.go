package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"

	"keyturn/workflows"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitWaiting = 3
)

// usageError reports wrong flags or settings: nothing was done.
type usageError struct{ problem string }

func (e *usageError) Error() string { return e.problem }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// waitingError reports that a rotation waits for a person.
type waitingError struct {
	phase      workflows.Phase
	waitingFor string
}

func (e *waitingError) Error() string {
	if e.phase == workflows.PhaseAwaitingApproval {
		return "waiting for " + e.waitingFor
	}
	return phaseName(e.phase) + ": waiting for " + e.waitingFor
}

// nothingLeftError reports that a rotation is not started, because the one that it
// would continue rotated everything. It is no failure.
type nothingLeftError struct {
	message string
	records statusView // of that rotation
}

func (e *nothingLeftError) Error() string { return e.message }

// hintedError is an error with the commands that help.
type hintedError struct {
	error
	commands []string
}

func (e *hintedError) Unwrap() error { return e.error }

func withHint(err error, commands ...string) error { return &hintedError{err, commands} }

// interruptedError is the message after Ctrl-C.
type interruptedError struct{ message string }

func (e *interruptedError) Error() string { return e.message }

// handleError prints an error in one line, followed by the commands that help,
// and returns the exit code. It is the only place that decides on it.
func (a *app) handleError(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	var interrupted *interruptedError
	if ctx.Err() != nil && !errors.As(err, &interrupted) {
		err = &interruptedError{"interrupted"}
	}
	fmt.Fprintln(a.stderr, errorText(a.layoutOf(a.stderr), err))
	return a.exitCode(err)
}

// errorText is an error, followed by the commands that help.
func errorText(l layout, err error) string {
	message := programName + ": " + clean(err.Error())
	var hinted *hintedError
	if !errors.As(err, &hinted) {
		return l.hang(message, "  ")
	}
	lines := []string{l.hang(message+":", "  ")}
	for _, command := range hinted.commands {
		lines = append(lines, l.line("  "+clean(command)))
	}
	return strings.Join(lines, "\n")
}

func (a *app) exitCode(err error) int {
	var usage *usageError
	var waiting *waitingError
	var rotationsWait *rotationsWaitError
	var nothingLeft *nothingLeftError
	switch {
	case errors.As(err, &nothingLeft):
		return exitDone
	case !a.started || errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &waiting), errors.As(err, &rotationsWait):
		return exitWaiting
	default:
		return exitFailed
	}
}

// failureText describes the failure of a workflow or an update as
// "Type: message".
func failureText(err error) string {
	var timeout *temporal.TimeoutError
	var canceled *temporal.CanceledError
	var terminated *temporal.TerminatedError
	failed, isFailure := workflows.FailureOf(err)
	switch {
	case isFailure:
		return strings.TrimPrefix(string(failed.Type)+": "+failed.Message, ": ")
	case errors.As(err, &terminated):
		return "Terminated: the workflow was terminated; targets in progress may have been rotated"
	case errors.As(err, &timeout):
		return "Timeout: the workflow timed out"
	case errors.As(err, &canceled):
		return "Canceled: the workflow was canceled"
	default:
		return err.Error()
	}
}
