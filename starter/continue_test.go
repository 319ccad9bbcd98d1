package main

import (
	"encoding/json"
	"strings"
	"testing"

	"keyturn/workflows"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func saved(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

// A target whose PUT was accepted is not verified, and must not be rotated again.
func TestContinueFromAFileTakesTargetsThatWereOrMayHaveBeenRotated(t *testing.T) {
	so := progressOf(workflows.PhaseHeld)
	so.RotateClusterResult = partialResult()
	for name, value := range map[string]any{"a result": partialResult(), "a progress": so} {
		a, _, stderr := newTestApp()
		var input rotationInput
		err := a.continueFromFile(continueFlags{file: writeFile(t, "report.json", saved(t, value))}, &input)
		require.NoError(t, err)
		completed := input.cluster.Completed
		require.Len(t, completed, 4)
		assert.Equal(t, "new-00", completed[0].NewKeyUUID)
		assert.Equal(t, "orders-2", completed[2].Name)
		assert.Equal(t, at(5), completed[3].RotatedAt)
		assert.Nil(t, completed[3].Error)
		assert.Contains(t, stderr.String(), "3 of 5 targets are verified", name)
		assert.Contains(t, stderr.String(), "1 target may have been rotated", name)
	}
}

func TestContinueFromStandardInput(t *testing.T) {
	a, _, _ := newTestApp()
	a.stdin = strings.NewReader(saved(t, partialResult()))
	var input rotationInput
	require.NoError(t, a.continueFromFile(continueFlags{file: "-"}, &input))
	require.Len(t, input.cluster.Completed, 4)
}

func TestContinueFromAnUnfitFileIsAUsageError(t *testing.T) {
	other := partialResult()
	other.Connection = "berlin"
	for want, text := range map[string]string{
		"is the report of another cluster: rotate-cluster:berlin:": saved(t, other),
		"it has no clusterId":  `{}`,
		"is not a JSON report": `target,clusterId`,
	} {
		a, _, _ := newTestApp()
		err := a.continueFromFile(continueFlags{file: writeFile(t, "report.json", text)}, &rotationInput{})
		var usage *usageError
		require.ErrorAs(t, err, &usage)
		assert.Contains(t, err.Error(), want)
	}
}

func TestNothingIsLeftOfAFileWhoseTargetsAreAllRotated(t *testing.T) {
	whole := partialResult()
	whole.Outcome = workflows.OutcomeRotated
	file := writeFile(t, "report.json", saved(t, whole))
	named := []string{"rotate", "--project", testProject, "--cluster", testCluster, "--continue-from", file, "-o", "json"}
	code, stdout, stderr := runHere(t, nil, nil, named...)
	assert.Equal(t, exitDone, code, "nothing is left to do: that is no failure; %s", stderr)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "rotated every target: nothing is left to continue")

	code, stdout, _ = runHere(t, nil, nil, append(named, "--wait")...)
	assert.Equal(t, exitDone, code)
	assert.JSONEq(t, saved(t, whole), stdout, "with --wait, the records are those of the rotation that is done")
}
