package faults

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
)

type workflowRun = client.WorkflowRun

// await waits until the simulator's ledger fulfils a condition.
func await(s stage.Stage, fulfilled func(simulator.Ledger) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	require.NoError(s, s.OM.Await(ctx, fulfilled))
}

func awaitClosed(s stage.Stage, c <-chan struct{}) {
	s.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.Fail(s, "it must happen")
	}
}
