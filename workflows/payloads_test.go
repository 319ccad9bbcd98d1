package workflows

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The records of the largest rotation are the input of the one that continues it.
func TestRecordsToContinueFitIntoAnInput(t *testing.T) {
	t.Parallel()
	result := largest("")
	records := RecordsToContinue(result.Targets)
	require.Len(t, records, maxTargets)
	assert.Less(t, jsonBytes(RotateClusterInput{Completed: records}), temporalLimit)
	fleet := RotateFleetInput{}.inputOf(ClusterRef{}, nil, records)
	assert.Less(t, jsonBytes(fleet), temporalLimit)
	for i, record := range records {
		require.Equal(t, result.Targets[i].PreviousKeyUUID, record.PreviousKeyUUID)
		require.Equal(t, result.Targets[i].Status, record.Status)
		require.Nil(t, record.Error)
	}
}

// Names of targets in actions are as long as Ops Manager lets them be.
func TestActionsOnTargetsWithLongNamesFitIntoAnAnswer(t *testing.T) {
	t.Parallel()
	p := &Progress{}
	for i := range maxActions {
		action := Action{By: "lee", Action: RetryUpdate, TargetsNotListed: 7}
		for j := range maxActionTargets {
			action.Targets = append(action.Targets, fmt.Sprintf("%s-%d-%d", strings.Repeat("\U0001F511", maxName), i, j))
		}
		p.Actions = append(p.Actions, action)
	}
	p.fitAnswer()
	assert.LessOrEqual(t, jsonBytes(p), maxUpdateAnswer)
	require.NotEmpty(t, p.Actions)
	newest := p.Actions[len(p.Actions)-1]
	assert.Equal(t, maxActionTargets+7, len(newest.Targets)+newest.TargetsNotListed)
	assert.Equal(t, maxActions, len(p.Actions)+p.ActionsNotListed)
}

// A thousand keys that change before the approval do not fill the answers.
func TestNamesInASentenceAreFew(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range maxTargets {
		names = append(names, fmt.Sprintf("orders-%d", i))
	}
	assert.Equal(t, "orders-0, orders-1", someNames(names[:2]))
	assert.True(t, strings.HasSuffix(someNames(names), "orders-9, and 4990 more"), someNames(names))
}
