package workflows

import (
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/internal/ledgerentry"
)

// maxTemporalPayload is what Temporal takes as one payload.
const maxTemporalPayload = 2 << 20

func TestRecordFitsIntoAPayload(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 26, 12, 0, 0, 123e6, time.UTC)
	long := strings.Repeat("<", maxText)
	cluster := &RotateClusterResult{
		Connection: "default", ProjectID: strings.Repeat("a", 24), ClusterID: strings.Repeat("b", 24), Outcome: OutcomePartial, StartedAt: at, FinishedAt: &at,
	}
	for i := range 5000 {
		cluster.Targets = append(cluster.Targets, TargetRecord{
			Target: Target{ClusterID: fmt.Sprintf("%024x", i), Name: strings.Repeat("n", 20)}, Status: StatusFailed,
			Error: &TargetError{Type: ErrorForbidden, Message: long}, FirstError: &TargetError{Type: ErrorForbidden, Message: long},
		})
	}
	for i := range maxActions {
		cluster.Actions = append(cluster.Actions, Action{At: at, By: fmt.Sprintf("%0256d", i), Action: AbortUpdate, Reason: long})
	}
	deploymentOf := func(message string) *RotateDeploymentResult {
		deployment := &RotateDeploymentResult{Connection: "default", ProjectID: strings.Repeat("a", 24), Outcome: OutcomePartial, StartedAt: at, FinishedAt: &at}
		for i := range 3000 {
			deployment.Targets = append(deployment.Targets, ProcessRecord{
				Process: fmt.Sprintf("process-%d", i), ClusterID: fmt.Sprintf("%024x", i), ClusterName: strings.Repeat("n", 60),
				Error: &TargetError{Type: ErrorForbidden, Message: message}, FirstError: &TargetError{Type: ErrorForbidden, Message: message},
			})
		}
		return deployment
	}
	// A record has the names of the clusters besides the result, which may have no room
	// for them.
	longest := sort.Search(maxText, func(n int) bool { return jsonBytes(deploymentOf(strings.Repeat("m", n))) > maxPayload }) - 1
	require.Positive(t, longest)
	var acted actors
	for i := range maxActorBytes / 4 {
		acted.add(Action{By: strconv.Itoa(i)})
	}
	require.Less(t, len(acted), maxActorBytes/4, "as many as there is room for")
	for name, result := range map[string]ledgerResult{
		"cluster": cluster, "deployment": deploymentOf(long), "deployment that just fits": deploymentOf(strings.Repeat("m", longest)),
	} {
		result.fit(maxPayload)
		record, err := newRecord(endedRun{"w", "r", "f", "fleet"}, ledgerentry.SourceWorkflow, acted, result, &TargetError{Type: ErrorPartialFailure, Message: strings.Repeat("<", maxMessage)})
		require.NoError(t, err, name)
		text, err := json.Marshal(activities.RecordRotationInput{Record: record})
		require.NoError(t, err, name)
		assert.Less(t, len(text), maxTemporalPayload, name)
		assert.Greater(t, len(text), maxTemporalPayload/2, name)
	}
}
