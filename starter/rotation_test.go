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
}
