package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

const (
	// clustersPerPage is how many clusters of a fleet are read at a time.
	clustersPerPage = 200
	// maxParallelReads is how many workflows or schedules are read in parallel.
	maxParallelReads = 8
	// maxFleetsOffered is how many runs of fleets the shell's completion reads.
	maxFleetsOffered = 50
)

// fleetCluster is the result of a cluster that a fleet started.
type fleetCluster struct {
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	// Status is Temporal's: Running, Completed, Failed, Terminated.
	Status string `json:"status"`
	// Failure is why it failed, as "Type: message".
	Failure string `json:"failure"`
	// Records are the result of its kind; nil if the run left none.
	Records any `json:"records"`

	targets targetRecords // the same
}

// reportEachCluster writes the records of every cluster that a fleet started,
// page by page; what Temporal does not list is read from the ledger, if there is one.
func (a *app) reportEachCluster(ctx context.Context, s *session, run *workflowpb.WorkflowExecutionInfo) error {
	started, err := s.startOf(ctx, run)
	if err != nil {
		return s.explain(err)
	}
	kind := started.name().memberKind()
	out := a.newClusterWriter(kind)
	pages := &fleetPages{session: s, fleetID: a.rotation.workflowID(), workflowType: kind.workflowType, first: run.GetFirstRunId(), seen: map[string]bool{}, chains: map[string]string{}}
	for more := true; more; {
		var children []*workflowpb.WorkflowExecutionInfo
		var err error
		if children, more, err = pages.next(ctx); err != nil {
			return err
		}
		clusters, forgotten, err := s.clustersOf(ctx, children)
		if err != nil {
			return err
		}
		for _, id := range forgotten {
			delete(pages.seen, id)
		}
		if err := out.write(clusters); err != nil {
			return err
		}
	}
	count, isKnown, err := a.countStarted(ctx, s, run)
	if err != nil {
		return err
	}
	if !isKnown || len(pages.seen) < count {
		ran := recordedFleet{a.rotation.workflowID(), started.startedAt, time.Now(), pages.seen}
		if !isRunning(run) {
			ran.until = run.GetCloseTime().AsTime()
		}
		if err := a.addRecordedClusters(ctx, out, ran); err != nil {
			return err
		}
	}
	if err := out.close(); err != nil {
		return err
	}
	if isKnown && len(pages.seen) < count {
		return fmt.Errorf("incomplete report: the fleet started %s, but Temporal lists %d of them: try again in a moment; what is past Temporal's retention is in the ledger, if the workers have one: set %s",
			pluralize(count, kind.noun), len(pages.seen), ledger.URLVariable)
	}
	return nil
}

// countStarted is the number of clusters whose rotations a fleet started. It is not
// known of one that runs or was terminated.
func (a *app) countStarted(ctx context.Context, s *session, run *workflowpb.WorkflowExecutionInfo) (count int, isKnown bool, err error) {
	if isRunning(run) {
		return 0, false, nil
	}
	ended := s.resultOf(ctx, a.rotation, run.GetExecution().GetRunId())
	records, isFleet := ended.records.(*fleetStatus)
	if !isFleet || run.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED {
		return 0, false, ended.connection
	}
	return startedBy(records.RotateFleetResult), true, nil
}

// recordedFleet is a fleet whose clusters' rotations are read from the ledger. One
// fleet at a time has its workflow ID.
type recordedFleet struct {
	workflowID   string
	since, until time.Time // when it ran
	// seen are the workflow IDs of rotations that are reported already.
	seen map[string]bool
}

// addRecordedClusters adds what only the ledger has, if there is one.
func (a *app) addRecordedClusters(ctx context.Context, out clusterWriter, fleet recordedFleet) (err error) {
	l, err := a.openLedger(ctx)
	if err != nil || l == nil {
		return err
	}
	defer func() { err = cmp.Or(err, l.Close()) }()
	count, err := fleet.write(ctx, l, out)
	if count > 0 {
		fmt.Fprintf(a.stderr, "%s from the ledger, because Temporal does not list them; %q checks that they were not changed\n", pluralize(count, "rotation"), programName+" ledger verify")
	}
	return err
}

// reportEachRecordedCluster does the same for a fleet that Temporal has forgotten.
func (a *app) reportEachRecordedCluster(ctx context.Context, l *ledger.Ledger, runID string, gone error) error {
	status, err := a.recordedStatus(ctx, l, runID, gone)
	if err != nil {
		return err
	}
	fleet := status.(*fleetStatus)
	kind, count := fleet.fleet().memberKind(), startedBy(fleet.RotateFleetResult)
	out := a.newClusterWriter(kind)
	written, err := recordedFleet{fleet.workflowID, fleet.StartedAt, timeOf(fleet.FinishedAt), map[string]bool{}}.write(ctx, l, out)
	if err := cmp.Or(err, out.close()); err != nil {
		return err
	}
	if written < count {
		return fmt.Errorf("incomplete report: the fleet started %s, but the ledger names it in the entries of %d: entries of earlier versions do not name it", pluralize(count, kind.noun), written)
	}
	return nil
}

// write writes the newest entry of each rotation that the fleet started, and returns
// how many.
func (f recordedFleet) write(ctx context.Context, l *ledger.Ledger, out clusterWriter) (written int, err error) {
	var page []fleetCluster
	flush := func() error {
		written += len(page)
		defer func() { page = nil }()
		return out.write(page)
	}
	for entry, err := range l.Entries(ctx, ledger.Filter{StartedBy: f.workflowID, Since: f.since, NewestFirst: true}) {
		if err != nil {
			return written, err
		}
		isOurs := !entry.StartedAt.Before(f.since.Truncate(time.Millisecond)) && !entry.StartedAt.After(f.until)
		if !isOurs || f.seen[entry.WorkflowID] {
			continue
		}
		f.seen[entry.WorkflowID] = true
		page = append(page, recordedCluster(entry))
		if len(page) == clustersPerPage {
			if err := flush(); err != nil {
				return written, err
			}
		}
	}
	return written, flush()
}

// recordedCluster is the result of a cluster's rotation by its entry.
func recordedCluster(entry ledgerentry.Entry) fleetCluster {
	cluster := fleetCluster{WorkflowID: entry.WorkflowID, RunID: entry.RunID, Status: enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED.String()}
	status, err := statusOfEntry(entry)
	rotation, isRotation := status.(*rotationStatus)
	switch {
	case err != nil:
		cluster.Status, cluster.Failure = "", err.Error()
	case isRotation:
		cluster.Failure, cluster.Records, cluster.targets = rotation.failure, rotation.records.result(), rotation.records
	}
	// The error of a rotation that Temporal ended has Temporal's status for a type.
	if ended, _, _ := strings.Cut(cluster.Failure, ":"); err == nil && ended != "" {
		cluster.Status = enumspb.WORKFLOW_EXECUTION_STATUS_FAILED.String()
		if _, isStatus := enumspb.WorkflowExecutionStatus_shorthandValue[ended]; isStatus {
			cluster.Status = ended
		}
	}
	return cluster
}

// startedBy is the number of clusters whose rotations a fleet has started: the
// others are busy, were rotated before, or could not be started. A failure may also
// be a project that could not be listed.
func startedBy(fleet workflows.RotateFleetResult) int {
	counts := fleet.Counts
	started := counts.Ended() - counts.Busy - counts.CarriedOver - counts.FailedProjects
	for _, failed := range fleet.Failures {
		if failed.WasListed() && failed.RunID == "" {
			started--
		}
	}
	return started
}

// fleetPages finds the rotations that a fleet started, in Temporal's list of
// workflows: the latest run of each, newest first.
type fleetPages struct {
	*session
	fleetID string
	// workflowType is that of the rotations.
	workflowType string
	first        string // the first run of the fleet
	token        []byte
	seen         map[string]bool
	// chains maps the run of a parent to the first run of its chain; empty = past
	// Temporal's retention.
	chains map[string]string
}

func (p *fleetPages) next(ctx context.Context) (children []*workflowpb.WorkflowExecutionInfo, more bool, err error) {
	requestContext, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := p.ListWorkflow(requestContext, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: clustersPerPage, NextPageToken: p.token,
		// The last run of a chain reports for those that continued as new.
		Query: fmt.Sprintf("WorkflowType = %s AND ParentWorkflowId = %s AND ExecutionStatus != 'ContinuedAsNew'", quoted(p.workflowType), quoted(p.fleetID)),
	})
	if err != nil {
		return nil, false, p.explain(err)
	}
	for _, child := range listed.GetExecutions() {
		isOurs, err := p.isOurs(ctx, child.GetParentExecution().GetRunId())
		if err != nil {
			return nil, false, err
		}
		if id := child.GetExecution().GetWorkflowId(); isOurs && !p.seen[id] {
			p.seen[id] = true
			children = append(children, child)
		}
	}
	p.token = listed.GetNextPageToken()
	return children, len(p.token) > 0, nil
}

// fleetIDs lists the workflow IDs of the latest fleets, whoever started them.
func (s *session) fleetIDs(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := s.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: maxFleetsOffered, Query: "WorkflowType = " + quoted(workflows.RotateFleetType),
	})
	if err != nil {
		return nil, s.explain(err)
	}
	var ids []string
	for _, fleet := range listed.GetExecutions() {
		if id := fleet.GetExecution().GetWorkflowId(); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// isOurs reports whether a run of the fleet's workflow ID belongs to the reported
// fleet: a fleet has several runs, and earlier fleets had the same ID.
func (p *fleetPages) isOurs(ctx context.Context, runID string) (bool, error) {
	if _, isKnown := p.chains[runID]; !isKnown {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		described, err := p.DescribeWorkflowExecution(ctx, p.fleetID, runID)
		if err != nil && !isNotFound(err) {
			return false, p.explain(err)
		}
		p.chains[runID] = described.GetWorkflowExecutionInfo().GetFirstRunId()
	}
	return p.chains[runID] == p.first, nil
}

// clustersOf reads the results of rotations, in their order. Of those that Temporal has
// forgotten since it listed them, it returns the workflow IDs.
func (s *session) clustersOf(ctx context.Context, children []*workflowpb.WorkflowExecutionInfo) (clusters []fleetCluster, forgotten []string, err error) {
	read := make([]fleetCluster, len(children))
	isGone := make([]bool, len(children))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallelReads)
	for i, child := range children {
		group.Go(func() (err error) {
			read[i], err = s.clusterOf(ctx, child)
			if isGone[i] = isNotFound(err); isGone[i] {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for i, cluster := range read {
		if isGone[i] {
			forgotten = append(forgotten, cluster.WorkflowID)
			continue
		}
		clusters = append(clusters, cluster)
	}
	return clusters, forgotten, nil
}

func (s *session) clusterOf(ctx context.Context, child *workflowpb.WorkflowExecutionInfo) (fleetCluster, error) {
	execution := child.GetExecution()
	cluster := fleetCluster{WorkflowID: execution.GetWorkflowId(), RunID: execution.GetRunId(), Status: child.GetStatus().String()}
	name, isOne := nameOf(cluster.WorkflowID)
	if !isOne {
		return cluster, fmt.Errorf("workflow %s of the fleet does not have the ID of a rotation", cluster.WorkflowID)
	}
	ended := runResult{}
	if child.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		ended = s.progressOf(ctx, name, cluster.RunID)
	} else {
		ended = s.resultOf(ctx, name, cluster.RunID)
	}
	cluster.Failure = ended.failureText()
	if records := ended.targetRecords(); records != nil {
		cluster.Records, cluster.targets = records.result(), records
	}
	if cluster.Failure == "" && ended.unread != nil {
		cluster.Failure = "cannot read the progress: " + ended.unread.Error()
	}
	return cluster, ended.connection
}

// progressOf is the progress of a running rotation.
func (s *session) progressOf(ctx context.Context, name rotationName, runID string) runResult {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	progress, err := s.progress(ctx, name, runID)
	return runResult{records: progress, unread: err}
}

// nameOf parses the workflow ID of a rotation with targets.
func nameOf(workflowID string) (rotationName, bool) {
	if connection, project, isDeployment := workflows.ParseRotateDeploymentID(workflowID); isDeployment {
		return rotationName{connection: connection, project: project, deployment: true}, true
	}
	connection, project, cluster, ok := workflows.ParseRotateClusterID(workflowID)
	return rotationName{connection: connection, project: project, cluster: cluster}, ok
}

// memberKind is the kind of a fleet's rotations.
func (n rotationName) memberKind() kind {
	n.fleet = false
	return n.kind()
}

// clusterWriter writes the records of clusters as they arrive.
type clusterWriter interface {
	write([]fleetCluster) error
	close() error
}

func (a *app) newClusterWriter(kind kind) clusterWriter {
	if a.format == formatCSV {
		return &clustersCSV{out: a.stdout, kind: kind}
	}
	return &clustersJSON{out: a.stdout}
}

// clustersCSV has one self-contained row per target, and one for a cluster
// without records of targets.
type clustersCSV struct {
	out     io.Writer
	kind    kind
	started bool
}

// clusterColumns come before those of a cluster's own report.
var clusterColumns = table.Row{"workflowId", "runId", "workflowStatus", "failure"}

func (w *clustersCSV) write(clusters []fleetCluster) error {
	t := newCSV()
	if !w.started {
		t.AppendHeader(slices.Concat(clusterColumns, csvHeader(w.kind.noRecords(rotationName{}))))
		w.started = true
	}
	for _, c := range clusters {
		t.AppendRows(c.rows())
	}
	if text := t.RenderCSV(); text != "" {
		return writeLine(w.out, text)
	}
	return nil
}

func (w *clustersCSV) close() error { return nil }

func (c fleetCluster) rows() []table.Row {
	records := c.targets
	if records == nil { // then the workflow ID says what is known
		name, _ := nameOf(c.WorkflowID)
		records = name.kind().noRecords(name)
	}
	return csvRows(records, []string{c.WorkflowID, c.RunID, c.Status, c.Failure}, nil)
}

// clustersJSON is a list.
type clustersJSON struct {
	out     io.Writer
	started bool
}

func (w *clustersJSON) write(clusters []fleetCluster) error {
	for _, c := range clusters {
		text, err := jsonText(c, "  ")
		if err != nil {
			return err
		}
		before := ",\n  "
		if !w.started {
			before, w.started = "[\n  ", true
		}
		if _, err := io.WriteString(w.out, before+strings.TrimRight(text, "\n")); err != nil {
			return err
		}
	}
	return nil
}

func (w *clustersJSON) close() error {
	end := "\n]\n"
	if !w.started {
		end = "[]\n"
	}
	_, err := io.WriteString(w.out, end)
	return err
}
