package programs

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
	interrupted := &Interruption{syscall.SIGINT}
	failing, err := StartAttached(exec.Command("sh", "-c", "exit 1"))
	if err != nil {
		t.Fatal(err)
	}
	<-failing.ended
	time.AfterFunc(sharedSignalTime/5, func() { cancel(interrupted) })
	if err := failing.Wait(ctx); !errors.Is(err, interrupted) {
		t.Errorf("got %v, want the interruption", err)
	}
}

func TestFailureOfAChildIsItsOwn(t *testing.T) {
	for name, start := range map[string]func(*exec.Cmd) (*Child, error){"attached": StartAttached, "in background": StartInBackground} {
		failing, err := start(exec.Command("sh", "-c", "exit 3"))
		if err != nil {
			t.Fatal(err)
		}
		err = failing.Wait(t.Context())
		var exited *exec.ExitError
		if !errors.As(err, &exited) || exited.ExitCode() != 3 {
			t.Errorf("%s: got %v, want exit code 3", name, err)
		}
	}
}

func TestDeafChildIsKilledWithItsGroup(t *testing.T) {
	t.Parallel()
	deaf, err := StartInBackground(exec.Command("sh", "-c", "trap '' TERM; sleep 600; sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	deaf.Stop()
	if took := time.Since(begun); took > 2*stopTime {
		t.Errorf("it took %s", took)
	}
	// Those just killed may not be collected yet.
	group := -deaf.command.Process.Pid
	for deadline := time.Now().Add(4 * stopTime); syscall.Kill(group, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its group is still there")
		}
	}
}
