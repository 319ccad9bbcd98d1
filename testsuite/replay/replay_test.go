// Package replay tests that every version of the workflows can continue the
// rotations of released versions: it replays their recorded histories.
//
// testdata has one folder for each release. "bad" has histories of workflows that
// issue other commands, and must not replay.
package replay

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// replay replays a history with the current workflows, under the IDs of the recorded
// run: a rotation under any other workflow ID starts a child, and a copy that a reset
// made is a rotation of its own.
func replay(t *testing.T, file string) error {
	t.Helper()
	history, err := client.HistoryFromJSON(bytes.NewReader(read(t, file)), client.HistoryJSONOptions{})
	require.NoError(t, err)
	id := history.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
	require.NotEmpty(t, id)
	replayer := sdkworker.NewWorkflowReplayer()
	workflows.Register(replayer)
	return replayer.ReplayWorkflowHistoryWithOptions(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), history,
		sdkworker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id, RunID: runIDOf(history.Events)}})
}

// runIDOf returns the ID of the recorded run. In that of a copy that a reset made, only
// the reset's event names it.
func runIDOf(events []*historypb.HistoryEvent) string {
	id := events[0].GetWorkflowExecutionStartedEventAttributes().GetOriginalExecutionRunId()
	for _, event := range events {
		if failed := event.GetWorkflowTaskFailedEventAttributes(); failed.GetNewRunId() != "" {
			id = failed.GetNewRunId()
		}
	}
	return id
}

// read decompresses a recorded history.
func read(t *testing.T, file string) []byte {
	t.Helper()
	compressed, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = compressed.Close() }()
	data, err := gzip.NewReader(compressed)
	require.NoError(t, err)
	whole, err := io.ReadAll(data)
	require.NoError(t, err)
	return whole
}

func histories(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files, "no recorded histories match testdata/%s", pattern)
	return files
}

func TestHistoriesOfReleasedVersionsReplay(t *testing.T) {
	for _, file := range histories(t, "v*/*.json.gz") {
		t.Run(filepath.Base(file), func(t *testing.T) { require.NoError(t, replay(t, file)) })
	}
}

// Without this test, the one above could pass without checking anything.
func TestHistoriesOfAnotherWorkflowDoNotReplay(t *testing.T) {
	for _, file := range histories(t, "bad/*.json.gz") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			err := replay(t, file)
			require.Error(t, err)
			require.Contains(t, err.Error(), "nondeterministic")
		})
	}
}

func TestBadHistoriesDifferFromGoodOnes(t *testing.T) {
	good := map[string]bool{}
	for _, file := range histories(t, "v*/*.json.gz") {
		good[string(read(t, file))] = true
	}
	for _, file := range histories(t, "bad/*.json.gz") {
		require.False(t, good[string(read(t, file))], file)
	}
}

// A file that is not compressed would be ignored by the tests above.
func TestAllHistoriesAreCompressed(t *testing.T) {
	files := histories(t, "*/*")
	compressed := histories(t, "*/*.json.gz")
	require.ElementsMatch(t, compressed, files)
}
