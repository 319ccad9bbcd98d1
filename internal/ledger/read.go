package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"keyturn/internal/ledgerentry"
)

// Filter selects entries. What is empty doesn't count; everything else must
// hold.
type Filter struct {
	Chain string // exact
	// Kinds and Outcomes: any of them.
	Kinds    []ledgerentry.Kind
	Outcomes []string
	Sources  []ledgerentry.Source // any of them

	Connection string // exact
	ProjectID  string // exact
	// Cluster is an id or a name, exact.
	Cluster    string
	WorkflowID string // exact
	RunID      string // exact
	// StartedBy is the ID of the workflow that started the rotation's, exact. Not with
	// WithoutBodies.
	StartedBy string

	// Since and Until compare with FinishedAt: Since itself is in, Until is not.
	// What is finer than a millisecond is cut off.
	Since time.Time
	Until time.Time

	Ticket      string // exact
	RequestedBy string // exact
	ApprovedBy  string // exact
	ActedBy     string // exact, any of those who acted
	// Person requested, approved or acted.
	Person string

	// OnlyReadable leaves out entries that cannot be read, which [Ledger.Verify] finds.
	// Otherwise they are errors.
	OnlyReadable bool
	// WithoutBodies leaves the bodies out, which are most of a ledger.
	WithoutBodies bool
	// NewestFirst reverses the order, which is by FinishedAt, then chain, then
	// sequence.
	NewestFirst bool
	// Limit on the number of entries; 0 = none.
	Limit int
}

// ByKey returns the entry with a key, or [ErrNotFound].
func (l *Ledger) ByKey(ctx context.Context, key string) (ledgerentry.Entry, error) {
	entry, err := l.byKey(ctx, l.database, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		err = l.described(err)
	}
	return entry, err
}

func (l *Ledger) byKey(ctx context.Context, q querier, key string) (ledgerentry.Entry, error) {
	entry, err := scanEntry(q.QueryRowContext(ctx, l.dialect.bind(`SELECT `+columnList+` FROM ledger_entries WHERE entry_key = ?`), key))
	if errors.Is(err, sql.ErrNoRows) {
		return ledgerentry.Entry{}, ErrNotFound
	}
	return entry, err
}

// Entries streams the entries that a filter selects. An error ends it. The
// caller may append while it reads; what is appended meanwhile is not in it.
// The hashes of entries are not checked: that is what [Ledger.Verify] is for.
func (l *Ledger) Entries(ctx context.Context, filter Filter) iter.Seq2[ledgerentry.Entry, error] {
	conditions, arguments := l.conditions(filter)
	direction := ""
	if filter.NewestFirst {
		direction = " DESC"
	}
	query := `SELECT ` + columnsOf(filter) + ` FROM ledger_entries WHERE ` + conditions +
		strings.ReplaceAll(` ORDER BY finished_at~, chain~, sequence~`, "~", direction)
	return l.stream(ctx, filter, query, arguments)
}

func columnsOf(filter Filter) string {
	if filter.WithoutBodies {
		return columnListWithoutBody
	}
	return columnList
}

// Latest streams, for each chain, the newest entry that a filter selects, by
// chain. The newest is the one recorded last. NewestFirst is of no meaning here.
func (l *Ledger) Latest(ctx context.Context, filter Filter) iter.Seq2[ledgerentry.Entry, error] {
	conditions, arguments := l.conditions(filter)
	query := `SELECT ` + columnsOf(filter) + ` FROM ledger_entries WHERE ` + conditions + ` ORDER BY chain, sequence DESC`
	limit := filter.Limit
	filter.Limit = 0
	return func(yield func(ledgerentry.Entry, error) bool) {
		seen, chains := "", 0
		for entry, err := range l.stream(ctx, filter, query, arguments) {
			if err == nil && entry.Chain == seen {
				continue
			}
			seen = entry.Chain
			chains++
			if !yield(entry, err) || chains == limit {
				return
			}
		}
	}
}

// conditions of a filter in SQL. Where a list must contain a value they only
// narrow the search: [Filter.matches] decides.
func (l *Ledger) conditions(f Filter) (string, []any) {
	conditions, arguments := []string{"1 = 1"}, []any(nil)
	add := func(condition string, values ...any) {
		conditions, arguments = append(conditions, condition), append(arguments, values...)
	}
	equal := []struct{ column, value string }{
		{"chain", f.Chain}, {"connection", f.Connection}, {"project_id", f.ProjectID}, {"workflow_id", f.WorkflowID},
		{"run_id", f.RunID}, {"ticket", f.Ticket}, {"requested_by", f.RequestedBy}, {"approved_by", f.ApprovedBy},
	}
	for _, one := range equal {
		if one.value != "" {
			add(one.column+" = ?", one.value)
		}
	}
	if f.Ticket != "" {
		add("ticket <> ''") // what the index of tickets has
	}
	addAnyOf(add, "kind", f.Kinds)
	addAnyOf(add, "outcome", f.Outcomes)
	addAnyOf(add, "source", f.Sources)
	if !f.Since.IsZero() {
		add("finished_at >= ?", timeColumn(f.Since.UTC()))
	}
	if !f.Until.IsZero() {
		add("finished_at < ?", timeColumn(f.Until.UTC()))
	}
	if f.Cluster != "" {
		add(l.dialect.contains("clusters"), quoted(f.Cluster))
	}
	if f.ActedBy != "" {
		add(l.dialect.contains("acted_by"), quoted(f.ActedBy))
	}
	if f.StartedBy != "" {
		add(l.dialect.contains("body"), `"startedBy":`+quoted(f.StartedBy))
	}
	if f.Person != "" {
		add("(requested_by = ? OR approved_by = ? OR "+l.dialect.contains("acted_by")+")", f.Person, f.Person, quoted(f.Person))
	}
	return strings.Join(conditions, " AND "), arguments
}

func addAnyOf[T ~string](add func(string, ...any), column string, values []T) {
	if len(values) == 0 {
		return
	}
	arguments := make([]any, len(values))
	for i, value := range values {
		arguments[i] = string(value)
	}
	add(column+" IN ("+strings.Repeat(", ?", len(values))[len(", "):]+")", arguments...)
}

// quoted is a string in the format of a column that holds a list. No list contains
// what is not UTF-8.
func quoted(text string) string {
	column, err := ledgerentry.CanonicalStrings([]string{strings.ToValidUTF8(text, "\ufffd")})
	if err != nil {
		panic(err) // UTF-8 always has a canonical form
	}
	return column[1 : len(column)-1]
}

// matches decides what SQL only narrows.
func (f Filter) matches(e ledgerentry.Entry) bool {
	isCluster := func(c ledgerentry.Cluster) bool { return c.ID == f.Cluster || c.Name == f.Cluster }
	if f.Cluster != "" && !slices.ContainsFunc(e.Clusters, isCluster) {
		return false
	}
	if f.ActedBy != "" && !slices.Contains(e.ActedBy, f.ActedBy) {
		return false
	}
	if f.StartedBy != "" && ledgerentry.StartedBy(e.Body) != f.StartedBy {
		return false
	}
	return f.Person == "" || e.RequestedBy == f.Person || e.ApprovedBy == f.Person || slices.Contains(e.ActedBy, f.Person)
}

// stream reads the rows of a query one by one.
func (l *Ledger) stream(ctx context.Context, filter Filter, query string, arguments []any) iter.Seq2[ledgerentry.Entry, error] {
	return func(yield func(ledgerentry.Entry, error) bool) {
		rows, err := l.database.QueryContext(ctx, l.dialect.bind(query), arguments...)
		if err != nil {
			yield(ledgerentry.Entry{}, l.described(err))
			return
		}
		defer rows.Close()
		count := 0
		for rows.Next() {
			entry, err := scanEntry(rows)
			if filter.OnlyReadable && isMalformed(err) {
				continue
			}
			if err != nil {
				yield(ledgerentry.Entry{}, l.described(fmt.Errorf("entry %d of chain %s cannot be read: %w", entry.Sequence, entry.Chain, err)))
				return
			}
			if !filter.matches(entry) {
				continue
			}
			count++
			if !yield(entry, nil) || count == filter.Limit {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(ledgerentry.Entry{}, l.described(err))
		}
	}
}

// HasRun reports whether there is an entry of this run of a workflow.
func (l *Ledger) HasRun(ctx context.Context, workflowID, runID string) (bool, error) {
	for _, err := range l.Entries(ctx, Filter{WorkflowID: workflowID, RunID: runID, Limit: 1}) {
		return err == nil, err
	}
	return false, nil
}
