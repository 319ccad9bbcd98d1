package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
)

// asProgram makes the test's own binary run the program, so that it can be
// killed.
const asProgram = "OPSMANAGER_SIMULATOR_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

type program struct {
	command *exec.Cmd
	printed map[string]string
	lines   []string
}

// runProgram returns when the program prints that it is ready.
func runProgram(t *testing.T, arguments ...string) *program {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	p := &program{command: exec.Command(self, append([]string{"--listen", "127.0.0.1:0"}, arguments...)...), printed: map[string]string{}}
	p.command.Env = append(os.Environ(), asProgram+"=1")
	p.command.Stderr = os.Stderr
	out, err := p.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.command.Start())
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		_ = p.command.Wait()
	})
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		word, rest, _ := strings.Cut(scanner.Text(), " ")
		p.lines = append(p.lines, scanner.Text())
		p.printed[word] = strings.TrimSpace(rest)
		if word == "ready" {
			return p
		}
	}
	require.Fail(t, "the program ended without being ready", "%q", p.lines)
	return nil
}

func (p *program) summary(t *testing.T) simulator.Summary {
	t.Helper()
	response, err := http.Get(p.printed["ledger"])
	require.NoError(t, err)
	defer response.Body.Close()
	var summary simulator.Summary
	require.NoError(t, json.NewDecoder(response.Body).Decode(&summary))
	return summary
}

// runPrintedCall runs the printed call in a shell.
func (p *program) runPrintedCall(t *testing.T) string {
	t.Helper()
	_, err := exec.LookPath("curl")
	require.NoError(t, err, "curl is required: this test runs the printed call")
	out, err := exec.Command("sh", "-c", p.printed["rotate"]).Output()
	require.NoError(t, err)
	return string(out)
}

func TestStateSurvivesKill(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	first := runProgram(t, "--state", state, "--path-prefix", "/om", "--private-key", `a$b"c`)
	assert.Contains(t, first.runPrintedCall(t), "HTTP/1.1 201")
	before := first.summary(t)
	assert.Equal(t, 1, before.RotationsApplied)
	require.NoError(t, first.command.Process.Kill())
	_ = first.command.Wait()

	second := runProgram(t, "--state", state)
	assert.Equal(t, before.Targets, second.summary(t).Targets)
	assert.Equal(t, "restored from "+state, second.printed["state"])
	assert.Contains(t, second.runPrintedCall(t), "HTTP/1.1 201")
	after := second.summary(t)
	assert.Equal(t, 2, after.RotationsApplied)
	assert.Equal(t, before.Targets[0].Key, after.Targets[0].Rotations[1].PreviousKey)

	require.NoError(t, second.command.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, second.command.Wait(), "SIGTERM ends it cleanly")
}

func TestStartOutput(t *testing.T) {
	p := runProgram(t, "--clusters", "2", "--shards", "1", "--cluster", "audit")
	assert.Equal(t, simulator.DefaultProjectID, p.printed["project"])
	var clusters []string
	for _, line := range p.lines {
		if fields := strings.Fields(line); fields[0] == "cluster" {
			assert.True(t, simulator.IsID(fields[1]))
			clusters = append(clusters, fields[2])
		}
	}
	assert.Equal(t, []string{"audit", "audit2"}, clusters)
	assert.Equal(t, p.printed["address"], p.printed["ready"])
	targets := p.summary(t).Targets
	require.Len(t, targets, 4)
	assert.Contains(t, p.printed["rotate"], targets[0].ID)
	require.NoError(t, p.command.Process.Signal(os.Interrupt))
	assert.NoError(t, p.command.Wait())
}

func TestHealth(t *testing.T) {
	p := runProgram(t)
	assert.NoError(t, health(t, p.printed["address"]))
	require.NoError(t, p.command.Process.Signal(os.Interrupt))
	require.NoError(t, p.command.Wait())
	assert.Error(t, health(t, p.printed["address"]), "the program has ended")

	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	assert.ErrorContains(t, health(t, other.URL), "404", "another program uses the address")
	assert.ErrorContains(t, health(t, "nonsense"), "unsupported protocol")
}

func health(t *testing.T, address string) error {
	t.Helper()
	command := newCommand(io.Discard)
	command.SetErr(io.Discard)
	command.SetArgs([]string{"health", "--address", address})
	return command.ExecuteContext(t.Context())
}

func TestReplicaSets(t *testing.T) {
	summary := runProgram(t, "--shards", "0", "--clusters", "3").summary(t)
	require.Len(t, summary.Targets, 3)
	assert.Equal(t, "replicaSet", summary.Targets[2].Role)
}

func TestHelpDescribesTheFlags(t *testing.T) {
	out := &strings.Builder{}
	command := newCommand(io.Discard)
	command.SetOut(out)
	command.SetArgs([]string{"--help"})
	require.NoError(t, command.Execute())
	for _, name := range []string{
		"listen", "public-key", "private-key", "path-prefix", "project", "cluster", "shards", "clusters",
		"latency", "show-after", "state", "tls-cert", "tls-key", "deployment-clusters", "deployment-shards",
	} {
		assert.Contains(t, out.String(), "--"+name+" ")
	}
}

func TestInvalidArguments(t *testing.T) {
	for _, wrong := range [][]string{
		{"--project", "nonsense"}, {"--shards", "-1"}, {"--clusters", "-1"}, {"--latency", "-1s"}, {"--show-after", "-1s"},
		{"--deployment-project", "nonsense"}, {"--deployment-clusters", "-1"}, {"--deployment-shards", "-1"}, {"--deployment-members", "0"},
		{"--deployment-member-time", "-1s"}, {"--deployment-snapshot-every", "-1s"}, {"--deployment-document-size", "-1"},
		{"--tls-cert", "only.pem"}, {"--tls-cert", "absent.pem", "--tls-key", "absent.pem"},
		{"--state", filepath.Join(t.TempDir(), "absent", "state.json")}, {"--listen", "nonsense"}, {"argument"}, {"--nonsense"},
	} {
		command := newCommand(io.Discard)
		command.SetErr(io.Discard)
		command.SetArgs(append([]string{"--listen", "127.0.0.1:0"}, wrong...))
		ended, cancel := context.WithCancel(t.Context())
		cancel() // an accepted one ends immediately
		assert.Error(t, command.ExecuteContext(ended), "%q", wrong)
	}
}
