package workflows

import (
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/ellipsis"
	"keyturn/internal/markdown"
)

// maxSummary is well within the server's limit of 400 bytes for a summary.
const maxSummary = 90 // characters, of up to 4 bytes

// shorten makes a summary out of a text with names of other people. A summary is
// Markdown, and shown as plain text elsewhere: only what would become a link, an
// image or HTML is escaped.
func shorten(summary string) string {
	if strings.Contains(summary, "](") || strings.Contains(summary, "<") {
		summary = markdown.Escape(summary)
	}
	return ellipsis.Cut(summary, maxSummary)
}

// timestamp is the workflow's time as records show it.
func timestamp(ctx workflow.Context) time.Time {
	return workflow.Now(ctx).UTC().Truncate(time.Millisecond)
}

func inUTC(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	utc := at.UTC()
	return &utc
}

// awaitWithin waits for a condition, by a timer that the Web UI's timeline shows
// with what the rotation waits for.
func awaitWithin(ctx workflow.Context, left time.Duration, summary string, condition func() bool) (inTime bool, err error) {
	return workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
		Timeout: left, TimerOptions: workflow.TimerOptions{Summary: summary},
	}, condition)
}

// plural counts things for people: "1 cluster", "2 clusters".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func orNoReason(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}

// cancellationActor is who aborts by canceling the workflow, which names nobody.
const cancellationActor = "workflow cancellation"

// parentClosePolicy lets a rotation go on when the workflow that handed it over
// is closed: it is ended by its own id.
const parentClosePolicy = enumspb.PARENT_CLOSE_POLICY_ABANDON

// isResetCopy reports whether this run is a copy that a reset made of another
// one. What that run did after the reset point is not in this run's history.
func isResetCopy(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx) // the SDK's test environment has no OriginalRunID
	return info.OriginalRunID != "" && info.OriginalRunID != info.WorkflowExecution.RunID
}

// childReusePolicy keeps a reset copy from starting a rotation that the original
// run may have started and that may have ended since.
func childReusePolicy(ctx workflow.Context) enumspb.WorkflowIdReusePolicy {
	if isResetCopy(ctx) {
		return enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	}
	return enumspb.WORKFLOW_ID_REUSE_POLICY_UNSPECIFIED
}

func lower(id string) string { return strings.ToLower(id) }

// yield lets the coroutines run that this workflow task has unblocked: the main
// one runs first. It adds nothing to the history.
func yield(ctx workflow.Context) {
	done, settable := workflow.NewFuture(ctx)
	workflow.Go(ctx, func(workflow.Context) { settable.SetValue(nil) }) // after all others
	_ = done.Get(ctx, nil)
}

// isSettled runs the coroutines that this workflow task has unblocked, and reports
// whether they leave the workflow as it was. The handler of an update runs before
// the main coroutine, and the main coroutine before those that the handler started
// and before the receivers of signals. A run that continued as new at once would
// cancel a signal that is still to be sent, and lose one that is still to be
// received.
func isSettled(ctx workflow.Context, changes *int) bool {
	seen := *changes
	yield(ctx)
	return *changes == seen && workflow.AllHandlersFinished(ctx)
}
