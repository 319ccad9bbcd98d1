package ledgerentry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind says what was rotated.
type Kind string

// The kinds of an entry.
const (
	KindCluster    Kind = "cluster"    // the rotation of a cluster
	KindDeployment Kind = "deployment" // the rotation of a deployment
	KindFleet      Kind = "fleet"      // the rotation of a fleet
)

// Source says who recorded an entry.
type Source string

// The sources of an entry.
const (
	// SourceWorkflow: the workflow recorded it before it closed.
	SourceWorkflow Source = "workflow"
	// SourceReconciled: a worker added it from what Temporal knows of a closed
	// workflow that left no entry.
	SourceReconciled Source = "reconciled"
)

// CurrentVersion is the version of the hashed document's form. A program refuses
// to judge entries of a version that it does not know.
const CurrentVersion = 1

// TimeLayout is how times are stored: of one width, so that text sorts as time.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// Cluster names a cluster that a rotation was about.
type Cluster struct {
	ID   string `json:"id"`   // Ops Manager's
	Name string `json:"name"` // the display name
}

// Record is what the caller of [Ledger.Append] knows of a rotation that ended.
type Record struct {
	// Key makes an append idempotent: see [Key]. Required.
	Key string `json:"key"`
	// Kind of the rotation. Required.
	Kind Kind `json:"kind"`
	// Source does not count when an append is compared with an existing entry.
	Source Source `json:"source"`
	// Connection is the name of the Ops Manager. Required.
	Connection string `json:"connection"`
	// ProjectID is required but for a fleet, which has none.
	ProjectID string `json:"projectId"`
	// Clusters: exactly one for [KindCluster]; those of the deployment for
	// [KindDeployment]; none for a fleet, whose clusters have their own entries.
	Clusters []Cluster `json:"clusters"`
	// WorkflowID and RunID name the run that ended. Required.
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	// Outcome of the rotation. Required.
	Outcome string `json:"outcome"`
	// Ticket is the change ticket; empty if there was none.
	Ticket string `json:"ticket"`
	// RequestedBy is the requester; empty if none was named.
	RequestedBy string `json:"requestedBy"`
	// ApprovedBy is who approved; empty if nobody had to.
	ApprovedBy string `json:"approvedBy"`
	// ActedBy lists who sent updates. Append sorts it and drops duplicates.
	ActedBy []string `json:"actedBy"`
	// StartedAt and FinishedAt of the rotation. Required; kept in UTC, cut to
	// milliseconds.
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
	// WorkerVersion of the worker that records it. It does not count when an
	// append is compared with an existing entry: another worker may retry it.
	WorkerVersion string `json:"workerVersion"`
	// Body is a JSON object with the whole result. It is kept in canonical form;
	// integers beyond ±(2^53-1) and numbers out of a double's range are refused.
	Body json.RawMessage `json:"body"`
}

// Entry is a record in the ledger. Its JSON without the members hash
// and signature is, in canonical form, what Hash is the SHA-256 of and what
// Signature signs.
type Entry struct {
	Record
	// Version of the entry's form: 1.
	Version int64 `json:"version"`
	// Chain that the entry belongs to: that of its cluster, deployment or fleet.
	Chain string `json:"chain"`
	// Sequence in the chain, from 1 without a gap.
	Sequence int64 `json:"sequence"`
	// RecordedAt is the clock of the worker that wrote it, in UTC.
	RecordedAt time.Time `json:"recordedAt"`
	// PreviousHash is the hash of the chain's entry before; empty in the first.
	PreviousHash string `json:"previousHash"`
	// SigningKeyID names the public key that verifies Signature; both are empty
	// in an entry that is not signed.
	SigningKeyID string `json:"signingKeyId"`
	// Signature is Ed25519 (RFC 8032), in base64.
	Signature string `json:"signature,omitempty"`
	// Hash is SHA-256 in lowercase hex.
	Hash string `json:"hash,omitempty"`
}

// Appender is a ledger that records can be added to.
type Appender interface {
	// Append adds a record, exactly once for each key. It fails with a
	// [*ConflictError] if the ledger has another entry with the key, and with
	// [ErrInvalidRecord] if the record is incomplete; any other error may pass.
	Append(ctx context.Context, record Record) (Entry, error)
}

// Key is the idempotency key of the rotation that a run of a workflow did. For
// a rotation that continues as new, runID is its first run's; a run that was
// made by a reset is a rotation of its own.
func Key(workflowID, runID string) string { return workflowID + "/" + runID }

// Chain names the chain of a cluster's entries. A deployment's chain has no
// clusterID, and a fleet's neither clusterID nor projectID.
func Chain(connection, projectID, clusterID string) string {
	return connection + ":" + projectID + ":" + clusterID
}

// ChainName derives the chain from the fields that name it, so that the two cannot
// disagree.
func (r Record) ChainName() string {
	clusterID := ""
	if r.Kind == KindCluster && len(r.Clusters) == 1 {
		clusterID = r.Clusters[0].ID
	}
	return Chain(r.Connection, r.ProjectID, clusterID)
}

// Normalized returns the record as it is stored, or an error that names every
// fault of it.
func (r Record) Normalized() (Record, error) {
	r.StartedAt = r.StartedAt.UTC().Truncate(time.Millisecond)
	r.FinishedAt = r.FinishedAt.UTC().Truncate(time.Millisecond)
	r.ActedBy = slices.Compact(slices.Sorted(slices.Values(r.ActedBy)))
	if r.ActedBy == nil {
		r.ActedBy = []string{}
	}
	r.Clusters = append([]Cluster{}, r.Clusters...)
	faults := r.faults()
	body, err := canonicalBody(r.Body)
	if err != nil {
		faults = append(faults, fmt.Errorf("body: %w", err))
	}
	r.Body = body
	if len(faults) > 0 {
		return Record{}, fmt.Errorf("%w: %w", ErrInvalidRecord, errors.Join(faults...))
	}
	return r, nil
}

func canonicalBody(body json.RawMessage) (json.RawMessage, error) {
	canonical, err := Canonicalize(body)
	if err != nil {
		return nil, err
	}
	if canonical[0] != '{' {
		return nil, errors.New("must be a JSON object")
	}
	return canonical, requireExactNumbers(body)
}

// faults of the fields that must be given, and must be storable as text.
func (r Record) faults() (faults []error) {
	add := func(format string, arguments ...any) { faults = append(faults, fmt.Errorf(format, arguments...)) }
	required := map[string]string{"key": r.Key, "connection": r.Connection, "workflowId": r.WorkflowID, "runId": r.RunID, "outcome": r.Outcome}
	if r.Kind != KindFleet {
		required["projectId"] = r.ProjectID
	}
	for name, value := range required {
		if value == "" {
			add("%s: is required", name)
		}
	}
	for _, part := range []struct{ name, value string }{{"connection", r.Connection}, {"projectId", r.ProjectID}} {
		if strings.Contains(part.value, ":") {
			add("%s: must not contain a colon", part.name)
		}
	}
	if err := r.shapeFault(); err != nil {
		faults = append(faults, err)
	}
	if r.Source != SourceWorkflow && r.Source != SourceReconciled {
		add("source: must be %q or %q", SourceWorkflow, SourceReconciled)
	}
	for name, at := range map[string]time.Time{"startedAt": r.StartedAt, "finishedAt": r.FinishedAt} {
		if at.Year() < 1970 || at.Year() > 9999 {
			add("%s: is required, from year 1970 to 9999", name)
		}
	}
	for _, text := range r.texts() {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			add("%q: must be UTF-8 without a zero character", text)
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

// shapeFault checks what the kind asks of project and clusters.
func (r Record) shapeFault() error {
	switch r.Kind {
	case KindCluster:
		if len(r.Clusters) != 1 || r.Clusters[0].ID == "" {
			return errors.New("clusters: must be the one cluster, with its id")
		}
	case KindDeployment:
	case KindFleet:
		if r.ProjectID != "" || len(r.Clusters) != 0 {
			return errors.New("projectId, clusters: a fleet has none")
		}
	default:
		return fmt.Errorf("kind: must be %q, %q or %q", KindCluster, KindDeployment, KindFleet)
	}
	return nil
}

// texts are the strings that go into columns of their own.
func (r Record) texts() []string {
	texts := []string{r.Key, r.Connection, r.ProjectID, r.WorkflowID, r.RunID, r.Outcome, r.Ticket, r.RequestedBy, r.ApprovedBy, r.WorkerVersion}
	texts = append(texts, r.ActedBy...)
	for _, cluster := range r.Clusters {
		texts = append(texts, cluster.ID, cluster.Name)
	}
	return texts
}

// SameAs reports whether two records describe a rotation alike. Who recorded
// it does not count.
func (r Record) SameAs(other Record) bool {
	return r.identity() == other.identity() && bytes.Equal(r.Body, other.Body)
}

func (r Record) identity() string {
	r.Source, r.WorkerVersion, r.Body = "", "", nil
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and times in range always marshal
	}
	return string(text)
}

// Document returns what is hashed and signed: the canonical form of the entry
// without hash and signature. The body, which may be large, must be in canonical
// form already and is put in as it is. It fails if a text is not UTF-8.
func (e Entry) Document() ([]byte, error) {
	d := documentWriter{text: make([]byte, 0, len(e.Body)+documentRoom)}
	actedBy, actedByErr := CanonicalStrings(e.ActedBy)
	clusters, clustersErr := CanonicalClusters(e.Clusters)
	d.open('{')
	d.canonical("actedBy", actedBy, actedByErr)
	d.string("approvedBy", e.ApprovedBy)
	d.canonical("body", string(e.Body), nil)
	d.string("chain", e.Chain)
	d.canonical("clusters", clusters, clustersErr)
	d.string("connection", e.Connection)
	d.time("finishedAt", e.FinishedAt)
	d.string("key", e.Key)
	d.string("kind", string(e.Kind))
	d.string("outcome", e.Outcome)
	d.string("previousHash", e.PreviousHash)
	d.string("projectId", e.ProjectID)
	d.time("recordedAt", e.RecordedAt)
	d.string("requestedBy", e.RequestedBy)
	d.string("runId", e.RunID)
	d.integer("sequence", e.Sequence)
	d.string("signingKeyId", e.SigningKeyID)
	d.string("source", string(e.Source))
	d.time("startedAt", e.StartedAt)
	d.string("ticket", e.Ticket)
	d.integer("version", e.Version)
	d.string("workerVersion", e.WorkerVersion)
	d.string("workflowId", e.WorkflowID)
	return d.close('}'), d.err
}

// documentRoom is what the members of a document besides its body usually take.
const documentRoom = 1_500

// HashOf returns the hash of a document, as in [Entry.Hash].
func HashOf(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}
