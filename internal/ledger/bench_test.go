package ledger

import (
	"flag"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keyturn/internal/ledgerentry"
)

// go test ./internal/ledger -run '^$' -bench . -ledger-entries 100000
var benchmarkEntries = flag.Int("ledger-entries", 2_000, "entries of the ledger that BenchmarkFilled reads")

// benchmarkTargets of a rotation: a sharded cluster with its config servers.
const benchmarkTargets = 4

// typicalRotation has a result as a rotation of benchmarkTargets has it.
func typicalRotation(cluster, day int) ledgerentry.Record {
	record := rotation(fmt.Sprintf("%024x", cluster), fmt.Sprintf("cluster-%d", cluster), day)
	at := record.StartedAt.Format(time.RFC3339)
	targets := make([]map[string]any, benchmarkTargets)
	for i := range targets {
		targets[i] = map[string]any{
			"clusterId": fmt.Sprintf("%024x", i), "name": fmt.Sprintf("cluster-%d-%d", cluster, i), "role": "shard", "status": "verified",
			"previousKeyUUID": fmt.Sprintf("0b8a4c2e-0000-4000-8000-%012d", day), "newKeyUUID": fmt.Sprintf("0b8a4c2e-0000-4000-8000-%012d", day+1),
			"rotatedAt": at, "verifiedAt": at, "attempts": 1, "ambiguous": false, "carriedOver": false, "error": nil,
		}
	}
	body, err := ledgerentry.NewBody(map[string]any{
		"connection": "default", "projectId": projectID, "clusterId": record.Clusters[0].ID, "clusterName": record.Clusters[0].Name,
		"outcome": "rotated", "startedAt": at, "finishedAt": at, "targets": targets,
		"change":   map[string]any{"ticket": record.Ticket, "requestedBy": "dana", "reason": "quarterly"},
		"approval": map[string]any{"by": "lee", "at": at, "comment": ""}, "workflowId": record.WorkflowID, "runId": record.RunID,
	}, nil, "")
	if err != nil {
		panic(err) // maps of strings and numbers always marshal
	}
	record.Body = body
	return record
}

func onEachBenchmark(b *testing.B, bench func(*testing.B, *store, *Ledger, PublicKeys)) {
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(name, func(b *testing.B) {
			s := stores[name](b)
			keys := s.sign(b)
			bench(b, s, s.open(b), keys)
		})
	}
}

// BenchmarkAppend: one writer.
func BenchmarkAppend(b *testing.B) {
	onEachBenchmark(b, func(b *testing.B, _ *store, ledger *Ledger, _ PublicKeys) {
		for day := 0; b.Loop(); day++ {
			appendAll(b, ledger, typicalRotation(day%500, day))
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// BenchmarkAppendInParallel: eight writers on many chains.
func BenchmarkAppendInParallel(b *testing.B) {
	onEachBenchmark(b, func(b *testing.B, _ *store, ledger *Ledger, _ PublicKeys) {
		var number atomic.Int64
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				day := int(number.Add(1))
				appendAll(b, ledger, typicalRotation(day%500, day))
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// BenchmarkFilled reads and verifies a ledger of -ledger-entries entries in 500
// chains.
func BenchmarkFilled(b *testing.B) {
	onEachBenchmark(b, func(b *testing.B, s *store, ledger *Ledger, keys PublicKeys) {
		fill(b, s, ledger, *benchmarkEntries)
		anchor, err := ledger.Anchor(b.Context())
		require.NoError(b, err)
		b.Run("bytes", func(b *testing.B) {
			b.ReportMetric(float64(s.size(b))/float64(*benchmarkEntries), "bytes/entry")
		})
		b.Run("verify", func(b *testing.B) {
			for b.Loop() {
				requireIntact(b, ledger, VerifyOptions{PublicKeys: keys, Anchor: &anchor}, *benchmarkEntries, 500)
			}
		})
		for name, filter := range map[string]Filter{
			"all": {}, "ticket": {Ticket: "CHG7"}, "person": {Person: "nobody"}, "cluster": {Cluster: "cluster-7"},
			"quarter": {Since: firstDay, Until: firstDay.AddDate(0, 3, 0)},
		} {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					collectCount(b, ledger, filter)
				}
			})
		}
		b.Run("latest", func(b *testing.B) {
			for b.Loop() {
				require.Len(b, collect(b, ledger.Latest(b.Context(), Filter{})), 500)
			}
		})
		b.Run("anchor", func(b *testing.B) {
			for b.Loop() {
				_, err := ledger.Anchor(b.Context())
				require.NoError(b, err)
			}
		})
	})
}

func collectCount(b *testing.B, ledger *Ledger, filter Filter) (count int) {
	for _, err := range ledger.Entries(b.Context(), filter) {
		require.NoError(b, err)
		count++
	}
	return count
}

// fill writes entries as Append does, many in one transaction.
func fill(b *testing.B, s *store, ledger *Ledger, count int) {
	signer, err := newSigner(s.options.SigningKeyFile)
	require.NoError(b, err)
	const perTransaction = 1_000
	for first := 0; first < count; first += perTransaction {
		tx, err := ledger.database.BeginTx(b.Context(), nil)
		require.NoError(b, err)
		for day := first; day < min(first+perTransaction, count); day++ {
			record, err := typicalRotation(day%500, day).Normalized()
			require.NoError(b, err)
			entry, err := ledger.next(b.Context(), tx, record, signer)
			require.NoError(b, err)
			require.NoError(b, ledger.insert(b.Context(), tx, entry))
		}
		require.NoError(b, tx.Commit())
	}
}

// size of the database on disk, in bytes.
func (s *store) size(b *testing.B) (bytes int64) {
	query := `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`
	if s.name() == "postgres" {
		query = `SELECT pg_total_relation_size('ledger_entries')`
	}
	require.NoError(b, s.raw.QueryRow(query).Scan(&bytes))
	return bytes
}
