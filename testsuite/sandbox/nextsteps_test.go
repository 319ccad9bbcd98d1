package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/childproc"
)

// The commands run in a shell, in their order.
func TestNextStepsRun(t *testing.T) {
	t.Parallel()
	checkNextSteps(t, `rotate-cluster:default:[0-9a-f]{24}:[0-9a-f]{24}`, []string{"--latency=10ms"},
		`"outcome": "rotated"`, "planned", "WorkflowId", `"verified":4`, "Forbidden", "exit status 3", "retry: accepted", "witnessed, Active", "No verdict says")
}

func TestNextStepsOfADeploymentRun(t *testing.T) {
	t.Parallel()
	checkNextSteps(t, `rotate-deployment:default:[0-9a-f]{24}`, []string{"--deployment", "--shards=1", "--member-time=20ms", "--latency=10ms"},
		`"outcome": "rotated"`, "planned", "WorkflowId", `"rotated":9`, "DeploymentFailed", "the KMIP server cannot be reached", "exit status 3", "retry: accepted",
		"NotServed", "No verdict says")
}

// checkNextSteps runs the commands that a sandbox prints, and checks what they print.
func checkNextSteps(t *testing.T, workflowID string, arguments []string, wants ...string) {
	t.Helper()
	_, err := exec.LookPath("curl")
	require.NoError(t, err, "curl is required: one of the commands uses it")
	s := startSandbox(t, arguments...)
	s.waitFor("runs until Ctrl-C")
	commands := commandsIn(s.output.String())
	if last := len(commands) - 1; commands[last] == "go run ./worker" {
		commands[last] += " --help" // the worker would not end
	}
	files := t.TempDir()
	for i := range commands { // not into the checkout
		commands[i] = strings.Replace(commands[i], "> ", "> "+files+"/", 1)
	}
	printed, codes := runInShell(t, s, commands)
	for _, name := range []string{"report.html", "evidence.html"} {
		page, err := os.ReadFile(filepath.Join(files, name))
		require.NoError(t, err)
		assert.Contains(t, string(page), "<!DOCTYPE html>")
	}
	for i, command := range commands {
		want := "0"
		if fails(commands, i) {
			want = "1" // go run exits with 1 and prints the exit code of the command line
		}
		assert.Equal(t, want, codes[i], "exit code of %s", command)
	}
	for _, want := range append(wants, "the newest first", "Ledger        intact", " ok") {
		assert.Contains(t, printed, want)
	}
	checkMonitoring(t, s.mustShow(`(http://127\.0\.0\.1:\d+)/metrics, and /readyz`)[1])
	s.mustShow(`http://127\.0\.0\.1:\d+/namespaces/default/workflows/` + workflowID + `/[0-9a-f-]{36}/history`)
	s.signal(s.command.Process.Pid, syscall.SIGINT)
	s.mustEnd(stopTimeout, 0)
}

// checkMonitoring reads the worker's metrics and asks it whether it is ready.
func checkMonitoring(t *testing.T, address string) {
	t.Helper()
	for path, want := range map[string]string{"/metrics": "keyturn_ready 1\n", "/readyz": `"ready":true`} {
		answer, err := http.Get(address + path)
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, errors.Join(err, answer.Body.Close()))
		assert.Equal(t, http.StatusOK, answer.StatusCode, path)
		assert.Contains(t, string(body), want)
	}
}

// fails reports whether a command is to fail: a rotation after a fault was ordered is
// held, and that of the backup of a deployment's cluster is refused.
func fails(commands []string, i int) bool {
	isRotation := strings.Contains(commands[i], " rotate ")
	ofBackup := strings.Contains(commands[i], " --cluster ") && strings.Contains(strings.Join(commands, "\n"), " --deployment ")
	return isRotation && (strings.HasPrefix(commands[i-1], "curl ") || ofBackup)
}

// commandsIn returns the indented lines after "Next steps".
func commandsIn(output string) (commands []string) {
	_, hints, _ := strings.Cut(output, "Next steps")
	for line := range strings.Lines(hints) {
		if command, indented := strings.CutPrefix(line, "  "); indented {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// shellTimeout limits how long all commands take: each is built first.
const shellTimeout = 3 * time.Minute

// runInShell returns the output of the commands and their exit codes. The shell
// has the same conflicting variables as the sandbox had.
func runInShell(t *testing.T, s *sandboxProcess, commands []string) (printed string, codes []string) {
	t.Helper()
	const mark = "exit code of the command: "
	var script strings.Builder
	for _, command := range commands {
		script.WriteString(command + "\necho \"" + mark + "$?\"\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), shellTimeout)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh")
	shell.Env = s.command.Environ()
	shell.Stdin = strings.NewReader(script.String())
	var output bytes.Buffer
	shell.Stdout, shell.Stderr = &output, &output
	require.NoError(t, shell.Run(), "%s", &output)
	for line := range strings.Lines(output.String()) {
		if code, found := strings.CutPrefix(line, mark); found {
			codes = append(codes, strings.TrimSpace(code))
		}
	}
	require.Len(t, codes, len(commands), "%s", &output)
	return output.String(), codes
}

func TestConflictingVariables(t *testing.T) {
	environment := []string{"HOME=/", "TEMPORAL_ADDRESS=elsewhere", "TEMPORAL_API_KEY=secret", "KEYTURN_TASK_QUEUE=other"}
	names := conflictingVariables(environment, []childproc.Variable{{Name: "TEMPORAL_ADDRESS", Value: "here"}})
	assert.Equal(t, []string{"TEMPORAL_API_KEY", "KEYTURN_TASK_QUEUE"}, names)
}

func TestShellWord(t *testing.T) {
	for word, want := range map[string]string{
		"--wait": "--wait", "/a/b.c": "/a/b.c", "": "''", "a b": "'a b'", `{"a":1}`: `'{"a":1}'`, "it's": `'it'\''s'`, "$HOME": "'$HOME'",
	} {
		assert.Equal(t, want, shellWord(word))
	}
}
