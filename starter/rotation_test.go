package main

import "testing"

func TestCommandLinesCanBeCopied(t *testing.T) {
	a, _, _ := newTestApp()
	if got, want := a.commandLine("watch"), "starter watch --project "+testProject+" --cluster "+testCluster; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a.rotation.connection, a.server = "berlin", serverFlags{address: "t:7233", namespace: "key rotation"}
	want := "starter retry --project " + testProject + " --cluster " + testCluster +
		` --connection berlin --address t:7233 --namespace 'key rotation' --by 'O'\''Hara'`
	if got := a.commandLine("retry", "--by", "O'Hara"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a.server = serverFlags{}
	a.rotation = rotationName{connection: "berlin", fleet: true}
	if got, want := a.commandLine("watch"), "starter watch --fleet --connection berlin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a.rotation.id = "scheduled-rotate-fleet:berlin-2026-01-01T03:00:00Z"
	if got, want := a.commandLine("abort", "--by", "erin"), "starter abort --fleet --workflow-id scheduled-rotate-fleet:berlin-2026-01-01T03:00:00Z --by erin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
