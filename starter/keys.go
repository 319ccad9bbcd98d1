package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/temporalclient"
	"keyturn/opsmanager"
	"keyturn/workflows"
)

const (
	// keyPagesAtATime is how many results are read at a time.
	keyPagesAtATime = 8
	// keyProgressInterval is how often the progress is looked at.
	keyProgressInterval = 2 * time.Second
	// maxKeyNamesShown bounds the names in a cell of a table for people.
	maxKeyNamesShown = 3
)

// keysFlags are the flags of keys.
type keysFlags struct {
	connection     string
	projects       []string
	exclude        []string
	clusters       []string
	expiringBefore string
	before         time.Time // of expiringBefore; zero = all
	taskQueue      string
}

func (a *app) keysCommand() *cobra.Command {
	f := &keysFlags{}
	command := &cobra.Command{
		Use:     "keys",
		GroupID: groupRotate,
		Short:   "List master keys, and until when old ones are needed",
		Long:    keysHelp,
		Example: keysExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := f.check(time.Now()); err != nil {
			return err
		}
		return a.withSession(ctx, func(s *session) error { return a.keys(ctx, s, f) })
	})
	f.addScopeFlags(a, command)
	command.Flags().StringVar(&f.expiringBefore, "expiring-before", "", "show only keys whose last snapshot expires before a date (2027-01-31) or within a duration (90d)")
	a.format.addFlag(command)
	return command
}

// addScopeFlags adds the flags that say which keys to read, and to show.
func (f *keysFlags) addScopeFlags(a *app, command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.connection, "connection", workflows.DefaultConnection, "name of the Ops Manager connection configured in the worker")
	flags.StringSliceVar(&f.projects, "project", nil, "project IDs, comma-separated or repeated (default all projects that the API key can see)")
	flags.StringSliceVar(&f.exclude, "exclude-projects", nil, "IDs of projects to leave out, comma-separated or repeated")
	flags.StringSliceVar(&f.clusters, "cluster", nil, "show only these clusters, by ID or display name")
	flags.StringVar(&f.taskQueue, "task-queue", a.defaultTaskQueue(), "the worker's task queue ("+temporalclient.TaskQueueVariable+")")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "projects" { // as the commands for a fleet have it
			name = "project"
		}
		return pflag.NormalizedName(name)
	})
}

func (f *keysFlags) check(now time.Time) error {
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
	switch {
	case !workflows.ValidConnection(f.connection):
		return usageErrorf("--connection: %s", workflows.ConnectionRule)
	case f.taskQueue == "":
		return usageErrorf("--task-queue: must not be empty")
	case f.expiringBefore == "":
		return nil
	}
	before, ok := dateOrDuration(f.expiringBefore, now)
	if !ok {
		return usageErrorf(`--expiring-before: must be a date such as 2027-01-31, a time in RFC 3339, or a duration such as 90d`)
	}
	f.before = before
	return nil
}

// dateOrDuration reads a date (its beginning in UTC), a time, or how long from
// now.
func dateOrDuration(text string, now time.Time) (time.Time, bool) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	d, err := workflows.ParseDuration(text)
	return now.Add(d.Std()), err == nil && d > 0
}

// listKeys reads the keys in force and all earlier ones.
func (a *app) listKeys(ctx context.Context, s *session, f *keysFlags) (*keyView, error) {
	run, err := a.startKeyList(ctx, s, f)
	if err != nil {
		return nil, err
	}
	result, err := a.awaitKeyList(ctx, s, run, f.taskQueue)
	if err != nil {
		return nil, err
	}
	pages, err := s.keyPages(ctx, result.Pages)
	if err != nil {
		return nil, err
	}
	v := newKeyView(result, keyRecordsOf(pages), f, time.Now())
	v.clusters = clustersOfPages(pages)
	return v, nil
}

func (a *app) keys(ctx context.Context, s *session, f *keysFlags) error {
	list, err := a.listKeys(ctx, s, f)
	if err != nil {
		return err
	}
	if err := a.writeAs(list, list.table, list.csv, list.markdown); err != nil {
		return err
	}
	if list.Complete {
		return nil
	}
	if a.format == formatCSV {
		for _, line := range list.incomplete() {
			fmt.Fprintln(a.stderr, clean(line))
		}
	}
	return errors.New("the list is not complete: other keys may exist, and keys may be needed for longer")
}

func (a *app) startKeyList(ctx context.Context, s *session, f *keysFlags) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	run, err := s.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:            workflows.ListKeysID(f.connection, uuid.NewString()),
		TaskQueue:     f.taskQueue,
		StaticSummary: "List KMIP master keys",
		// Rotations go first.
		Priority: temporal.Priority{PriorityKey: 4},
	}, workflows.ListKeysType, workflows.ListKeysInput{Connection: f.connection, ProjectIDs: f.projects, ExcludeProjectIDs: f.exclude})
	if err != nil {
		return nil, s.explain(err)
	}
	return run, nil
}

// awaitKeyList waits for the result and reports progress to standard error. It
// cancels the listing when it is interrupted: nobody else waits for it.
func (a *app) awaitKeyList(ctx context.Context, s *session, run client.WorkflowRun, taskQueue string) (result workflows.ListKeysResult, err error) {
	ended := make(chan error, 1)
	go func() { ended <- run.Get(ctx, &result) }()
	ticker := time.NewTicker(keyProgressInterval)
	defer ticker.Stop()
	for said := ""; ; {
		select {
		case err := <-ended:
			switch {
			case err == nil:
				return result, nil
			case ctx.Err() != nil:
				stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
				defer cancel()
				_ = s.CancelWorkflow(stopCtx, run.GetID(), run.GetRunID()) // the interruption is what is reported
				return result, ctx.Err()
			default:
				return result, fmt.Errorf("the keys could not be listed: %s", failureText(err))
			}
		case <-ticker.C:
			if text := s.keyProgress(ctx, run, taskQueue); text != said {
				said = text
				fmt.Fprintln(a.stderr, clean(text))
			}
		}
	}
}

func (s *session) keyProgress(ctx context.Context, run client.WorkflowRun, taskQueue string) string {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var progress workflows.ListKeysProgress
	answer, err := s.QueryWorkflow(ctx, run.GetID(), "", workflows.ProgressQuery)
	if err != nil {
		return s.explainQuery(err, taskQueue).Error()
	}
	if err := answer.Get(&progress); err != nil {
		return "cannot read the progress: " + err.Error()
	}
	text := fmt.Sprintf("%s: %s", progress.Phase, progress.Counts)
	for _, p := range progress.InProgress {
		if p.Clusters > 0 {
			text += fmt.Sprintf("; project %s: %d of %d clusters", p.ProjectID, p.ClustersDone, p.Clusters)
		}
	}
	if progress.Phase == workflows.PhasePaused {
		text += "; waiting for " + progress.WaitingFor
	}
	return text
}

// keyRecords reads the records of all pages: one for each key of a project.
func (s *session) keyPages(ctx context.Context, refs []workflows.KeyPageRef) ([]workflows.KeyPage, error) {
	pages := make([]workflows.KeyPage, len(refs))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(keyPagesAtATime)
	for i, ref := range refs {
		group.Go(func() error {
			if err := s.GetWorkflow(groupCtx, ref.WorkflowID, ref.RunID).Get(groupCtx, &pages[i]); err != nil {
				return fmt.Errorf("cannot read the keys of project %s (workflow %s): %w", ref.ProjectID, ref.WorkflowID, s.explain(err))
			}
			return nil
		})
	}
	return pages, group.Wait()
}

// clustersOfPages are the clusters that Ops Manager lists; nil = not known, because an
// earlier version of the worker has read them.
func clustersOfPages(pages []workflows.KeyPage) map[projectCluster]bool {
	clusters := map[projectCluster]bool{}
	for _, page := range pages {
		if len(page.ClusterIDs) != page.Clusters {
			return nil
		}
		for _, id := range page.ClusterIDs {
			clusters[projectCluster{page.ProjectID, id}] = true
		}
	}
	return clusters
}

// projectCluster names a cluster of a project by their IDs.
type projectCluster struct{ project, cluster string }

// keyRecordsOf are the records of all pages.
func keyRecordsOf(pages []workflows.KeyPage) []workflows.KeyRecord {
	type key struct{ project, uuid string }
	at := map[key]int{}
	records := []workflows.KeyRecord{}
	for _, page := range pages {
		for _, record := range page.Keys {
			k := key{record.ProjectID, record.KeyUUID}
			if i, found := at[k]; found {
				records[i] = workflows.MergeKeyRecords(records[i], record)
				continue
			}
			at[k] = len(records)
			records = append(records, record)
		}
	}
	return records
}

// keyView is what is shown of a listing. In JSON it is the result, with the
// records in place of its pages.
type keyView struct {
	Connection       string                       `json:"connection"`
	Complete         bool                         `json:"complete"`
	Reasons          []workflows.IncompleteReason `json:"reasons"`
	ReasonsNotListed int                          `json:"reasonsNotListed"`
	StartedAt        time.Time                    `json:"startedAt"`
	FinishedAt       *time.Time                   `json:"finishedAt"`
	Counts           workflows.KeyListCounts      `json:"counts"`
	Keys             []workflows.KeyRecord        `json:"keys"`

	shown string // which keys are shown, if not all
	// clusters are those that Ops Manager lists, with keys or without; nil = not known.
	clusters map[projectCluster]bool
	now      time.Time
}

func newKeyView(result workflows.ListKeysResult, records []workflows.KeyRecord, f *keysFlags, now time.Time) *keyView {
	v := &keyView{
		Connection: result.Connection, Complete: result.Complete, Reasons: result.Reasons, ReasonsNotListed: result.ReasonsNotListed,
		StartedAt: result.StartedAt, FinishedAt: result.FinishedAt, Counts: result.Counts, Keys: []workflows.KeyRecord{}, now: now,
	}
	for _, record := range records {
		if f.shows(record) {
			v.Keys = append(v.Keys, record)
		}
	}
	for _, wanted := range f.clusters {
		if !slices.ContainsFunc(records, func(r workflows.KeyRecord) bool { return isOfCluster(r, wanted) }) {
			v.Complete = false
			v.Reasons = append(v.Reasons, workflows.IncompleteReason{
				Reason: clusterNotFound, ClusterName: wanted,
				Message: "no key of a cluster with this ID or display name was found: check --cluster and --project; a cluster without an encrypted backup has no key",
			})
		}
	}
	slices.SortFunc(v.Keys, compareKeys)
	if len(v.Keys) < len(records) {
		v.shown = fmt.Sprintf("%d of %s", len(v.Keys), pluralize(len(records), "key"))
	}
	return v
}

func (f *keysFlags) shows(record workflows.KeyRecord) bool {
	ofCluster := len(f.clusters) == 0 || slices.ContainsFunc(f.clusters, func(wanted string) bool { return isOfCluster(record, wanted) })
	ends := f.before.IsZero() || record.NeededUntil != nil && record.NeededUntil.Before(f.before)
	return ofCluster && ends
}

// clusterNotFound is the reason why a list is not complete that lacks a cluster
// named by --cluster. The other reasons are the workflow's.
const clusterNotFound = "clusterNotFound"

func isOfCluster(record workflows.KeyRecord, wanted string) bool {
	return slices.Contains(record.ClusterNames, wanted) || slices.Contains(record.ClusterIDs, strings.ToLower(wanted))
}

// compareKeys puts keys in the order of project and cluster, those in force first,
// then those that are needed longest.
func compareKeys(a, b workflows.KeyRecord) int {
	name := func(r workflows.KeyRecord) string {
		return strings.Join(append(slices.Clone(r.ClusterNames), r.ClusterIDs...), ",")
	}
	order := []workflows.Verdict{workflows.VerdictCurrent, workflows.VerdictNeeded, workflows.VerdictUnknown, workflows.VerdictNamedByNoSnapshot}
	end := func(r workflows.KeyRecord) int64 {
		if r.NeededUntil == nil {
			return 0
		}
		return -r.NeededUntil.Unix()
	}
	noEnd := func(r workflows.KeyRecord) int {
		if r.NeededUntil == nil {
			return 0
		}
		return 1
	}
	return cmp.Or(
		strings.Compare(a.ProjectID, b.ProjectID), strings.Compare(name(a), name(b)),
		cmp.Compare(slices.Index(order, a.Verdict), slices.Index(order, b.Verdict)),
		cmp.Compare(noEnd(a), noEnd(b)), cmp.Compare(end(a), end(b)), strings.Compare(a.KeyUUID, b.KeyUUID),
	)
}

// neededUntil says until when a key is needed, for people.
func (v *keyView) neededUntil(r workflows.KeyRecord) string {
	switch {
	case r.Verdict == workflows.VerdictCurrent:
		return "in force"
	case r.Verdict != workflows.VerdictNeeded:
		return "not known"
	case r.NeededUntil == nil:
		return "no end"
	case r.NeededUntil.Before(v.now):
		return timeText(r.NeededUntil) + " (expired)"
	default:
		return timeText(r.NeededUntil)
	}
}

// incomplete says in words why the list is not complete; nil if it is.
func (v *keyView) incomplete() []string {
	if v.Complete {
		return nil
	}
	return append([]string{"NOT COMPLETE: other keys may exist, and keys may be needed for longer than shown, because"}, reasonLines(v.Reasons, v.ReasonsNotListed)...)
}

// reasonLines are a list of reasons why keys could not be read.
func reasonLines(reasons []workflows.IncompleteReason, notListed int) (lines []string) {
	for _, reason := range reasons {
		var of []string
		if cluster := cmp.Or(reason.ClusterName, reason.ClusterID); cluster != "" {
			of = append(of, "cluster "+cluster)
		}
		if reason.ProjectID != "" {
			of = append(of, "project "+reason.ProjectID)
		}
		lines = append(lines, "- "+strings.TrimPrefix(strings.Join(of, " of ")+": ", ": ")+reason.Message)
	}
	if notListed > 0 {
		lines = append(lines, fmt.Sprintf("- and %s more", pluralize(notListed, "reason")))
	}
	return lines
}

const keysNote = `No verdict says that a key may be destroyed, and keys that are not listed may still be needed: see "keyturn keys --help".`

func (v *keyView) summary() string {
	text := v.Counts.String()
	if v.shown != "" {
		text += "; shown: " + v.shown
	}
	return text
}

func someNames(names []string, more bool) string {
	shown := strings.Join(names[:min(len(names), maxKeyNamesShown)], ", ")
	if len(names) > maxKeyNamesShown || more {
		shown += ", ..."
	}
	return shown
}

func clusterNames(r workflows.KeyRecord) []string {
	if len(r.ClusterNames) == 0 {
		return r.ClusterIDs
	}
	return r.ClusterNames
}

func (v *keyView) columns() []columnOf[workflows.KeyRecord] {
	columns := []columnOf[workflows.KeyRecord]{
		{newTextField("Cluster", func(r workflows.KeyRecord) string { return someNames(clusterNames(r), false) })},
		{newIDField("Key", func(r workflows.KeyRecord) string { return r.KeyUUID })},
		{newMarkField("Verdict", func(r workflows.KeyRecord) (string, string) { return "", string(r.Verdict) })},
		{newMarkField("Needed until", func(r workflows.KeyRecord) (string, string) { return "", v.neededUntil(r) })},
		{{title: "Snapshots", isNumber: true, line: func(r workflows.KeyRecord) htmlLine { return htmlLine{Text: strconv.Itoa(r.Snapshots)} }}},
		{newTimeField("Newest snapshot", func(r workflows.KeyRecord) *time.Time { return r.NewestSnapshot })},
		{newTextField("Replica sets", func(r workflows.KeyRecord) string { return someNames(r.ReplicaSets, r.NamesLeftOut) })},
	}
	if v.hasEvidence() {
		columns = append(columns, columnOf[workflows.KeyRecord]{newTextField("KMIP server", func(r workflows.KeyRecord) string { return evidenceText(r.KMIP) })})
	}
	return columns
}

func (v *keyView) table(l layout) string {
	var b strings.Builder
	for _, line := range v.incomplete() {
		b.WriteString(l.line(clean(line)) + "\n")
	}
	b.WriteString(l.line(v.summary()) + "\n")
	if len(v.Keys) > 0 {
		b.WriteString(tableOf(l, v.columns(), v.Keys) + "\n")
	}
	b.WriteString(l.line(keysNote) + "\n")
	return b.String()
}

var keyColumns = table.Row{
	"keyUUID", "verdict", "neededUntil", "snapshots", "oldestSnapshot", "newestSnapshot", "projectId", "clusterIds", "clusterNames",
	"replicaSets", "hosts", "restoreJobs", "lastRotation", "kmipOutcome", "kmipState", "kmipInitialDate", "kmipAskedAt", "complete",
}

func (v *keyView) csv() string {
	t := newCSV()
	t.AppendHeader(keyColumns)
	for _, r := range v.Keys {
		join := func(names []string) string { return strings.Join(names, " ") }
		row := []string{r.KeyUUID, string(r.Verdict), timeText(r.NeededUntil), strconv.Itoa(r.Snapshots), timeText(r.OldestSnapshot),
			timeText(r.NewestSnapshot), r.ProjectID, join(r.ClusterIDs), join(r.ClusterNames), join(r.ReplicaSets), join(r.Hosts),
			strconv.Itoa(r.RestoreJobs), timeText(r.LastRotation)}
		t.AppendRow(cleanRow(append(append(row, evidenceValues(r.KMIP)...), strconv.FormatBool(v.Complete))...))
	}
	return t.RenderCSV()
}

// incompleteMarkdown is what incomplete says, for a ticket.
func incompleteMarkdown(lines []string) string {
	var b strings.Builder
	for i, line := range lines {
		if i == 0 {
			line = "**" + strings.Replace(line, ":", ":**", 1) + "\n"
			b.WriteString("\n" + line + "\n")
			continue
		}
		b.WriteString("- " + markdownText(strings.TrimPrefix(line, "- ")) + "\n")
	}
	return b.String()
}

func (v *keyView) markdown() string {
	var b strings.Builder
	b.WriteString(markdownHead("Master keys", nonEmpty([]fact{
		{"Connection", v.Connection}, {"Read", timeText(v.FinishedAt)}, {"Counts", v.summary()},
	})))
	b.WriteString(incompleteMarkdown(v.incomplete()))
	var rows []table.Row
	for _, r := range v.Keys {
		row := table.Row{
			someNames(clusterNames(r), false), r.ProjectID, r.KeyUUID, r.Verdict, v.neededUntil(r), r.Snapshots, timeText(r.NewestSnapshot),
			someNames(r.ReplicaSets, r.NamesLeftOut), someNames(r.Hosts, r.NamesLeftOut), r.RestoreJobs,
		}
		if v.hasEvidence() {
			row = append(row, datedEvidenceText(r.KMIP))
		}
		rows = append(rows, row)
	}
	header := table.Row{"Cluster", "Project", "Key", "Verdict", "Needed until", "Snapshots", "Newest snapshot", "Replica sets", "Hosts", "Restore jobs"}
	if v.hasEvidence() {
		header = append(header, "KMIP server")
	}
	fmt.Fprintf(&b, "\n%s\n\n%s\n", markdownTable(header, rows), keysNote)
	return b.String()
}

const keysHelp = `Lists the master keys that Ops Manager names, and until when each is needed. It
reads current keys, snapshots and restore jobs, and changes nothing. It requires
a running worker; Ctrl-C ends the listing.

Verdicts:
  current            in force: Ops Manager shows it as a backup's key, or the
                     newest snapshot of a member is encrypted with it
  needed             a snapshot or a restore job names it. "Needed until" is
                     when the last of these snapshots expires; "no end" if one
                     never expires or a restore is in progress
  namedByNoSnapshot  not in force; all snapshots were read, and none names it
  unknown            not in force; not all snapshots could be read

No verdict says that a key may be destroyed. Each member of a deployment has a
key of its own, and the keys of members that were never snapshotted are in no
snapshot. A mongod shuts down when its key is deactivated. Other systems may use
keys of the same KMIP server. Restored data keeps its key. MongoDB's rule is to
keep all keys, including rotated ones.

If something could not be read, or is encrypted and names no key, the list is
NOT COMPLETE: the reasons are printed above the table (as csv, to standard
error), and the exit code is 1.

--cluster and --expiring-before choose what is shown, not what is read. If no
key of a cluster that --cluster names is found, the list is NOT COMPLETE, too.`

const keysExamples = `  # Which old keys must be kept, and until when?
  keyturn keys --project 5196d3628d022db4cbc26d9e

  # Keys whose last snapshot expires within 90 days, of all projects
  keyturn keys --expiring-before 90d

  # One cluster, for a spreadsheet
  keyturn keys --project 5196d3628d022db4cbc26d9e --cluster orders \
    -o csv > keys.csv`
