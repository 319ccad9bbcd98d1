package main

import (
	"strings"
	"testing"

	"keyturn/internal/version"
	"keyturn/testsuite/support/parallel"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	parallel.Tests(16)
	temporalserver.Main(m)
}

func TestHelpTeaches(t *testing.T) {
	code, stdout, stderr := runHere(t, nil, nil, "--help")
	assert.Equal(t, exitDone, code, "exit code %d, %q", code, stderr)
	assert.Empty(t, stderr, "exit code %d, %q", code, stderr)
	for _, want := range []string{"Exit codes:", "HELD", "Examples:", "rotate", "plan", "watch", "report", "schedule", "approve", "reject", "pause", "resume", "retry", "skip", "abort", "completion"} {
		assert.Contains(t, stdout, want, "the help does not speak of %q", want)
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	const width = 80
	a, _, _ := newTestApp()
	var check func(*cobra.Command)
	check = func(command *cobra.Command) {
		for line := range strings.Lines(command.Long + "\n" + command.Example) {
			assert.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), width, "%s --help: %s", command.CommandPath(), line)
		}
		for _, below := range command.Commands() {
			check(below)
		}
	}
	check(a.rootCommand())
}

// What plan says of its flags must be true of a plan.
func TestThePlansHelpIsAboutPlans(t *testing.T) {
	_, stdout, _ := runHere(t, nil, nil, "plan", "--help")
	_, flags, _ := strings.Cut(stdout, "Flags:")
	for _, about := range []string{"rotated in", "rotate also", "approve"} {
		assert.NotContains(t, flags, about)
	}
}

func TestVersionIsPrinted(t *testing.T) {
	code, stdout, _ := runHere(t, nil, nil, "--version")
	assert.Equal(t, exitDone, code, "exit code %d, %q", code, stdout)
	assert.Contains(t, stdout, version.String(), "exit code %d, %q", code, stdout)
}

func TestCompletionKnowsTheFormats(t *testing.T) {
	code, stdout, _ := runHere(t, nil, nil, "__complete", "report", "-o", "")
	assert.Equal(t, exitDone, code, "exit code %d, %q", code, stdout)
	assert.True(t, strings.HasPrefix(stdout, "table\njson\ncsv\nmarkdown"), "exit code %d, %q", code, stdout)
	_, stdout, _ = runHere(t, nil, nil, "__complete", "rotate", "--proof", "")
	assert.Equal(t, "agent\nsnapshot\nkmip\n:4\n", stdout)
}

// TestCompletionOffersFilesForFilesOnly: where an id or a name is wanted, the
// shell's own list of files would be no help.
func TestCompletionOffersFilesForFilesOnly(t *testing.T) {
	for _, line := range [][]string{
		{"report", "--cluster", ""}, {"skip", "--targets", ""}, {"pause", "--reason", ""}, {"rotate", "--cluster-names", ""}, {"watch", "--address", ""},
	} {
		_, stdout, _ := runHere(t, nil, nil, append([]string{"__complete"}, line...)...)
		assert.Equal(t, ":4\n", stdout)
	}
	_, stdout, _ := runHere(t, nil, nil, "__complete", "rotate", "--continue-from", "")
	assert.Equal(t, "json\n:8\n", stdout)
}

// The operator is recorded without a flag.
func TestTheUserIsTheOperatorByDefault(t *testing.T) {
	a, _, _ := newTestApp()
	root := a.rootCommand()
	for _, command := range []string{"approve", "reject", "pause", "resume", "retry", "skip", "abort", "schedule pause", "schedule unpause"} {
		found, _, err := root.Find(strings.Fields(command))
		require.NoError(t, err)
		assert.NotNil(t, found.Flag("by"))
		assert.Equal(t, a.user, found.Flag("by").Value.String())
	}
	for _, command := range []string{"rotate", "plan", "schedule apply"} {
		found, _, _ := root.Find(strings.Fields(command))
		assert.NotNil(t, found.Flag("requested-by"))
		assert.Equal(t, a.user, found.Flag("requested-by").Value.String())
	}
}

// TestUsageErrors needs no server: nothing of it may get as far as that.
func TestUsageErrors(t *testing.T) {
	named := []string{"--project", testProject, "--cluster", testCluster}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "a command is required; see keyturn --help"},
		{[]string{"schedule"}, "a command is required; see keyturn schedule --help"},
		{[]string{"rotat"}, "unknown command \"rotat\" (did you mean rotate?); see keyturn --help"},
		{[]string{"watch", "--nope"}, "unknown flag: --nope; see keyturn watch --help"},
		{[]string{"watch", "--project", testProject}, "--cluster, --deployment or --fleet is required"},
		{[]string{"watch", "--project", testProject, "--cluster", "orders", "--connection", "a:b"}, "--connection: " + workflows.ConnectionRule},
		{[]string{"pause", "--project", "5196", "--cluster", "orders"}, "--project: must be 24 hex digits"},
		{[]string{"rotate", "--project", testProject, "--cluster", "orders,audit"}, "--cluster: must be 24 hex digits"},
		{[]string{"clusters", "--project", "x"}, `--project: "x" must be 24 hex digits`},
		{[]string{"clusters", "--cluster-names", "("}, "--cluster-names"},
		{[]string{"clusters", "--task-queue", ""}, "--task-queue"},
		{[]string{"pause", "--project", "../../groups/5196d3628d", "--cluster", testCluster}, "--project: must be 24 hex digits"},
		{append([]string{"rotate", "argument"}, named...), "unexpected argument \"argument\": keyturn rotate takes flags only"},
		{append([]string{"report", "-o", "xml"}, named...), "must be one of table, json, csv, markdown"},
		{append([]string{"report", "--run-id", "7"}, named...), "--run-id"},
		{append([]string{"rotate", "-o", "csv"}, named...), "--wait"},
		{append([]string{"rotate", "--on-failure", "retry"}, named...), "--on-failure: must be one of hold, continue, stop"},
		{append([]string{"rotate", "--concurrency", "0"}, named...), "--concurrency: must be 1 to 64"},
		{append([]string{"plan", "--concurrency", "65"}, named...), "--concurrency: must be 1 to 64"},
		{append([]string{"rotate", "--concurrency", "many"}, named...), `--concurrency: "many" must be a whole number`},
		{append([]string{"rotate", "--expected-targets", "-1"}, named...), "--expected-targets"},
		{append([]string{"rotate", "--settle-time", "0s"}, named...), "--settle-time: must be more than 0"},
		{append([]string{"rotate", "--hold-timeout", "3 days"}, named...), `--hold-timeout: must be a duration such as`},
		{append([]string{"rotate", "--task-queue", ""}, named...), "--task-queue"},
		{append([]string{"rotate", "--connection", ""}, named...), "--connection"},
		{append([]string{"watch", "--connection", "a:b"}, named...), "--connection: " + workflows.ConnectionRule},
		{append([]string{"rotate", "--continue", "--continue-from", "x"}, named...), "--continue and --continue-from cannot be used together"},
		{append([]string{"rotate", "--continue-from", "/there/is/no.json"}, named...), "--continue-from"},
		{append([]string{"skip", "--by", "erin"}, named...), "--targets is required"},
		{append([]string{"approve", "--by", " "}, named...), "--by"},
		{append([]string{"watch", "--profile", "nope"}, named...), "--profile: TEMPORAL_CONFIG_FILE has no such profile"},
		{[]string{"schedule", "aply"}, "unknown command \"aply\" (did you mean apply?)"},
		{[]string{"schedule", "show"}, "--id, --cluster, --deployment or --fleet is required"},
		{[]string{"schedule", "delete", "--cluster", testCluster}, "--cluster requires --project"},
		{[]string{"schedule", "trigger", "--project", "5196", "--cluster", "orders"}, "--project: must be 24 hex digits"},
		{[]string{"schedule", "show", "--id", ""}, "--id: must not be empty"},
		{append([]string{"schedule", "show", "--id", "x"}, named...), "--cluster and --id cannot be used together"},
		{[]string{"schedule", "pause", "--id", "x", "--by", " "}, "--by"},
		{[]string{"schedule", "apply", "--cron", "@daily"}, "--cluster, --deployment or --fleet is required"},
		{append([]string{"schedule", "apply"}, named...), "--cron or --every is required"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--every", "24h"}, named...), "--cron and --every cannot be used together"},
		{append([]string{"schedule", "apply", "--cron", "0 4 1 13 *"}, named...), `the month "13" must be 1 to 12`},
		{append([]string{"schedule", "apply", "--cron", "@every 24h"}, named...), `--cron: "@every 24h" must have 5 fields`},
		{append([]string{"schedule", "apply", "--cron", "CRON_TZ=Europe/Berlin 0 4 1 * *"}, named...), "--cron: "},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--time-zone", "Berlin"}, named...), `--time-zone: "Berlin"`},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--time-zone", "Local"}, named...), "--time-zone"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--time-zone", ""}, named...), "--time-zone"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--offset", "1h"}, named...), "--offset: must be whole seconds, 0s or more and less than --every"},
		{append([]string{"schedule", "apply", "--every", "0s"}, named...), "--every: must be 1s or more"},
		{append([]string{"schedule", "apply", "--every", "24h", "--offset", "24h"}, named...), "--offset"},
		{append([]string{"schedule", "apply", "--every", "90m0.5s"}, named...), "whole seconds"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--jitter", "-1s"}, named...), "--jitter"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--catch-up", "9s"}, named...), "--catch-up: must be 10s or more"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--note", strings.Repeat("n", 1001)}, named...), "--note"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--hold-timeout", "0s"}, named...), "--hold-timeout: must be more than 0"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--concurrency", "65"}, named...), "--concurrency"},
		{append([]string{"watch", "--fleet"}, named...), "--cluster and --fleet cannot be used together"},
		{append([]string{"watch", "--workflow-id", "x"}, named...), "--cluster and --workflow-id cannot be used together"},
		{append([]string{"watch", "--fleet", "--workflow-id", "x"}, "--connection", "berlin"), "--connection and --workflow-id cannot be used together"},
		{append([]string{"report", "--each-cluster", "-o", "csv"}, named...), "--each-cluster requires --fleet"},
		{[]string{"watch"}, "--cluster, --deployment or --fleet is required"},
		{[]string{"watch", "--fleet", "--connection", "a:b"}, "--connection: " + workflows.ConnectionRule},
		{[]string{"report", "--fleet", "--each-cluster"}, "--each-cluster requires -o csv or -o json"},
		{[]string{"approve", "--fleet"}, "unknown flag"},
		{append([]string{"rotate", "--fleet"}, named...), "--cluster and --fleet cannot be used together"},
		{[]string{"rotate", "--fleet", "--expected-targets", "3"}, "--expected-targets and --fleet cannot be used together"},
		{[]string{"rotate", "--fleet", "--projects", testProject + ",5196"}, `--projects: "5196" must be 24 hex digits`},
		{[]string{"rotate", "--fleet", "--cluster-names", "orders("}, "--cluster-names: must be a regular expression"},
		{[]string{"rotate", "--fleet", "--clusters-at-a-time", "0"}, "--clusters-at-a-time: must be 1 to 100"},
		{[]string{"rotate", "--fleet", "--clusters-at-a-time", "101"}, "--clusters-at-a-time: must be 1 to 100"},
		{[]string{"rotate", "--fleet", "--max-failed-clusters", "-1"}, "--max-failed-clusters"},
		{[]string{"rotate", "--fleet", "--on-failure", "retry"}, "--on-failure: must be one of"},
		{[]string{"rotate", "--fleet", "--hold-timeout", "0s"}, "--hold-timeout: must be more than 0"},
		{[]string{"rotate", "--fleet", "-o", "csv"}, "--wait"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--clusters-at-a-time", "4"}, named...), "--cluster and --clusters-at-a-time cannot be used together"},
		{[]string{"schedule", "apply", "--fleet", "--cron", "@daily", "--expected-targets", "4"}, "--expected-targets and --fleet cannot be used together"},
		{[]string{"schedule", "apply", "--fleet", "--cron", "@daily", "--projects", "x"}, "--projects"},
		{[]string{"schedule", "show", "--fleet", "--id", "x"}, "--fleet and --id cannot be used together"},
		{[]string{"rotate", "--fleet", "--continue", "--exclude-projects", testProject}, "--continue and --exclude-projects cannot be used together"},
		{[]string{"rotate", "--fleet", "--exclude-projects", "x"}, "--exclude-projects"},
		{[]string{"fleet"}, `unknown command "fleet"`},
		{[]string{"watch", "--deployment"}, "--deployment requires --project or --fleet"},
		{[]string{"approve", "--project", testProject}, "--cluster or --deployment is required"},
		{[]string{"rotate", "--deployment", "--project", "5196"}, "--project: must be 24 hex digits"},
		{[]string{"rotate", "--deployment", "--fleet", "--project", testProject}, "--fleet and --project cannot be used together"},
		{[]string{"rotate", "--deployment", "--fleet", "--cluster-names", "^orders"}, "--cluster-names and --deployment cannot be used together"},
		{[]string{"rotate", "--deployment", "--fleet", "--allow-unserved"}, "--allow-unserved and --deployment cannot be used together"},
		{[]string{"rotate", "--deployment", "--fleet", "--cluster", testCluster}, "--cluster and --fleet cannot be used together"},
		{[]string{"rotate", "--deployment", "--fleet", "--continue", "--projects", testProject}, "--continue and --projects cannot be used together"},
		{[]string{"rotate", "--deployment", "--clusters-at-a-time", "2"}, "--deployment requires --project or --fleet"},
		{[]string{"rotate", "--deployment", "--project", testProject, "--max-failed-clusters", "2"}, "--max-failed-clusters and --project cannot be used together"},
		{append([]string{"watch", "--deployment"}, named...), "--cluster and --deployment cannot be used together"},
		{append([]string{"rotate", "--deployment", "--cluster", "5196"}, named...), `--cluster: "5196" must be 24 hex digits`},
		{append([]string{"rotate", "--cluster", testCluster}, named...), "--cluster: give one ID; only --deployment takes several"},
		{append([]string{"rotate", "--deployment", "--continue"}, named...), "a continued rotation keeps its clusters"},
		{append([]string{"rotate", "--deployment", "--continue-from", "x"}, named...), "a continued rotation keeps its clusters"},
		{append([]string{"rotate", "--deployment", "--verify-timeout", "1m"}, named...), "--deployment and --verify-timeout cannot be used together"},
		{append([]string{"plan", "--deployment", "--allow-unserved"}, named...), "--allow-unserved and --deployment cannot be used together"},
		{append([]string{"rotate", "--deployment", "--proof", "none"}, named...), "--proof: must be one of agent, snapshot, kmip"},
		{append([]string{"rotate", "--deployment", "--proof-timeout", "0s"}, named...), "--proof-timeout: must be more than 0"},
		{append([]string{"rotate", "--proof", "agent"}, named...), "--proof requires --deployment"},
		{[]string{"rotate", "--fleet", "--deploy-timeout", "1h"}, "--deploy-timeout requires --deployment"},
		{[]string{"schedule", "apply", "--deployment", "--project", testProject, "--cron", "@daily", "--projects", testProject}, "--project and --projects cannot be used together"},
		{[]string{"schedule", "show", "--deployment", "--id", "x"}, "--deployment and --id cannot be used together"},
		{append([]string{"rotate", "--resume"}, named...), "unknown flag: --resume"},
		{[]string{"report", "--fleet", "--clusters"}, "unknown flag: --clusters"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--dry-run"}, named...), "unknown flag: --dry-run"},
		{append([]string{"schedule", "apply", "--every", "90 days"}, named...), `must be a duration such as "15m", "1h30m" or "90d"`},
	} {
		code, stdout, stderr := runHere(t, []string{"TEMPORAL_ADDRESS=127.0.0.1:1"}, nil, test.args...)
		assert.Equal(t, exitUsage, code)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, test.want)
		assert.Equal(t, 1, strings.Count(stderr, "\n"))
	}
}
