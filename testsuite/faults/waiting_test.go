package faults

import (
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/stage"
)

type workflowRun = client.WorkflowRun

func awaitClosed(s stage.Stage, c <-chan struct{}) {
	s.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.Fail(s, "it must happen")
	}
}
