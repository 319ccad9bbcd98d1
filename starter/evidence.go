package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
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
	"keyturn/internal/version"
	"keyturn/workflows"
)

// evidenceFlags are the flags of evidence.
type evidenceFlags struct {
	period
	proofFlags
	connection string
	olderThan  workflows.Duration
	format     format
}

func (a *app) evidenceCommand() *cobra.Command {
	f := &evidenceFlags{}
	command := &cobra.Command{
		Use:     "evidence",
		GroupID: groupLedger,
		Short:   "Write what an auditor needs about a period into one file",
		Long:    evidenceHelp,
		Example: evidenceExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		now := time.Now()
		if err := cmp.Or(f.period.check(now), checkOlderThan(f.olderThan)); err != nil {
			return err
		}
		if f.connection != "" && !workflows.ValidConnection(f.connection) {
			return usageErrorf("--connection: %s", workflows.ConnectionRule)
		}
		options, err := f.proofFlags.options()
		if err != nil {
			return err
		}
		return a.withLedger(ctx, func(l *ledger.Ledger) error { return a.evidence(ctx, l, f, options, now) })
	})
	f.period.addFlags(command)
	addOlderThanFlag(command, &f.olderThan)
	command.Flags().StringVar(&f.connection, "connection", "", "name of the Ops Manager connection (default all)")
	f.proofFlags.addFlags(command)
	f.format.addFlagOf(command, formatHTML, formatJSON)
	return command
}

// evidence is what is known about a period, but for the records themselves, which are
// read when they are written: they may be larger than memory.
type evidence struct {
	Generator   string             `json:"generator"`
	GeneratedAt time.Time          `json:"generatedAt"`
	Connection  string             `json:"connection"` // empty = all
	Since       *time.Time         `json:"since"`
	Until       time.Time          `json:"until"`
	TimeZone    string             `json:"timeZone"`
	OlderThan   workflows.Duration `json:"olderThan"`

	Summary      evidenceSummary   `json:"summary"`
	KeyAges      []keyAge          `json:"keyAges"` // at Until
	Verification *verificationView `json:"verification"`
	Anchor       ledger.Anchor     `json:"anchor"`

	entries []historyEntry
	period  string
}

// evidenceSummary counts what was done in the period.
type evidenceSummary struct {
	Rotations   int            `json:"rotations"` // of clusters and deployments
	Fleets      int            `json:"fleets"`
	Outcomes    map[string]int `json:"outcomes"` // of Rotations
	Clusters    int            `json:"clusters"` // that a rotation was about
	KeysRotated int            `json:"keysRotated"`
	Approved    int            `json:"approved"`
	Unreadable  int            `json:"unreadable"` // entries whose records cannot be read
}

func (a *app) evidence(ctx context.Context, l *ledger.Ledger, f *evidenceFlags, options ledger.VerifyOptions, now time.Time) error {
	e, err := readEvidence(ctx, l, f, options, now)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.stdout)
	write := e.writeJSON
	if f.format == formatHTML {
		write = e.writeHTML
	}
	if err := cmp.Or(write(out, e.records(ctx, l)), out.Flush()); err != nil {
		return err
	}
	return e.Verification.failure()
}

// readEvidence reads the ledger once, and verifies it in the same reading.
func readEvidence(ctx context.Context, l *ledger.Ledger, f *evidenceFlags, options ledger.VerifyOptions, now time.Time) (*evidence, error) {
	end := now
	if !f.until.IsZero() && f.until.Before(now) {
		end = f.until
	}
	// As the ledger compares times.
	since, end := f.since.Truncate(time.Millisecond), end.Truncate(time.Millisecond)
	e := &evidence{
		Generator: programName + " " + version.String(), GeneratedAt: now.UTC(), Connection: f.connection, Since: timeOrNil(f.since), Until: end.UTC(),
		TimeZone: f.zone.String(), OlderThan: f.olderThan, period: (&period{since: f.since, until: end, zone: f.zone}).text(),
		Summary: evidenceSummary{Outcomes: map[string]int{}},
	}
	keys, clusters := newRecordedKeys(), map[clusterKey]bool{}
	options.Each = func(entry ledgerentry.Entry) {
		if f.connection != "" && entry.Connection != f.connection || !entry.FinishedAt.Before(end) {
			return
		}
		status := keys.add(entry)
		if entry.FinishedAt.Before(since) {
			return
		}
		e.Summary.add(entry, status, clusters)
		e.entries = append(e.entries, withoutBody(entry))
	}
	found, err := l.Verify(ctx, options)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(e.entries, func(a, b historyEntry) int { return orderOf(a.Entry).compare(orderOf(b.Entry)) })
	e.Summary.Clusters = len(clusters)
	e.KeyAges = keys.agesAt(end, f.olderThan.Std())
	e.Verification = &verificationView{Verification: found, IsIntact: found.Intact()}
	e.Anchor, err = l.Anchor(ctx)
	return e, err
}

func (s *evidenceSummary) add(entry ledgerentry.Entry, status statusView, clusters map[clusterKey]bool) {
	if status == nil {
		s.Unreadable++
	}
	if entry.Kind == ledgerentry.KindFleet {
		s.Fleets++
		return
	}
	s.Rotations++
	s.Outcomes[entry.Outcome]++
	if entry.ApprovedBy != "" {
		s.Approved++
	}
	for _, cluster := range entry.Clusters {
		clusters[clusterKey{entry.Connection, entry.ProjectID, cluster.ID}] = true
	}
	if rotation, isRotation := status.(*rotationStatus); isRotation {
		s.KeysRotated += countIf(rotation.records.targets(), func(t targetRecord) bool {
			return !t.carriedOver && hasNewKey(entry.Kind, t)
		})
	}
}

// records reads the entries of the period once more, with their bodies. What was
// recorded since is left out.
func (e *evidence) records(ctx context.Context, l *ledger.Ledger) iter.Seq2[ledgerentry.Entry, error] {
	return func(yield func(ledgerentry.Entry, error) bool) {
		next := 0
		period := ledger.Filter{Connection: e.Connection, Since: timeOf(e.Since), Until: e.Until, OnlyReadable: true}
		for entry, err := range l.Entries(ctx, period) {
			switch {
			case err == nil && (next == len(e.entries) || entry.Key != e.entries[next].Key):
				continue
			case !yield(entry, err) || err != nil:
				return
			}
			next++
		}
		if next < len(e.entries) {
			yield(ledgerentry.Entry{}, errors.New("the ledger changed while it was being read: entries are gone"))
		}
	}
}

// writeJSON writes the evidence with the entries as the ledger has them.
func (e *evidence) writeJSON(out io.Writer, records iter.Seq2[ledgerentry.Entry, error]) error {
	return writeJSONWith(out, e, "entries", records)
}

func (e *evidence) writeHTML(out io.Writer, records iter.Seq2[ledgerentry.Entry, error]) error {
	var failed error
	page := e.page()
	page.Parts = func(yield func(htmlPage) bool) {
		for entry, err := range records {
			if err != nil {
				failed = err
				return
			}
			if !yield(partOf(entry)) {
				return
			}
		}
	}
	return cmp.Or(writeHTML(out, page, e.GeneratedAt), failed)
}

// partOf is the report of one rotation, as "report -o html" has it.
func partOf(entry ledgerentry.Entry) htmlPage {
	title := subjectOf(entry) + ", " + timeText(&entry.FinishedAt)
	entryFacts := nonEmpty([]fact{
		{"Ledger entry", fmt.Sprintf("%s, number %d", entry.Chain, entry.Sequence)}, {"Recorded", timeText(&entry.RecordedAt) + " (" + string(entry.Source) + ")"},
	})
	status, err := statusOfEntry(entry)
	if err != nil {
		return htmlPage{Title: clean(title), Verdict: newMark(markBad, "the records cannot be read: "+err.Error()), Facts: entryFacts}
	}
	part := status.page()
	part.Title, part.Facts = clean(title), append(part.Facts, entryFacts...)
	return part
}

func (e *evidence) overdue() int { return len(e.KeyAges) - countAges(e.KeyAges)[keyOK] }

func (e *evidence) verdict() htmlMark {
	text := pluralize(e.Summary.Rotations, "rotation") + "; " + agesText(e.KeyAges) + "; ledger " + e.Verification.verdict()
	if e.overdue() > 0 || e.Verification.failure() != nil || e.Summary.Unreadable > 0 {
		return newMark(markBad, text)
	}
	return newMark(markGood, text)
}

func (e *evidence) facts() []fact {
	var outcomes []string
	for _, outcome := range sortedIDs(e.Summary.Outcomes) {
		outcomes = append(outcomes, fmt.Sprintf("%d %s", e.Summary.Outcomes[outcome], outcome))
	}
	unreadable := ""
	if e.Summary.Unreadable > 0 {
		unreadable = pluralize(e.Summary.Unreadable, "rotation") + " without readable records"
	}
	facts := nonEmpty([]fact{
		{"Period", e.period},
		{"Connection", cmp.Or(e.Connection, "all")},
		{"Rotations", strings.TrimSuffix(strconv.Itoa(e.Summary.Rotations)+": "+strings.Join(outcomes, ", "), ": ")},
		{"Fleets", strconv.Itoa(e.Summary.Fleets)},
		{"Clusters", strconv.Itoa(e.Summary.Clusters) + " with a rotation in the period"},
		{"Keys replaced", strconv.Itoa(e.Summary.KeysRotated)},
		{"Approved", fmt.Sprintf("%d of %s, by someone other than the requester", e.Summary.Approved, pluralize(e.Summary.Rotations, "rotation"))},
		{"Unreadable", unreadable},
		{"Policy", "a key is overdue after " + e.OlderThan.String()},
		{"Key ages", agesText(e.KeyAges) + ", at the end of the period"},
	})
	return append(facts, e.Verification.facts()...)
}

func (e *evidence) page() htmlPage {
	page := htmlPage{
		Title: "Evidence of key rotations", Verdict: e.verdict(), Facts: e.facts(), PartsTitle: "Rotations",
		Notes: evidenceNotes,
	}
	ages := sectionOf("Key ages", "The oldest key of each cluster at the end of the period; the worst status first", ageColumns, e.KeyAges)
	if len(e.KeyAges) > 0 {
		ages.Chart = newAgeChart(e.KeyAges, e.OlderThan)
	}
	page.Sections = []htmlSection{ages, sectionOf("Overdue", "Clusters whose keys are not ok at the end of the period", ageColumns, slices.DeleteFunc(slices.Clone(e.KeyAges), func(age keyAge) bool { return age.Status == keyOK }))}
	page.Appendix = []htmlSection{
		sectionOf("Appendix: faults of the ledger", "The first entry of each chain that does not fit", faultColumns, e.Verification.Faults),
		sectionOf("Appendix: entries of the ledger", "Each rotation of the period, with its place in its chain", appendixColumns, e.entries),
		sectionOf("Appendix: heads of the chains", "The newest entry of each chain when this file was written: an anchor for later verifications", headColumns, e.Anchor.Heads),
	}
	return page
}

var appendixColumns = []columnOf[historyEntry]{
	{
		newTextField("Rotated", func(e historyEntry) string { return subjectOf(e.Entry) }),
		newTimeField("Finished", func(e historyEntry) *time.Time { return &e.FinishedAt }),
	},
	{
		newIDField("Chain", func(e historyEntry) string { return e.Chain }),
		newTextField("Number", func(e historyEntry) string { return strconv.FormatInt(e.Sequence, 10) }),
		newTextField("Worker", func(e historyEntry) string { return e.WorkerVersion }),
	},
	{
		newIDField("Hash", func(e historyEntry) string { return e.Hash }),
		newIDField("Previous hash", func(e historyEntry) string { return e.PreviousHash }),
	},
	{
		newIDField("Signing key ID", func(e historyEntry) string { return e.SigningKeyID }),
		newIDField("Signature", func(e historyEntry) string { return e.Signature }),
	},
}

var headColumns = []columnOf[ledger.Head]{
	{newIDField("Chain", func(h ledger.Head) string { return h.Chain })},
	{newTextField("Number", func(h ledger.Head) string { return strconv.FormatInt(h.Sequence, 10) })},
	{newIDField("Hash", func(h ledger.Head) string { return h.Hash })},
}

var evidenceNotes = append([]htmlNote{
	noteKeys,
	{"Key ages", "By the newest recorded rotation of each target, up to the end of the period. ok: not older than the policy. overdue: older. never: no rotation of it, or of one of its targets, is recorded. Whether a key in force was changed without keyturn, and which clusters are gone from Ops Manager since, is shown by keyturn overdue, not here."},
	{"Source", "workflow: recorded before the rotation closed. reconciled: added later from what Temporal knew of it."},
	{"Chain", "The entries of a cluster, of a project's deployments or of a connection's fleets. Each has the hash of the one before it, so a hash fixes everything before it."},
	{"Hash", "SHA-256, in hex, of the entry's JSON without its hash and signature, in canonical form (RFC 8785)."},
	{"Signature", "Ed25519 over the same text, in base64. The signing key ID is the first 16 bytes, in hex, of the SHA-256 of the public key's SubjectPublicKeyInfo."},
	{"How to verify", "keyturn ledger verify --public-keys FILE --against-anchor FILE checks the whole ledger. keyturn evidence -o json has the complete entries of a period, for other programs. Keep the heads of the chains from this file, or from keyturn ledger anchor, where the owner of the database cannot write: only they show later that the newest entries were removed."},
	{"What is not found", "Without an anchor, that the newest entries of a chain were removed. Without signatures or an anchor, that a chain was rewritten with new hashes. Never, that a record was wrong when it was written."},
	noteTimes,
}, notesKMIP...)

const evidenceHelp = `Writes evidence of the rotations that ended in a period: a summary, the age of
each cluster's oldest key against --older-than, with a chart, what is overdue, a
section for each rotation (who requested, approved and controlled it, each key
before and after, and failures), and an appendix with hashes, signatures, the
heads of all chains and how to verify them.

It reads the ledger that KEYTURN_LEDGER names, and needs neither Temporal nor a
worker. Key ages are those at the end of the period, by the recorded rotations;
whether a key in force was changed without keyturn is shown by
"keyturn overdue".

The whole ledger is verified, with --public-keys and --against-anchor as in
"keyturn ledger verify". If it is not intact, the file says so, and the exit
code is 1.

Formats:
  html  one self-contained file for a browser or a printer
  json  the same, with the complete entries, for other programs

Without --since and --until, the period is everything until now. Dates are those
of --time-zone, or else of the local time zone; the file names the period with
its time zone. Times in it are in UTC.`

const evidenceExamples = `  # A quarter
  keyturn evidence --since 2026-01-01 --until 2026-03-31 \
    --time-zone Europe/Berlin > evidence-2026-q1.html

  # With signatures and an anchor checked
  keyturn evidence --since 2026-01-01 --until 2026-03-31 \
    --public-keys ledger-keys.pem --against-anchor anchor.json \
    -o json > evidence-2026-q1.json`
