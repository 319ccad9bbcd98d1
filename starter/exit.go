package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"
)

// Exit codes.
const (
	exitDone     = 0
	exitFailed   = 1
	exitWrongUse = 2
	exitWaiting  = 3
)

// usageError is about the command line or the settings: nothing was done.
type usageError struct{ problem string }

func (e *usageError) Error() string { return e.problem }

func wrongUse(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// waitingError tells that a rotation waits for somebody.
type waitingError struct{ phase, waitingFor string }

func (e *waitingError) Error() string { return e.phase + ": waiting for " + e.waitingFor }

// advisedError is an error with the commands that help.
type advisedError struct {
	error
	commands []string
}

func (e *advisedError) Unwrap() error { return e.error }

func advise(err error, commands ...string) error { return &advisedError{err, commands} }

// interruptedError is what is to be said after Ctrl-C.
type interruptedError struct{ said string }

func (e *interruptedError) Error() string { return e.said }

// conclude says what went wrong, in one line and with the commands that help,
// and gives the exit code. It is the one place that decides on it.
func (a *app) conclude(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	var interrupted *interruptedError
	if ctx.Err() != nil && !errors.As(err, &interrupted) {
		err = &interruptedError{"interrupted"}
	}
	var advised *advisedError
	if !errors.As(err, &advised) {
		fmt.Fprintln(a.stderr, "starter:", clean(err.Error()))
	} else {
		fmt.Fprintln(a.stderr, "starter:", clean(err.Error())+":")
		for _, command := range advised.commands {
			fmt.Fprintln(a.stderr, "  "+clean(command))
		}
	}
	return a.exitCode(err)
}

func (a *app) exitCode(err error) int {
	var usage *usageError
	var waiting *waitingError
	switch {
	case !a.acting || errors.As(err, &usage):
		return exitWrongUse
	case errors.As(err, &waiting):
		return exitWaiting
	default:
		return exitFailed
	}
}

// failureText is how a workflow, or an update, has failed: "Type: message".
func failureText(err error) string {
	var application *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	var canceled *temporal.CanceledError
	var terminated *temporal.TerminatedError
	switch {
	case errors.As(err, &application):
		return strings.TrimPrefix(application.Type()+": "+application.Message(), ": ")
	case errors.As(err, &terminated):
		return "Terminated: somebody terminated the workflow; what was in work may have been rotated"
	case errors.As(err, &timeout):
		return "Timeout: the workflow has run out of time"
	case errors.As(err, &canceled):
		return "Canceled: the workflow was canceled"
	default:
		return err.Error()
	}
}
