package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/opsmanager"
)

// PublishRotationInput says which processes are to rotate their keys, and at what
// time.
type PublishRotationInput struct {
	Scope
	// RotateAt is the time to publish, in whole seconds. It identifies the rotation:
	// it must be in the workflow's history before this activity is scheduled, be
	// later than every earlier time, and stay the same however often the activity is
	// run.
	RotateAt time.Time `json:"rotateAt"`
	// Processes are those of one batch; at least one.
	Processes []ProcessToPublish `json:"processes"`
	// SettleTime is how long the time must be seen to be absent, after a PUT of
	// unknown outcome, before another PUT.
	SettleTime Duration `json:"settleTime"`
	// FirstAttemptToken is the run id of the workflow, where that run has chosen
	// RotateAt and has not run this activity with it before; empty = a PUT may have
	// been sent, so that the absence of RotateAt is observed for SettleTime first.
	FirstAttemptToken string `json:"untouchedIn,omitempty"`
	// VersionBefore is that of the result of the run before, where its outcome was
	// unknown; 0 = there was none.
	VersionBefore int64 `json:"versionBefore,omitempty"`
}

// ProcessToPublish is a process whose key is to be rotated.
type ProcessToPublish struct {
	// Process is its name in the automation configuration.
	Process string `json:"process"`
	// PreviousRotateAt is the value that was planned to be replaced, as ListProcesses
	// returned it; "" = none. Any other one but RotateAt is RotatedByOthers.
	PreviousRotateAt string `json:"previousRotateAt,omitempty"`
}

// PublishRotationResult says that all processes were read back with RotateAt, unless
// OutcomeUnknown is set.
type PublishRotationResult struct {
	// Version is that of the configuration that was last read.
	Version int64 `json:"version"`
	// VersionBefore is that of the configuration that the last PUT was made from;
	// 0 = no PUT is known to have been sent.
	VersionBefore int64 `json:"versionBefore,omitempty"`
	// AlreadyPublished: every process had RotateAt already, and no PUT of this
	// activity is known.
	AlreadyPublished bool `json:"alreadyPublished,omitempty"`
	// PublishedAt is when RotateAt was first read back.
	PublishedAt time.Time `json:"publishedAt,omitzero"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// OutcomeUnknown: the worker had to stop before the outcome of its PUT was known.
	// Run the activity again with the same RotateAt, without a token, and with this
	// VersionBefore.
	OutcomeUnknown bool `json:"unsettled,omitempty"`
	// ConcurrentChange is set if someone else published a configuration at about the
	// same time, whose change may have been lost. RotateAt is published nevertheless.
	ConcurrentChange *ConcurrentChange `json:"concurrentChange,omitempty"`
	// Attempts made of the activity, as Temporal counts them.
	Attempts int `json:"attempts"`
}

// ConcurrentChange is a publication of someone else between the reading that a PUT
// was made from and the reading that found its effect.
type ConcurrentChange struct {
	// VersionBefore is that of the configuration that the PUT was made from, and
	// VersionAfter that of the one that was read afterwards.
	VersionBefore int64 `json:"versionBefore"`
	// VersionAfter is greater by more than one.
	VersionAfter int64 `json:"versionAfter"`
	// Publishers are those that Ops Manager's events name for this time, the newest
	// 20 of them and this worker's own API key included; empty if the events could
	// not be read.
	Publishers []Publisher `json:"publishers,omitempty"`
}

// Publisher is someone who has published an automation configuration.
type Publisher struct {
	// By is a user name or the public part of an API key; "" = the event does not
	// say.
	By string `json:"by"`
	// At is when Ops Manager recorded it.
	At time.Time `json:"at"`
	// RemoteAddress is where the request came from; "" = the event does not say.
	RemoteAddress string `json:"remoteAddress,omitempty"`
}

const (
	// maxConfigurationAge is how old the last reading may be when a PUT is sent: the
	// PUT replaces the whole document, and with it what has been published since.
	maxConfigurationAge = 10 * time.Second
	// maxPublishers bounds ConcurrentChange.Publishers.
	maxPublishers = 20
	// publishersTimeout bounds the search for publishers, which fails nothing.
	publishersTimeout = time.Minute
	// clockGranularity is that of Ops Manager's clock, as responses show it.
	clockGranularity = 2 * time.Second
)

// PublishRotation publishes one time for the processes, and changes nothing else of
// the automation configuration. It may be run any number of times: a process that has
// the time is left alone.
//
// A PUT goes out only after two equal readings, the second directly before it, and
// where an earlier PUT's outcome is unknown, after the time was seen to be absent for
// SettleTime. A PUT's outcome is settled within the attempt that sent it, or the
// activity completes as OutcomeUnknown.
func (a *Activities) PublishRotation(ctx context.Context, in PublishRotationInput) (PublishRotationResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return PublishRotationResult{}, err
	}
	defer at.finish()
	if err := in.check(); err != nil {
		return PublishRotationResult{}, err
	}
	p := &publication{attempt: at, in: in}
	at.updateDetails(func(n *heartbeatDetails) {
		if n.VersionBefore == 0 {
			n.VersionBefore = in.VersionBefore
		}
		n.Ambiguous = n.Ambiguous || in.VersionBefore != 0
	})
	if isFirstAttempt(ctx, in.FirstAttemptToken) || at.putRefusedBefore {
		current, err := p.read(ctx)
		if err != nil {
			return PublishRotationResult{}, p.unsent(err)
		}
		return p.publish(ctx, current)
	}
	at.updateDetails(func(n *heartbeatDetails) {
		n.EarlierPut = true
		n.Ambiguous = n.Ambiguous || n.VersionBefore != 0
	})
	current, err := p.settle(ctx)
	if err != nil {
		return PublishRotationResult{}, at.failure(err)
	}
	return p.publish(ctx, current)
}

func (in PublishRotationInput) check() error {
	names := map[string]bool{}
	for _, process := range in.Processes {
		if process.Process == "" || names[process.Process] {
			return permanent(ErrorInvalidInput, "processes: each must have a name of its own")
		}
		names[process.Process] = true
	}
	switch {
	case len(names) == 0:
		return permanent(ErrorInvalidInput, "processes: at least one is required")
	case in.RotateAt.IsZero() || !in.RotateAt.Equal(in.RotateAt.Truncate(time.Second)):
		return permanent(ErrorInvalidInput, "rotateAt: must be a time in whole seconds")
	}
	return nil
}

// publication is one attempt of PublishRotation.
type publication struct {
	*attempt
	in PublishRotationInput
}

// publishedState is one reading of the configuration, and which of the processes do
// not have the time.
type publishedState struct {
	configuration
	pending []string
}

// read reads the configuration, and refuses one in which the time must not be
// published.
func (p *publication) read(ctx context.Context) (publishedState, error) {
	read, err := p.readConfiguration(ctx, p.stepRetries())
	if err != nil {
		return publishedState{}, err
	}
	state := publishedState{configuration: read}
	var missing, others, pinned []string
	for _, wanted := range p.in.Processes {
		process, found := read.processes[wanted.Process]
		switch {
		case !found:
			missing = append(missing, wanted.Process)
		case isRotationTime(process.LastRotation, p.in.RotateAt):
		case !sameRotationTime(process.LastRotation, wanted.PreviousRotateAt):
			others = append(others, fmt.Sprintf("%s (%s, was %s)", wanted.Process, orNone(process.LastRotation), orNone(wanted.PreviousRotateAt)))
		case process.KeyIdentifierPinned:
			pinned = append(pinned, wanted.Process)
		default:
			state.pending = append(state.pending, wanted.Process)
		}
	}
	switch {
	case len(missing) > 0:
		return state, p.refusal(ErrorUnexpectedTopology, "the automation configuration has no process of this name any more", missing, "plan the rotation again")
	case len(others) > 0:
		return state, p.refusal(ErrorRotatedByOthers, "somebody else has set another lastKmipMasterKeyRotation since the rotation was planned", others,
			"find out in the project's activity feed who it was, then plan the rotation again")
	case len(pinned) > 0:
		return state, p.refusal(ErrorKeyIdentifierPinned, "since the rotation was planned, these processes were bound to one key by security.kmip.keyIdentifier", pinned,
			"remove keyIdentifier from their settings first")
	}
	return state, nil
}

// refusal is a configuration in which the time must not be published.
func (p *publication) refusal(errorType ErrorType, what string, about []string, advice string) error {
	sent := "nothing was sent"
	if p.currentDetails().VersionBefore != 0 {
		sent = "no further PUT was sent"
	}
	return p.permanent(errorType, "GET %s: %s: %s; %s; %s", opsmanager.AutomationConfigPath(p.in.ProjectID), what, nameList(about), sent, advice)
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// settle reads until all processes have the time, or until those that do not have
// been seen so for SettleTime. As with a key, only observed time counts: see
// keyRotation.resolveOutcome.
func (p *publication) settle(ctx context.Context) (publishedState, error) {
	settleTime := p.in.SettleTime.Std()
	pause := settlePause(settleTime)
	row := p.observeWithin(pause)
	retries := p.stepRetries()
	for {
		row.ask()
		state, err := p.read(ctx)
		if err != nil || len(state.pending) == 0 || settleTime <= 0 {
			return state, err
		}
		if row.unchanged() && retries.left() <= 0 {
			return state, p.permanent(ErrorOpsManagerUnavailable, "GET %s: the responses took so long that the configuration was not observed for the settleTime of %s without a gap, within the retryTimeout of %s; %s",
				opsmanager.AutomationConfigPath(p.in.ProjectID), p.in.SettleTime, p.scope.RetryTimeout, adviceUnknownPublication)
		}
		if row.lasted() >= settleTime {
			return state, nil
		}
		if err := p.wait(ctx, min(pause, time.Until(row.since.Add(settleTime)))); err != nil {
			return state, err
		}
	}
}

// adviceUnknownPublication is what to do where a PUT's outcome stays unknown.
const adviceUnknownPublication = "whether the PUT took effect is unknown: when Ops Manager answers again, retry, which reads the configuration before it publishes the same time again"

// settlePause is the pause between two readings of a document of megabytes.
func settlePause(settleTime time.Duration) time.Duration {
	return min(max(settleTime/6, 20*time.Millisecond), 5*time.Second)
}

var (
	errConfigurationTooOld = errors.New("the automation configuration was read too long before it could be sent")
	errChangedBetween      = errors.New("the automation configuration changes between two readings")
	errNotShown            = errors.New("the PUT was accepted, but the configuration does not show the time")
)

// publish sends the time until all processes have it. No PUT is open between two
// turns of the loop.
func (p *publication) publish(ctx context.Context, current publishedState) (PublishRotationResult, error) {
	for try := 1; len(current.pending) > 0; try++ {
		again, err := p.read(ctx)
		if err != nil {
			return PublishRotationResult{}, p.unsent(err)
		}
		if again.Equal(current.AutomationConfig) {
			err = p.put(ctx, again)
		} else {
			err = errChangedBetween
		}
		current = again
		if apiError, isAPIError := opsmanager.AsError(err); err == nil || isAPIError && apiError.OutcomeUnknown {
			// Whoever pauses, resets or cancels the activity meanwhile.
			shown, settleErr := p.settle(context.WithoutCancel(ctx))
			if settleErr != nil {
				return p.unsettled(settleErr)
			}
			if current = shown; len(shown.pending) == 0 {
				break
			}
			if err == nil {
				err = errNotShown
			}
		}
		if err := p.waitAfter(ctx, err, try); err != nil {
			return PublishRotationResult{}, p.unsent(err)
		}
	}
	return p.published(ctx, current), nil
}

// permanent is a failure whose details say whether a PUT may have been sent.
func (p *publication) permanent(errorType ErrorType, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), string(errorType), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{p.failureDetails(&opsmanager.Error{})},
	})
}

// put sends one PUT, made from a configuration that was read directly before.
func (p *publication) put(ctx context.Context, from publishedState) error {
	changed, err := from.WithRotationTime(from.pending, p.in.RotateAt)
	if err != nil {
		return p.permanent(ErrorUnexpectedTopology, "GET %s: %v; nothing was sent; plan the rotation again", opsmanager.AutomationConfigPath(p.in.ProjectID), err)
	}
	err = p.client.PutAutomationConfig(ctx, p.in.ProjectID, changed, func() error { return p.beforeSend(from) })
	if apiError, ok := opsmanager.AsError(err); ok && apiError.OutcomeUnknown {
		p.updateDetails(func(n *heartbeatDetails) { n.Ambiguous = true })
		activity.GetLogger(ctx).Warn("PUT outcome unknown; polling the automation configuration to resolve it", "rotateAt", p.in.RotateAt, "settleTime", p.in.SettleTime, "message", err.Error())
	}
	return err
}

// beforeSend is called directly before a PUT leaves, after all waiting for limits and
// authentication. Temporal has noted then what the PUT is made from.
func (p *publication) beforeSend(from publishedState) error {
	if time.Since(from.answered) > maxConfigurationAge {
		return errConfigurationTooOld
	}
	p.updateDetails(func(n *heartbeatDetails) {
		n.VersionBefore, n.ReadAt = from.Version(), p.serverTime(from.answered)
	})
	if activity.GetInfo(p.ctx).HeartbeatTimeout == 0 {
		return nil // no other worker can have the activity
	}
	return p.confirm()
}

// waitAfter pauses before the time is published again. It gives the error back where
// that does not help, or its time is up.
func (p *publication) waitAfter(ctx context.Context, err error, try int) error {
	if p.isInterruption(err) {
		return err
	}
	retries := p.stepRetries()
	for _, own := range []struct {
		err       error
		errorType ErrorType
		advice    string
	}{
		{errConfigurationTooOld, ErrorOpsManagerUnavailable, "raise the worker's OPS_MANAGER_REQUESTS_PER_SECOND, or check the network"},
		{errChangedBetween, ErrorOpsManagerUnavailable, "find out in the project's activity feed who keeps publishing, then retry"},
		{errNotShown, ErrorUnexpectedResponse, "check OPS_MANAGER_URL and any proxy between the worker and Ops Manager, and find out in the project's activity feed who publishes configurations without the time"},
	} {
		if !errors.Is(err, own.err) {
			continue
		}
		if retries.left() <= 0 {
			p.updateDetails(func(n *heartbeatDetails) { n.PutRefused = true })
			return p.permanent(own.errorType, "PUT %s: %v; gave up after retrying for %s; %s", opsmanager.AutomationConfigPath(p.in.ProjectID), own.err, p.scope.RetryTimeout, own.advice)
		}
		p.failedRequests.Add(1)
		activity.GetLogger(ctx).Warn("retrying to publish", "rotateAt", p.in.RotateAt, "message", own.err.Error())
		return p.wait(ctx, min(backoff(try), retries.left()))
	}
	return retries.waitAfter(ctx, err, try)
}

// unsent ends an attempt that leaves no PUT open.
func (p *publication) unsent(err error) error {
	p.updateDetails(func(n *heartbeatDetails) { n.PutRefused = true })
	return p.failure(err)
}

// unsettled ends an attempt whose PUT's outcome is not known.
func (p *publication) unsettled(err error) (PublishRotationResult, error) {
	if errors.Is(err, errWorkerStopping) {
		result := p.result()
		result.OutcomeUnknown, result.Ambiguous = true, true
		return result, nil
	}
	if apiError, ok := opsmanager.AsError(err); ok {
		return PublishRotationResult{}, p.finalFailure(apiError, fmt.Sprintf("PUT outcome unknown, and the automation configuration could not be read for the settleTime of %s without a failure (%s): ", p.in.SettleTime, adviceUnknownPublication))
	}
	return PublishRotationResult{}, err
}

func (p *publication) result() PublishRotationResult {
	known := p.currentDetails()
	return PublishRotationResult{VersionBefore: known.VersionBefore, Ambiguous: known.Ambiguous, Attempts: int(activity.GetInfo(p.ctx).Attempt)}
}

// published completes an attempt that has read all processes with the time.
func (p *publication) published(ctx context.Context, current publishedState) PublishRotationResult {
	result := p.result()
	result.Version, result.PublishedAt = current.Version(), p.timestamp()
	result.AlreadyPublished = result.VersionBefore == 0
	if result.VersionBefore != 0 && result.Version > result.VersionBefore+1 {
		result.ConcurrentChange = &ConcurrentChange{VersionBefore: result.VersionBefore, VersionAfter: result.Version, Publishers: p.publishers(ctx)}
	}
	activity.GetLogger(ctx).Info("rotation published", "rotateAt", p.in.RotateAt, "processes", len(p.in.Processes), "version", result.Version,
		"alreadyPublished", result.AlreadyPublished, "concurrentChange", result.ConcurrentChange != nil)
	return result
}

// publishers are those who have published since the configuration was read that the
// PUT was made from. Nothing fails where they cannot be found.
func (p *publication) publishers(ctx context.Context) (found []Publisher) {
	ctx, cancel := context.WithTimeout(ctx, publishersTimeout)
	defer cancel()
	var events []opsmanager.Event
	err := p.retryTransient(ctx, func() (err error) {
		events, err = p.client.Events(ctx, p.in.ProjectID, opsmanager.EventAutomationConfigPublished, p.readAt())
		return err
	})
	if err != nil {
		activity.GetLogger(ctx).Warn("the publishers of automation configurations cannot be read", "message", err.Error())
		return nil
	}
	slices.SortStableFunc(events, func(a, b opsmanager.Event) int { return b.Created.Compare(a.Created) })
	for _, event := range events[:min(len(events), maxPublishers)] {
		found = append(found, Publisher{By: event.Actor(), At: event.Created, RemoteAddress: event.RemoteAddress})
	}
	return found
}

// readAt is when the configuration was read that the last PUT was made from, by Ops
// Manager's clock.
func (p *publication) readAt() time.Time {
	readAt := p.currentDetails().ReadAt
	if readAt.IsZero() { // of an activity before
		return p.in.RotateAt.Add(-clockGranularity)
	}
	return readAt.Add(p.opsManagerTime().Sub(p.serverTime(time.Now())) - clockGranularity)
}
