package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/support/postgres"
)

var sharedPostgres postgres.Shared

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(runChild(role))
	}
	code := m.Run()
	if err := sharedPostgres.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// store is an empty database of one kind.
type store struct {
	url     string
	options Options
	// raw reaches the database behind the ledger's back.
	raw *sql.DB
	dialect
}

var stores = map[string]func(testing.TB) *store{"sqlite": sqliteStore, "postgres": postgresStore}

func sqliteStore(t testing.TB) *store {
	path := filepath.Join(t.TempDir(), "ledger.db")
	raw, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, raw.Close()) })
	return &store{url: "sqlite://" + path, raw: raw, dialect: sqliteDialect{}}
}

func postgresStore(t testing.TB) *store {
	server := sharedPostgres.Server(t)
	url, raw := server.Database(t)
	return &store{url: url, options: Options{PasswordFile: server.PasswordFile()}, raw: raw, dialect: postgresDialect{}}
}

// onEachDatabase runs a test against SQLite and PostgreSQL.
func onEachDatabase(t *testing.T, test func(*testing.T, *store)) {
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) { test(t, stores[name](t)) })
	}
}

func (s *store) open(t testing.TB) *Ledger {
	t.Helper()
	ledger, err := Open(t.Context(), s.url, s.options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ledger.Close()) })
	return ledger
}

func (s *store) exec(t testing.TB, query string, arguments ...any) {
	t.Helper()
	_, err := s.raw.Exec(s.bind(query), arguments...)
	require.NoError(t, err, query)
}

// sign configures a signing key and returns the public keys that verify it.
func (s *store) sign(t testing.TB) PublicKeys {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	s.options.SigningKeyFile = filepath.Join(t.TempDir(), "signing.pem")
	require.NoError(t, os.WriteFile(s.options.SigningKeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	der, err = x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	keys, err := ParsePublicKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	require.NoError(t, err)
	return keys
}

const (
	projectID = "5196d3628d022db4cbc26d9e"
	ordersID  = "5196e5b0e4b0fca9cc88334a"
	usersID   = "5196e5b0e4b0fca9cc88334b"
)

var firstDay = time.Date(2026, 1, 10, 12, 0, 0, 123_000_000, time.UTC)

// rotation is the record of a cluster's rotation, one a day.
func rotation(clusterID, clusterName string, day int) ledgerentry.Record {
	workflowID := "rotate-cluster:default:" + projectID + ":" + clusterID
	runID := fmt.Sprintf("run-%s-%d", clusterName, day)
	started := firstDay.AddDate(0, 0, day)
	return ledgerentry.Record{
		Key: ledgerentry.Key(workflowID, runID), Kind: ledgerentry.KindCluster, Source: ledgerentry.SourceWorkflow, Connection: "default", ProjectID: projectID,
		Clusters: []ledgerentry.Cluster{{ID: clusterID, Name: clusterName}}, WorkflowID: workflowID, RunID: runID, Outcome: "rotated",
		Ticket: fmt.Sprintf("CHG%d", day), RequestedBy: "dana", ApprovedBy: "lee", ActedBy: []string{"kim", "lee"},
		StartedAt: started, FinishedAt: started.Add(time.Minute), WorkerVersion: "v1.2.3",
		Body: json.RawMessage(fmt.Sprintf(`{"outcome": "rotated", "targets": [{"name": "%s-0", "previousKeyUUID": "before-%d",
			"newKeyUUID": "after-%d", "attempts": 1, "ambiguous": false, "error": null}], "clusterName": "<Größe & \u2028>"}`, clusterName, day, day)),
	}
}

func appendAll(t testing.TB, ledger *Ledger, records ...ledgerentry.Record) []ledgerentry.Entry {
	t.Helper()
	entries := make([]ledgerentry.Entry, len(records))
	for i, record := range records {
		var err error
		entries[i], err = ledger.Append(t.Context(), record)
		require.NoError(t, err)
	}
	return entries
}

func collect(t testing.TB, entries iter.Seq2[ledgerentry.Entry, error]) (all []ledgerentry.Entry) {
	t.Helper()
	for entry, err := range entries {
		require.NoError(t, err)
		all = append(all, entry)
	}
	return all
}

func verify(t testing.TB, ledger *Ledger, options VerifyOptions) Verification {
	t.Helper()
	result, err := ledger.Verify(t.Context(), options)
	require.NoError(t, err)
	return result
}

func requireIntact(t testing.TB, ledger *Ledger, options VerifyOptions, entries, chains int) {
	t.Helper()
	result := verify(t, ledger, options)
	require.Empty(t, result.Faults)
	require.Empty(t, result.MissingTriggers)
	require.True(t, result.Intact())
	require.Equal(t, entries, result.Entries)
	require.Equal(t, chains, result.Chains)
}

func TestAppendChainsEntriesOfACluster(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		keys := s.sign(t)
		ledger := s.open(t)
		entries := appendAll(t, ledger, rotation(ordersID, "orders", 1), rotation(usersID, "users", 1), rotation(ordersID, "orders", 2))

		assert.Equal(t, "default:"+projectID+":"+ordersID, entries[0].Chain)
		assert.EqualValues(t, 1, entries[0].Sequence)
		assert.Empty(t, entries[0].PreviousHash)
		assert.EqualValues(t, 1, entries[1].Sequence)
		assert.EqualValues(t, 2, entries[2].Sequence)
		assert.Equal(t, entries[0].Hash, entries[2].PreviousHash)
		assert.Contains(t, keys, entries[0].SigningKeyID)
		requireIntact(t, ledger, VerifyOptions{PublicKeys: keys}, 3, 2)

		read, err := ledger.ByKey(t.Context(), entries[2].Key)
		require.NoError(t, err)
		assert.Equal(t, entries[2], read)
		_, err = ledger.ByKey(t.Context(), "another")
		assert.ErrorIs(t, err, ErrNotFound)
	})
}

// An auditor's own program needs an entry's JSON alone.
func TestHashAndSignatureFollowFromTheEntrysJSON(t *testing.T) {
	s := sqliteStore(t)
	keys := s.sign(t)
	entry := appendAll(t, s.open(t), rotation(ordersID, "orders", 1))[0]

	text, err := json.Marshal(entry)
	require.NoError(t, err)
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &members))
	delete(members, "hash")
	delete(members, "signature")
	text, err = json.Marshal(members)
	require.NoError(t, err)
	document, err := ledgerentry.Canonicalize(text)
	require.NoError(t, err)
	assert.Equal(t, entry.Hash, ledgerentry.HashOf(document))
	assert.NoError(t, keys.verify(entry.SigningKeyID, entry.Signature, document))
}

// Every member of an entry's JSON is a column, and every column is a member.
func TestEveryColumnIsHashed(t *testing.T) {
	text, err := json.Marshal(ledgerentry.Entry{Hash: "h", Signature: "s"})
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(text, &members))
	assert.Len(t, members, len(columns))
	values, err := columnValues(ledgerentry.Entry{})
	require.NoError(t, err)
	assert.Len(t, values, len(columns))
}

func TestAppendIsIdempotent(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		record := rotation(ordersID, "orders", 1)
		first := appendAll(t, ledger, record)[0]

		repeated := record
		repeated.WorkerVersion, repeated.Source = "v1.2.4", ledgerentry.SourceReconciled
		repeated.ActedBy = []string{"lee", "kim", "lee"}
		repeated.StartedAt = record.StartedAt.In(time.FixedZone("", 3600)).Add(time.Microsecond)
		repeated.Body = json.RawMessage(" " + string(first.Body) + "\n")
		assert.Equal(t, first, appendAll(t, ledger, repeated)[0])

		for name, change := range map[string]func(*ledgerentry.Record){
			"body":    func(r *ledgerentry.Record) { r.Body = json.RawMessage(`{}`) },
			"ticket":  func(r *ledgerentry.Record) { r.Ticket = "CHG9" },
			"cluster": func(r *ledgerentry.Record) { r.Clusters = []ledgerentry.Cluster{{ID: usersID, Name: "users"}} },
			"time":    func(r *ledgerentry.Record) { r.FinishedAt = r.FinishedAt.Add(time.Millisecond) },
		} {
			changed := record
			change(&changed)
			_, err := ledger.Append(t.Context(), changed)
			var conflict *ledgerentry.ConflictError
			require.ErrorAs(t, err, &conflict, name)
			assert.Equal(t, first, conflict.Existing)
			assert.ErrorContains(t, err, record.Key)
		}
		requireIntact(t, ledger, VerifyOptions{}, 1, 1)
	})
}

func TestAppendRefusesAnIncompleteRecord(t *testing.T) {
	ledger := sqliteStore(t).open(t)
	_, err := ledger.Append(t.Context(), ledgerentry.Record{Kind: "other", Body: json.RawMessage(`[1]`)})
	require.ErrorIs(t, err, ledgerentry.ErrInvalidRecord)
	for _, fault := range []string{"key:", "connection:", "projectId:", "workflowId:", "runId:", "outcome:", "kind:", "source:", "startedAt:", "finishedAt:", "body:"} {
		assert.ErrorContains(t, err, fault)
	}
	for body, problem := range map[string]string{
		``: "body", `{`: "body", `{"a":1e400}`: "out of range", `{"a":-1e400}`: "out of range", `null`: "object", `{"a":1,"a":2}`: "a", `{"a":9007199254740993}`: "9007199254740993",
		`{"a":-9007199254740992}`: "string", `{"a":"\ud800"}`: "body",
	} {
		record := rotation(ordersID, "orders", 1)
		record.Body = json.RawMessage(body)
		_, err := ledger.Append(t.Context(), record)
		assert.ErrorIs(t, err, ledgerentry.ErrInvalidRecord, body)
		assert.ErrorContains(t, err, problem, body)
	}
	for name, change := range map[string]func(*ledgerentry.Record){
		"zero character":       func(r *ledgerentry.Record) { r.RequestedBy = "da\x00na" },
		"invalid UTF-8":        func(r *ledgerentry.Record) { r.ActedBy = []string{"\xff"} },
		"colon":                func(r *ledgerentry.Record) { r.Connection = "a:b" },
		"two clusters":         func(r *ledgerentry.Record) { r.Clusters = append(r.Clusters, ledgerentry.Cluster{ID: usersID}) },
		"a fleet with project": func(r *ledgerentry.Record) { r.Kind = ledgerentry.KindFleet },
	} {
		record := rotation(ordersID, "orders", 1)
		change(&record)
		_, err := ledger.Append(t.Context(), record)
		assert.ErrorIs(t, err, ledgerentry.ErrInvalidRecord, name)
	}
	requireIntact(t, ledger, VerifyOptions{}, 0, 0)
}

func TestFilters(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		deployment := rotation(usersID, "users", 3)
		deployment.Kind, deployment.Key, deployment.ActedBy = ledgerentry.KindDeployment, "deployment", []string{`o"neil`}
		deployment.Clusters = []ledgerentry.Cluster{{ID: ordersID, Name: "orders"}, {ID: usersID, Name: "users"}}
		fleet := rotation(ordersID, "orders", 4)
		fleet.Kind, fleet.Key, fleet.Clusters, fleet.ProjectID, fleet.RequestedBy, fleet.Outcome = ledgerentry.KindFleet, "fleet", nil, "", "kim", "partial"
		fleet.ActedBy, fleet.ApprovedBy, fleet.Source = nil, "", ledgerentry.SourceReconciled
		deployment.Body, _ = ledgerentry.NewBody(map[string]string{"startedBy": "nested"}, nil, "fleet \"a\"")
		// Recorded in another order than they finished.
		entries := appendAll(t, ledger, rotation(ordersID, "orders", 2), rotation(ordersID, "orders", 1), rotation(usersID, "users", 2), deployment, fleet)
		orders2, orders1, users2 := entries[0].Key, entries[1].Key, entries[2].Key

		for _, c := range []struct {
			name   string
			filter Filter
			want   []string
		}{
			{"all", Filter{}, []string{orders1, orders2, users2, "deployment", "fleet"}},
			{"newest first", Filter{NewestFirst: true}, []string{"fleet", "deployment", users2, orders2, orders1}},
			{"limit", Filter{Limit: 2}, []string{orders1, orders2}},
			{"chain", Filter{Chain: entries[0].Chain}, []string{orders1, orders2}},
			{"kinds", Filter{Kinds: []ledgerentry.Kind{ledgerentry.KindFleet, ledgerentry.KindDeployment}}, []string{"deployment", "fleet"}},
			{"outcomes", Filter{Outcomes: []string{"partial"}}, []string{"fleet"}},
			{"sources", Filter{Sources: []ledgerentry.Source{ledgerentry.SourceReconciled}}, []string{"fleet"}},
			{"connection", Filter{Connection: "other"}, nil},
			{"project", Filter{ProjectID: projectID, Limit: 1}, []string{orders1}},
			{"cluster id", Filter{Cluster: ordersID}, []string{orders1, orders2, "deployment"}},
			{"cluster name", Filter{Cluster: "users"}, []string{users2, "deployment"}},
			{"part of a name", Filter{Cluster: "user"}, nil},
			{"member name of the list", Filter{Cluster: "name"}, nil},
			{"workflow and run", Filter{WorkflowID: entries[2].WorkflowID, RunID: entries[2].RunID}, []string{users2}},
			{"since is in", Filter{Since: entries[2].FinishedAt, Kinds: []ledgerentry.Kind{ledgerentry.KindCluster}}, []string{orders2, users2}},
			{"until is out", Filter{Until: entries[2].FinishedAt}, []string{orders1}},
			{"another time zone", Filter{Until: entries[2].FinishedAt.In(time.FixedZone("", -7*3600))}, []string{orders1}},
			{"ticket", Filter{Ticket: "CHG2"}, []string{orders2, users2}},
			{"requested", Filter{RequestedBy: "kim"}, []string{"fleet"}},
			{"approved", Filter{ApprovedBy: "lee"}, []string{orders1, orders2, users2, "deployment"}},
			{"acted", Filter{ActedBy: "kim"}, []string{orders1, orders2, users2}},
			{"acted, quoted", Filter{ActedBy: `o"neil`}, []string{"deployment"}},
			{"acted, part", Filter{ActedBy: `neil`}, nil},
			{"acted, not UTF-8", Filter{ActedBy: "\xff"}, nil},
			{"person", Filter{Person: "kim"}, []string{orders1, orders2, users2, "fleet"}},
			{"started by", Filter{StartedBy: `fleet "a"`}, []string{"deployment"}},
			{"started by, not at the top", Filter{StartedBy: "nested"}, nil},
			{"nobody", Filter{Person: "'; DROP TABLE ledger_entries; --"}, nil},
		} {
			var keys []string
			for _, entry := range collect(t, ledger.Entries(t.Context(), c.filter)) {
				keys = append(keys, entry.Key)
			}
			assert.Equal(t, c.want, keys, c.name)
		}

		latest := collect(t, ledger.Latest(t.Context(), Filter{Kinds: []ledgerentry.Kind{ledgerentry.KindCluster}}))
		require.Len(t, latest, 2)
		assert.Equal(t, entries[1], latest[0], "the newest is the one recorded last")
		assert.Equal(t, entries[2], latest[1])
		assert.Len(t, collect(t, ledger.Latest(t.Context(), Filter{Limit: 1})), 1)
		withoutBodies := collect(t, ledger.Latest(t.Context(), Filter{Kinds: []ledgerentry.Kind{ledgerentry.KindCluster}, WithoutBodies: true}))
		require.Len(t, withoutBodies, 2)
		assert.Empty(t, withoutBodies[0].Body)
		assert.Equal(t, entries[1].Key, withoutBodies[0].Key)
	})
}

func TestAppendWhileReading(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		appendAll(t, ledger, rotation(ordersID, "orders", 1), rotation(ordersID, "orders", 2))
		count := 0
		for entry, err := range ledger.Entries(t.Context(), Filter{}) {
			require.NoError(t, err)
			count++
			appendAll(t, ledger, rotation(usersID, "users", 10+count))
			assert.Equal(t, ordersID, entry.Clusters[0].ID)
		}
		assert.Equal(t, 2, count)
		requireIntact(t, ledger, VerifyOptions{}, 4, 2)
	})
}

func TestReadingEndsWithItsContext(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		appendAll(t, ledger, rotation(ordersID, "orders", 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var failures []error
		for _, err := range ledger.Entries(ctx, Filter{}) {
			failures = append(failures, err)
		}
		require.Len(t, failures, 1)
		assert.ErrorIs(t, failures[0], context.Canceled)
		_, err := ledger.Verify(ctx, VerifyOptions{})
		assert.ErrorIs(t, err, context.Canceled)
	})
}

// The database itself refuses what is no append.
func TestDatabaseRefusesChanges(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		entry := appendAll(t, ledger, rotation(ordersID, "orders", 1))[0]
		copied := `SELECT chain, sequence + ?, version, entry_key || 'x', ` + columnList[len("chain, sequence, version, entry_key, "):] + ` FROM ledger_entries`
		refused := []string{
			`UPDATE ledger_entries SET outcome = 'partial'`,
			`UPDATE ledger_entries SET outcome = outcome`,
			`DELETE FROM ledger_entries`,
			`INSERT INTO ledger_entries (` + columnList + `) ` + s.bindInteger(copied, 0),
			`INSERT INTO ledger_entries (` + columnList + `) ` + s.bindInteger(copied, 1),
			`INSERT INTO ledger_entries (` + columnList + `) ` + s.bindInteger(copied, 2),
			`INSERT INTO ledger_entries (` + columnList + `) SELECT ` + columnList + ` FROM ledger_entries WHERE true
				ON CONFLICT (entry_key) DO UPDATE SET outcome = 'partial'`,
		}
		if s.name() == "sqlite" {
			refused = append(refused,
				`REPLACE INTO ledger_entries SELECT * FROM ledger_entries`,
				`INSERT OR REPLACE INTO ledger_entries (rowid, `+columnList+`) SELECT rowid, `+s.bindInteger(copied, 0)[len("SELECT "):])
		} else {
			refused = append(refused, `TRUNCATE ledger_entries`,
				`SET session_replication_role = replica; UPDATE ledger_entries SET outcome = 'partial'`,
				`SET session_replication_role = replica; TRUNCATE ledger_entries`)
		}
		for _, statement := range refused {
			_, err := s.raw.Exec(statement)
			assert.ErrorContains(t, err, "append-only", statement)
		}
		read, err := ledger.ByKey(t.Context(), entry.Key)
		require.NoError(t, err)
		assert.Equal(t, entry, read)
		requireIntact(t, ledger, VerifyOptions{}, 1, 1)
	})
}

// bindInteger puts a number in the place of a query's one placeholder.
func (s *store) bindInteger(query string, value int) string {
	return strings.Replace(query, "?", strconv.Itoa(value), 1)
}
