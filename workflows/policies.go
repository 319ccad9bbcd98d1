package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// heartbeatTimeout is how soon a dead worker's target is given to another one.
const heartbeatTimeout = 10 * time.Second

// requestAllowance is what single requests may add to the times that an input
// sets: connecting, the client's deadline, and its waiting for rate limits.
const requestAllowance = 10 * time.Minute

// readKeysAtATime bounds the payload of one ReadKeys activity.
const readKeysAtATime = 100

// activityOptions is the one policy of all activities: attempts without end as
// far as Temporal is concerned (the activities themselves know how long an
// error is worth retrying, and a worker's absence is no error), noticed soon
// when a worker dies. lasting is how long one attempt may take in its waiting.
func activityOptions(ctx workflow.Context, summary string, lasting time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		Summary:             summary,
		StartToCloseTimeout: lasting + requestAllowance,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    time.Second,
			BackoffCoefficient: 2,
			MaximumInterval:    30 * time.Second,
		},
	})
}

func lasting(times ...Duration) (sum time.Duration) {
	for _, t := range times {
		sum += t.Std()
	}
	return sum
}
