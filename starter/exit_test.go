package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.temporal.io/sdk/temporal"
)

func TestExitCodes(t *testing.T) {
	plain := errors.New("it failed")
	for name, test := range map[string]struct {
		err    error
		acting bool
		want   int
	}{
		"done":                       {nil, true, exitDone},
		"help":                       {nil, false, exitDone},
		"cobra's own error":          {plain, false, exitUsage},
		"a failure":                  {plain, true, exitFailed},
		"a bad flag value":           {fmt.Errorf("more: %w", usageErrorf("--cluster: no")), true, exitUsage},
		"held":                       {&waitingError{"held", "an operator"}, true, exitWaiting},
		"held, with commands":        {withHint(&waitingError{"held", "an operator"}, "keyturn retry"), true, exitWaiting},
		"a failure, with commands":   {withHint(plain, "keyturn watch"), true, exitFailed},
		"an interruption is no done": {&interruptedError{"on it goes"}, true, exitFailed},
	} {
		a, _, stderr := newTestApp()
		a.started = test.acting
		assert.Equal(t, test.want, a.handleError(t.Context(), test.err))
		assert.Equal(t, (stderr.Len() == 0), (test.err == nil), "%s: wrote %q", name, stderr)
	}
}

func TestErrorsAreOneLineAndTheCommandsThatHelp(t *testing.T) {
	a, stdout, stderr := newTestApp()
	a.started = true
	a.handleError(t.Context(), withHint(errors.New("two\nlines \x1b[31mred"), "keyturn watch"))
	assert.Equal(t, "keyturn: two lines red:\n  keyturn watch\n", stderr.String())
	assert.False(t, stdout.Len() > 0)
}

func TestAnErrorAfterCtrlCIsAnInterruption(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, _, stderr := newTestApp()
	a.started = true
	code := a.handleError(ctx, fmt.Errorf("context canceled"))
	assert.Equal(t, exitFailed, code, "exit code %d, %q", code, stderr)
	assert.Equal(t, "keyturn: interrupted\n", stderr.String(), "exit code %d, %q", code, stderr)
}

func TestFailureTexts(t *testing.T) {
	application := temporal.NewApplicationError("3 of 5", "PartialFailure")
	for want, err := range map[string]error{
		"PartialFailure: 3 of 5": fmt.Errorf("workflow execution error: %w", application),
		"no type":                temporal.NewApplicationError("no type", ""),
		"Terminated: ":           &temporal.TerminatedError{},
		"Canceled: ":             temporal.NewCanceledError(),
		"something else":         errors.New("something else"),
	} {
		assert.True(t, strings.HasPrefix(failureText(err), want))
	}
}
