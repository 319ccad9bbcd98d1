package programs

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parentInterval is the time between two looks at whether `go run` is there.
const parentInterval = 500 * time.Millisecond

// Interruption is why a context has ended: the signal that asked for it.
type Interruption struct{ Signal syscall.Signal }

func (i *Interruption) Error() string {
	return "ended by a signal (" + i.Signal.String() + "): everything that was started is stopped"
}

// UntilSignal returns a context that a signal ends, with an *Interruption as its
// cause. Further signals change nothing: stopping takes a few seconds at most,
// and a program that ended earlier would leave processes behind.
func UntilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // it is under nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		received := <-signals
		cancel(&Interruption{received.(syscall.Signal)})
	}()
	go untilGoRunIsGone(ctx, func() { cancel(&Interruption{syscall.SIGTERM}) })
	return ctx, func() { cancel(nil) }
}

// untilGoRunIsGone calls ended when the `go run` that has started this program
// is gone: killed itself, it passes no signal on, and whoever killed it meant
// this program.
func untilGoRunIsGone(ctx context.Context, ended func()) {
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

// isGoCommand is always false where there is no /proc.
func isGoCommand(pid int) bool {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return err == nil && strings.TrimSpace(string(name)) == "go"
}
