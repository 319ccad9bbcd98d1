// Package replay holds golden histories: what rotations of released versions
// wrote, which every later version must be able to go on with.
package replay

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// replay runs today's workflows over a history, under the id that it was
// recorded under: a rotation under another id hands over.
func replay(t *testing.T, file string) error {
	t.Helper()
	data, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = data.Close() }()
	history, err := client.HistoryFromJSON(data, client.HistoryJSONOptions{})
	require.NoError(t, err)
	id := history.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
	require.NotEmpty(t, id)
	replayer := sdkworker.NewWorkflowReplayer()
	workflows.Register(replayer)
	return replayer.ReplayWorkflowHistoryWithOptions(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), history,
		sdkworker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}})
}

func histories(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files, "there must be recorded histories")
	return files
}

func TestHistoriesOfReleasedVersionsReplay(t *testing.T) {
	for _, file := range histories(t, "v*/*.json") {
		t.Run(filepath.Base(file), func(t *testing.T) { require.NoError(t, replay(t, file)) })
	}
}

// What another workflow wrote must be noticed; else the test above proves
// nothing.
func TestHistoriesOfAnotherWorkflowDoNotReplay(t *testing.T) {
	for _, file := range histories(t, "bad/*.json") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			err := replay(t, file)
			require.Error(t, err)
			require.Contains(t, err.Error(), "nondeterministic")
		})
	}
}

func TestBadHistoriesDifferFromGoodOnes(t *testing.T) {
	good := map[string]bool{}
	for _, file := range histories(t, "v*/*.json") {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		good[string(data)] = true
	}
	for _, file := range histories(t, "bad/*.json") {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.False(t, good[string(data)], file)
	}
}
