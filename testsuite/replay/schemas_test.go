package replay

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/schemas"
	"keyturn/workflows"
)

// addedLater are fields that results of earlier versions lack.
var addedLater = map[string]any{"actions": []any{}, "actionsNotListed": 0, "leftOut": []any{}, "leftOutNotListed": 0}

// What was recorded with real servers fits the schemas.
func TestRecordedHistoriesFitTheSchemas(t *testing.T) {
	inputs, results := 0, 0
	for _, file := range histories(t, "v*/*.json.gz") {
		history, err := client.HistoryFromJSON(bytes.NewReader(read(t, file)), client.HistoryJSONOptions{})
		require.NoError(t, err)
		started := history.Events[0].GetWorkflowExecutionStartedEventAttributes()
		schema := fixture.SchemaOf(started.GetWorkflowType().GetName())
		if schema == "" {
			continue
		}
		last := history.Events[len(history.Events)-1]
		failed := last.GetWorkflowExecutionFailedEventAttributes().GetFailure().GetApplicationFailureInfo()
		if arguments := started.GetInput().GetPayloads(); len(arguments) == 1 && workflows.ErrorType(failed.GetType()) != workflows.ErrorInvalidInput {
			inputs++
			assert.NoError(t, schemas.Check(schema+"-input.json", arguments[0].GetData()), file)
		}
		answers := append(last.GetWorkflowExecutionCompletedEventAttributes().GetResult().GetPayloads(), failed.GetDetails().GetPayloads()...)
		for _, answer := range answers {
			record := maps.Clone(addedLater)
			require.NoError(t, json.Unmarshal(answer.GetData(), &record))
			if record["outcome"] == nil {
				continue // a refusal of Ops Manager's, before there were any records
			}
			if counts, isFleet := record["counts"].(map[string]any); isFleet && counts["gone"] == nil {
				counts["gone"] = 0 // added later, too
			}
			text, err := json.Marshal(record)
			require.NoError(t, err)
			results++
			assert.NoError(t, schemas.Check(schema+"-result.json", text), file)
		}
	}
	t.Logf("inputs: %d, results: %d", inputs, results)
	assert.Greater(t, inputs, 20)
	assert.Greater(t, results, 5)
}
