package campaign

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

// Limits of one run: none that runs into them would ever have ended.
const (
	idleLimit     = 15 * time.Second * slowness
	deadlockLimit = 20 * time.Second
)

// run is one run of the workflow. A rotation is a chain of them: a run may
// continue as another one, or be reset, which makes a copy of it that keeps a
// part of its history.
type run struct {
	r         *rotation
	id        string
	original  string // the run that it is a copy of, or itself
	continued string // the run that it continues
	arguments []any

	env        *sdktestsuite.TestWorkflowEnvironment
	terminated chan struct{}

	mu         sync.Mutex
	kept       []completion // history that a reset kept and that is still to be replayed
	completed  []completion // in the order of completing
	executions map[string]*execution
	attempted  map[job]bool
}

// completion is an activity that completed, as the history has it.
type completion struct {
	job
	report
}

func (r *run) execute() (result *workflows.RotateClusterResult, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			result, err = nil, fmt.Errorf("%w: %v", errNeverEnded, problem)
		}
	}()
	r.env = newEnvironment(r)
	input := r.r.input
	r.env.SetStartWorkflowOptions(client.StartWorkflowOptions{
		ID:        workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID),
		TaskQueue: workflows.DefaultTaskQueue,
	})
	r.r.operator.begin()
	r.look(time.Millisecond)
	r.env.ExecuteWorkflow(workflows.RotateClusterType, r.arguments...)
	if !r.env.IsWorkflowCompleted() {
		return nil, errNeverEnded
	}
	if err := r.env.GetWorkflowError(); err != nil {
		return nil, err
	}
	return result, r.env.GetWorkflowResult(&result)
}

var errNeverEnded = errors.New("the workflow does not end")

func newEnvironment(r *run) *sdktestsuite.TestWorkflowEnvironment {
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(worker.Options{
		Interceptors:             []interceptor.WorkerInterceptor{&books{run: r}},
		DeadlockDetectionTimeout: deadlockLimit,
	})
	workflows.Register(env)
	registerAttended(env, r)
	env.SetTestTimeout(idleLimit)
	return env
}

// registerAttended registers the activities under their names, each attempt
// attended by the campaign.
func registerAttended(env worker.ActivityRegistry, r *run) {
	register := func(name string, attended any) {
		env.RegisterActivityWithOptions(attended, activity.RegisterOptions{Name: name})
	}
	register(activities.ListTargetsName, attended(r, activities.ListTargetsName, (*activities.Activities).ListTargets,
		func(activities.ListTargetsInput) int { return noTarget }))
	register(activities.ReadKeysName, attended(r, activities.ReadKeysName, (*activities.Activities).ReadKeys,
		func(activities.ReadKeysInput) int { return noTarget }))
	register(activities.RotateKeyName, attended(r, activities.RotateKeyName, (*activities.Activities).RotateKey,
		func(in activities.RotateKeyInput) int { return r.r.w.placeOf(in.ClusterID) }))
	register(activities.VerifyKeyName, attended(r, activities.VerifyKeyName, (*activities.Activities).VerifyKey,
		func(in activities.VerifyKeyInput) int { return r.r.w.placeOf(in.ClusterID) }))
}

func attended[I, O any](r *run, name string, method func(*activities.Activities, context.Context, I) (O, error), target func(I) int) func(context.Context, I) (O, error) {
	return func(ctx context.Context, in I) (O, error) {
		done := r.attend(ctx, job{name, target(in)}, func(ctx context.Context, worker *activities.Activities) report {
			result, err := method(worker, ctx, in)
			return report{result, err}
		})
		result, _ := done.result.(O)
		return result, done.err
	}
}

// attend runs one attempt of an activity, and lets it meet its fate.
func (r *run) attend(ctx context.Context, j job, work func(context.Context, *activities.Activities) report) report {
	defer r.noticeSoon()
	if done, found := r.replay(j); found {
		return done
	}
	if r.isTerminated() {
		return report{err: errTerminated}
	}
	r.noticeSoon()
	activity.RecordHeartbeat(ctx) // keeps the test environment from its own, real timeout
	e, a := r.begin(ctx, j)
	ctx = context.WithValue(ctx, attemptKey{}, a)
	worker := r.r.w.workers[(a.nth+j.target+1)%len(r.r.w.workers)]
	done := a.live(ctx, func(ctx context.Context) report {
		r.r.w.crowd.enter()
		defer r.r.w.crowd.leave()
		return r.r.w.survive(j, func() report { return work(ctx, worker) })
	}, r.terminated)
	r.finish(e, a, done)
	return done
}

// survive makes a finding of an activity's panic.
func (w *world) survive(j job, work func() report) (done report) {
	defer func() {
		if problem := recover(); problem != nil {
			w.accuse("%v panicked: %v\n%s", j, problem, debug.Stack())
			done.err = temporal.NewNonRetryableApplicationError("panic", "Panic", nil)
		}
	}()
	return work()
}

// replay answers from the history that a reset kept.
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
	return e, e.begin(r.r.nextFate(j), info.ScheduledTime, r.r.w.plan.pace.heartbeat)
}

// finish writes down how an attempt ended; for good, unless it is tried again.
func (r *run) finish(e *execution, a *attempt, done report) {
	r.r.w.tally.end(a)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.finish(a)
	if errors.Is(done.err, errTerminated) {
		return
	}
	if isFinal(done.err) {
		r.completed = append(r.completed, completion{e.job, done})
	} else if e.started >= environmentsAttempts {
		r.r.w.giveUp()
	}
}

// environmentsAttempts is how often the SDK's test environment tries an
// activity whose policy sets no limit.
const environmentsAttempts = 10

func (w *world) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tired = true
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

// noticeSoon lets the operator look when what has just happened to an attempt
// has reached the workflow.
func (r *run) noticeSoon() {
	r.r.events.Add(1)
	r.look(0)
	r.look(2 * time.Millisecond)
	r.look(20 * time.Millisecond)
}

func (r *run) look(in time.Duration) {
	r.env.RegisterDelayedCallback(func() { r.r.operator.look(r) }, in)
}

func (r *run) progress() (p workflows.Progress, ok bool) {
	value, err := r.env.QueryWorkflow(workflows.ProgressQuery)
	if err != nil || value.Get(&p) != nil {
		return p, false
	}
	return p, true
}

// continuation gives the arguments of the run that a failed one continues as.
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
