package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/internal/temporalclient"
	"keyturn/opsmanager"
	"keyturn/workflows"
)

const (
	// takenUpWithin is how long a listing of clusters waits for a worker.
	takenUpWithin = 15 * time.Second
	// maxTaskAttempts is how often a worker may fail before no more is expected of it.
	maxTaskAttempts = 2
	// clusterListTimeout ends a listing that nobody waits for any more.
	clusterListTimeout = 15 * time.Minute
	// takenUpInterval is how often it looks whether there is one.
	takenUpInterval = time.Second
	// maxCandidates bounds the clusters that a message names.
	maxCandidates = 10
)

// clustersFlags are the flags of clusters.
type clustersFlags struct {
	connection        string
	projects, exclude []string
	clusterNames      string
	taskQueue         string
}

func (a *app) clustersCommand() *cobra.Command {
	f := &clustersFlags{}
	command := &cobra.Command{
		Use:     "clusters",
		GroupID: groupRotate,
		Short:   "List what can be rotated, with names, IDs and the last rotation",
		Long:    clustersHelp,
		Example: clustersExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := f.check(); err != nil {
			return err
		}
		return a.withSession(ctx, func(s *session) error { return a.clusters(ctx, s, f) })
	})
	flags := command.Flags()
	flags.StringVar(&f.connection, "connection", workflows.DefaultConnection, "name of the Ops Manager connection configured in the worker")
	flags.StringSliceVar(&f.projects, "project", nil, "project IDs, comma-separated or repeated (default all projects that the API key can see)")
	flags.StringSliceVar(&f.exclude, "exclude-projects", nil, "IDs of projects to leave out, comma-separated or repeated")
	flags.StringVar(&f.clusterNames, "cluster-names", "", "regular expression (RE2) on display names, such as '^orders'")
	flags.StringVar(&f.taskQueue, "task-queue", a.defaultTaskQueue(), "the worker's task queue ("+temporalclient.TaskQueueVariable+")")
	a.format.addFlag(command)
	return command
}

func (f *clustersFlags) check() error {
	for _, list := range []struct {
		flag string
		ids  []string
	}{{"--project", f.projects}, {"--exclude-projects", f.exclude}} {
		for _, id := range list.ids {
			if !opsmanager.ValidID(id) {
				return usageErrorf("%s: %q must be 24 hex digits", list.flag, id)
			}
		}
	}
	if _, err := regexp.Compile(f.clusterNames); err != nil {
		return usageErrorf("--cluster-names: %v", err)
	}
	switch {
	case !workflows.ValidConnection(f.connection):
		return usageErrorf("--connection: %s", workflows.ConnectionRule)
	case f.taskQueue == "":
		return usageErrorf("--task-queue: must not be empty")
	}
	return nil
}

func (f *clustersFlags) input() workflows.ListClustersInput {
	return workflows.ListClustersInput{Connection: f.connection, ProjectIDs: f.projects, ExcludeProjectIDs: f.exclude, ClusterNames: f.clusterNames}
}

// listClusters lists all clusters, page by page: a worker reads them from Ops Manager.
func (s *session) listClusters(ctx context.Context, taskQueue string, input workflows.ListClustersInput) (clusters []workflows.ClusterRef, unlisted []workflows.UnlistedProject, err error) {
	for {
		page, err := s.clusterPage(ctx, taskQueue, input)
		if err != nil {
			return nil, nil, err
		}
		clusters, unlisted = append(clusters, page.Clusters...), append(unlisted, page.Unlisted...)
		if !page.More {
			return clusters, unlisted, nil
		}
		input.After = page.Last
	}
}

func (s *session) clusterPage(ctx context.Context, taskQueue string, input workflows.ListClustersInput) (*workflows.ListClustersResult, error) {
	startCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	run, err := s.ExecuteWorkflow(startCtx, client.StartWorkflowOptions{
		ID: workflows.ListClustersID(input.Connection, uuid.NewString()), TaskQueue: taskQueue, StaticSummary: "List clusters", WorkflowExecutionTimeout: clusterListTimeout,
	}, workflows.ListClustersType, input)
	if err != nil {
		return nil, s.explain(err)
	}
	getCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go s.watchForWorker(getCtx, run, taskQueue, stop)
	var page workflows.ListClustersResult
	err = run.Get(getCtx, &page)
	if err == nil {
		return &page, nil
	}
	if getCtx.Err() != nil { // nobody else waits for it
		endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		_ = s.TerminateWorkflow(endCtx, run.GetID(), run.GetRunID(), "nobody waits for the list") // the cause is what is reported
		return nil, context.Cause(getCtx)
	}
	return nil, fmt.Errorf("the clusters could not be listed: %s", failureText(err))
}

// watchForWorker stops the waiting for a workflow that no worker takes up, or that the
// worker does not know.
func (s *session) watchForWorker(ctx context.Context, run client.WorkflowRun, taskQueue string, stop context.CancelCauseFunc) {
	for deadline := time.Now().Add(takenUpWithin); sleep(ctx, takenUpInterval); {
		described, err := s.DescribeWorkflowExecution(ctx, run.GetID(), run.GetRunID())
		switch task := described.GetPendingWorkflowTask(); {
		case err != nil: // what waits for the result reports it
		case task == nil:
			return
		case task.GetAttempt() > maxTaskAttempts:
			stop(fmt.Errorf("the worker on task queue %q fails to list clusters: see its log, and upgrade it if its version does not know workflow type %s", taskQueue, workflows.ListClustersType))
			return
		case time.Now().After(deadline):
			stop(fmt.Errorf("no worker has taken up the listing of clusters within %s: start a worker on task queue %q", takenUpWithin, taskQueue))
			return
		}
	}
}

// rotatableCluster is a cluster and what is known of its rotations.
type rotatableCluster struct {
	workflows.ClusterRef
	// LastRotation is the last one that has ended and was no plan; nil = neither Temporal
	// nor the ledger has one.
	LastRotation *latestRotation `json:"lastRotation"`
	// Current is the state of one that has not ended; empty = there is none.
	Current string `json:"current"`
}

// latestRotation is how a cluster was rotated last, or its project's deployments were.
type latestRotation struct {
	FinishedAt time.Time `json:"finishedAt"`
	Kind       string    `json:"kind"` // cluster or deployment
	Outcome    string    `json:"outcome"`
	Ticket     string    `json:"ticket"`
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
}

// clustersView is what is shown of clusters.
type clustersView struct {
	Connection string `json:"connection"`
	// Complete: every project could be listed.
	Complete bool                        `json:"complete"`
	Unlisted []workflows.UnlistedProject `json:"unlisted"`
	Clusters []rotatableCluster          `json:"clusters"`
}

func (a *app) clusters(ctx context.Context, s *session, f *clustersFlags) error {
	clusters, unlisted, err := s.listClusters(ctx, f.taskQueue, f.input())
	if err != nil {
		return err
	}
	rotations, err := a.rotationsOf(ctx, s, f.connection)
	if err != nil {
		return err
	}
	v := &clustersView{Connection: f.connection, Complete: len(unlisted) == 0, Unlisted: unlisted}
	for _, ref := range clusters {
		v.Clusters = append(v.Clusters, rotations.of(ref))
	}
	slices.SortStableFunc(v.Clusters, func(x, y rotatableCluster) int {
		return cmp.Or(strings.Compare(x.ClusterName, y.ClusterName), strings.Compare(x.ProjectID, y.ProjectID))
	})
	if err := a.writeAs(v, v.table, v.csv, v.markdown); err != nil {
		return err
	}
	if v.Complete {
		return nil
	}
	if a.format == formatCSV {
		for _, line := range v.problems() {
			fmt.Fprintln(a.stderr, clean(line))
		}
	}
	return errors.New("the list is not complete: " + pluralize(len(unlisted), "project") + " could not be listed")
}

// clusterRotations are the rotations of a connection's clusters: of each the last one
// that has ended, and the state of one that has not.
type clusterRotations struct {
	last    map[clusterName]latestRotation
	current map[clusterName]string
}

// clusterName names a cluster by its ID or, as the memo of a rotation of deployments
// does, by its display name. Empty = every cluster of the project: such a memo does not
// name them all.
type clusterName struct{ project, cluster string }

// rotationsOf reads them from Temporal's list and, if there is one, from the ledger,
// which has those that Temporal has forgotten.
func (a *app) rotationsOf(ctx context.Context, s *session, connection string) (*clusterRotations, error) {
	r := &clusterRotations{map[clusterName]latestRotation{}, map[clusterName]string{}}
	reads, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	listed := &rotationList{session: s, flags: &listFlags{filterFlags: filterFlags{connection: connection}}, reads: reads, pageSize: rotationsPerPage}
	if err := listed.findAll(ctx); err != nil {
		return nil, err
	}
	for _, rotation := range listed.found {
		r.add(rotation)
	}
	return r, a.addRecorded(ctx, r, connection)
}

func (a *app) addRecorded(ctx context.Context, r *clusterRotations, connection string) (err error) {
	l, err := a.openLedger(ctx)
	if err != nil || l == nil {
		return err
	}
	defer func() { err = cmp.Or(err, l.Close()) }()
	filter := ledger.Filter{Connection: connection, Kinds: []ledgerentry.Kind{ledgerentry.KindCluster, ledgerentry.KindDeployment}, WithoutBodies: true}
	for entry, err := range l.Entries(ctx, filter) {
		if err != nil {
			return err
		}
		for _, cluster := range entry.Clusters {
			r.keepLast(clusterName{entry.ProjectID, cluster.ID}, latestRotation{
				FinishedAt: entry.FinishedAt, Kind: string(entry.Kind), Outcome: entry.Outcome, Ticket: entry.Ticket, WorkflowID: entry.WorkflowID, RunID: entry.RunID,
			})
		}
	}
	return nil
}

func (r *clusterRotations) add(found listedRotation) {
	if found.name.fleet || found.DryRun {
		return
	}
	clusters := []string{found.ClusterID}
	if found.Kind == kindDeployment {
		clusters = found.Clusters
		if found.ClustersNotListed > 0 {
			clusters = append(clusters, "")
		}
	}
	for _, cluster := range clusters {
		name := clusterName{found.ProjectID, cluster}
		if found.isOpen() {
			r.current[name] = found.state()
			continue
		}
		r.keepLast(name, latestRotation{
			FinishedAt: *found.FinishedAt, Kind: found.Kind, Outcome: found.state(), Ticket: found.Ticket, WorkflowID: found.WorkflowID, RunID: found.RunID,
		})
	}
}

func (r *clusterRotations) keepLast(name clusterName, rotation latestRotation) {
	if r.last[name].FinishedAt.Before(rotation.FinishedAt) {
		r.last[name] = rotation
	}
}

// of adds to a cluster what is known of its rotations.
func (r *clusterRotations) of(ref workflows.ClusterRef) rotatableCluster {
	cluster := rotatableCluster{ClusterRef: ref}
	for _, name := range []string{ref.ClusterID, ref.ClusterName, ""} {
		name := clusterName{ref.ProjectID, name}
		if last, found := r.last[name]; found && (cluster.LastRotation == nil || cluster.LastRotation.FinishedAt.Before(last.FinishedAt)) {
			cluster.LastRotation = &last
		}
		cluster.Current = cmp.Or(cluster.Current, r.current[name])
	}
	return cluster
}

// lastOf is the last rotation; the zero value if there is none.
func (c rotatableCluster) lastOf() latestRotation { return *cmp.Or(c.LastRotation, &latestRotation{}) }

// last says when and with which outcome the last rotation ended.
func (c rotatableCluster) last() string {
	if c.LastRotation == nil {
		return "never"
	}
	return timeText(&c.LastRotation.FinishedAt)
}

func (v *clustersView) summary() string {
	text := pluralize(len(v.Clusters), "cluster")
	if !v.Complete {
		text += "; NOT COMPLETE: " + pluralize(len(v.Unlisted), "project") + " could not be listed"
	}
	return text
}

func (v *clustersView) problems() (lines []string) {
	for _, project := range v.Unlisted {
		lines = append(lines, fmt.Sprintf("project %s: %s: %s", project.ProjectID, project.Type, project.Message))
	}
	return lines
}

func (v *clustersView) facts() []fact {
	return nonEmpty([]fact{{"Connection", v.Connection}, {"Clusters", v.summary()}})
}

func (v *clustersView) columns() []columnOf[rotatableCluster] {
	return []columnOf[rotatableCluster]{
		{
			newTextField("Cluster", func(c rotatableCluster) string { return c.ClusterName }),
			newIDField("Project ID", func(c rotatableCluster) string { return c.ProjectID }),
			newIDField("Cluster ID", func(c rotatableCluster) string { return c.ClusterID }),
		},
		{
			newTextField("Last rotation", func(c rotatableCluster) string { return c.last() }),
			newTextField("Outcome", func(c rotatableCluster) string { return c.lastOf().Outcome }),
			newTextField("Ticket", func(c rotatableCluster) string { return c.lastOf().Ticket }),
		},
		{
			newTextField("Now", func(c rotatableCluster) string { return c.Current }),
			newTextField("Keys of", func(c rotatableCluster) string { return c.lastOf().Kind }),
		},
	}
}

func (v *clustersView) table(l layout) string {
	text := l.head(v.facts(), "")
	if len(v.Clusters) > 0 {
		text += "\n" + tableOf(l, v.columns(), v.Clusters) + "\n"
	}
	for _, line := range v.problems() {
		text += "\n" + l.line(clean(line)) + "\n"
	}
	return text
}

func (v *clustersView) markdown() string {
	text := markdownHead("Clusters", v.facts())
	if len(v.Clusters) > 0 {
		text += "\n" + markdownOf(v.columns(), v.Clusters) + "\n"
	}
	for i, line := range v.problems() {
		if i == 0 {
			text += "\n"
		}
		text += "- " + markdownText(line) + "\n"
	}
	return text
}

var rotatableCSV = []csvColumnOf[rotatableCluster]{
	{"clusterName", func(c rotatableCluster) string { return c.ClusterName }},
	{"projectId", func(c rotatableCluster) string { return c.ProjectID }},
	{"clusterId", func(c rotatableCluster) string { return c.ClusterID }},
	{"lastRotation", func(c rotatableCluster) string { at := c.lastOf().FinishedAt; return timeText(&at) }},
	{"lastOutcome", func(c rotatableCluster) string { return c.lastOf().Outcome }},
	{"lastKind", func(c rotatableCluster) string { return c.lastOf().Kind }},
	{"lastTicket", func(c rotatableCluster) string { return c.lastOf().Ticket }},
	{"lastWorkflowId", func(c rotatableCluster) string { return c.lastOf().WorkflowID }},
	{"lastRunId", func(c rotatableCluster) string { return c.lastOf().RunID }},
	{"current", func(c rotatableCluster) string { return c.Current }},
}

func (v *clustersView) csv() string { return csvOf(rotatableCSV, v.Clusters) }

// resolveCluster replaces the display name of a cluster in --cluster by its ID, and
// finds its project if --project is left out. IDs need no worker.
func (a *app) resolveCluster(ctx context.Context, command *cobra.Command) error {
	n := &a.rotation
	if n.cluster == "" || n.deployment || n.fleet || opsmanager.ValidID(n.cluster) {
		return nil
	}
	several, takesSeveral := command.Flags().Lookup("cluster").Value.(*clusterFlag)
	if takesSeveral && len(*several.all) != 1 {
		return nil // the command refuses them
	}
	switch {
	case n.project != "" && !opsmanager.ValidID(n.project):
		return usageErrorf("--project: must be 24 hex digits")
	case !workflows.ValidConnection(n.connection):
		return usageErrorf("--connection: %s", workflows.ConnectionRule)
	}
	taskQueue := a.defaultTaskQueue()
	if flag := command.Flags().Lookup("task-queue"); flag != nil {
		taskQueue = flag.Value.String()
	}
	a.started = true
	return a.withSession(ctx, func(s *session) error {
		found, err := s.clusterNamed(ctx, taskQueue, n.connection, n.project, n.cluster)
		if err != nil {
			return err
		}
		n.project, n.cluster, n.displayName = found.ProjectID, found.ClusterID, found.ClusterName
		if takesSeveral {
			*several.all = []string{found.ClusterID}
		}
		return nil
	})
}

// clusterNamed finds the cluster with a display name; a usage error lists the
// candidates if there is not exactly one.
func (s *session) clusterNamed(ctx context.Context, taskQueue, connection, project, name string) (workflows.ClusterRef, error) {
	input := workflows.ListClustersInput{Connection: connection, ClusterNames: "^" + regexp.QuoteMeta(name) + "$"}
	if project != "" {
		input.ProjectIDs = []string{project}
	}
	found, unlisted, err := s.listClusters(ctx, taskQueue, input)
	switch {
	case err != nil:
		return workflows.ClusterRef{}, err
	case len(unlisted) > 0:
		return workflows.ClusterRef{}, fmt.Errorf("--cluster: cannot find out whether %q names exactly one cluster: %s could not be listed: %s", name, pluralize(len(unlisted), "project"), unlisted[0].Message)
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return workflows.ClusterRef{}, usageErrorf("--cluster: no cluster has the display name or ID %q (an ID has 24 hex digits); see %s clusters", name, programName)
	}
	var candidates []string
	for _, ref := range found[:min(len(found), maxCandidates)] {
		candidates = append(candidates, "--project "+ref.ProjectID+" --cluster "+ref.ClusterID)
	}
	if more := len(found) - len(candidates); more > 0 {
		candidates = append(candidates, fmt.Sprintf("and %d more", more))
	}
	return workflows.ClusterRef{}, withHint(usageErrorf("--cluster: %d clusters have the name %q; give one of", len(found), name), candidates...)
}

const clustersHelp = `Lists the clusters that can be rotated, by name, with their IDs and their last
rotation: sharded clusters, and replica sets that are not part of one. A worker
reads them from Ops Manager; nothing is changed. Whether their backups or
processes are encrypted is not read: "keyturn plan" shows that.

The last rotation is the last one that ended, in whatever way, and was no plan:
of the cluster, or of its project's deployments ("Keys of"). It is from
Temporal's list of workflows and, if KEYTURN_LEDGER is set, from the ledger,
which also has those that Temporal has forgotten. "never" means that neither has
one. Now is the state of one that has not ended.

The exit code is 1 if a project could not be listed.`

const clustersExamples = `  # What there is, with the IDs
  keyturn clusters

  # Clusters of two projects, by name, for a spreadsheet
  keyturn clusters --project 5196d3628d022db4cbc26d9e,5196d3628d022db4cbc26d9f \
    --cluster-names '^orders' -o csv > clusters.csv

  # Clusters that were never rotated
  keyturn clusters -o json \
    | jq -r '.clusters[] | select(.lastRotation == null) | .clusterName'`
