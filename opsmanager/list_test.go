package opsmanager_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// changingList is a project's list of clusters, with pages of 10 entries, that
// changes between the requests for its pages.
type changingList struct {
	mu       sync.Mutex
	ids      []string
	requests int
	// change is called after each response with the number of requests so far.
	change func(requests int, ids []string) []string
	// total overrides totalCount; nil = the number of entries.
	total func(page, entries int) int
}

func newChangingList(entries int) *changingList {
	l := &changingList{}
	for i := range entries {
		l.ids = append(l.ids, fmt.Sprintf("%024x", i+1))
	}
	return l
}

func (l *changingList) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" {
		w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="n", qop="auth"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	page, _ := strconv.Atoi(r.URL.Query().Get("pageNum"))
	from := min((page-1)*10, len(l.ids))
	to := min(from+10, len(l.ids))
	var entries []string
	for _, id := range l.ids[from:to] {
		entries = append(entries, fmt.Sprintf(`{"id":%q,"groupId":%q,"clusterName":"a","typeName":"REPLICA_SET"}`, id, project))
	}
	total, links := len(l.ids), ""
	if l.total != nil {
		total = l.total(page, len(l.ids))
	}
	if to < len(l.ids) {
		links = `{"rel":"next"}`
	}
	_, _ = fmt.Fprintf(w, `{"links":[%s],"results":[%s],"totalCount":%d}`, links, strings.Join(entries, ","), total)
	l.requests++
	if l.change != nil {
		l.ids = l.change(l.requests, l.ids)
	}
}

func (l *changingList) read(t *testing.T) ([]string, error) {
	t.Helper()
	server := httptest.NewServer(l)
	defer server.Close()
	clusters, err := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"}).Clusters(t.Context(), project)
	var ids []string
	for _, c := range clusters {
		ids = append(ids, c.ID)
	}
	return ids, err
}

func TestClustersAreCountedByOneRequestForOneEntry(t *testing.T) {
	for _, n := range []int{0, 1, 12} {
		om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 5})
		for range n {
			om.AddReplicaSet(project, "audit")
		}
		om.AddProject(simulator.Project{ID: project})
		client := newClient(t, configFor(om))
		count, err := client.CountClusters(t.Context(), project)
		require.NoError(t, err)
		assert.Equal(t, n, count)
		requests := om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated })
		require.Len(t, requests, 1)
		assert.Contains(t, requests[0].Path, "itemsPerPage=1&")

		listed, err := client.ClusterList(t.Context(), project)
		require.NoError(t, err)
		assert.Len(t, listed.Clusters, n)
		assert.Equal(t, n, listed.TotalCount)
		assert.Equal(t, n <= 5, listed.OnePage)
	}
}

// Entries that are left out of a list count, so that a list and a later count of
// the same project have the same total.
func TestTheTotalOfAListHasTheEntriesThatAreLeftOut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	om.AddCluster(simulator.Cluster{ID: "odd", ProjectID: project, ClusterName: "x", TypeName: "QUANTUM_SET"})
	client := newClient(t, configFor(om))
	listed, err := client.ClusterList(t.Context(), project)
	require.NoError(t, err)
	assert.Len(t, listed.Clusters, 1)
	count, err := client.CountClusters(t.Context(), project)
	require.NoError(t, err)
	assert.Equal(t, 2, count)
	assert.Equal(t, count, listed.TotalCount)
}

func TestAListOfOnePageTakesOneRequest(t *testing.T) {
	l := newChangingList(10)
	ids, err := l.read(t)
	require.NoError(t, err)
	assert.Equal(t, l.ids, ids)
	assert.Equal(t, 1, l.requests)
}

func TestAListOfSeveralPagesIsReadUntilTwoPassesAgree(t *testing.T) {
	const added = "ffffffffffffffffffffffff"
	once := func(at int, change func([]string) []string) func(int, []string) []string {
		return func(requests int, ids []string) []string {
			if requests == at {
				return change(ids)
			}
			return ids
		}
	}
	for name, change := range map[string]func(int, []string) []string{
		"no change":                         nil,
		"the first goes between two pages":  once(1, func(ids []string) []string { return ids[1:] }),
		"the first goes in the second pass": once(4, func(ids []string) []string { return ids[1:] }),
		"one is added at the beginning":     once(1, func(ids []string) []string { return append([]string{added}, ids...) }),
		"one is replaced":                   once(1, func(ids []string) []string { return append(ids[1:], added) }),
		"a page of entries goes":            once(1, func(ids []string) []string { return ids[10:] }),
		"all go":                            once(2, func([]string) []string { return nil }),
		"the order changes": func(requests int, ids []string) []string {
			if requests%3 == 0 {
				return append(ids[1:], ids[0])
			}
			return ids
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newChangingList(25)
			l.change = change
			ids, err := l.read(t)
			require.NoError(t, err)
			assert.ElementsMatch(t, l.ids, ids, "the list as it is in the end")
			assert.GreaterOrEqual(t, l.requests, 3)
		})
	}
}

// Two passes that a change disturbed in the same way prove nothing.
func TestAnEntryThatComesAndGoesHidesNone(t *testing.T) {
	l := newChangingList(25)
	first := l.ids[0]
	l.change = func(requests int, ids []string) []string {
		switch {
		case requests > 6:
			return ids
		case requests%3 == 1:
			return ids[1:]
		case requests%3 == 0:
			return append([]string{first}, ids...)
		}
		return ids
	}
	ids, err := l.read(t)
	require.NoError(t, err)
	assert.ElementsMatch(t, l.ids, ids)
}

func TestAListThatKeepsChanging(t *testing.T) {
	l := newChangingList(25)
	l.change = func(requests int, ids []string) []string {
		return append(ids[1:], fmt.Sprintf("%024x", 1000+requests))
	}
	_, err := l.read(t)
	assert.Contains(t, requireError(t, err, opsmanager.Unavailable).Detail, "keeps changing")
	assert.LessOrEqual(t, l.requests, 6*3)
}

func TestAListShorterThanItsTotal(t *testing.T) {
	l := newChangingList(25)
	l.total = func(_, entries int) int { return entries + 1 }
	_, err := l.read(t)
	assert.Contains(t, requireError(t, err, opsmanager.UnexpectedResponse).Detail, "25 of 26 entries")
}

// An entry that cannot be rotated is left out if it is odd; one that can be is
// never lost.
func TestOddEntriesOfAList(t *testing.T) {
	good := fmt.Sprintf(`{"id":"%024x","groupId":%q,"clusterName":"a","typeName":"REPLICA_SET"}`, 1, project)
	other := strings.Repeat("e", 24)
	hex32 := strings.Repeat("a", 32)
	for name, c := range map[string]struct {
		entry string
		kept  bool
		kind  opsmanager.Kind // of the error; empty = none
	}{
		"standalone with 32 digits":     {`{"id":"` + hex32 + `","groupId":"` + project + `","typeName":"STANDALONE"}`, false, ""},
		"unknown type without an id":    {`{"groupId":"` + project + `","typeName":"MONGOS"}`, false, ""},
		"unknown type with a null id":   {`{"id":null,"groupId":"` + project + `","typeName":"MONGOS"}`, false, ""},
		"standalone with another group": {`{"id":"` + other + `","groupId":"` + hex32 + `","typeName":"STANDALONE"}`, false, ""},
		"standalone without a group":    {`{"id":"` + other + `","typeName":"STANDALONE"}`, false, ""},
		"standalone with a numeric id":  {`{"id":5,"groupId":"` + project + `","typeName":"STANDALONE"}`, false, ""},
		"odd type of a field":           {`{"id":"` + other + `","groupId":"` + project + `","typeName":["x"]}`, false, ""},
		"no object":                     {`null`, false, ""},
		"a number":                      {`7`, false, ""},
		"unknown type":                  {`{"id":"` + other + `","groupId":"` + project + `","typeName":"MONGOS"}`, true, ""},
		"missing names":                 {`{"id":"` + other + `","groupId":"` + project + `","clusterName":null,"typeName":"REPLICA_SET"}`, true, ""},
		"id in capitals":                {`{"id":"` + strings.ToUpper(other) + `","groupId":"` + strings.ToUpper(project) + `","typeName":"REPLICA_SET"}`, true, ""},
		"shard with 32 digits":          {`{"id":"` + hex32 + `","groupId":"` + project + `","shardName":"s","typeName":"REPLICA_SET"}`, true, ""},
		"config server without an id":   {`{"groupId":"` + project + `","typeName":"CONFIG_SERVER_REPLICA_SET"}`, true, ""},
		"replica set of another group":  {`{"id":"` + other + `","groupId":"` + other + `","typeName":"REPLICA_SET"}`, false, opsmanager.UnexpectedResponse},
		"shard with a numeric id":       {`{"id":5,"groupId":"` + project + `","shardName":"s"}`, false, opsmanager.UnexpectedResponse},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			om.Inject(simulator.Fault{Kind: simulator.KindClusters, Method: http.MethodGet, Status: 200, Body: `{"results":[` + good + `,` + c.entry + `],"totalCount":2}`, Times: simulator.Forever})
			clusters, err := newClient(t, configFor(om)).Clusters(t.Context(), project)
			if c.kind != "" {
				requireError(t, err, c.kind)
				return
			}
			require.NoError(t, err)
			assert.Len(t, clusters, map[bool]int{true: 2, false: 1}[c.kept])
			assert.Equal(t, 1, om.Ledger().Count(http.MethodGet, ""))
		})
	}
}
