package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

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
		"cobra's own error":          {plain, false, exitWrongUse},
		"a failure":                  {plain, true, exitFailed},
		"a bad flag value":           {fmt.Errorf("more: %w", wrongUse("--cluster: no")), true, exitWrongUse},
		"held":                       {&waitingError{"held", "an operator"}, true, exitWaiting},
		"held, with commands":        {advise(&waitingError{"held", "an operator"}, "starter retry"), true, exitWaiting},
		"a failure, with commands":   {advise(plain, "starter watch"), true, exitFailed},
		"an interruption is no done": {&interruptedError{"on it goes"}, true, exitFailed},
	} {
		a, _, stderr := newTestApp()
		a.acting = test.acting
		if got := a.conclude(t.Context(), test.err); got != test.want {
			t.Errorf("%s: exit code %d, want %d", name, got, test.want)
		}
		if (test.err == nil) != (stderr.Len() == 0) {
			t.Errorf("%s: wrote %q", name, stderr)
		}
	}
}

func TestErrorsAreOneLineAndTheCommandsThatHelp(t *testing.T) {
	a, stdout, stderr := newTestApp()
	a.acting = true
	a.conclude(t.Context(), advise(errors.New("two\nlines \x1b[31mred"), "starter watch"))
	if want := "starter: two lines red:\n  starter watch\n"; stderr.String() != want || stdout.Len() > 0 {
		t.Errorf("got %q and %q, want %q", stderr, stdout, want)
	}
}

func TestAnErrorAfterCtrlCIsAnInterruption(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, _, stderr := newTestApp()
	a.acting = true
	code := a.conclude(ctx, fmt.Errorf("context canceled"))
	if code != exitFailed || stderr.String() != "starter: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
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
		if got := failureText(err); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
