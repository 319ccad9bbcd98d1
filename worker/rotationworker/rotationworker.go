// Package rotationworker makes the worker that rotates keys: the one place that
// says what is registered, and with which options. The worker process, the
// sandbox and the tests all take it from here, so that none of them runs another
// set than production does.
package rotationworker

import (
	"time"

	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/workflows"
)

const (
	// StopTimeout is how long Stop waits for activities under way: one that has
	// sent a PUT must be able to read its answer, and to write it down.
	StopTimeout = 60 * time.Second

	// pollers of each kind. A task queue has four partitions; with the SDK's
	// two pollers, the last tasks of a fan-out wait seconds in one that nobody
	// polls.
	pollers = 8

	// heartbeatThrottle is the longest that a heartbeat is held back. Its
	// details are how the next attempt knows what was sent; the SDK's own 60
	// seconds would make it know less after a crash.
	heartbeatThrottle = 3 * time.Second
)

// New returns a worker, not yet started, for the task queue: with all workflows
// and activities and the Nexus service registered, and the options of
// production. Each adjust may change the options before the worker is made.
func New(c client.Client, taskQueue string, a *activities.Activities, adjust ...func(*sdkworker.Options)) sdkworker.Worker {
	options := productionOptions()
	for _, change := range adjust {
		change(&options)
	}
	worker := sdkworker.New(c, taskQueue, options)
	activities.Register(worker, a)
	workflows.Register(worker)
	workflows.RegisterActivities(worker)
	workflows.RegisterNexus(worker)
	return worker
}

func productionOptions() sdkworker.Options {
	return sdkworker.Options{
		DisableRegistrationAliasing:      true,
		MaxConcurrentActivityTaskPollers: pollers,
		MaxConcurrentWorkflowTaskPollers: pollers,
		WorkerStopTimeout:                StopTimeout,
		MaxHeartbeatThrottleInterval:     heartbeatThrottle,
		DefaultHeartbeatThrottleInterval: heartbeatThrottle,
	}
}
