// Command opsmanager-simulator runs a simulated MongoDB Ops Manager: projects,
// sharded clusters and the rotation of their backup master keys, behind HTTP
// Digest authentication.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand(os.Stdout).ExecuteContext(ctx)
	stop()
	if err != nil {
		os.Exit(1)
	}
}
