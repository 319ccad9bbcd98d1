package rotationworker_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/worker/rotationworker"
)

func TestMain(m *testing.M) {
	temporalserver.Main(m)
}

// TestStopWaitsForAnActivityUnderWay is about what keeps a PUT's answer from
// being lost: an activity neither loses its context nor its result to a Stop.
func TestStopWaitsForAnActivityUnderWay(t *testing.T) {
	const taskQueue = "stop-waits"
	temporal := temporalserver.Shared(t).NewClient(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	worker := rotationworker.New(temporal, taskQueue, &activities.Activities{})
	worker.RegisterActivityWithOptions(func(ctx context.Context) (string, error) {
		close(begun)
		<-finish
		return "answered", ctx.Err()
	}, activity.RegisterOptions{Name: "Slow"})
	worker.RegisterWorkflowWithOptions(callSlow, workflow.RegisterOptions{Name: "CallSlow"})
	require.NoError(t, worker.Start())
	started, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{TaskQueue: taskQueue}, "CallSlow")
	require.NoError(t, err)
	<-begun
	stopped := make(chan struct{})
	go func() {
		worker.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		require.Fail(t, "Stop did not wait for the activity")
	case <-time.After(time.Second):
	}
	close(finish)
	<-stopped

	// Another worker finds the activity's result in the history.
	other := rotationworker.New(temporal, taskQueue, &activities.Activities{})
	other.RegisterWorkflowWithOptions(callSlow, workflow.RegisterOptions{Name: "CallSlow"})
	require.NoError(t, other.Start())
	defer other.Stop()
	var result string
	require.NoError(t, started.Get(t.Context(), &result))
	assert.Equal(t, "answered", result)
}

func callSlow(ctx workflow.Context) (result string, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	err = workflow.ExecuteActivity(ctx, "Slow").Get(ctx, &result)
	return result, err
}

func TestAdjustChangesTheProductionOptions(t *testing.T) {
	temporal := temporalserver.Shared(t).NewClient(t)
	var seen sdkworker.Options
	rotationworker.New(temporal, "adjusted", &activities.Activities{}, func(options *sdkworker.Options) { seen = *options })
	assert.True(t, seen.DisableRegistrationAliasing)
	assert.Equal(t, rotationworker.StopTimeout, seen.WorkerStopTimeout)
	assert.GreaterOrEqual(t, seen.MaxConcurrentActivityTaskPollers, 8)
}
