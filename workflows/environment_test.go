package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

const project = fixture.Project

func requireFailure(t *testing.T, err error, errorType workflows.ErrorType) *temporal.ApplicationError {
	t.Helper()
	require.Error(t, err)
	var appErr *temporal.ApplicationError
	require.ErrorAs(t, err, &appErr)
	require.Equal(t, errorType, workflows.ErrorType(appErr.Type()), "%v", err)
	require.True(t, appErr.NonRetryable(), "%v", err)
	return appErr
}

func requireRecords(t *testing.T, err error, errorType workflows.ErrorType) *workflows.RotateClusterResult {
	t.Helper()
	requireFailure(t, err, errorType)
	records, found := workflows.RotateClusterResultOf(err)
	require.True(t, found, "the failure must carry its records: %v", err)
	require.Contains(t, []workflows.Outcome{workflows.OutcomePartial, workflows.OutcomeNothingRotated}, records.Outcome)
	return records
}

// continueFrom runs the run that another one has continued as.
func continueFrom(t *testing.T, om *simulator.Server, continued *workflow.ContinueAsNewError, input workflows.RotateClusterInput, prepare ...func(fixture.SDK)) (workflows.RotateClusterResult, error) {
	t.Helper()
	env := fixture.NewSDK(t, om)
	env.SetContinuedExecutionRunID("default-test-run-id")
	for _, p := range prepare {
		p(env)
	}
	return env.Start(workflows.RotateClusterID("default", input.ProjectID, input.ClusterID), argumentsOf(continued)...)
}

// argumentsOf are the arguments of the run that another one has continued as.
func argumentsOf(continued *workflow.ContinueAsNewError) (arguments []any) {
	for _, p := range continued.Input.Payloads {
		arguments = append(arguments, converter.NewRawValue(p))
	}
	return arguments
}

// requireTrue compares every record with the simulator's own ledger.
func requireTrue(t *testing.T, om *simulator.Server, records []workflows.TargetRecord) {
	t.Helper()
	require.NoError(t, invariants.CheckRecords(om.Ledger(), records))
}

func statusesOf(records []workflows.TargetRecord) map[string]string {
	found := map[string]string{}
	for _, record := range records {
		found[record.Name] = string(record.Status)
	}
	return found
}
