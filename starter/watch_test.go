package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"keyturn/workflows"
)

func TestAHeldRotationIsShownWithTheWaysOn(t *testing.T) {
	a, stdout, _ := newTestApp()
	hostile := target("05", "a b,c", workflows.StatusFailed)
	p := progressOf(workflows.PhaseHeld, target("04", "orders-4", workflows.StatusFailed), hostile, verified("00", "orders-0", 1))
	p.WaitingFor = "an operator to retry, skip or abort"
	err := a.showWaiting(&clusterAccount{Progress: p})
	var advised *advisedError
	if !errors.As(err, &advised) || err.Error() != "held: waiting for an operator to retry, skip or abort" {
		t.Fatalf("got %v", err)
	}
	named := " --project " + testProject + " --cluster " + testCluster
	want := []string{
		"starter retry" + named + " --by dana",
		"starter skip" + named + " --by dana --targets orders-4," + hostile.ClusterID + " --reason WHY",
		"starter abort" + named + " --by dana --reason WHY",
	}
	if !slices.Equal(advised.commands, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(advised.commands, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(stdout.String(), "none yet: held") {
		t.Errorf("got\n%s", stdout)
	}
}

func TestTheRequesterIsNotToldToApprove(t *testing.T) {
	for requestedBy, want := range map[string]string{"dana": "--by SOMEBODY-ELSE", "erin": "--by dana"} {
		a, _, _ := newTestApp()
		p := progressOf(workflows.PhaseAwaitingApproval)
		p.Change.RequestedBy = requestedBy
		if got := (&clusterAccount{Progress: p}).waysOn(a)[0]; !strings.HasPrefix(got, "starter approve") || !strings.HasSuffix(got, want) {
			t.Errorf("requested by %s: got %s, want %s", requestedBy, got, want)
		}
	}
}

func TestOnlyWhatNeedsAPersonEndsTheWatching(t *testing.T) {
	for phase, want := range map[string]bool{
		workflows.PhaseHeld: true, workflows.PhaseAwaitingApproval: true,
		workflows.PhasePaused: false, workflows.PhaseRotating: false, workflows.PhaseListing: false, workflows.PhaseDone: false,
	} {
		a, _, _ := newTestApp()
		waiting := &clusterAccount{Progress: progressOf(phase)}
		if got := len(waiting.waysOn(a)) > 0; got != want {
			t.Errorf("%s: got %v, want %v", phase, got, want)
		}
	}
}
