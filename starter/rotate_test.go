package main

import (
	"encoding/json"
	"testing"

	"github.com/spf13/cobra"

	"keyturn/workflows"
)

// inputOf gives the JSON of the input that flags make.
func inputOf(t *testing.T, a *app, args ...string) string {
	t.Helper()
	f, command := &rotateFlags{}, &cobra.Command{}
	f.addPlanFlags(command.Flags(), a)
	f.addRotateFlags(command)
	if err := command.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := f.check(command.Flags()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(f.input(a.rotation, command.Flags()))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUnsetFlagsAreLeftOutOfTheInput(t *testing.T) {
	a, _, _ := newTestApp()
	want := `{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","change":{"requestedBy":"dana"}}`
	if got := inputOf(t, a); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEveryFlagReachesTheInput(t *testing.T) {
	a, _, _ := newTestApp()
	a.rotation.connection = "berlin"
	want := `{"connection":"berlin","projectId":"` + testProject + `","clusterId":"` + testCluster + `",` +
		`"concurrency":8,"requireApproval":true,"approvalTimeout":"1h0m0s","expectedTargets":13,"onFailure":"stop",` +
		`"holdTimeout":"2h0m0s","retryTimeout":"3m0s","settleTime":"4s","verifyTimeout":"5m0s",` +
		`"change":{"ticket":"CHG1","requestedBy":"erin","reason":"quarterly"}}`
	got := inputOf(t, a, "--concurrency", "8", "--require-approval", "--approval-timeout", "1h", "--expected-targets", "13", "--on-failure", "stop",
		"--hold-timeout", "2h", "--retry-timeout", "3m", "--settle-time", "4s", "--verify-timeout", "5m",
		"--ticket", "CHG1", "--requested-by", "erin", "--reason", "quarterly")
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestADefaultThatIsSetIsSent(t *testing.T) {
	a, _, _ := newTestApp()
	want := `{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","onFailure":"hold","change":{"requestedBy":"dana"}}`
	if got := inputOf(t, a, "--on-failure", workflows.OnFailureHold); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
