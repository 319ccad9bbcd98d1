package randomized

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/support/fixture"
)

// attemptKey is the context key of the attempt that an activity runs in.
type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// overrides is an interceptor that shows the workflow and its activities the
// state that this test keeps instead of the state of the test environment.
type overrides struct {
	fixture.ActivityCalls
	run *run
}

func newOverrides(r *run) *overrides {
	return &overrides{run: r, ActivityCalls: fixture.ActivityCalls{Wrap: func(next interceptor.ActivityOutboundInterceptor) interceptor.ActivityOutboundInterceptor {
		return &activityOutbound{interceptor.ActivityOutboundInterceptorBase{Next: next}, r}
	}}}
}

func (b *overrides) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &workflowInbound{interceptor.WorkflowInboundInterceptorBase{Next: next}, b.run}
}

type activityOutbound struct {
	interceptor.ActivityOutboundInterceptorBase
	run *run
}

func (o *activityOutbound) GetInfo(ctx context.Context) activity.Info {
	info := o.Next.GetInfo(ctx)
	info.WorkflowExecution.RunID = o.run.id
	if a := attemptOf(ctx); a != nil {
		info.Attempt = int32(a.number)
		info.ScheduledTime, info.StartedTime, info.HeartbeatTimeout = a.scheduled.Add(a.offset), a.started.Add(a.offset), a.heartbeatTimeout
	}
	return info
}

func (o *activityOutbound) RecordHeartbeat(ctx context.Context, details ...any) {
	if a := attemptOf(ctx); a != nil && len(details) == 1 {
		a.recordHeartbeat(details[0])
		return
	}
	o.Next.RecordHeartbeat(ctx, details...)
}

func (o *activityOutbound) HasHeartbeatDetails(ctx context.Context) bool {
	a := attemptOf(ctx)
	return a != nil && a.before != nil
}

func (o *activityOutbound) GetHeartbeatDetails(ctx context.Context, into ...any) error {
	a := attemptOf(ctx)
	if a == nil || a.before == nil || len(into) != 1 {
		return errors.New("no heartbeat details")
	}
	return json.Unmarshal(a.before, into[0])
}

func (o *activityOutbound) GetWorkerStopChannel(ctx context.Context) <-chan struct{} {
	if a := attemptOf(ctx); a != nil {
		return a.stop
	}
	return o.Next.GetWorkerStopChannel(ctx)
}

type workflowInbound struct {
	interceptor.WorkflowInboundInterceptorBase
	run *run
}

func (i *workflowInbound) Init(outbound interceptor.WorkflowOutboundInterceptor) error {
	return i.Next.Init(&workflowOutbound{interceptor.WorkflowOutboundInterceptorBase{Next: outbound}, i.run})
}

type workflowOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	run *run
}

func (o *workflowOutbound) GetInfo(ctx workflow.Context) *workflow.Info {
	info := *o.Next.GetInfo(ctx)
	info.WorkflowExecution.RunID = o.run.id
	info.OriginalRunID, info.ContinuedExecutionRunID = o.run.original, o.run.continued
	return &info
}

// Now is the time of the test environment, which is the same in each replay there.
//
//workflowcheck:ignore
func (o *workflowOutbound) Now(workflow.Context) time.Time { return o.run.r.env.now() }
