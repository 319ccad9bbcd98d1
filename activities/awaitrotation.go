package activities

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/internal/ellipsis"
	"keyturn/opsmanager"
)

// AwaitRotationInput says which processes must reach a published time.
type AwaitRotationInput struct {
	Scope
	// RotateAt is the time that was published.
	RotateAt time.Time `json:"rotateAt"`
	// Processes are those that have not been seen to have arrived.
	Processes []ProcessToAwait `json:"processes"`
	// DeployTimeout is the longest time without progress: no process reaches the goal or
	// restarts.
	DeployTimeout Duration `json:"deployTimeout"`
	// ProgressAt is that of the result of the run before, with the same RotateAt; zero
	// = there was none, so that the time begins when the activity starts.
	ProgressAt time.Time `json:"progressAt,omitzero"`
}

// ProcessToAwait is a process that is to restart with another key.
type ProcessToAwait struct {
	// Process is its name in the automation configuration.
	Process string `json:"process"`
	// Host is "hostname:port", as ListProcesses returned it.
	Host string `json:"host"`
}

// AwaitRotationResult says which of the processes have arrived. Where Dropped is
// empty, all have.
type AwaitRotationResult struct {
	// Processes are those that have arrived.
	Processes []ArrivedProcess `json:"processes"`
	// Dropped are processes that do not have RotateAt any more, because someone has
	// published a configuration without it before they had arrived: publish the same
	// time for them again, then await all that have not arrived.
	Dropped []string `json:"dropped,omitempty"`
	// ProgressAt is when there was progress for the last time, by Temporal's clock.
	ProgressAt time.Time `json:"progressAt,omitzero"`
}

// ArrivedProcess is a process whose agent reports, without an error, that it has
// reached a configuration with the time of the rotation, and that has restarted since
// that time. Neither shows that its key is another one: see ProveRotation.
type ArrivedProcess struct {
	// Process is its name in the automation configuration.
	Process string `json:"process"`
	// RestartedAt is when it was last started, by Ops Manager: later than RotateAt.
	RestartedAt time.Time `json:"restartedAt"`
	// GoalVersion is that of the configuration that its agent has reached.
	GoalVersion int64 `json:"goalVersion"`
}

// hostReadings is how many readings of the status there are for one of the hosts,
// which are a longer list.
const hostReadings = 3

// AwaitRotation waits until the agents report that they have reached a configuration
// with the time, and Ops Manager shows that the processes have restarted since. It
// changes nothing. Each transient error is retried for RetryTimeout.
//
// The agents' errors, and no progress for DeployTimeout, are DeploymentFailed. An
// error counts if two readings in a row have it.
func (a *Activities) AwaitRotation(ctx context.Context, in AwaitRotationInput) (AwaitRotationResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return AwaitRotationResult{}, err
	}
	defer at.finish()
	w := newArrivals(at, in)
	pause := pollPause(in.DeployTimeout.Std())
	for {
		if err := w.read(ctx); err != nil {
			return AwaitRotationResult{}, at.failure(err)
		}
		dropped := w.dropped()
		if len(w.left) == 0 || len(dropped) > 0 {
			return w.result(dropped), nil
		}
		if err := w.checkFailure(); err != nil {
			return AwaitRotationResult{}, at.failure(err)
		}
		remaining := w.remaining()
		switch {
		case remaining <= 0:
			return AwaitRotationResult{}, at.failure(w.deploymentFailed(nil))
		case at.isNearDeadline():
			// The next attempt continues.
			activity.RecordHeartbeat(at.ctx, at.currentDetails())
			return AwaitRotationResult{}, interrupted("the rotation makes progress", firstRetryPause)
		}
		if err := at.wait(ctx, min(pause, remaining)); err != nil {
			return AwaitRotationResult{}, at.failure(err)
		}
	}
}

// arrivals is one attempt of AwaitRotation.
type arrivals struct {
	*attempt
	in   AwaitRotationInput
	left []*awaited // in the order of the input
	// goal is the goal version of the last reading, for which the configuration was
	// read; readings counts them.
	goal     int64
	readings int
}

// awaited is what is known of a process that has not arrived.
type awaited struct {
	ProcessToAwait
	// since is the first version with the time that was read, and until the last one;
	// 0 = none was read.
	since, until int64
	// dropped: the configuration does not have the time any more.
	dropped   bool
	status    opsmanager.ProcessStatus
	hasStatus bool
	// errors is how many readings in a row have had an error.
	errors      int
	restartedAt time.Time
	// reached: it was at its goal; restarted: it has restarted since the time; looked:
	// the hosts were read since it was at its goal.
	reached, restarted, looked bool
}

func newArrivals(at *attempt, in AwaitRotationInput) *arrivals {
	w := &arrivals{attempt: at, in: in, goal: -1}
	at.updateDetails(func(n *heartbeatDetails) {
		if n.ProgressAt.IsZero() {
			n.ProgressAt = in.ProgressAt
		}
		if n.ProgressAt.IsZero() {
			n.ProgressAt = at.serverTime(at.started)
		}
	})
	arrived := map[string]bool{}
	for _, process := range at.currentDetails().Arrived {
		arrived[process.Process] = true
	}
	for _, process := range in.Processes {
		if !arrived[process.Process] {
			w.left = append(w.left, &awaited{ProcessToAwait: process})
		}
	}
	return w
}

// read reads how far the processes are.
func (w *arrivals) read(ctx context.Context) error {
	var status opsmanager.AutomationStatus
	r := w.newRetries()
	err := r.transient(ctx, func() error {
		return w.rereadOdd(ctx, r, isOdd, func() (err error) {
			status, err = w.client.AutomationStatus(ctx, w.in.ProjectID)
			return err
		})
	})
	if err != nil {
		return err
	}
	if status.GoalVersion != w.goal {
		if err := w.readTimes(ctx); err != nil {
			return err
		}
		w.goal = status.GoalVersion
	}
	w.addStatus(status)
	if w.needsHosts() {
		if err := w.readHosts(ctx); err != nil {
			return err
		}
	}
	w.readings++
	w.takeArrived()
	return nil
}

// readTimes reads which processes have the time, after a publication.
func (w *arrivals) readTimes(ctx context.Context) error {
	config, err := w.readConfiguration(ctx, w.newRetries())
	if err != nil {
		return err
	}
	for _, process := range w.left {
		found, has := config.processes[process.Process]
		process.dropped = !has || !isRotationTime(found.LastRotation, w.in.RotateAt)
		if process.dropped {
			continue
		}
		process.until = config.Version()
		if process.since == 0 {
			process.since = config.Version()
		}
	}
	return nil
}

func (w *arrivals) addStatus(status opsmanager.AutomationStatus) {
	byName := make(map[string]opsmanager.ProcessStatus, len(status.Processes))
	for _, process := range status.Processes {
		byName[process.Name] = process
	}
	for _, process := range w.left {
		process.status, process.hasStatus = byName[process.Process]
		if process.hasStatus && process.status.ErrorCode != 0 {
			process.errors++
		} else {
			process.errors = 0
		}
		if process.isAtGoal() {
			w.progress(&process.reached)
		}
	}
}

// isAtGoal reports whether the agent says that the process has reached a version with
// the time. Where a later version has dropped it, the agent may have reached that one
// without the time.
func (p *awaited) isAtGoal() bool {
	return p.hasStatus && p.since != 0 && p.status.IsAtGoal(p.since) && (!p.dropped || p.status.AchievedVersion <= p.until)
}

// progress notes what has not happened before.
func (w *arrivals) progress(happened *bool) {
	if *happened {
		return
	}
	*happened = true
	now := w.serverTime(time.Now())
	w.updateDetails(func(n *heartbeatDetails) { n.ProgressAt = now })
}

// needsHosts reports whether a process is said to have arrived, so that it matters
// when it restarted.
func (w *arrivals) needsHosts() bool {
	fresh := slices.ContainsFunc(w.left, func(p *awaited) bool { return p.isAtGoal() && !p.looked })
	return fresh || w.readings%hostReadings == 0 && slices.ContainsFunc(w.left, (*awaited).isAtGoal)
}

func (w *arrivals) readHosts(ctx context.Context) error {
	var hosts []opsmanager.Host
	r := w.newRetries()
	err := r.transient(ctx, func() error {
		return w.rereadOdd(ctx, r, isOdd, func() (err error) {
			hosts, err = w.client.Hosts(ctx, w.in.ProjectID, "")
			return err
		})
	})
	if err != nil {
		return err
	}
	byAddress := hostsByAddress(hosts)
	for _, process := range w.left {
		process.restartedAt = byAddress[hostKey(process.Host)].LastRestart
		process.looked = process.looked || process.isAtGoal()
		if process.restartedAt.After(w.in.RotateAt) {
			w.progress(&process.restarted)
		}
	}
	return nil
}

// takeArrived notes the processes that have arrived.
func (w *arrivals) takeArrived() {
	w.left = slices.DeleteFunc(w.left, func(p *awaited) bool {
		arrived := p.isAtGoal() && p.restartedAt.After(w.in.RotateAt)
		if arrived {
			w.updateDetails(func(n *heartbeatDetails) {
				n.Arrived = append(slices.Clip(n.Arrived), ArrivedProcess{p.Process, p.restartedAt.UTC(), p.status.AchievedVersion})
			})
		}
		return arrived
	})
}

// dropped names the processes that have not arrived and do not have the time any
// more.
func (w *arrivals) dropped() (names []string) {
	for _, process := range w.left {
		if process.dropped {
			names = append(names, process.Process)
		}
	}
	return names
}

func (w *arrivals) result(dropped []string) AwaitRotationResult {
	known := w.currentDetails()
	result := AwaitRotationResult{Processes: known.Arrived, Dropped: dropped, ProgressAt: known.ProgressAt}
	if result.Processes == nil {
		result.Processes = []ArrivedProcess{} // in JSON: a list
	}
	activity.GetLogger(w.ctx).Info("rotation awaited", "rotateAt", w.in.RotateAt, "arrived", len(result.Processes), "dropped", len(dropped))
	return result
}

// remaining is how long there may still be no progress.
func (w *arrivals) remaining() time.Duration {
	return w.in.DeployTimeout.Std() - w.serverTime(time.Now()).Sub(w.currentDetails().ProgressAt)
}

// errorReadings is how many readings in a row must have an agent's error.
const errorReadings = 2

func (w *arrivals) checkFailure() error {
	at := slices.IndexFunc(w.left, func(p *awaited) bool { return p.errors >= errorReadings })
	if at < 0 {
		return nil
	}
	return w.deploymentFailed(w.left[at])
}

// deploymentFailed says what went wrong with one process, or nil = that there was no
// progress.
func (w *arrivals) deploymentFailed(failed *awaited) error {
	known := w.currentDetails()
	details := w.failureDetails(&opsmanager.Error{})
	what, advice := fmt.Sprintf("no progress for the deployTimeout of %s", w.in.DeployTimeout), "check the automation agents and the mongod logs of these processes"
	if failed != nil {
		details.ErrorCode = strconv.FormatInt(failed.status.ErrorCode, 10)
		what = fmt.Sprintf("process %s (%s): %s", nameList([]string{failed.Process}), nameList([]string{failed.Host}), agentError(failed.status))
		advice = "correct the cause in the agent's log and the mongod log of this process (a KMIP server that does not answer, an expired client certificate)"
	}
	var arrived, left []string
	for _, process := range known.Arrived {
		arrived = append(arrived, process.Process)
	}
	slices.Sort(arrived)
	for _, process := range w.left {
		left = append(left, process.Process+" ("+w.standing(process)+")")
	}
	text := fmt.Sprintf("GET %s: %s; time of the rotation %s, goal version %d; not arrived: %s; arrived: %s; %s, then retry: the same time is awaited again",
		opsmanager.AutomationStatusPath(w.in.ProjectID), what, opsmanager.RotationTime(w.in.RotateAt), w.goal, nameList(left), orNone(nameList(arrived)), advice)
	return temporal.NewApplicationErrorWithOptions(ellipsis.Cut(text, maxDeploymentText), string(ErrorDeploymentFailed), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{details},
	})
}

// maxDeploymentText bounds the message of DeploymentFailed, in characters.
const maxDeploymentText = 2_500

// standing is how far a process is that has not arrived.
func (w *arrivals) standing(p *awaited) string {
	switch {
	case !p.hasStatus:
		return "its agent reports nothing"
	case p.status.ErrorCode != 0:
		return agentError(p.status)
	case !p.isAtGoal():
		return fmt.Sprintf("at version %d", p.status.AchievedVersion)
	case p.restartedAt.IsZero():
		return "at its goal, and Ops Manager does not show when it restarted"
	default:
		return "at its goal, and not restarted since " + p.restartedAt.Format(time.RFC3339)
	}
}
