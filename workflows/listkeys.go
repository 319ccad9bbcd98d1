package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/internal/ellipsis"
)

// KeyRecord is what is known about one master key in one project.
type KeyRecord = activities.KeyRecord

// Verdict says what is known about the need for a master key.
type Verdict = activities.Verdict

// Verdicts on a key. None says that a key may be destroyed.
const (
	VerdictCurrent           = activities.VerdictCurrent           // in force
	VerdictNeeded            = activities.VerdictNeeded            // named by a snapshot or a restore job
	VerdictNamedByNoSnapshot = activities.VerdictNamedByNoSnapshot // known, not in force, and named by none
	VerdictUnknown           = activities.VerdictUnknown           // what may name it could not be read
)

// IncompleteReason is one reason why a listing of keys is not complete.
type IncompleteReason = activities.IncompleteReason

// MergeKeyRecords returns what two records say together about one key of one
// project: each page of a project has a record of its own.
func MergeKeyRecords(a, b KeyRecord) KeyRecord { return activities.MergeKeyRecords(a, b) }

// ListKeysInput starts a listing of keys. No field is required.
type ListKeysInput struct {
	// Connection names an Ops Manager that the worker is configured with; "" =
	// "default".
	Connection string `json:"connection,omitempty"`
	// ProjectIDs are the projects, up to 1,000; none = every one that the key
	// sees.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ExcludeProjectIDs are left out, up to 1,000.
	ExcludeProjectIDs []string `json:"excludeProjectIds,omitempty"`
}

// ListKeysResult says which keys were found, and where their records are. Its
// size does not grow with the number of clusters, keys or snapshots.
type ListKeysResult struct {
	// Connection is the input's.
	Connection string `json:"connection"`
	// Complete: everything was read that may name a key.
	Complete bool `json:"complete"`
	// Reasons why it is not complete, up to 100. Each page has its own in full.
	Reasons []IncompleteReason `json:"reasons"`
	// ReasonsNotListed is the number of reasons beyond those in Reasons.
	ReasonsNotListed int `json:"reasonsNotListed"`
	// StartedAt is when the listing started, in UTC, to the millisecond.
	StartedAt time.Time `json:"startedAt"`
	// FinishedAt is nil while the listing runs.
	FinishedAt *time.Time `json:"finishedAt"`
	// Counts says how much was read.
	Counts KeyListCounts `json:"counts"`
	// Pages are the workflows whose results, of type [KeyPage], have the records,
	// up to 5,000.
	Pages []KeyPageRef `json:"pages"`
	// PagesNotListed is the number of pages beyond those in Pages; the result is not
	// complete then.
	PagesNotListed int `json:"pagesNotListed"`
	// Actions are what operators did, the newest 200.
	Actions []Action `json:"actions,omitempty"`
	// ActionsNotListed is the number of older actions that Actions leaves out.
	ActionsNotListed int `json:"actionsNotListed,omitempty"`
}

// KeyListCounts counts what was read.
type KeyListCounts struct {
	Projects    int `json:"projects"`    // projects to list
	Listed      int `json:"listed"`      // projects that are done
	NotStarted  int `json:"notStarted"`  // projects that no listing was started for
	Clusters    int `json:"clusters"`    // clusters that were read
	Snapshots   int `json:"snapshots"`   // snapshots that were read
	RestoreJobs int `json:"restoreJobs"` // restore jobs that were read
	// Keys counts records: a key of two projects, or of two pages of a project,
	// counts twice.
	Keys int `json:"keys"`
}

func (c *KeyListCounts) add(p KeyPageRef) {
	c.Clusters += p.Clusters
	c.Snapshots += p.Snapshots
	c.RestoreJobs += p.RestoreJobs
	c.Keys += p.Keys
}

// String is a sentence for operators.
func (c KeyListCounts) String() string {
	if c.Projects == 0 {
		return "no projects listed"
	}
	return fmt.Sprintf("%d of %d projects listed: %s, %s, %s", c.Listed, c.Projects, plural(c.Clusters, "cluster"), plural(c.Snapshots, "snapshot"), plural(c.Keys, "key"))
}

// KeyPageRef names the workflow run whose result has some of a project's records.
type KeyPageRef struct {
	ProjectID   string `json:"projectId"`   // the project whose records they are
	WorkflowID  string `json:"workflowId"`  // the workflow that read the page
	RunID       string `json:"runId"`       // that workflow's run
	Clusters    int    `json:"clusters"`    // clusters that the page has read as a whole
	Snapshots   int    `json:"snapshots"`   // snapshots of these clusters
	RestoreJobs int    `json:"restoreJobs"` // restore jobs of these clusters
	Keys        int    `json:"keys"`        // records in the page
	Complete    bool   `json:"complete"`    // the page's Complete
}

// ListKeysProgress answers the progress query and every update: the result so
// far, without its pages.
type ListKeysProgress struct {
	ListKeysResult
	// Phase is PhaseListing, PhaseReading, PhasePaused or PhaseDone.
	Phase Phase `json:"phase"`
	// WaitingFor describes what the listing is waiting for; empty when it has ended.
	WaitingFor string `json:"waitingFor"`
	// InProgress are the projects that are being listed.
	InProgress []ProjectInProgress `json:"inProgress"`
}

// ProjectInProgress is a project that is being listed.
type ProjectInProgress struct {
	ProjectID  string    `json:"projectId"`  // the project
	WorkflowID string    `json:"workflowId"` // the workflow that lists it
	StartedAt  time.Time `json:"startedAt"`  // when that started, in UTC
	// ClustersDone of Clusters; 0 of 0 = not known yet.
	ClustersDone int `json:"clustersDone"`
	// Clusters is the number of clusters of the project.
	Clusters int `json:"clusters"`
}

// Limits of a listing of keys.
const (
	projectsAtATime  = 4
	projectsPerBatch = 500
	maxKeyPages      = 5_000
	maxReasons       = 100
	// keyRetryTimeout is how long transient errors are retried before what cannot
	// be read becomes a reason.
	keyRetryTimeout = Duration(5 * time.Minute)
)

func parseListKeysInput(raw converter.RawValue) (ListKeysInput, error) {
	input := ListKeysInput{Connection: DefaultConnection}
	var f fieldErrors
	if !decodeStrictly(raw, &input, &f) {
		return input, f.err()
	}
	if !ValidConnection(input.Connection) {
		f.add("connection", ConnectionRule)
	}
	for _, list := range []struct {
		field string
		ids   []string
	}{{"projectIds", input.ProjectIDs}, {"excludeProjectIds", input.ExcludeProjectIDs}} {
		if len(list.ids) > maxProjects {
			f.add(list.field, "has more than %d ids", maxProjects)
		}
		for i, id := range list.ids[:min(len(list.ids), maxProjects)] {
			f.checkID(fmt.Sprintf("%s[%d]", list.field, i), id)
			list.ids[i] = lower(id)
		}
	}
	return input, f.err()
}

// ListKeys lists the master keys of some projects, and what still needs each.
// It changes nothing. Its input is a ListKeysInput, its result a ListKeysResult;
// what cannot be read makes the result incomplete and does not fail it. second
// is its own, a carriedKeyList for continue-as-new.
func ListKeys(ctx workflow.Context, raw, second converter.RawValue) (*ListKeysResult, error) {
	input, err := parseListKeysInput(raw)
	if err != nil {
		return nil, err
	}
	carried, err := decodeCarried[carriedKeyList](ctx, second)
	if err != nil {
		return nil, err
	}
	return newKeyList(ctx, input, raw, carried).run(ctx)
}

// carriedKeyList is what a run hands to the one that it continues as.
type carriedKeyList struct {
	Result ListKeysResult   `json:"result"`
	Listed listedProjects   `json:"listed"`
	Paused *OperatorRequest `json:"paused,omitempty"`
	Writer stateWriter      `json:"writer,omitzero"`
}

// listedProjects is how far the list of projects is known.
type listedProjects struct {
	Next []string `json:"next"`
	Last string   `json:"last"`
	More bool     `json:"more"`
}

// keyList is one run of ListKeys.
type keyList struct {
	input   ListKeysInput
	raw     converter.RawValue
	result  ListKeysResult
	listed  listedProjects
	phase   Phase
	paused  *OperatorRequest
	aborted *OperatorRequest
	changes int

	pageBytes  int // of the result's pages, as JSON
	inProgress []*projectInProgress
	carriedOn  bool // this run continues another one
	cancel     workflow.CancelFunc
	draining   bool
}

// projectInProgress is a child that has not ended.
type projectInProgress struct {
	ProjectInProgress
	child workflow.ChildWorkflowFuture
}

func newKeyList(ctx workflow.Context, input ListKeysInput, raw converter.RawValue, carried *carriedKeyList) *keyList {
	l := &keyList{input: input, raw: raw, phase: PhaseListing, result: ListKeysResult{
		Connection: input.Connection, Complete: true, StartedAt: timestamp(ctx), Reasons: []IncompleteReason{}, Pages: []KeyPageRef{},
	}}
	if carried != nil {
		l.carriedOn, l.phase = true, PhaseReading
		l.result, l.listed, l.paused = carried.Result, carried.Listed, carried.Paused
		l.pageBytes = jsonBytes(l.result.Pages)
	}
	return l
}

func (l *keyList) run(ctx workflow.Context) (*ListKeysResult, error) {
	work, cancel := workflow.WithCancel(ctx)
	l.cancel = cancel
	if err := l.registerHandlers(ctx); err != nil {
		return nil, err
	}
	l.receiveProgress(ctx)
	l.watchCancellation(ctx)
	l.changed(ctx)
	if !l.carriedOn {
		if err := l.listProjects(work); err != nil {
			return nil, l.failBeforeStart(ctx, err)
		}
	}
	// Not canceled with the workflow, so that the children can end in order.
	main, _ := workflow.NewDisconnectedContext(ctx)
	return l.readProjects(main, work)
}

// watchCancellation makes a cancellation the same as an abort.
func (l *keyList) watchCancellation(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		_ = ctx.Done().Receive(ctx, nil)
		if l.aborted == nil {
			l.abort(ctx, OperatorRequest{By: cancellationActor})
			l.changed(ctx)
		}
	})
}

func (l *keyList) failBeforeStart(ctx workflow.Context, err error) error {
	if l.aborted != nil {
		return l.abortedFailure(ctx)
	}
	l.phase = PhaseDone
	return causeOf(err)
}

// listProjects gets the next projects.
func (l *keyList) listProjects(ctx workflow.Context) error {
	var listed activities.ListProjectsResult
	err := workflow.ExecuteActivity(keyActivityOptions(ctx, "list the projects"), activities.ListProjectsName, activities.ListProjectsInput{
		Scope:      activities.Scope{Connection: l.input.Connection, RetryTimeout: keyRetryTimeout},
		ProjectIDs: l.input.ProjectIDs, ExcludeProjectIDs: l.input.ExcludeProjectIDs, After: l.listed.Last, Limit: projectsPerBatch,
	}).Get(ctx, &listed)
	if err != nil {
		return err
	}
	l.listed.Next, l.listed.More = append(l.listed.Next, listed.ProjectIDs...), listed.More
	if n := len(listed.ProjectIDs); n > 0 {
		l.listed.Last = listed.ProjectIDs[n-1]
	}
	l.result.Counts.Projects = listed.Total
	return nil
}

// keyActivityOptions lets rotations' requests go first.
func keyActivityOptions(ctx workflow.Context, summary string) workflow.Context {
	ctx = activityOptions(ctx, summary, totalOf(keyRetryTimeout, Duration(maxListingTime)))
	options := workflow.GetActivityOptions(ctx)
	options.Priority = temporal.Priority{PriorityKey: fleetPriority}
	return workflow.WithActivityOptions(ctx, options)
}

// readProjects starts projects until none is left, or nothing more may be
// started, and waits for those in progress. work ends with an abort.
func (l *keyList) readProjects(ctx, work workflow.Context) (*ListKeysResult, error) {
	l.phase = PhaseReading
	for {
		l.draining = l.draining || isHistoryLong(ctx)
		for l.canStart() && len(l.inProgress) < projectsAtATime && len(l.listed.Next) > 0 {
			l.startProject(work)
		}
		l.show(ctx)
		seen := l.changes
		switch {
		case len(l.inProgress) > 0:
		case l.aborted != nil:
			return nil, l.abortedFailure(ctx)
		case len(l.listed.Next) == 0 && l.listed.More && l.canStart():
			if err := l.listProjects(work); err != nil {
				if l.aborted == nil {
					l.addReason(IncompleteReason{Reason: activities.IncompleteUnreadable, Message: "the list of projects could not be continued: " + targetErrorOf(err).Message})
					l.listed.More = false
				}
			}
			continue
		case len(l.listed.Next) == 0 && !l.listed.More:
			l.finish(ctx)
			return l.fittedResult(), nil
		case l.draining && workflow.AllHandlersFinished(ctx):
			return nil, workflow.NewContinueAsNewError(ctx, ListKeysType, l.raw,
				carriedKeyList{Result: *l.fittedResult(), Listed: l.listed, Paused: l.paused, Writer: writerOf(ctx)})
		}
		if err := workflow.Await(ctx, func() bool { return l.changes > seen }); err != nil {
			return nil, err
		}
	}
}

func (l *keyList) fittedResult() *ListKeysResult {
	result := l.result
	result.fit(maxKeyList)
	return &result
}

func (l *keyList) canStart() bool { return !l.draining && l.paused == nil && l.aborted == nil }

// startProject lists the next project's keys by a child of its own.
func (l *keyList) startProject(ctx workflow.Context) {
	id := l.listed.Next[0]
	l.listed.Next = l.listed.Next[1:]
	p := &projectInProgress{ProjectInProgress: ProjectInProgress{
		ProjectID: id, WorkflowID: workflow.GetInfo(ctx).WorkflowExecution.ID + ":" + id, StartedAt: timestamp(ctx),
	}}
	l.inProgress = append(l.inProgress, p)
	p.child = workflow.ExecuteChildWorkflow(keyChildOptions(ctx, p.WorkflowID, "List the KMIP master keys of project "+id),
		ListProjectKeysType, listProjectKeysInput{Connection: l.input.Connection, ProjectID: id})
	workflow.Go(ctx, func(ctx workflow.Context) {
		var result listProjectKeysResult
		err := p.child.Get(ctx, &result)
		l.inProgress = slices.DeleteFunc(l.inProgress, func(other *projectInProgress) bool { return other == p })
		l.addProject(id, result, err)
		l.changed(ctx)
	})
}

// keyChildOptions are those of every child: it ends with its parent.
func keyChildOptions(ctx workflow.Context, id, summary string) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: id, StaticSummary: shorten(summary), WaitForCancellation: true,
		Priority: temporal.Priority{PriorityKey: fleetPriority},
	})
}

// addProject adds what a project's child has found.
func (l *keyList) addProject(id string, result listProjectKeysResult, err error) {
	l.result.Counts.Listed++
	if err != nil {
		code, message := activities.IncompleteUnreadable, "the project cannot be listed: "+targetErrorOf(err).Message
		if l.aborted != nil {
			code, message = activities.IncompleteStopped, "the listing was aborted"
		}
		l.addReason(IncompleteReason{Reason: code, ProjectID: id, Message: message})
		return
	}
	for _, reason := range result.Reasons {
		l.addReason(reason)
	}
	l.result.ReasonsNotListed += result.ReasonsNotListed
	l.result.Complete = l.result.Complete && result.Complete
	for _, page := range result.Pages {
		l.result.Counts.add(page)
		bytes := jsonBytes(page) + len(",")
		if len(l.result.Pages) == maxKeyPages || l.pageBytes+bytes > maxKeyListPages {
			if l.result.PagesNotListed++; l.result.PagesNotListed == 1 {
				l.addReason(IncompleteReason{Reason: activities.IncompleteStopped, ProjectID: id, Message: fmt.Sprintf(
					"a result lists %d pages of records, and there are more: list the projects in several runs, by projectIds", len(l.result.Pages))})
			}
			continue
		}
		l.result.Pages, l.pageBytes = append(l.result.Pages, page), l.pageBytes+bytes
	}
}

func (l *keyList) addReason(reason IncompleteReason) {
	l.result.Complete = false
	l.result.Reasons, l.result.ReasonsNotListed = appendReason(l.result.Reasons, l.result.ReasonsNotListed, reason)
}

// appendReason lists a reason as long as there is room.
func appendReason(listed []IncompleteReason, notListed int, reason IncompleteReason) ([]IncompleteReason, int) {
	if len(listed) >= maxReasons {
		return listed, notListed + 1
	}
	reason.Message = ellipsis.Cut(reason.Message, maxFailureText)
	return append(listed, reason), notListed
}

func (l *keyList) counts() KeyListCounts {
	counts := l.result.Counts
	counts.NotStarted = counts.Projects - counts.Listed - len(l.inProgress)
	return counts
}

func (l *keyList) finish(ctx workflow.Context) {
	finished := timestamp(ctx)
	l.result.Counts, l.result.FinishedAt, l.phase = l.counts(), &finished, PhaseDone
	l.changed(ctx)
	workflow.GetLogger(ctx).Info("keys listed", "complete", l.result.Complete, "projects", l.result.Counts.Projects,
		"clusters", l.result.Counts.Clusters, "snapshots", l.result.Counts.Snapshots, "keys", l.result.Counts.Keys)
}

func (l *keyList) abortedFailure(ctx workflow.Context) error {
	l.addReason(IncompleteReason{Reason: activities.IncompleteStopped, Message: "aborted by " + l.aborted.By})
	l.finish(ctx)
	return temporal.NewApplicationErrorWithOptions(
		fmt.Sprintf("aborted by %s: %s; %s", l.aborted.By, orNoReason(l.aborted.Reason), l.result.Counts),
		string(ErrorAborted), temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{l.fittedResult()}})
}

// ListKeysResultOf finds the result in the failure of a listing that was aborted;
// false where it has none.
func ListKeysResultOf(err error) (*ListKeysResult, bool) {
	var result ListKeysResult
	if !recordsIn(err, &result) || result.Pages == nil {
		return nil, false
	}
	return &result, true
}

// changed shows the main loop, and everybody who looks, that something has
// happened.
func (l *keyList) changed(ctx workflow.Context) {
	l.changes++
	if l.phase != PhaseReading {
		l.show(ctx) // while projects are in progress, the main loop does it
	}
}

func (l *keyList) show(ctx workflow.Context) { workflow.SetCurrentDetails(ctx, l.markdown()) }

func (l *keyList) currentPhase() Phase {
	if l.phase == PhaseReading && l.paused != nil {
		return PhasePaused
	}
	return l.phase
}

func (l *keyList) progress() *ListKeysProgress {
	p := &ListKeysProgress{ListKeysResult: l.result, Phase: l.currentPhase(), WaitingFor: l.waitingFor(), InProgress: []ProjectInProgress{}}
	p.Reasons = slices.Clone(l.result.Reasons)
	p.Actions = slices.Clone(l.result.Actions)
	p.Pages, p.Counts = []KeyPageRef{}, l.counts()
	for _, project := range l.inProgress {
		p.InProgress = append(p.InProgress, project.ProjectInProgress)
	}
	return p
}

// waitingFor says in one sentence what must happen next, and who can make it.
func (l *keyList) waitingFor() string {
	switch phase := l.currentPhase(); {
	case phase == PhaseDone:
		return ""
	case l.aborted != nil:
		return fmt.Sprintf("%s to end; then the listing ends, aborted by %s", plural(len(l.inProgress), "project"), l.aborted.By)
	case phase == PhasePaused:
		return fmt.Sprintf("someone to resume it: paused by %s (%s)", l.paused.By, orNoReason(l.paused.Reason))
	case phase == PhaseListing:
		return "Ops Manager to list the projects"
	default:
		return fmt.Sprintf("Ops Manager; %s in progress", plural(len(l.inProgress), "project"))
	}
}

func (l *keyList) markdown() string {
	var b strings.Builder
	p := l.progress()
	write(&b, "**Keys**: %s, %s\n\n", p.Phase, p.Counts)
	if p.WaitingFor != "" {
		write(&b, "Waiting for %s.\n\n", cell(p.WaitingFor))
	}
	if len(p.InProgress) > 0 {
		b.WriteString("| Project | Clusters | Since | Workflow |\n|---|---|---|---|\n")
		for _, project := range p.InProgress {
			clusters := "" // not known yet
			if project.Clusters > 0 {
				clusters = fmt.Sprintf("%d of %d", project.ClustersDone, project.Clusters)
			}
			write(&b, "| %s | %s | %s | `%s` |\n", project.ProjectID, clusters,
				project.StartedAt.Format(time.TimeOnly), cell(project.WorkflowID))
		}
		b.WriteString("\n")
	}
	if !p.Complete {
		b.WriteString("**Not complete:**\n")
		for _, reason := range p.Reasons[:min(len(p.Reasons), maxReportedNames)] {
			write(&b, "- %s %s %s: %s\n", reason.Reason, reason.ProjectID, cell(reason.ClusterName), cell(reason.Message))
		}
		if more := len(p.Reasons) + p.ReasonsNotListed - maxReportedNames; more > 0 {
			write(&b, "- and %d more\n", more)
		}
	}
	return b.String()
}

// registerHandlers registers the query and the updates.
func (l *keyList) registerHandlers(ctx workflow.Context) error {
	return errors.Join(
		registerQuery(ctx, l),
		registerPausing(ctx, l, pausing{
			pauses: `Read no further clusters: {"by": "...", "reason": "..."}`, pause: l.pause, resume: l.resume,
			aborts: `End the listing: {"by": "...", "reason": "..."}`, abort: l.abort,
		}),
	)
}

// recordAction records an update in the result.
func (l *keyList) recordAction(ctx workflow.Context, name string, request operatorRequest) {
	actionLog{actions: &l.result.Actions, notListed: &l.result.ActionsNotListed}.add(ctx, actionOf(name, request))
}

func (l *keyList) isClosed() bool { return l.phase == PhaseDone }

func (l *keyList) updateAnswer() any {
	p := l.progress()
	p.fit(maxUpdateAnswer / 2)
	return p
}

func (l *keyList) currentProgress() any {
	p := l.progress()
	p.fit(maxKeyList)
	return p
}

func (l *keyList) standing() (what string, paused, aborted *OperatorRequest) {
	return "listing", l.paused, l.aborted
}

func (l *keyList) abort(_ workflow.Context, q OperatorRequest) {
	l.aborted = &q
	l.cancel()
}

func (l *keyList) pause(ctx workflow.Context, q OperatorRequest) {
	l.paused = &q
	l.broadcastPause(ctx)
}

func (l *keyList) resume(ctx workflow.Context, _ OperatorRequest) {
	l.paused = nil
	l.broadcastPause(ctx)
}

func (l *keyList) broadcastPause(ctx workflow.Context) {
	for _, p := range l.inProgress {
		// A child that has ended meanwhile needs no signal.
		p.child.SignalChildWorkflow(ctx, pauseSignal, pauseState{Paused: l.paused != nil})
	}
}

// receiveProgress takes what the projects' children report.
func (l *keyList) receiveProgress(ctx workflow.Context) {
	reports := workflow.GetSignalChannel(ctx, projectProgressSignal)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var report projectProgress
			if more := reports.Receive(ctx, &report); !more {
				return
			}
			for _, p := range l.inProgress {
				if p.ProjectID == report.ProjectID {
					p.ClustersDone, p.Clusters = report.ClustersDone, report.Clusters
					l.changed(ctx)
				}
			}
		}
	})
}
