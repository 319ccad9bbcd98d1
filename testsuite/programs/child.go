package programs

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

const (
	// stopTime is how long a child may take to end when it is asked to: a
	// worker would drain for a minute, which is of no use where nothing is kept.
	stopTime = 2 * time.Second
	// sharedSignalTime is how long the terminal's Ctrl-C, which this process and
	// an attached child get each by itself, may take to show in both.
	sharedSignalTime = time.Second
	// outputTime is how long output is waited for after the child's end.
	outputTime = time.Second
)

// Child is a process that does not outlive this one.
type Child struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the process is gone
	err     error         // set before ended is closed
}

// StartInBackground starts a child that the terminal's signals don't reach.
func StartInBackground(command *exec.Cmd) (*Child, error) {
	return start(command, true)
}

// StartAttached starts a child that has the terminal, its signals included.
func StartAttached(command *exec.Cmd) (*Child, error) {
	return start(command, false)
}

func start(command *exec.Cmd, ownGroup bool) (*Child, error) {
	command.SysProcAttr = processAttributes(ownGroup)
	command.WaitDelay = outputTime
	c := &Child{command: command, ended: make(chan struct{})}
	started := make(chan error, 1)
	go c.run(started)
	return c, <-started
}

// run starts the process and waits for its end on one thread of the system:
// Linux sends the parent-death signal when the thread that started the child
// ends, not when the whole process does, so that thread must live as long.
func (c *Child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.command.Start()
	started <- err
	if err == nil {
		c.err = c.command.Wait()
	}
	close(c.ended)
}

// PID is the process's number.
func (c *Child) PID() int { return c.command.Process.Pid }

// Ended is closed when the process is gone.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// State is the system's account of a process that has ended.
func (c *Child) State() *os.ProcessState { return c.command.ProcessState }

// End tells how a process that has ended did so.
func (c *Child) End() string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// Wait returns how the child has ended. If ctx ends first, the child is stopped
// and the error is the context's cause.
func (c *Child) Wait(ctx context.Context) error {
	select {
	case <-c.ended:
		return c.endedIn(ctx)
	case <-ctx.Done():
		c.Stop()
		return context.Cause(ctx)
	}
}

// endedIn is Wait's error for a child that has ended: it may have failed of the
// signal that is about to end ctx.
func (c *Child) endedIn(ctx context.Context) error {
	if c.err == nil || c.hasOwnGroup() {
		return c.err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(sharedSignalTime):
		return c.err
	}
}

// Stop asks the process to end, kills it if that takes long, and returns when the process is gone.
func (c *Child) Stop() {
	if !c.hasOwnGroup() && c.endsWithin(sharedSignalTime) {
		return
	}
	c.signal(syscall.SIGTERM)
	if c.endsWithin(stopTime) {
		return
	}
	c.Kill()
}

// Kill ends the process at once and returns when it is gone.
func (c *Child) Kill() {
	c.signal(syscall.SIGKILL)
	<-c.ended
}

func (c *Child) endsWithin(patience time.Duration) bool {
	select {
	case <-c.ended:
		return true
	case <-time.After(patience):
		return false
	}
}

func (c *Child) hasOwnGroup() bool { return c.command.SysProcAttr.Setpgid }

// signal reaches the child, with its own children where it has a group. One that
// is gone needs none.
func (c *Child) signal(signal syscall.Signal) {
	pid := c.command.Process.Pid
	if c.hasOwnGroup() {
		pid = -pid
	}
	_ = syscall.Kill(pid, signal)
}
