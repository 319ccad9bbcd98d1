package main

import (
	"encoding/json"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/workflows"
)

// jsonInputOf returns the JSON of the input that flags make.
func jsonInputOf(t *testing.T, a *app, args ...string) string {
	t.Helper()
	name, f, command := a.rotation, &startFlags{}, &cobra.Command{}
	f.addPlanFlags(a, command)
	f.addRotateFlags(command)
	require.NoError(t, command.ParseFlags(args))
	require.NoError(t, f.check(name, command.Flags()))
	text, err := json.Marshal(f.request(name, f.input(name, command.Flags()), command.Flags()).input)
	require.NoError(t, err)
	return string(text)
}

func TestUnsetFlagsAreLeftOutOfTheInput(t *testing.T) {
	a, _, _ := newTestApp()
	want := `{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","change":{"requestedBy":"dana"}}`
	assert.Equal(t, want, jsonInputOf(t, a))
}

func TestEveryFlagReachesTheInput(t *testing.T) {
	a, _, _ := newTestApp()
	a.rotation.connection = "berlin"
	want := `{"connection":"berlin","projectId":"` + testProject + `","clusterId":"` + testCluster + `",` +
		`"concurrency":8,"requireApproval":true,"approvalTimeout":"1h0m0s","expectedTargets":13,"allowUnserved":true,"onFailure":"stop",` +
		`"holdTimeout":"2h0m0s","retryTimeout":"3m0s","settleTime":"4s","verifyTimeout":"5m0s",` +
		`"change":{"ticket":"CHG1","requestedBy":"erin","reason":"quarterly"}}`
	got := jsonInputOf(t, a, "--concurrency", "8", "--require-approval", "--approval-timeout", "1h", "--expected-targets", "13", "--allow-unserved", "--on-failure", "stop",
		"--hold-timeout", "2h", "--retry-timeout", "3m", "--settle-time", "4s", "--verify-timeout", "5m",
		"--ticket", "CHG1", "--requested-by", "erin", "--reason", "quarterly")
	assert.Equal(t, want, got)
}

func TestADefaultThatIsSetIsSent(t *testing.T) {
	a, _, _ := newTestApp()
	want := `{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","onFailure":"hold","change":{"requestedBy":"dana"}}`
	assert.Equal(t, want, jsonInputOf(t, a, "--on-failure", string(workflows.OnFailureHold)))
}
