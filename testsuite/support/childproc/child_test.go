package childproc

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// With Ctrl-C, the child may end before this process receives the signal.
func TestCtrlCEndsChildFirst(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := &Interruption{syscall.SIGINT}
	failing, err := StartAttached(exec.Command("sh", "-c", "exit 1"))
	require.NoError(t, err)
	<-failing.ended
	time.AfterFunc(sharedSignalTime/5, func() { cancel(interrupted) })
	assert.ErrorIs(t, failing.Wait(ctx), interrupted)
}

func TestFailureOfChild(t *testing.T) {
	for name, start := range map[string]func(*exec.Cmd) (*Child, error){"attached": StartAttached, "in background": StartInBackground} {
		failing, err := start(exec.Command("sh", "-c", "exit 3"))
		require.NoError(t, err)
		err = failing.Wait(t.Context())
		var exited *exec.ExitError
		require.ErrorAs(t, err, &exited, name)
		assert.Equal(t, 3, exited.ExitCode(), name)
	}
}

func TestChildThatIgnoresSIGTERMIsKilledWithItsGroup(t *testing.T) {
	t.Parallel()
	stubborn, err := StartInBackground(exec.Command("sh", "-c", "trap '' TERM; sleep 600; sleep 600"))
	require.NoError(t, err)
	started := time.Now()
	stubborn.Stop()
	assert.LessOrEqual(t, time.Since(started), 2*stopTime)
	// Killed processes may not be reaped yet.
	group := -stubborn.command.Process.Pid
	for deadline := time.Now().Add(4 * stopTime); syscall.Kill(group, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.Fail(t, "the process group still exists")
		}
	}
}
