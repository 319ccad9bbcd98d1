package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/opsmanager"
	"keyturn/workflows"
)

// historyFlags are the flags of history.
type historyFlags struct {
	filterFlags
	person   string
	outcomes []string
}

func (a *app) historyCommand() *cobra.Command {
	f := &historyFlags{}
	command := &cobra.Command{
		Use:     "history",
		GroupID: groupLedger,
		Short:   "List the rotations that the ledger has recorded",
		Long:    historyHelp,
		Example: historyExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := f.check(time.Now()); err != nil {
			return err
		}
		f.warnOfUnknownOutcomes(a.stderr)
		return a.withLedger(ctx, func(l *ledger.Ledger) error { return a.history(ctx, l, f) })
	})
	f.period.addFlags(command)
	flags := command.Flags()
	f.filterFlags.addFlags(command, "have entries of their own", 0,
		fmt.Sprintf("show this many of the newest ones (default all as csv or json, otherwise %d)", maxListed))
	flags.StringVar(&f.person, "person", "", "who requested, approved, or controlled the rotation")
	flags.StringSliceVar(&f.outcomes, "outcome", nil, "outcomes, comma-separated or repeated: "+strings.Join(knownOutcomes, ", "))
	completeWith(command, "outcome", knownOutcomes)
	a.format.addFlag(command)
	return command
}

// knownOutcomes are offered to the shell's completion, and others get a warning. The
// ledger may have others, of later versions.
var knownOutcomes = []string{
	string(workflows.OutcomeRotated), string(workflows.OutcomeRotatedWithSkips), string(workflows.OutcomeRotatedUnproven),
	string(workflows.OutcomePartial), string(workflows.OutcomeNothingRotated),
}

func (f *historyFlags) check(now time.Time) error {
	if slices.Contains(f.outcomes, "") {
		return usageErrorf("--outcome: must not be empty")
	}
	return f.filterFlags.check(now)
}

// warnOfUnknownOutcomes says why a misspelled outcome finds nothing.
func (f *historyFlags) warnOfUnknownOutcomes(stderr io.Writer) {
	for _, outcome := range f.outcomes {
		if !slices.Contains(knownOutcomes, outcome) {
			fmt.Fprintf(stderr, "warning: --outcome: %q is none of %s\n", outcome, strings.Join(knownOutcomes, ", "))
		}
	}
}

func (f *historyFlags) filter() ledger.Filter {
	filter := ledger.Filter{
		Connection: f.connection, ProjectID: strings.ToLower(f.project), Cluster: clusterIDOrName(f.cluster), Outcomes: f.outcomes,
		Since: f.since, Until: f.until, Ticket: f.ticket, Person: f.person, NewestFirst: true, Limit: f.limit,
	}
	switch {
	case f.deployment:
		filter.Kinds = []ledgerentry.Kind{ledgerentry.KindDeployment}
	case f.fleet:
		filter.Kinds = []ledgerentry.Kind{ledgerentry.KindFleet}
	}
	return filter
}

// clusterIDOrName is an ID in the ledger's form, or a name as it is.
func clusterIDOrName(text string) string {
	if opsmanager.ValidID(text) {
		return strings.ToLower(text)
	}
	return text
}

// historyEntry is an entry without its body, which only reports show.
type historyEntry struct {
	ledgerentry.Entry
	// Body hides the entry's.
	Body *struct{} `json:"body,omitempty"`
}

func withoutBody(entry ledgerentry.Entry) historyEntry {
	entry.Body = nil
	return historyEntry{Entry: entry}
}

// maxListed is how many rotations a table has if --limit does not say it: tables are
// for people, and are in memory as a whole.
const maxListed = 1000

// historyView is what is shown of a history.
type historyView struct {
	Since    *time.Time `json:"since"`
	Until    *time.Time `json:"until"`
	TimeZone string     `json:"timeZone"`

	period string
	// entries of a table, and whether there are older ones.
	entries []historyEntry
	isCut   bool
}

func (a *app) history(ctx context.Context, l *ledger.Ledger, f *historyFlags) error {
	v := &historyView{Since: timeOrNil(f.since), Until: timeOrNil(f.until), TimeZone: f.zone.String(), period: f.text()}
	out := bufio.NewWriter(a.stdout)
	switch a.format {
	case formatJSON:
		return cmp.Or(writeJSONWith(out, v, "entries", historyEntries(ctx, l, f.filter())), out.Flush())
	case formatCSV:
		return cmp.Or(writeCSV(out, historyCSV, historyEntries(ctx, l, f.filter())), out.Flush())
	}
	filter, limit := f.filter(), cmp.Or(f.limit, maxListed)
	filter.Limit = limit + 1
	for entry, err := range historyEntries(ctx, l, filter) {
		if err != nil {
			return err
		}
		if v.isCut = len(v.entries) == limit; !v.isCut {
			v.entries = append(v.entries, entry)
		}
	}
	return a.writeAs(nil, v.table, nil, v.markdown)
}

// historyEntries are the entries that a filter selects, without their bodies.
func historyEntries(ctx context.Context, l *ledger.Ledger, filter ledger.Filter) iter.Seq2[historyEntry, error] {
	filter.WithoutBodies = true
	return func(yield func(historyEntry, error) bool) {
		for entry, err := range l.Entries(ctx, filter) {
			if !yield(withoutBody(entry), err) {
				return
			}
		}
	}
}

// timeOrNil is a time for JSON, in UTC; nil if it is zero.
func timeOrNil(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// subjectOf names what an entry's rotation was about.
func subjectOf(e ledgerentry.Entry) string {
	switch {
	case e.Kind == ledgerentry.KindCluster && len(e.Clusters) > 0:
		return cmp.Or(e.Clusters[0].Name, e.Clusters[0].ID)
	case e.Kind == ledgerentry.KindDeployment:
		var names []string
		for _, cluster := range e.Clusters {
			names = append(names, cmp.Or(cluster.Name, cluster.ID))
		}
		return strings.TrimSuffix("deployments: "+someOf(names), ": ")
	default:
		return "fleet " + e.Connection
	}
}

var historyColumns = []columnOf[historyEntry]{
	{
		newTimeField("Finished", func(e historyEntry) *time.Time { return &e.FinishedAt }),
		newTextField("Took", func(e historyEntry) string { return roundedDuration(e.FinishedAt.Sub(e.StartedAt)) }),
	},
	{
		newTextField("Rotated", func(e historyEntry) string { return subjectOf(e.Entry) }),
		newIDField("Project", func(e historyEntry) string { return e.ProjectID }),
	},
	{
		newTextField("Outcome", func(e historyEntry) string { return e.Outcome }),
		newTextField("Source", func(e historyEntry) string { return string(e.Source) }),
	},
	{
		newTextField("Ticket", func(e historyEntry) string { return e.Ticket }),
		newTextField("Requested by", func(e historyEntry) string { return e.RequestedBy }),
	},
	{
		newTextField("Approved by", func(e historyEntry) string { return e.ApprovedBy }),
		newTextField("Acted", func(e historyEntry) string { return strings.Join(e.ActedBy, ", ") }),
	},
	{newIDField("Run ID", func(e historyEntry) string { return e.RunID })},
}

var historyCSV = []csvColumnOf[historyEntry]{
	{"finishedAt", func(e historyEntry) string { return timeText(&e.FinishedAt) }},
	{"startedAt", func(e historyEntry) string { return timeText(&e.StartedAt) }},
	{"kind", func(e historyEntry) string { return string(e.Kind) }},
	{"connection", func(e historyEntry) string { return e.Connection }},
	{"projectId", func(e historyEntry) string { return e.ProjectID }},
	{"clusterIds", func(e historyEntry) string {
		return joined(e.Clusters, func(c ledgerentry.Cluster) string { return c.ID })
	}},
	{"clusterNames", func(e historyEntry) string {
		return joined(e.Clusters, func(c ledgerentry.Cluster) string { return c.Name })
	}},
	{"outcome", func(e historyEntry) string { return e.Outcome }},
	{"ticket", func(e historyEntry) string { return e.Ticket }},
	{"requestedBy", func(e historyEntry) string { return e.RequestedBy }},
	{"approvedBy", func(e historyEntry) string { return e.ApprovedBy }},
	{"actedBy", func(e historyEntry) string { return strings.Join(e.ActedBy, " ") }},
	{"workflowId", func(e historyEntry) string { return e.WorkflowID }},
	{"runId", func(e historyEntry) string { return e.RunID }},
	{"source", func(e historyEntry) string { return string(e.Source) }},
	{"recordedAt", func(e historyEntry) string { return timeText(&e.RecordedAt) }},
	{"workerVersion", func(e historyEntry) string { return e.WorkerVersion }},
	{"chain", func(e historyEntry) string { return e.Chain }},
	{"sequence", func(e historyEntry) string { return strconv.FormatInt(e.Sequence, 10) }},
	{"signingKeyId", func(e historyEntry) string { return e.SigningKeyID }},
	{"hash", func(e historyEntry) string { return e.Hash }},
}

func joined[T any](all []T, text func(T) string) string { return joinedBy(" ", all, text) }

func joinedBy[T any](separator string, all []T, text func(T) string) string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = text(one)
	}
	return strings.Join(texts, separator)
}

func (v *historyView) summary() string {
	switch {
	case len(v.entries) == 0:
		return "the ledger has no such rotation"
	case v.isCut:
		return "the newest " + pluralize(len(v.entries), "rotation") + "; there are older ones: use --limit, or -o csv or json for all"
	default:
		return pluralize(len(v.entries), "rotation") + ", the newest first"
	}
}

func (v *historyView) facts() []fact {
	return nonEmpty([]fact{{"Period", v.period}, {"Ledger", v.summary()}})
}

func (v *historyView) table(l layout) string {
	if len(v.entries) == 0 {
		return l.head(v.facts(), "")
	}
	return l.head(v.facts(), "") + "\n" + tableOf(l, historyColumns, v.entries)
}

func (v *historyView) markdown() string {
	text := markdownHead("Rotations", v.facts())
	if len(v.entries) > 0 {
		text += "\n" + markdownOf(historyColumns, v.entries)
	}
	return text
}

const historyHelp = `Lists the rotations that ended, the newest first, from the ledger that
KEYTURN_LEDGER names. It needs neither Temporal nor a worker. Plans, and
rotations that are still in progress, are not in the ledger.

A rotation must match all given filters. Text is compared exactly. Dates are
those of --time-zone, or else of the local time zone; the output names the
period with its time zone. Times in the output are in UTC.

Source: "workflow" means that the rotation was recorded before it closed,
"reconciled" that a worker added it later from what Temporal knew of it, because
it was terminated, timed out, or ran before there was a ledger.

As json and csv, each entry has its place in its chain and its hash, but not its
records: "keyturn report --run-id" shows those of one rotation,
"keyturn evidence" those of a period. The hashes are not checked here;
"keyturn ledger verify" does that.`

const historyExamples = `  # The last ten rotations
  keyturn history --limit 10

  # A quarter, in Berlin's days, for a spreadsheet
  keyturn history --since 2026-01-01 --until 2026-03-31 \
    --time-zone Europe/Berlin -o csv > quarter.csv

  # What was done under a ticket, and what did not reach every target
  keyturn history --ticket CHG0031337
  keyturn history --since 90d --outcome partial,nothingRotated

  # Everything that a person requested, approved or controlled
  keyturn history --person dana`
