package opsmanager_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Processes are heard of all the time, and restart while a rotation is carried out: a
// list of several pages is never the same twice in that.
func TestHostsThatRestartWhileTheyAreListed(t *testing.T) {
	const hosts, perPage = 1200, 500
	start := time.Now().Truncate(time.Second).UTC()
	var responses atomic.Int64
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
		now := start.Add(time.Duration(responses.Add(1)) * time.Second)
		page, err := strconv.Atoi(r.URL.Query().Get("pageNum"))
		if err != nil {
			apiRefusal(w, http.StatusBadRequest, "INVALID_QUERY_PARAMETER", "pageNum")
			return
		}
		results := []map[string]any{}
		for i := (page - 1) * perPage; i < min(page*perPage, hosts); i++ {
			results = append(results, map[string]any{
				"id": fmt.Sprintf("%024x", i), "hostname": "host.example", "port": 27000 + i, "replicaStateName": []string{"PRIMARY", "SECONDARY"}[now.Unix()%2],
				"lastPing": now, "lastRestart": now,
			})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"results": results, "totalCount": hosts})
	})
	listed, err := client.Hosts(t.Context(), anyID, "")
	require.NoError(t, err)
	require.Len(t, listed, hosts)
	for i, host := range listed {
		assert.EqualValues(t, 27000+i, host.Port)
		assert.True(t, host.LastRestart.After(start), "what was read last counts")
		assert.NotEmpty(t, host.ReplicaStateName)
	}
}
