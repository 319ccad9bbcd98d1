package temporalserver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/support/postgres"
)

// A server on PostgreSQL is one for tests: it has its namespaces and dynamic
// configuration, it keeps workflows over a crash, and it is not the development
// server.
func TestServerOnPostgreSQL(t *testing.T) {
	t.Parallel()
	ctx, cancel := preparationContext()
	defer cancel()
	store, err := openPostgreSQL(ctx)
	if errors.Is(err, postgres.ErrNotInstalled) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer func() {
		require.NoError(t, store.close())
		require.NoDirExists(t, store.folder)
	}()
	server := StartForTest(t, Options{postgresql: store, Namespaces: []string{"rotations"}, DynamicConfig: map[string]string{"limit.maxIDLength": "100"}})
	temporal := server.NewClient(t)
	described, err := temporal.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	require.NoError(t, err)
	assert.Equal(t, "postgres12", described.GetPersistenceStore())
	assert.Equal(t, "postgres12", described.GetVisibilityStore())
	assert.Equal(t, int32(512), described.GetHistoryShardCount())
	_, err = temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: strings.Repeat("x", 101), TaskQueue: "nobody"}, "Anything")
	require.ErrorContains(t, err, "length")
	started, err := temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "survivor", TaskQueue: "nobody"}, "Anything")
	require.NoError(t, err)
	server.Kill()
	require.NoError(t, server.Restart(ctx))
	_, err = temporal.DescribeWorkflowExecution(ctx, "survivor", started.GetRunID())
	require.NoError(t, err)

	other := StartForTest(t, Options{postgresql: store})
	_, err = other.NewClient(t).DescribeWorkflowExecution(ctx, "survivor", "")
	require.Error(t, err, "each server has its own databases")
}

func TestAttachedServerIsLeftAlone(t *testing.T) {
	running := Shared(t)
	attached, err := attach(t.Context(), shared.executable, running.Address, running.Namespace)
	require.NoError(t, err)
	attached.Stop()
	describeNamespace(t, attached.NewClient(t), running.Namespace)
	stdout, stderr, err := attached.CLI(t.Context(), "operator", "namespace", "describe", "--output", "json")
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, running.Namespace)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = attach(ctx, shared.executable, running.Address, "missing")
	assert.ErrorContains(t, err, "missing")
}

// A test that stops or configures its server must not do so with somebody
// else's.
func TestServerOfOneTestIsNotTheAttachedOne(t *testing.T) {
	running := shared.server
	defer func() { shared.server = running }()
	var err error
	shared.server, err = attach(t.Context(), shared.executable, running.Address, running.Namespace)
	require.NoError(t, err)
	skipped := false
	t.Run("test", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		StartForTest(t, Options{})
	})
	assert.True(t, skipped)
}
