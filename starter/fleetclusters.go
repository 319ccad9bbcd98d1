package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"keyturn/workflows"
)

const (
	// clustersListed is how many clusters of a fleet are known at a time.
	clustersListed = 200
	// clustersReadAtOnce is how many of their records are asked for at a time.
	clustersReadAtOnce = 8
	// fleetsOffered is how many runs of fleets the shell's completion looks at.
	fleetsOffered = 50
)

// fleetCluster is what came of a cluster that a fleet has started.
type fleetCluster struct {
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	// Status is Temporal's: Running, Completed, Failed, Terminated.
	Status string `json:"status"`
	// Failure is why it has failed, as "Type: message".
	Failure string `json:"failure"`
	// Records are nil of one that has left none.
	Records *workflows.RotateClusterResult `json:"records"`
}

// reportClusters writes the records of every cluster that a fleet has started, a
// page after the other.
func (a *app) reportClusters(ctx context.Context, s *session, run *workflowpb.WorkflowExecutionInfo) error {
	out := a.newClusterWriter()
	pages := &fleetPages{session: s, fleetID: a.rotation.workflowID(), first: run.GetFirstRunId(), seen: map[string]bool{}, chains: map[string]string{}}
	for more := true; more; {
		var children []*workflowpb.WorkflowExecutionInfo
		var err error
		if children, more, err = pages.next(ctx); err != nil {
			return err
		}
		clusters, err := s.clustersOf(ctx, children)
		if err != nil {
			return err
		}
		if err := out.write(clusters); err != nil {
			return err
		}
	}
	if err := out.close(); err != nil {
		return err
	}
	return a.checkComplete(ctx, s, run, pages)
}

// checkComplete says how many clusters are missing, as they are past Temporal's
// retention, or because its list of workflows is late.
func (a *app) checkComplete(ctx context.Context, s *session, run *workflowpb.WorkflowExecutionInfo, pages *fleetPages) error {
	if isRunning(run) {
		return nil
	}
	ended := s.endOf(ctx, a.rotation, run.GetExecution().GetRunId())
	records, isFleet := ended.records.(*fleetAccount)
	if !isFleet || run.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED {
		return ended.connection
	}
	counts := records.Counts
	if started := counts.Ended() - counts.Busy; len(pages.seen) < started {
		return fmt.Errorf("the report is not complete: the fleet's records count %d clusters that it has rotated or tried to, and Temporal's list of workflows has %d of them: it may be late, or some are past the retention",
			started, len(pages.seen))
	}
	return nil
}

// fleetPages finds the rotations that a fleet has started, in Temporal's list of
// workflows: the latest run of each, the latest ones first.
type fleetPages struct {
	*session
	fleetID string
	first   string // the first run of the fleet
	token   []byte
	seen    map[string]bool
	// chains has the first run of each run that is the parent of one; empty = it
	// is past Temporal's retention.
	chains map[string]string
}

func (p *fleetPages) next(ctx context.Context) (children []*workflowpb.WorkflowExecutionInfo, more bool, err error) {
	requestContext, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	listed, err := p.ListWorkflow(requestContext, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: clustersListed, NextPageToken: p.token,
		// A run that has continued as new is told by the last one.
		Query: fmt.Sprintf("WorkflowType = %s AND ParentWorkflowId = %s AND ExecutionStatus != 'ContinuedAsNew'", quoted(workflows.RotateClusterType), quoted(p.fleetID)),
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

// fleetIDs lists the ids of the latest fleets, whoever has started them.
func (s *session) fleetIDs(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	listed, err := s.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: fleetsOffered, Query: "WorkflowType = " + quoted(workflows.RotateFleetType),
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

// isOurs tells whether a run of the fleet's id belongs to the fleet that is
// reported: a fleet has several runs, and there were others under its id.
func (p *fleetPages) isOurs(ctx context.Context, runID string) (bool, error) {
	if _, isKnown := p.chains[runID]; !isKnown {
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		described, err := p.DescribeWorkflowExecution(ctx, p.fleetID, runID)
		if err != nil && !isNotFound(err) {
			return false, p.explain(err)
		}
		p.chains[runID] = described.GetWorkflowExecutionInfo().GetFirstRunId()
	}
	return p.chains[runID] == p.first, nil
}

// clustersOf reads what came of rotations, in their order.
func (s *session) clustersOf(ctx context.Context, children []*workflowpb.WorkflowExecutionInfo) ([]fleetCluster, error) {
	clusters := make([]fleetCluster, len(children))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(clustersReadAtOnce)
	for i, child := range children {
		group.Go(func() (err error) {
			clusters[i], err = s.clusterOf(ctx, child)
			return err
		})
	}
	return clusters, group.Wait()
}

func (s *session) clusterOf(ctx context.Context, child *workflowpb.WorkflowExecutionInfo) (fleetCluster, error) {
	execution := child.GetExecution()
	cluster := fleetCluster{WorkflowID: execution.GetWorkflowId(), RunID: execution.GetRunId(), Status: child.GetStatus().String()}
	name, isOne := nameOf(cluster.WorkflowID)
	if !isOne {
		return cluster, fmt.Errorf("workflow %s has no id of a cluster's rotation", cluster.WorkflowID)
	}
	ended := ending{}
	if child.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		ended = s.soFar(ctx, name, cluster.RunID)
	} else {
		ended = s.endOf(ctx, name, cluster.RunID)
	}
	cluster.Failure, cluster.Records = ended.failureText(), ended.clusterRecords()
	if cluster.Failure == "" && ended.unread != nil {
		cluster.Failure = "the progress is not known: " + ended.unread.Error()
	}
	return cluster, ended.connection
}

// soFar is what is known of a run that goes on.
func (s *session) soFar(ctx context.Context, name rotationName, runID string) ending {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	progress, err := s.progress(ctx, name, runID)
	return ending{records: progress, unread: err}
}

// nameOf reads the id of a cluster's rotation.
func nameOf(workflowID string) (rotationName, bool) {
	connection, project, cluster, ok := workflows.ParseRotateClusterID(workflowID)
	return rotationName{connection: connection, project: project, cluster: cluster}, ok
}

// clusterWriter writes the records of clusters as they come.
type clusterWriter interface {
	write([]fleetCluster) error
	close() error
}

func (a *app) newClusterWriter() clusterWriter {
	if a.format == formatCSV {
		return &clustersCSV{out: a.stdout}
	}
	return &clustersJSON{out: a.stdout}
}

// clustersCSV has a row a target, complete in itself, and one for a cluster that
// has left no records of targets.
type clustersCSV struct {
	out   io.Writer
	begun bool
}

// clusterColumns stand before those of a cluster's own report.
var clusterColumns = table.Row{"workflowId", "runId", "workflowStatus", "failure"}

func (w *clustersCSV) write(clusters []fleetCluster) error {
	t := newCSV()
	if !w.begun {
		t.AppendHeader(slices.Concat(clusterColumns, runColumns, targetColumns))
		w.begun = true
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

func (c fleetCluster) rows() (rows []table.Row) {
	records := c.recordsOrNames()
	run := append([]string{c.WorkflowID, c.RunID, c.Status, c.Failure}, runValues(records)...)
	for _, target := range records.Targets {
		rows = append(rows, cleanRow(slices.Concat(run, targetValues(target))...))
	}
	if len(rows) == 0 {
		rows = append(rows, cleanRow(slices.Concat(run, make([]string, len(targetColumns)))...))
	}
	return rows
}

// recordsOrNames are the records, or what its id says of a cluster without any.
func (c fleetCluster) recordsOrNames() workflows.RotateClusterResult {
	if c.Records != nil {
		return *c.Records
	}
	name, _ := nameOf(c.WorkflowID)
	return workflows.RotateClusterResult{Connection: name.connection, ProjectID: name.project, ClusterID: name.cluster}
}

// clustersJSON is a list.
type clustersJSON struct {
	out   io.Writer
	begun bool
}

func (w *clustersJSON) write(clusters []fleetCluster) error {
	for _, c := range clusters {
		text, err := jsonText(c, "  ")
		if err != nil {
			return err
		}
		before := ",\n  "
		if !w.begun {
			before, w.begun = "[\n  ", true
		}
		if _, err := io.WriteString(w.out, before+strings.TrimRight(text, "\n")); err != nil {
			return err
		}
	}
	return nil
}

func (w *clustersJSON) close() error {
	end := "\n]\n"
	if !w.begun {
		end = "[]\n"
	}
	_, err := io.WriteString(w.out, end)
	return err
}
