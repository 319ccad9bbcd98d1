package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"keyturn/workflows"
)

const (
	// rotationsPerPage is how many workflows Temporal lists at a time.
	rotationsPerPage = 1000
	// defaultListLimit is how many rotations are shown.
	defaultListLimit = 50
)

// listFlags are the flags of list.
type listFlags struct {
	filterFlags
	open, waiting, ended bool
}

func (a *app) listCommand() *cobra.Command {
	f := &listFlags{}
	command := &cobra.Command{
		Use:     "list",
		GroupID: groupRotate,
		Short:   "List rotations: those that wait for a person first, with the command to continue",
		Long:    listHelp,
		Example: listExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := f.check(time.Now()); err != nil {
			return err
		}
		return a.withSession(ctx, func(s *session) error { return a.list(ctx, s, f) })
	})
	f.period.addFlagsOf(command, "started")
	flags := command.Flags()
	flags.BoolVar(&f.waiting, "waiting", false, "only rotations that wait for a person; exit code 3 if there is one")
	flags.BoolVar(&f.open, "open", false, "only rotations that have not ended")
	flags.BoolVar(&f.ended, "ended", false, "only rotations that have ended")
	f.filterFlags.addFlags(command, "are listed, too, without this flag", defaultListLimit, "show this many at most; 0 = all")
	command.MarkFlagsMutuallyExclusive("waiting", "open", "ended")
	a.format.addFlag(command)
	return command
}

// query selects workflows in Temporal's list, as far as that can.
func (f *listFlags) query(status string) string {
	types := workflows.RotationTypes
	switch {
	case f.deployment:
		types = []string{workflows.RotateDeploymentType}
	case f.fleet:
		types = []string{workflows.RotateFleetType}
	}
	parts := []string{status, "WorkflowType IN (" + joinedBy(", ", types, quoted) + ")"}
	if !f.since.IsZero() {
		parts = append(parts, "StartTime >= "+quoted(timeText(&f.since)))
	}
	if !f.until.IsZero() {
		parts = append(parts, "StartTime < "+quoted(timeText(&f.until)))
	}
	return strings.Join(parts, " AND ")
}

// isOfInterest holds for a rotation whose description was read.
func (f *listFlags) isOfInterest(r listedRotation) bool {
	return f.mayBeOfInterest(r.name, r.Connection) &&
		(f.ticket == "" || r.Ticket == f.ticket) &&
		(f.cluster == "" || r.ClusterID == strings.ToLower(f.cluster) || slices.Contains(r.Clusters, f.cluster)) &&
		(!f.waiting || r.WaitingFor != "")
}

// mayBeOfInterest is decided by the name of a rotation alone. The connection of a
// fleet whose description was not read is not known.
func (f *listFlags) mayBeOfInterest(name rotationName, connection string) bool {
	return (f.connection == "" || connection == f.connection || name.fleet && connection == "") &&
		(f.project == "" || name.project == strings.ToLower(f.project))
}

// listedRotation is a rotation in Temporal's list of workflows.
type listedRotation struct {
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	// Kind is what is rotated: cluster, deployment, or a fleet of either.
	Kind string `json:"kind"`
	// Status is Temporal's: Running, Completed, Failed, Terminated, Canceled, TimedOut.
	Status string `json:"status"`
	workflows.Memo
	StartedAt  time.Time  `json:"startedAt"`
	FinishedAt *time.Time `json:"finishedAt"`
	// Command continues a rotation that waits for a person; empty = it does not.
	Command string `json:"command"`
	// Problem is why no more is known of it than IDs; empty = it is.
	Problem string `json:"problem,omitempty"`

	name rotationName
	info *workflowpb.WorkflowExecutionInfo
}

// Kinds of listed rotations.
const (
	kindCluster, kindDeployment       = "cluster", "deployment"
	kindFleet, kindFleetOfDeployments = "fleet", "fleetOfDeployments"
)

// rotationListed describes a workflow by what Temporal's list has; false if it has
// handed over to a rotation, which is listed itself.
func rotationListed(info *workflowpb.WorkflowExecutionInfo) (listedRotation, bool) {
	memo, described := workflows.ReadMemo(info.GetMemo().GetFields())
	execution := info.GetExecution()
	r := listedRotation{
		WorkflowID: execution.GetWorkflowId(), RunID: execution.GetRunId(), Status: info.GetStatus().String(), Memo: memo,
		StartedAt: recordTime(info.GetStartTime().AsTime()), info: info,
	}
	if !isRunning(info) {
		finished := recordTime(info.GetCloseTime().AsTime())
		r.FinishedAt = &finished
		r.WaitingFor = "" // a terminated one has left what it waited for
		if described {
			r.Phase = workflows.PhaseDone
		}
	}
	if info.GetType().GetName() == workflows.RotateFleetType {
		r.name = rotationName{connection: cmp.Or(memo.Connection, workflows.DefaultConnection), fleet: true, deployment: memo.FleetOf == workflows.FleetOfDeployments}
		if r.name.workflowID() != r.WorkflowID {
			r.name.id = r.WorkflowID
		}
		r.Kind = kindFleet
		if r.name.deployment {
			r.Kind = kindFleetOfDeployments
		}
		return r, true
	}
	name, isOne := nameOf(r.WorkflowID)
	if !isOne || memo.HandedOverTo != "" {
		return r, false
	}
	r.name, r.Kind = name, kindCluster
	if name.deployment {
		r.Kind = kindDeployment
	}
	if !described {
		r.Connection, r.ProjectID, r.ClusterID = name.connection, name.project, name.cluster
	}
	return r, true
}

func (r *listedRotation) isDescribed() bool { return r.Phase != "" }

func (r *listedRotation) isOpen() bool { return r.FinishedAt == nil }

// rotationList finds rotations.
type rotationList struct {
	*session
	flags *listFlags
	// reads bounds what is read of workflows without a memo: without a worker, each
	// would take its query's whole timeout.
	reads    context.Context
	pageSize int32
	found    []listedRotation
}

func (a *app) list(ctx context.Context, s *session, f *listFlags) error {
	reads, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	l := &rotationList{session: s, flags: f, reads: reads, pageSize: rotationsPerPage}
	if err := l.findAll(ctx); err != nil {
		return err
	}
	v := l.view(a)
	if err := a.writeAs(v, v.table, v.csv, v.markdown); err != nil {
		return err
	}
	if f.waiting && v.Waiting > 0 {
		return &rotationsWaitError{v.Waiting}
	}
	return nil
}

func (l *rotationList) findAll(ctx context.Context) error {
	if !l.flags.ended {
		if err := l.find(ctx, "ExecutionStatus = 'Running'", math.MaxInt); err != nil {
			return err
		}
		l.sort()
	}
	if l.flags.open || l.flags.waiting {
		return nil
	}
	return l.find(ctx, "ExecutionStatus != 'Running' AND ExecutionStatus != 'ContinuedAsNew'", cmp.Or(l.flags.limit, math.MaxInt))
}

// find adds rotations, the newest first, until there are more than limit in all.
func (l *rotationList) find(ctx context.Context, status string, limit int) error {
	request := &workflowservice.ListWorkflowExecutionsRequest{PageSize: l.pageSize, Query: l.flags.query(status)}
	for len(l.found) <= limit {
		page, err := l.page(ctx, request)
		if err != nil {
			return err
		}
		var rotations []listedRotation
		for _, info := range page.GetExecutions() {
			r, isOne := rotationListed(info)
			if isOne && l.flags.mayBeOfInterest(r.name, r.Connection) {
				rotations = append(rotations, r)
			}
		}
		l.add(rotations, limit)
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return nil
		}
	}
	return nil
}

func (l *rotationList) page(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	page, err := l.ListWorkflow(ctx, request)
	return page, l.explain(err)
}

// add adds the rotations of interest, and reads those that have no memo, no more of
// them than are shown.
func (l *rotationList) add(rotations []listedRotation, limit int) {
	for len(rotations) > 0 && len(l.found) <= limit {
		n := min(len(rotations), maxParallelReads)
		batch := rotations[:n]
		rotations = rotations[n:]
		var group errgroup.Group
		for i := range batch {
			if !batch[i].isDescribed() {
				group.Go(func() error {
					l.read(&batch[i])
					return nil
				})
			}
		}
		_ = group.Wait() // none fails
		for _, r := range batch {
			if l.flags.isOfInterest(r) {
				l.found = append(l.found, r)
			}
		}
	}
}

// read reads a workflow of an earlier version, or one that no worker has taken up yet.
func (l *rotationList) read(r *listedRotation) {
	if r.name.fleet {
		started, err := l.startOf(l.reads, r.info)
		if err != nil {
			r.Problem = l.explain(err).Error()
			return
		}
		r.Connection, r.Ticket, r.RequestedBy = started.input.Connection, started.input.Change.Ticket, started.input.Change.RequestedBy
		r.name.connection, r.name.deployment = started.input.Connection, started.name().deployment
	}
	ended := runResult{}
	if r.isOpen() {
		ended = l.progressOf(l.reads, r.name, r.RunID)
	} else {
		ended = l.awaitResult(l.reads, r.name, r.RunID)
	}
	if ended.records != nil {
		r.Memo = ended.records.value().(interface{ Memo() workflows.Memo }).Memo()
	}
	switch {
	case ended.unread != nil:
		r.Problem = l.explainQuery(ended.unread, r.info.GetTaskQueue()).Error()
	case ended.connection != nil:
		r.Problem = ended.connection.Error()
	case ended.failure != nil:
		r.Error = workflows.ErrorTypeOf(ended.failure)
	}
}

// sort puts those that wait for a person first, the longest waiting first, then the
// others that have not ended, the newest first. Those that have ended stay as they are.
func (l *rotationList) sort() {
	slices.SortStableFunc(l.found, func(x, y listedRotation) int {
		by := cmp.Compare(x.rank(), y.rank())
		switch {
		case by != 0 || !x.isOpen():
			return by
		case x.WaitingFor != "":
			return x.since().Compare(y.since())
		default:
			return y.StartedAt.Compare(x.StartedAt)
		}
	})
}

// waitingPhases are the phases in which a rotation may wait for a person, the most
// urgent first.
var waitingPhases = []workflows.Phase{workflows.PhaseHeld, workflows.PhaseAwaitingApproval, workflows.PhasePaused, workflows.PhaseRecording}

func (r *listedRotation) rank() int {
	switch {
	case !r.isOpen():
		return len(waitingPhases) + 1
	case r.WaitingFor == "":
		return len(waitingPhases)
	default:
		return slices.Index(waitingPhases, r.Phase)
	}
}

// since is when it has ended or begun to do what it does; that it has started, if that
// is not known.
func (r *listedRotation) since() time.Time {
	switch {
	case r.FinishedAt != nil:
		return *r.FinishedAt
	case r.Since.IsZero():
		return r.StartedAt
	default:
		return r.Since
	}
}

// state is a phase or an outcome in words.
func (r *listedRotation) state() string {
	switch {
	case r.isOpen() && r.Outcome != "":
		return outcomeText(r.Outcome, workflows.PhaseRecording)
	case r.isOpen() && !r.isDescribed():
		return "unknown"
	case r.isOpen() && r.DryRun:
		return phaseName(r.Phase) + " (plan)"
	case r.isOpen():
		return phaseName(r.Phase)
	case r.Outcome != "":
		return string(r.Outcome)
	case r.info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return "timed out"
	default:
		return strings.ToLower(r.Status)
	}
}

// stateClass is the class of state.
func (r *listedRotation) stateClass() string {
	switch {
	case r.isOpen():
		return phaseClass(r.Phase)
	case r.Outcome == workflows.OutcomeRotated:
		return markGood
	case r.Outcome == "" || r.Error != "":
		return markBad
	default:
		return ""
	}
}

// subject is what people call what is rotated.
func (r *listedRotation) subject() string {
	subject := ""
	switch r.Kind {
	case kindFleet:
		return "fleet " + r.Connection
	case kindFleetOfDeployments:
		return "fleet of deployments " + r.Connection
	case kindDeployment:
		names := slices.Clone(r.Clusters)
		if r.ClustersNotListed > 0 {
			names = append(names, fmt.Sprintf("and %d more", r.ClustersNotListed))
		}
		subject = strings.TrimSuffix("deployments: "+strings.Join(names, ", "), ": ")
	default:
		subject = cmp.Or(strings.Join(r.Clusters, ", "), r.name.cluster)
	}
	if r.Connection != workflows.DefaultConnection {
		subject += " (" + r.Connection + ")"
	}
	return subject
}

// command continues a rotation that waits for a person, or shows what it waits for.
func (a *app) commandOf(r listedRotation) string {
	by := []string{"--by", a.operatorOr("YOU")}
	switch {
	case r.WaitingFor == "":
		return ""
	case r.Phase == workflows.PhaseAwaitingApproval:
		return a.commandLineFor(r.name, workflows.ApproveUpdate, "--by", a.approver(r.RequestedBy))
	case r.Phase == workflows.PhaseHeld:
		return a.commandLineFor(r.name, workflows.RetryUpdate, by...)
	case r.Phase == workflows.PhasePaused:
		return a.commandLineFor(r.name, workflows.ResumeUpdate, by...)
	default:
		return a.commandLineFor(r.name, "watch")
	}
}

// listView is what is shown of rotations.
type listView struct {
	// Waiting is the number of rotations that wait for a person, and Open that of all
	// that have not ended.
	Waiting int `json:"waiting"`
	Open    int `json:"open"`
	// More: there are others beyond the limit.
	More      bool             `json:"more"`
	Rotations []listedRotation `json:"rotations"`

	flags *listFlags
}

func (l *rotationList) view(a *app) *listView {
	v := &listView{Rotations: l.found, flags: l.flags}
	if limit := l.flags.limit; limit > 0 && len(l.found) > limit {
		v.Rotations, v.More = l.found[:limit], true
	}
	for i, r := range l.found {
		if r.isOpen() {
			v.Open++
		}
		if r.WaitingFor != "" {
			v.Waiting++
		}
		l.found[i].Command = a.commandOf(r)
	}
	return v
}

func (v *listView) summary() string {
	if len(v.Rotations) == 0 && !v.flags.waiting && !v.flags.open { // the ledger has only those that ended
		return "Temporal lists no such rotation; older ones may be in the ledger (" + programName + " history)"
	}
	var parts []string
	if !v.flags.ended {
		parts = append(parts, fmt.Sprintf("%d waiting for a person", v.Waiting))
	}
	if !v.flags.ended && !v.flags.waiting {
		parts = append(parts, fmt.Sprintf("%d in progress", v.Open-v.Waiting))
	}
	if ended := len(v.Rotations) - v.Open; !v.flags.open && !v.flags.waiting && ended >= 0 {
		parts = append(parts, fmt.Sprintf("%d ended", ended))
	}
	text := strings.Join(parts, ", ")
	if v.More {
		text += fmt.Sprintf("; only the first %d are listed (--limit)", len(v.Rotations))
	}
	return text
}

func (v *listView) facts() []fact {
	return nonEmpty([]fact{{"Started", v.flags.text()}, {"Rotations", v.summary()}})
}

func (v *listView) columns() []columnOf[listedRotation] {
	return []columnOf[listedRotation]{
		{
			newMarkField("State", func(r listedRotation) (string, string) { return r.stateClass(), r.state() }),
			newTextField("Error", func(r listedRotation) string { return string(r.Error) }),
			newTimeField("Since", func(r listedRotation) *time.Time { at := r.since(); return &at }),
		},
		{
			newTextField("Rotation", func(r listedRotation) string { return r.subject() }),
			newIDField("Project ID", func(r listedRotation) string { return r.ProjectID }),
			newIDField("Cluster ID", func(r listedRotation) string { return r.ClusterID }),
		},
		{
			newTextField("Ticket", func(r listedRotation) string { return r.Ticket }),
			newTextField("Requested by", func(r listedRotation) string { return r.RequestedBy }),
			newTimeField("Started", func(r listedRotation) *time.Time { return &r.StartedAt }),
		},
	}
}

func (v *listView) table(l layout) string {
	text := l.head(v.facts(), "")
	if len(v.Rotations) > 0 {
		text += "\n" + tableOf(l, v.columns(), v.Rotations) + "\n"
	}
	for _, r := range v.Rotations {
		switch {
		case r.Command != "":
			text += "\n" + l.line(clean(r.subject())+": "+r.state()) + "\n" + l.line("  Waiting for "+clean(r.WaitingFor)+".") + "\n" + l.line("  "+clean(r.Command)) + "\n"
		case r.Problem != "":
			text += "\n" + l.line(clean(r.subject())+": "+r.state()) + "\n" + l.line("  "+clean(r.Problem)) + "\n"
		}
	}
	return text
}

func (v *listView) markdown() string {
	text := markdownHead("Rotations", v.facts())
	if len(v.Rotations) > 0 {
		text += "\n" + markdownOf(v.columns(), v.Rotations) + "\n"
	}
	for _, r := range v.Rotations {
		if r.Command != "" {
			text += fmt.Sprintf("\n%s: %s, waiting for %s.\n\n```sh\n%s\n```\n", markdownText(r.subject()), r.state(), markdownText(r.WaitingFor), clean(r.Command))
		}
	}
	return text
}

var listCSV = []csvColumnOf[listedRotation]{
	{"state", func(r listedRotation) string { return r.state() }},
	{"since", func(r listedRotation) string { at := r.since(); return timeText(&at) }},
	{"waitingFor", func(r listedRotation) string { return r.WaitingFor }},
	{"kind", func(r listedRotation) string { return r.Kind }},
	{"connection", func(r listedRotation) string { return r.Connection }},
	{"projectId", func(r listedRotation) string { return r.ProjectID }},
	{"clusterId", func(r listedRotation) string { return r.ClusterID }},
	{"clusters", func(r listedRotation) string { return strings.Join(r.Clusters, " ") }},
	{"ticket", func(r listedRotation) string { return r.Ticket }},
	{"requestedBy", func(r listedRotation) string { return r.RequestedBy }},
	{"dryRun", func(r listedRotation) string { return strconv.FormatBool(r.DryRun) }},
	{"targets", func(r listedRotation) string { return strconv.Itoa(r.Targets) }},
	{"outcome", func(r listedRotation) string { return string(r.Outcome) }},
	{"error", func(r listedRotation) string { return string(r.Error) }},
	{"status", func(r listedRotation) string { return r.Status }},
	{"startedAt", func(r listedRotation) string { return timeText(&r.StartedAt) }},
	{"finishedAt", func(r listedRotation) string { return timeText(r.FinishedAt) }},
	{"workflowId", func(r listedRotation) string { return r.WorkflowID }},
	{"runId", func(r listedRotation) string { return r.RunID }},
	{"command", func(r listedRotation) string { return r.Command }},
}

func (v *listView) csv() string { return csvOf(listCSV, v.Rotations) }

// rotationsWaitError reports that rotations wait for a person.
type rotationsWaitError struct{ count int }

func (e *rotationsWaitError) Error() string {
	if e.count == 1 {
		return "1 rotation waits for a person"
	}
	return fmt.Sprintf("%d rotations wait for a person", e.count)
}

const listHelp = `Lists rotations with names, tickets and states: first those that wait for a
person, each with the command that continues it, then those in progress, then
those that have ended, the newest first. It reads Temporal's list of workflows,
which may be some seconds behind, and needs no worker: workflows describe
themselves in their memos. Workflows of earlier versions have none; a running
one is asked, which takes a worker, and shows as unknown if it does not answer.

A rotation must match all given filters. Text is compared exactly. --since and
--until select by the start, and their dates are those of --time-zone, or else
of the local time zone. Times in the output are in UTC. Rotations past
Temporal's retention are gone: "keyturn history" lists what the ledger has.

State is the phase of a rotation that has not ended, or its outcome. Since is
when it entered that phase, or ended. A workflow that was terminated, timed out
or refused its input has no outcome; State is then Temporal's status. Plans are
listed, too, as "planned".

On a terminal, the table fits its width; names that had to be shortened are
printed in full below it.

Exit code: with --waiting, 3 if a rotation waits for a person. Otherwise 0 if
the list was printed, whatever the rotations do.`

const listExamples = `  # An alert says that a rotation is held: which one, and what to do?
  keyturn list --waiting

  # All that is in progress, and the last ones that ended
  keyturn list

  # What was done under a ticket, for a spreadsheet
  keyturn list --ticket CHG0031337 -o csv

  # The last rotations of a cluster, by its name
  keyturn list --cluster orders --ended --limit 5`
