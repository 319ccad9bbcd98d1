package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
)

// retryPolicy is the retry policy of all activities: attempts without end as
// far as Temporal is concerned. The activities themselves know how long an error
// is worth retrying, and a worker's absence is no error.
func retryPolicy() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{
		InitialInterval:    time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    30 * time.Second,
	}
}
