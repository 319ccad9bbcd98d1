package childproc

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

const (
	// stopTime limits how long a child takes to stop: a worker would drain for
	// a minute, which is not needed here.
	stopTime = 2 * time.Second
	// sharedSignalTime limits the time until a terminal's Ctrl-C, which this
	// process and an attached child both receive, is visible in both.
	sharedSignalTime = time.Second
	// outputTime limits the wait for output after the child's end.
	outputTime = time.Second
)

// Child is a process that ends with this one.
type Child struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the process is gone
	err     error         // set before ended is closed
}

// StartInBackground starts a child that does not receive the signals of the
// terminal.
func StartInBackground(command *exec.Cmd) (*Child, error) {
	return start(command, true)
}

// StartAttached starts a child with the terminal and its signals.
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

// run starts the process and waits for its end on one OS thread: Linux sends
// the parent-death signal when the thread that started the child ends, so that
// thread must live as long as the process.
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

// PID is the process ID.
func (c *Child) PID() int { return c.command.Process.Pid }

// Ended is closed when the process is gone.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// State is the state of a process that has ended.
func (c *Child) State() *os.ProcessState { return c.command.ProcessState }

// End describes how a process ended.
func (c *Child) End() string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// Wait returns the error of the child. If ctx ends first, it stops the child
// and returns the context's cause.
func (c *Child) Wait(ctx context.Context) error {
	select {
	case <-c.ended:
		return c.waitErr(ctx)
	case <-ctx.Done():
		c.Stop()
		return context.Cause(ctx)
	}
}

// waitErr returns Wait's error for a child that has ended: its failure may come
// from the signal that is about to end ctx.
func (c *Child) waitErr(ctx context.Context) error {
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

// Stop sends SIGTERM, kills the process if it does not end in time, and returns
// when it is gone.
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

// Kill ends the process with SIGKILL and returns when it is gone.
func (c *Child) Kill() {
	c.signal(syscall.SIGKILL)
	<-c.ended
}

func (c *Child) endsWithin(timeout time.Duration) bool {
	select {
	case <-c.ended:
		return true
	case <-time.After(timeout):
		return false
	}
}

func (c *Child) hasOwnGroup() bool { return c.command.SysProcAttr.Setpgid }

// signal sends a signal to the child, and to its children if it has a process
// group. A process that has ended ignores it.
func (c *Child) signal(signal syscall.Signal) {
	pid := c.command.Process.Pid
	if c.hasOwnGroup() {
		pid = -pid
	}
	_ = syscall.Kill(pid, signal)
}
