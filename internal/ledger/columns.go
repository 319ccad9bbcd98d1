package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"keyturn/internal/ledgerentry"
)

// columns of ledger_entries in the order in which they are written and read.
// The chain comes first: a row that can't be read to its end still says which
// chain it belongs to, and where.
var columns = []string{
	"chain", "sequence", "version", "entry_key", "kind", "source", "connection", "project_id", "clusters", "workflow_id", "run_id",
	"outcome", "ticket", "requested_by", "approved_by", "acted_by", "started_at", "finished_at", "recorded_at", "worker_version",
	"body", "previous_hash", "signing_key_id", "signature", "hash",
}

var columnList = strings.Join(columns, ", ")

// columnListWithoutBody has an empty body.
var columnListWithoutBody = strings.Replace(columnList, " body,", " '' AS body,", 1)

// columnValues in the order of columns.
func columnValues(e ledgerentry.Entry) ([]any, error) {
	clusters, err := ledgerentry.CanonicalClusters(e.Clusters)
	if err != nil {
		return nil, err
	}
	actedBy, err := ledgerentry.CanonicalStrings(e.ActedBy)
	if err != nil {
		return nil, err
	}
	return []any{
		e.Chain, e.Sequence, e.Version, e.Key, string(e.Kind), string(e.Source), e.Connection, e.ProjectID, clusters, e.WorkflowID, e.RunID,
		e.Outcome, e.Ticket, e.RequestedBy, e.ApprovedBy, actedBy, timeColumn(e.StartedAt), timeColumn(e.FinishedAt), timeColumn(e.RecordedAt), e.WorkerVersion,
		string(e.Body), e.PreviousHash, e.SigningKeyID, e.Signature, e.Hash,
	}, nil
}

func timeColumn(t time.Time) string { return t.Format(ledgerentry.TimeLayout) }

// malformedError: a row holds what Append never writes.
type malformedError struct{ column, problem string }

func isMalformed(err error) bool {
	var malformed *malformedError
	return errors.As(err, &malformed)
}

func (e *malformedError) Error() string { return e.column + ": " + e.problem }

// row has the values of columns.
type row []any

// scanRow reads a row as the database has it.
func scanRow(rows interface{ Scan(...any) error }) (row, error) {
	values, destinations := make(row, len(columns)), make([]any, len(columns))
	for i := range values {
		destinations[i] = &values[i]
	}
	return values, rows.Scan(destinations...)
}

// bytes are about what a row takes in memory.
func (r row) bytes() (size int) {
	for _, value := range r {
		text, _ := value.(string)
		size += len(text) + bytesOfValue
	}
	return size
}

// bytesOfValue are those of an interface with a string.
const bytesOfValue = 32

// scanEntry reads a row. With an error, the entry has what could be read of it.
func scanEntry(rows interface{ Scan(...any) error }) (ledgerentry.Entry, error) {
	values, err := scanRow(rows)
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	return values.entry()
}

// entry reads the fields. The types are checked, too: SQLite can hold a text as a
// BLOB, which reads alike and which no filter finds.
func (r row) entry() (e ledgerentry.Entry, err error) {
	f := fieldReader{row: r}
	e.Chain, e.Sequence, e.Version = f.text(), f.integer(), f.integer()
	e.Key, e.Kind, e.Source, e.Connection, e.ProjectID = f.text(), ledgerentry.Kind(f.text()), ledgerentry.Source(f.text()), f.text(), f.text()
	f.list(&e.Clusters, func() (string, error) { return ledgerentry.CanonicalClusters(e.Clusters) })
	e.WorkflowID, e.RunID, e.Outcome, e.Ticket, e.RequestedBy, e.ApprovedBy = f.text(), f.text(), f.text(), f.text(), f.text(), f.text()
	f.list(&e.ActedBy, func() (string, error) { return ledgerentry.CanonicalStrings(e.ActedBy) })
	e.StartedAt, e.FinishedAt, e.RecordedAt = f.time(), f.time(), f.time()
	e.WorkerVersion, e.Body = f.text(), json.RawMessage(f.text())
	e.PreviousHash, e.SigningKeyID, e.Signature, e.Hash = f.text(), f.text(), f.text(), f.text()
	return e, f.err
}

// fieldReader turns values, in the order of columns, into an entry's fields. It keeps
// the first error.
type fieldReader struct {
	row  row
	next int
	err  error
}

// require refuses the value that was taken last.
func (f *fieldReader) require(holds bool, problem func() string) {
	if !holds && f.err == nil {
		f.err = &malformedError{columns[f.next-1], problem()}
	}
}

func (f *fieldReader) take() any {
	f.next++
	return f.row[f.next-1]
}

// text refuses what is not UTF-8: in JSON it would become another text.
func (f *fieldReader) text() string {
	value := f.take()
	text, ok := value.(string)
	f.require(ok, func() string { return fmt.Sprintf("is %T, not text", value) })
	f.require(utf8.ValidString(text), func() string { return "is not UTF-8" })
	return text
}

func (f *fieldReader) integer() int64 {
	value := f.take()
	integer, ok := value.(int64)
	f.require(ok, func() string { return fmt.Sprintf("is %T, not an integer", value) })
	return integer
}

// time refuses another spelling of a time: it would have the same hash.
func (f *fieldReader) time() time.Time {
	text := f.text()
	t, err := time.Parse(ledgerentry.TimeLayout, text)
	f.require(err == nil && timeColumn(t) == text, func() string { return fmt.Sprintf("%q is not a time as the ledger writes it", text) })
	return t
}

// list refuses another spelling of a list: it would have the same hash. canonical is
// that of what was read.
func (f *fieldReader) list(list any, canonical func() (string, error)) {
	text := f.text()
	err := json.Unmarshal([]byte(text), list)
	spelling := ""
	if err == nil {
		spelling, err = canonical()
	}
	f.require(err == nil && spelling == text, func() string { return fmt.Sprintf("%q is not a list as the ledger writes it", text) })
}
