package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"keyturn/testsuite/programs"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// TestHintsDoWhatTheySay pastes the commands, in their order, into a shell.
func TestHintsDoWhatTheySay(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: one of the commands is curl's")
	}
	s := startSandbox(t, "--latency=10ms")
	s.waitFor("stays up until Ctrl-C")
	commands := commandsIn(s.output.String())
	if last := len(commands) - 1; commands[last] == "go run ./worker" {
		commands[last] += " --help" // it would never end
	}
	printed, codes := paste(t, s, commands)
	for i, command := range commands {
		want := "0"
		if i > 0 && strings.HasPrefix(commands[i-1], "curl ") {
			want = "1" // held: go run makes 1 of the starter's 3, and prints it
		}
		if codes[i] != want {
			t.Errorf("exit code %s of %s, want %s", codes[i], command, want)
		}
	}
	for _, want := range []string{`"outcome": "rotated"`, "planned", "WorkflowId", `"verified":4`, "Forbidden", "exit status 3", "retry: done"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is not printed", want)
		}
	}
	if t.Failed() {
		t.Log(printed)
	}
	s.mustShow(`http://127\.0\.0\.1:\d+/namespaces/default/workflows/rotate-cluster:default:[0-9a-f]{24}:[0-9a-f]{24}/[0-9a-f-]{36}/history`)
	s.signal(s.command.Process.Pid, syscall.SIGINT)
	s.mustEnd(shortly, 0)
}

// commandsIn are the lines that are indented after "What to try next".
func commandsIn(output string) (commands []string) {
	_, hints, _ := strings.Cut(output, "What to try next")
	for line := range strings.Lines(hints) {
		if command, indented := strings.CutPrefix(line, "  "); indented {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// paste returns all that the commands print, and the exit code of each. Their
// shell has the same misleading variables as the sandbox had.
func paste(t *testing.T, s *sandboxProcess, commands []string) (printed string, codes []string) {
	t.Helper()
	const mark = "exit code of the pasted command: "
	var script strings.Builder
	for _, command := range commands {
		script.WriteString(command + "\necho \"" + mark + "$?\"\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh")
	shell.Env = s.command.Environ()
	shell.Stdin = strings.NewReader(script.String())
	var output bytes.Buffer
	shell.Stdout, shell.Stderr = &output, &output
	if err := shell.Run(); err != nil {
		t.Fatalf("%v:\n%s", err, output.String())
	}
	for line := range strings.Lines(output.String()) {
		if code, found := strings.CutPrefix(line, mark); found {
			codes = append(codes, strings.TrimSpace(code))
		}
	}
	if len(codes) != len(commands) {
		t.Fatalf("%d commands, %d exit codes:\n%s", len(commands), len(codes), output.String())
	}
	return output.String(), codes
}

func TestRefusalIsAFaultOfTheSimulator(t *testing.T) {
	cluster := simulator.ShardedCluster{ID: "c", ShardIDs: []string{"s"}, ConfigID: "config"}
	var read simulator.Fault
	if err := json.Unmarshal([]byte(jsonOf(refusalFor(cluster))), &read); err != nil || read.Validate() != nil || read.ClusterID != "config" {
		t.Errorf("got %+v, %v, %v", read, err, read.Validate())
	}
}

func TestMisleadingVariablesAreNamed(t *testing.T) {
	environment := []string{"HOME=/", "TEMPORAL_ADDRESS=elsewhere", "TEMPORAL_API_KEY=secret", "KEYTURN_TASK_QUEUE=other"}
	names := misleadingVariables(environment, []programs.Variable{{Name: "TEMPORAL_ADDRESS", Value: "here"}})
	if got := strings.Join(names, " "); got != "TEMPORAL_API_KEY KEYTURN_TASK_QUEUE" {
		t.Errorf("got %q", got)
	}
}

func TestWordsAreQuotedForAShell(t *testing.T) {
	for word, want := range map[string]string{
		"--wait": "--wait", "/a/b.c": "/a/b.c", "": "''", "a b": "'a b'", `{"a":1}`: `'{"a":1}'`, "it's": `'it'\''s'`, "$HOME": "'$HOME'",
	} {
		if got := shellWord(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

func TestRotationIsNamedByItsOwnID(t *testing.T) {
	cluster := simulator.ShardedCluster{ID: "c", ProjectID: "p"}
	if got := workflowID(cluster); got != workflows.RotateClusterID("default", "p", "c") {
		t.Errorf("got %q", got)
	}
}
