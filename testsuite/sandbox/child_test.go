package main

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestCtrlCThatEndsTheChildFirstIsNoFailure is about an order of events that
// the terminal leaves open.
func TestCtrlCThatEndsTheChildFirstIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := &interruption{syscall.SIGINT}
	failing, err := startAttached(exec.Command("sh", "-c", "exit 1"))
	if err != nil {
		t.Fatal(err)
	}
	<-failing.ended
	time.AfterFunc(sharedSignalTime/5, func() { cancel(interrupted) })
	if err := failing.wait(ctx); !errors.Is(err, interrupted) {
		t.Errorf("got %v, want the interruption", err)
	}
}

func TestFailureOfAChildIsItsOwn(t *testing.T) {
	for name, start := range map[string]func(*exec.Cmd) (*child, error){"attached": startAttached, "in background": startInBackground} {
		failing, err := start(exec.Command("sh", "-c", "exit 3"))
		if err != nil {
			t.Fatal(err)
		}
		err = failing.wait(t.Context())
		if got := (&starterError{"rotate", err}).exitCode(); got != 3 {
			t.Errorf("%s: got %v and exit code %d, want 3", name, err, got)
		}
	}
}

func TestDeafChildIsKilledWithItsGroup(t *testing.T) {
	t.Parallel()
	deaf, err := startInBackground(exec.Command("sh", "-c", "trap '' TERM; sleep 600; sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	deaf.stop()
	if took := time.Since(begun); took > 2*stopTime {
		t.Errorf("it took %s", took)
	}
	// Those just killed may not be collected yet.
	group := -deaf.command.Process.Pid
	for deadline := time.Now().Add(shortly); syscall.Kill(group, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its group is still there")
		}
	}
}
