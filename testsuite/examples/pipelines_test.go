package examples_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/schemas"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

// pipeline has the scripts of docs/pipelines.md, as they stand there, in a directory
// in which they run.
type pipeline struct {
	fixture.Server
	directory   string
	environment []string
}

var script = regexp.MustCompile("(?s)```(?:sh|python)\n(#!.*?\n(?:# |\"\"\")([a-z]+\\.[a-z]+) .*?)```\n")

func newPipeline(t *testing.T) pipeline {
	t.Helper()
	for _, command := range []string{"jq", "python3"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Skip(command + " is not installed")
		}
	}
	s := fixture.NewServer(t, simulator.Options{})
	s.StartWorker()
	p := pipeline{s, t.TempDir(), nil}
	var err error
	p.environment, err = s.TemporalServer.Environment(filepath.Join(p.directory, "bin"))
	require.NoError(t, err)
	p.environment = append(p.environment, "KEYTURN_TASK_QUEUE="+s.TaskQueue)
	page, err := os.ReadFile("../../docs/pipelines.md")
	require.NoError(t, err)
	scripts := script.FindAllStringSubmatch(string(page), -1)
	require.Len(t, scripts, 4)
	for _, found := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(p.directory, found[2]), []byte(found[1]), 0o700))
	}
	return p
}

// run runs a script, and returns its output and exit code.
func (p pipeline) run(script string, arguments ...string) (stdout, stderr string, code int) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), waiting.Limit)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(p.directory, script), arguments...)
	command.Dir, command.Env = p.directory, p.environment
	var out, messages strings.Builder
	command.Stdout, command.Stderr = &out, &messages
	err := command.Run()
	var exit *exec.ExitError
	if err != nil {
		require.ErrorAs(p, err, &exit, "%s", script)
	}
	p.Logf("%s: %v\n%s%s", script, err, out.String(), messages.String())
	if errors.As(err, &exit) {
		return out.String(), messages.String(), exit.ExitCode()
	}
	return out.String(), messages.String(), 0
}

// mustRun runs a script that succeeds.
func (p pipeline) mustRun(script string, arguments ...string) string {
	p.Helper()
	stdout, _, code := p.run(script, arguments...)
	require.Zero(p, code, "%s", script)
	return stdout
}

// records are valid JSON of a result, and what the simulator knows.
func (p pipeline) records(text []byte) (records workflows.RotateClusterResult) {
	p.Helper()
	require.NoError(p, schemas.Check("rotate-cluster-result.json", text))
	require.NoError(p, json.Unmarshal(text, &records))
	p.RequireMatchesLedger(records.Targets)
	return records
}

func (p pipeline) read(file string) []byte {
	p.Helper()
	text, err := os.ReadFile(filepath.Join(p.directory, file))
	require.NoError(p, err)
	return text
}

func TestPipelineRotatesWithAnApproval(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	cluster := p.OM.AddShardedCluster(p.Project, "orders", 2)
	before := p.OM.Key(cluster.ShardIDs[0])
	plan := p.mustRun("start.sh", p.Project, cluster.ID, "CHG0031337", "dana")
	assert.Contains(t, plan, "orders-0\tshard\t"+before+"\n")
	require.NoError(t, schemas.Check("rotate-cluster-input.json", p.read("input.json")))

	_, stderr, code := p.run("approve.sh", p.Project, cluster.ID, "dana", "")
	assert.NotZero(t, code)
	assert.Contains(t, stderr, "another person must approve")
	started := p.read("started.json")
	_, _, code = p.run("start.sh", p.Project, cluster.ID, "CHG2", "kim")
	assert.NotZero(t, code, "another rotation of the cluster is not taken for this one")
	require.NoError(t, os.WriteFile(filepath.Join(p.directory, "started.json"), started, 0o600))

	p.mustRun("approve.sh", p.Project, cluster.ID, "lee", "window is open")
	require.NoError(t, schemas.Check("approve-request.json", p.read("approval.json")))
	table := p.mustRun("finish.sh", p.Project, cluster.ID)
	assert.Contains(t, table, "orders-0\tverified\t"+before+"\t"+p.OM.Key(cluster.ShardIDs[0])+"\t\n")
	records := p.records(p.read("records.json"))
	assert.Equal(t, workflows.OutcomeRotated, records.Outcome)
	assert.Equal(t, "lee", records.Approval.By)
	assert.Equal(t, workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana"}, records.Change)
}

// A failed rotation has its records in its failure's details, and the exit code is 1.
func TestPipelineKeepsTheRecordsOfAFailure(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	cluster := p.OM.AddShardedCluster(p.Project, "orders", 2)
	p.OM.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
	p.mustRun("start.sh", p.Project, cluster.ID, "CHG0031337", "dana")
	p.mustRun("approve.sh", p.Project, cluster.ID, "lee", "")
	table, stderr, code := p.run("finish.sh", p.Project, cluster.ID)
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "PartialFailure: ")
	assert.Contains(t, table, "orders-1\tfailed\t")
	assert.Contains(t, table, "403 Forbidden")
	assert.Equal(t, workflows.OutcomePartial, p.records(p.read("records.json")).Outcome)
}

func TestPipelineReportsARefusedInput(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	p.mustRun("start.sh", p.Project, "no-cluster", "CHG0031337", "dana")
	require.Error(t, schemas.Check("rotate-cluster-input.json", p.read("input.json")), "the schema would have told")
	_, stderr, code := p.run("finish.sh", p.Project, "no-cluster")
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "InvalidInput: clusterId: must be 24 hex digits")
}

func TestPipelineInPython(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	audit := p.OM.AddReplicaSet(p.Project, "audit")
	rotated := p.records([]byte(p.mustRun("rotate.py", p.Project, audit.ID, "CHG0031337", "dana")))
	assert.Equal(t, workflows.OutcomeRotated, rotated.Outcome)

	orders := p.OM.AddShardedCluster(p.Project, "orders", 2)
	p.OM.Inject(simulator.AccessListRefusal(http.MethodPut, orders.ShardIDs[1]))
	stdout, stderr, code := p.run("rotate.py", p.Project, orders.ID, "CHG0031337", "dana")
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "PartialFailure: ")
	assert.Equal(t, workflows.OutcomePartial, p.records([]byte(stdout)).Outcome)
}
