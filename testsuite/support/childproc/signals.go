package childproc

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parentInterval is the time between two checks whether `go run` still exists.
const parentInterval = 500 * time.Millisecond

// Interruption is the cause of a context that a signal has ended.
type Interruption struct{ Signal syscall.Signal }

func (i *Interruption) Error() string {
	return "interrupted by a signal (" + i.Signal.String() + "); all processes were stopped"
}

// UntilSignal returns a context that a signal ends, with an *Interruption as
// its cause. Further signals have no effect: stopping takes a few seconds at
// most, and exiting earlier would leave processes behind.
func UntilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // ignored under nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		received := <-signals
		cancel(&Interruption{received.(syscall.Signal)})
	}()
	go watchGoRun(ctx, func() { cancel(&Interruption{syscall.SIGTERM}) })
	return ctx, func() { cancel(nil) }
}

// watchGoRun calls ended when the `go run` that started this program is gone:
// it does not pass SIGKILL on, and whoever killed it wanted to end this
// program.
func watchGoRun(ctx context.Context, ended func()) {
	parent := os.Getppid()
	if !isGoCommand(parent) {
		return
	}
	ticker := time.NewTicker(parentInterval)
	defer ticker.Stop()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	ended()
}

// isGoCommand is always false without /proc.
func isGoCommand(pid int) bool {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return err == nil && strings.TrimSpace(string(name)) == "go"
}
