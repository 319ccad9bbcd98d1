package childproc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
)

const (
	// workerTime limits the time until a worker polls.
	workerTime = 60 * time.Second
	// workerInterval is the time between two checks.
	workerInterval = 200 * time.Millisecond
)

// StartWorker starts a worker executable with the variables that configure it.
// It may not poll yet: see [AwaitPolling].
func StartWorker(executable string, log *os.File, variables ...Variable) (*Child, error) {
	command := exec.Command(executable)
	command.Env = Environment(variables...)
	command.Stdout, command.Stderr = log, log
	worker, err := StartInBackground(command)
	if err != nil {
		return nil, fmt.Errorf("starting the worker: %w", err)
	}
	return worker, nil
}

// dialer is a Temporal server.
type dialer interface {
	Dial(context.Context) (client.Client, error)
}

// AwaitPolling returns when all workers poll the task queue.
func AwaitPolling(ctx context.Context, server dialer, taskQueue string, workers ...*Child) error {
	ctx, cancel := context.WithTimeoutCause(ctx, workerTime, fmt.Errorf("the worker does not poll after %s", workerTime))
	defer cancel()
	for _, worker := range workers {
		var stopWatching context.CancelFunc
		ctx, stopWatching = WhileWorkerRuns(ctx, worker)
		defer stopWatching()
	}
	temporal, err := server.Dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	for !arePolling(ctx, temporal, taskQueue, workers) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(workerInterval):
		}
	}
	return nil
}

// arePolling is false if Temporal cannot be asked. A worker's identity is
// host@pid.
func arePolling(ctx context.Context, temporal client.Client, taskQueue string, workers []*Child) bool {
	described, err := temporal.DescribeTaskQueue(ctx, taskQueue, enums.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return false
	}
	polling := map[string]bool{}
	for _, poller := range described.GetPollers() {
		_, pid, _ := strings.Cut(poller.GetIdentity(), "@")
		polling[pid] = true
	}
	return !slices.ContainsFunc(workers, func(worker *Child) bool { return !polling[strconv.Itoa(worker.PID())] })
}

// WhileWorkerRuns returns a context that also ends with the worker.
func WhileWorkerRuns(ctx context.Context, worker *Child) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-worker.Ended():
			cancel(fmt.Errorf("the worker exited (%s)", worker.End()))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
