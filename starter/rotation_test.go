package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCommandLinesCanBeCopied(t *testing.T) {
	a, _, _ := newTestApp()
	assert.Equal(t, "keyturn watch --project "+testProject+" --cluster "+testCluster, a.commandLine("watch"))
	a.rotation.connection, a.server = "berlin", serverFlags{address: "t:7233", namespace: "key rotation"}
	want := "keyturn retry --project " + testProject + " --cluster " + testCluster +
		` --connection berlin --address t:7233 --namespace 'key rotation' --by 'O'\''Hara'`
	assert.Equal(t, want, a.commandLine("retry", "--by", "O'Hara"))
	a.server = serverFlags{}
	a.rotation = rotationName{connection: "berlin", fleet: true}
	assert.Equal(t, "keyturn watch --fleet --connection berlin", a.commandLine("watch"))
	a.rotation.deployment = true
	assert.Equal(t, "keyturn watch --fleet --deployment --connection berlin", a.commandLine("watch"))
	a.rotation.deployment = false
	a.rotation.id = "scheduled-rotate-fleet:berlin-2026-01-01T03:00:00Z"
	assert.Equal(t, "keyturn abort --fleet --workflow-id scheduled-rotate-fleet:berlin-2026-01-01T03:00:00Z --by erin", a.commandLine("abort", "--by", "erin"))
}
