package workflows

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
)

// The records of a fleet with the longest texts in every list fit, for the query
// and for the response to an update, and still count everything.
func TestFleetRecordsFit(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("<", maxText)
	var full RotateFleetResult
	for i := range maxFailuresListed {
		full.Failures = append(full.Failures, ClusterFailure{
			ClusterRef: ClusterRef{ProjectID: fmt.Sprintf("%024x", i), ClusterID: fmt.Sprintf("%024x", i), ClusterName: strings.Repeat("é", 100)},
			WorkflowID: strings.Repeat("x", 150), RunID: strings.Repeat("x", 36),
			Error: &TargetError{Type: ErrorForbidden, Message: strings.Repeat("<", maxFailureText)},
		})
	}
	for i := range 4 * maxLeftOutListed {
		full.LeftOut = append(full.LeftOut, ClusterLeftOut{full.Failures[i%maxFailuresListed].ClusterRef, LeftOutBusy})
	}
	for range maxActions {
		full.Actions = append(full.Actions, Action{By: "lee", Action: PauseUpdate, Reason: text})
	}
	full.FailuresNotListed = 7
	for _, limit := range []int{maxFleetRecords, maxFleetAnswer, 20_000} {
		result := full
		result.fit(limit)
		data, err := json.Marshal(result)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(data), limit)
		assert.Equal(t, maxFailuresListed+7, len(result.Failures)+result.FailuresNotListed)
		assert.Equal(t, 4*maxLeftOutListed, len(result.LeftOut)+result.LeftOutNotListed)
		assert.Equal(t, maxActions, len(result.Actions)+result.ActionsNotListed)
	}
	assert.Equal(t, text, full.Actions[0].Reason, "the original is unchanged")
	assert.Len(t, full.Failures[0].Error.Message, maxFailureText)
}

// Nor do the longest reasons of operators.
func TestRecordsOfAFleetWithManyActionsFit(t *testing.T) {
	t.Parallel()
	f := fleet{phase: PhaseDone}
	for range maxActions {
		f.result.Actions = append(f.result.Actions, Action{By: "lee", Action: PauseUpdate, Reason: strings.Repeat("<", maxText)})
	}
	for name, records := range map[string]*RotateFleetResult{"result": f.records(), "progress": &f.progress().RotateFleetResult} {
		assert.LessOrEqual(t, jsonBytes(records), maxFleetRecords, name)
		assert.Equal(t, maxActions, len(records.Actions)+records.ActionsNotListed, name)
		assert.NotEmpty(t, records.Actions, name)
	}
	assert.Len(t, f.result.Actions, maxActions, "the fleet's own are unchanged")
}

// A listing of keys has the same budget.
func TestRecordsOfAKeyListFit(t *testing.T) {
	t.Parallel()
	l := &keyList{phase: PhaseDone}
	for range maxActions {
		l.result.Actions = append(l.result.Actions, Action{By: "lee", Action: PauseUpdate, Reason: strings.Repeat("<", maxText)})
	}
	for range maxReasons {
		l.addReason(IncompleteReason{
			Reason: activities.IncompleteUnreadable, ProjectID: strings.Repeat("a", 24), ClusterID: strings.Repeat("a", 24),
			ClusterName: strings.Repeat("<", 100), Message: strings.Repeat("<", maxText),
		})
	}
	page := KeyPageRef{ProjectID: strings.Repeat("a", 24), WorkflowID: strings.Repeat("x", 1_000), RunID: strings.Repeat("x", 36)}
	l.addProject(page.ProjectID, listProjectKeysResult{Complete: true, Pages: slices.Repeat([]KeyPageRef{page}, maxKeyPages)}, nil)
	result := l.fittedResult()
	assert.LessOrEqual(t, jsonBytes(result), maxKeyList)
	assert.Equal(t, maxActions, len(result.Actions)+result.ActionsNotListed)
	assert.Equal(t, maxReasons+1, len(result.Reasons)+result.ReasonsNotListed)
	assert.Equal(t, maxKeyPages, len(result.Pages)+result.PagesNotListed)
	assert.Greater(t, len(result.Pages), 1_000)
	assert.Equal(t, page, result.Pages[0])
	assert.False(t, result.Complete)
	assert.LessOrEqual(t, jsonBytes(l.updateAnswer()), maxUpdateAnswer)
	assert.LessOrEqual(t, jsonBytes(l.currentProgress()), maxKeyList+1_000)
	assert.Len(t, l.result.Actions, maxActions, "the listing's own are unchanged")
}
