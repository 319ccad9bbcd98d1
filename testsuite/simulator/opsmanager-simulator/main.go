// Command opsmanager-simulator runs a simulated MongoDB Ops Manager: projects,
// sharded clusters and the rotation of their backup master keys, behind HTTP
// Digest authentication.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"keyturn/internal/usage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ran, err := newCommand(os.Stdout).ExecuteContextC(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "opsmanager-simulator:", usage.Explain(ran, err))
		os.Exit(1)
	}
}
