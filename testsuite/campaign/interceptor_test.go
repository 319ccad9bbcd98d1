package campaign

import (
	"context"
	"encoding/json"
	"errors"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"
)

// attemptKey is the context's key of the attempt that an activity runs in.
type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// books shows the workflow and its activities what the campaign has in its
// books, instead of what the test environment has.
type books struct {
	interceptor.WorkerInterceptorBase
	run *run
}

func (b *books) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &activityInbound{interceptor.ActivityInboundInterceptorBase{Next: next}, b.run}
}

func (b *books) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &workflowInbound{interceptor.WorkflowInboundInterceptorBase{Next: next}, b.run}
}

type activityInbound struct {
	interceptor.ActivityInboundInterceptorBase
	run *run
}

func (i *activityInbound) Init(outbound interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&activityOutbound{interceptor.ActivityOutboundInterceptorBase{Next: outbound}, i.run})
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
		info.ScheduledTime, info.StartedTime, info.HeartbeatTimeout = a.scheduled, a.started, a.heartbeatTimeout
	}
	return info
}

func (o *activityOutbound) RecordHeartbeat(ctx context.Context, details ...any) {
	if a := attemptOf(ctx); a != nil && len(details) == 1 {
		a.note(details[0])
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
