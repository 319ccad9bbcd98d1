package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

const project = environment.Project

func requireFailure(t *testing.T, err error, errorType string) *temporal.ApplicationError {
	t.Helper()
	require.Error(t, err)
	var appErr *temporal.ApplicationError
	require.ErrorAs(t, err, &appErr)
	require.Equal(t, errorType, appErr.Type(), "%v", err)
	require.True(t, appErr.NonRetryable(), "%v", err)
	return appErr
}

func requireRecords(t *testing.T, err error, errorType string) *workflows.RotateClusterResult {
	t.Helper()
	requireFailure(t, err, errorType)
	records, found := workflows.ResultOf(err)
	require.True(t, found, "the failure must carry its records: %v", err)
	require.Equal(t, workflows.OutcomePartial, records.Outcome)
	return records
}

// requireTrue compares every record with the simulator's own ledger.
func requireTrue(t *testing.T, om *simulator.Server, records []workflows.TargetRecord) {
	t.Helper()
	require.NoError(t, environment.CheckRecords(om.Ledger(), records))
}

func statusesOf(records []workflows.TargetRecord) map[string]string {
	found := map[string]string{}
	for _, record := range records {
		found[record.Name] = record.Status
	}
	return found
}
