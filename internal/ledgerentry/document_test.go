package ledgerentry

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Another program makes the document from the entry's JSON, by the standard alone.
func TestDocumentIsTheCanonicalFormOfTheEntry(t *testing.T) {
	for _, text := range []string{"", "plain", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "<a href='x'>&\u2028\u2029", "é€😀\ufb33", `,"body":null,`} {
		for _, at := range []time.Time{{}, time.UnixMilli(1).UTC(), time.UnixMilli(1_700_000_000_120).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
			entry := Entry{
				Record: Record{
					Key: text, Kind: Kind(text), Source: Source(text), Connection: text, ProjectID: text, Clusters: []Cluster{{text, "a"}, {"b", text}},
					WorkflowID: text, RunID: text, Outcome: text, Ticket: text, RequestedBy: text, ApprovedBy: text, ActedBy: []string{"a", text},
					StartedAt: at, FinishedAt: at.Add(time.Hour * -1), WorkerVersion: text, Body: json.RawMessage(`{"a":[1,"\u001f"],"b":null}`),
				},
				Version: CurrentVersion, Chain: text, Sequence: 1 << 40, RecordedAt: at, PreviousHash: text, SigningKeyID: text,
			}
			if at.IsZero() {
				entry.FinishedAt, entry.ActedBy, entry.Clusters = at, nil, []Cluster{}
			}
			whole, err := json.Marshal(entry)
			require.NoError(t, err)
			want, err := Canonicalize(whole)
			require.NoError(t, err)
			entry.Hash, entry.Signature = "left out", "left out"
			document, err := entry.Document()
			require.NoError(t, err)
			assert.Equal(t, string(want), string(document))
		}
	}
	for _, entry := range []Entry{{Chain: "\xff"}, {Record: Record{ActedBy: []string{"\xff"}}}, {Record: Record{Clusters: []Cluster{{ID: "\xff"}}}}} {
		_, err := entry.Document()
		assert.Error(t, err)
	}
}
