package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"
)

// heartbeatTimeout is how soon a dead worker's target is given to another one.
const heartbeatTimeout = 10 * time.Second

// requestAllowance is what single requests may add to the times that an input
// sets: connecting, the client's deadline, and its waiting for rate limits.
const requestAllowance = 10 * time.Minute

// readBatchSize is how many targets a ReadKeys activity is allowed
// requestAllowance for.
const readBatchSize = 100

// activityOptions are those of all activities: a worker that dies is noticed soon.
// timeout is how long one attempt may wait.
func activityOptions(ctx workflow.Context, summary string, timeout time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		Summary:             summary,
		StartToCloseTimeout: timeout + requestAllowance,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy:         retryPolicy(),
	})
}

func totalOf(times ...Duration) (sum time.Duration) {
	for _, t := range times {
		sum += t.Std()
	}
	return sum
}
