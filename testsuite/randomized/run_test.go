package randomized

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	sdktestsuite "go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/workflows"
)

// Limits of one run. A run that exceeds them would never end.
const (
	idleLimit     = 15 * time.Second * timeScale
	deadlockLimit = 20 * time.Second
)

// run is one run of the workflow. A rotation is a chain of runs: a run may
// continue as new, or be reset, which creates a copy with a part of its
// history.
type run struct {
	r         *rotation
	id        string
	original  string // the run that it was copied from, or itself
	continued string // the run that continued as this one
	arguments []any

	testEnv    *sdktestsuite.TestWorkflowEnvironment
	terminated chan struct{}

	mu         sync.Mutex
	kept       []completion // history kept by a reset and not replayed yet
	completed  []completion // in the order of completion
	executions map[string]*execution
	attempted  map[job]bool
}

// completion is a completed activity in the history.
type completion struct {
	job
	report
}

func (r *run) execute() (result *workflows.RotateClusterResult, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			result, err = nil, fmt.Errorf("%w: %v", errNotCompleted, problem)
		}
	}()
	r.testEnv = newTestEnv(r)
	input := r.r.input
	r.testEnv.SetStartWorkflowOptions(client.StartWorkflowOptions{
		ID:        workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID),
		TaskQueue: workflows.DefaultTaskQueue,
	})
	r.r.operator.begin()
	r.scheduleStep(time.Millisecond)
	r.testEnv.ExecuteWorkflow(workflows.RotateClusterType, r.arguments...)
	if !r.testEnv.IsWorkflowCompleted() {
		return nil, errNotCompleted
	}
	if err := r.testEnv.GetWorkflowError(); err != nil {
		return nil, err
	}
	return result, r.testEnv.GetWorkflowResult(&result)
}

var errNotCompleted = errors.New("the workflow does not complete")

func newTestEnv(r *run) *sdktestsuite.TestWorkflowEnvironment {
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(worker.Options{
		Interceptors:             []interceptor.WorkerInterceptor{newOverrides(r)},
		DeadlockDetectionTimeout: deadlockLimit,
	})
	workflows.Register(env)
	registerActivities(env, r)
	env.SetTestTimeout(idleLimit)
	return env
}

// registerActivities registers the activities under their names, wrapped so
// that attempt faults apply.
func registerActivities(env worker.ActivityRegistry, r *run) {
	register := func(name string, attended any) {
		env.RegisterActivityWithOptions(attended, activity.RegisterOptions{Name: name})
	}
	register(activities.ListTargetsName, instrumented(r, activities.ListTargetsName, (*activities.Activities).ListTargets,
		func(activities.ListTargetsInput) int { return noTarget }))
	register(activities.ReadKeysName, instrumented(r, activities.ReadKeysName, (*activities.Activities).ReadKeys,
		func(activities.ReadKeysInput) int { return noTarget }))
	register(activities.RotateKeyName, instrumented(r, activities.RotateKeyName, (*activities.Activities).RotateKey,
		func(in activities.RotateKeyInput) int { return r.r.env.targetIndex(in.ClusterID) }))
	register(activities.VerifyKeyName, instrumented(r, activities.VerifyKeyName, (*activities.Activities).VerifyKey,
		func(in activities.VerifyKeyInput) int { return r.r.env.targetIndex(in.ClusterID) }))
	register(activities.RecordRotationName, instrumented(r, activities.RecordRotationName, (*activities.Activities).RecordRotation,
		func(activities.RecordRotationInput) int { return noTarget }))
}

func instrumented[I, O any](r *run, name string, method func(*activities.Activities, context.Context, I) (O, error), target func(I) int) func(context.Context, I) (O, error) {
	return func(ctx context.Context, in I) (O, error) {
		done := r.attempt(ctx, job{name, target(in)}, func(ctx context.Context, worker *activities.Activities) report {
			result, err := method(worker, ctx, in)
			return report{result, err}
		})
		result, _ := done.result.(O)
		return result, done.err
	}
}

// attempt runs one attempt of an activity and applies its fault.
func (r *run) attempt(ctx context.Context, j job, work func(context.Context, *activities.Activities) report) report {
	defer r.scheduleOperator()
	if done, found := r.replay(j); found {
		return done
	}
	if r.isTerminated() {
		return report{err: errTerminated}
	}
	r.scheduleOperator()
	activity.RecordHeartbeat(ctx) // prevents the heartbeat timeout of the test environment
	e, a := r.begin(ctx, j)
	ctx = context.WithValue(ctx, attemptKey{}, a)
	worker := r.r.env.workers[(a.nth+j.target+1)%len(r.r.env.workers)]
	done := a.run(ctx, func(ctx context.Context) report {
		r.r.env.running.add()
		defer r.r.env.running.done()
		return r.r.env.recoverPanic(j, func() report { return work(ctx, worker) })
	}, r.terminated)
	r.finish(e, a, done)
	return done
}

// recoverPanic reports a panic of an activity as a violation.
func (e *env) recoverPanic(j job, work func() report) (done report) {
	defer func() {
		if problem := recover(); problem != nil {
			e.addViolation("%v panicked: %v\n%s", j, problem, debug.Stack())
			done.err = temporal.NewNonRetryableApplicationError("panic", "Panic", nil)
		}
	}()
	return work()
}

// replay returns a result from the history that a reset kept.
func (r *run) replay(j job) (report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, done := range r.kept {
		if done.job == j {
			r.kept = append(r.kept[:i:i], r.kept[i+1:]...)
			r.completed = append(r.completed, done)
			return done.report, true
		}
	}
	return report{}, false
}

func (r *run) isReplaying() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.kept) > 0
}

func (r *run) begin(ctx context.Context, j job) (*execution, *attempt) {
	info := activity.GetInfo(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.executions[info.ActivityID]
	if e == nil {
		e = &execution{job: j}
		r.executions[info.ActivityID] = e
	}
	r.attempted[j] = true
	return e, e.begin(r.r.nextAttemptFault(j), info.ScheduledTime, r.r.env.offset(), r.r.env.plan.timing.heartbeat)
}

// finish records how an attempt ended. The result is final unless the activity
// is retried.
func (r *run) finish(e *execution, a *attempt, done report) {
	r.r.env.counters.addAttempt(a)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.finish(a)
	if errors.Is(done.err, errTerminated) {
		return
	}
	if isFinal(done.err) {
		r.completed = append(r.completed, completion{e.job, done})
	} else if e.started >= testEnvMaxAttempts {
		r.r.env.reachAttemptLimit()
	}
}

// testEnvMaxAttempts is the number of attempts in the SDK's test environment if
// the retry policy sets no limit.
const testEnvMaxAttempts = 10

func (e *env) reachAttemptLimit() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attemptLimitReached = true
}

func isFinal(err error) bool {
	var appErr *temporal.ApplicationError
	return err == nil || errors.As(err, &appErr) && appErr.NonRetryable()
}

func (r *run) terminate() { close(r.terminated) }

func (r *run) isTerminated() bool {
	select {
	case <-r.terminated:
		return true
	default:
		return false
	}
}

// scheduleOperator lets the operator act when the workflow has processed what
// has just happened to an attempt.
func (r *run) scheduleOperator() {
	r.r.transitions.Add(1)
	r.scheduleStep(0)
	r.scheduleStep(2 * time.Millisecond)
	r.scheduleStep(20 * time.Millisecond)
}

func (r *run) scheduleStep(in time.Duration) {
	r.testEnv.RegisterDelayedCallback(func() { r.r.operator.step(r) }, in)
}

func (r *run) progress() (p workflows.Progress, ok bool) {
	value, err := r.testEnv.QueryWorkflow(workflows.ProgressQuery)
	if err != nil || value.Get(&p) != nil {
		return p, false
	}
	return p, true
}

// continuation returns the arguments of the run that a run continues as.
func continuation(err error) (arguments []any, continues bool) {
	var continued *workflow.ContinueAsNewError
	if !errors.As(err, &continued) {
		return nil, false
	}
	for _, p := range continued.Input.Payloads {
		arguments = append(arguments, converter.NewRawValue(p))
	}
	return arguments, true
}
