package faultinjection

import (
	"context"

	"go.temporal.io/sdk/client"

	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/waiting"
)

type workflowRun = client.WorkflowRun

func awaitClosed(s fixture.Server, c <-chan struct{}) {
	s.Helper()
	waiting.For(s, c)
}

// endOf waits for the end of a rotation in the background. A run is not safe for use
// by several goroutines (each continue-as-new changes it), so that this one is another.
func endOf(ctx context.Context, s fixture.Server, run workflowRun) <-chan error {
	own := s.Temporal.GetWorkflow(ctx, run.GetID(), run.GetRunID())
	ended := make(chan error, 1)
	go func() { ended <- own.Get(ctx, nil) }()
	return ended
}
