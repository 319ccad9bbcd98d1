package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// One simulator has clusters of both kinds. A state file of a time without a
// deployment gets one, and keeps it.
func TestBothKindsOfClusters(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	before := runProgram(t, "--state", state, "--shards", "1")
	require.NoError(t, before.command.Process.Kill())
	_ = before.command.Wait()

	deployment := []string{"--state", state, "--deployment-clusters", "2", "--deployment-shards", "1", "--deployment-members", "2", "--deployment-member-time", "10ms"}
	p := runProgram(t, deployment...)
	assert.True(t, strings.HasSuffix(p.printed["deployed"], "  payments2"), "%q", p.lines)
	assert.True(t, strings.HasSuffix(p.printed["cluster"], "  orders"), "%q", p.lines)
	assert.Contains(t, p.runPrintedCall(t), "201 Created")
	summary := p.summary(t)
	assert.Len(t, summary.Targets, 2)
	require.Len(t, summary.Deployments, 1)
	require.Len(t, summary.Deployments[0].Processes, 2*(2+2+1))
	process := summary.Deployments[0].Processes[1]
	assert.Equal(t, "payments-0-1", process.Name)

	publishRotation(t, p, process.Name, time.Now())
	require.NoError(t, p.command.Process.Kill())
	_ = p.command.Wait()

	again := runProgram(t, deployment...)
	require.Eventually(t, func() bool { return len(again.summary(t).Deployments[0].Processes[1].Rotations) == 1 }, 10*time.Second, 10*time.Millisecond)
	rotated := again.summary(t).Deployments[0]
	assert.Equal(t, process.Key, rotated.Processes[1].Rotations[0].PreviousKey)
	assert.Equal(t, 1, rotated.PutsApplied)
	assert.Empty(t, rotated.Violations)
	assert.Equal(t, summary.Deployments[0].Version+1, rotated.GoalVersion)
}

func TestADeploymentInAProjectOfItsOwn(t *testing.T) {
	const other = "5196d3628d022db4cbc26d9f"
	summary := runProgram(t, "--deployment-clusters", "1", "--deployment-shards", "0", "--deployment-project", other).summary(t)
	require.Len(t, summary.Deployments, 1)
	assert.Equal(t, other, summary.Deployments[0].ProjectID)
	assert.Len(t, summary.Deployments[0].Processes, 3)
}

func publishRotation(t *testing.T, p *program, process string, at time.Time) {
	t.Helper()
	client, err := opsmanager.New(opsmanager.Config{BaseURL: p.printed["address"], PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey})
	require.NoError(t, err)
	config, err := client.AutomationConfig(t.Context(), simulator.DefaultProjectID)
	require.NoError(t, err)
	changed, err := config.WithRotationTime([]string{process}, at)
	require.NoError(t, err)
	require.NoError(t, client.PutAutomationConfig(t.Context(), simulator.DefaultProjectID, changed, nil))
}
