package main

import (
	"strings"
	"testing"

	"keyturn/internal/version"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

func TestHelpTeaches(t *testing.T) {
	code, stdout, stderr := runHere(t, nil, nil, "--help")
	if code != exitDone || stderr != "" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	for _, want := range []string{"Exit codes:", "HELD", "Examples:", "rotate", "plan", "fleet", "watch", "report", "schedule", "approve", "reject", "pause", "resume", "retry", "skip", "abort", "completion"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the help does not speak of %q", want)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	if code, stdout, _ := runHere(t, nil, nil, "--version"); code != exitDone || !strings.Contains(stdout, version.String()) {
		t.Errorf("exit code %d, %q", code, stdout)
	}
}

func TestCompletionKnowsTheFormats(t *testing.T) {
	code, stdout, _ := runHere(t, nil, nil, "__complete", "report", "-o", "")
	if code != exitDone || !strings.HasPrefix(stdout, strings.Join(formats, "\n")) {
		t.Errorf("exit code %d, %q", code, stdout)
	}
}

// TestCompletionOffersFilesForFilesOnly: where an id or a name is wanted, the
// shell's own list of files would be no help.
func TestCompletionOffersFilesForFilesOnly(t *testing.T) {
	for _, line := range [][]string{
		{"report", "--cluster", ""}, {"skip", "--targets", ""}, {"pause", "--reason", ""}, {"fleet", "--cluster-names", ""}, {"watch", "--address", ""},
	} {
		if _, stdout, _ := runHere(t, nil, nil, append([]string{"__complete"}, line...)...); stdout != ":4\n" {
			t.Errorf("%q: got %q, want nothing, and no files", line, stdout)
		}
	}
	if _, stdout, _ := runHere(t, nil, nil, "__complete", "rotate", "--resume-from", ""); stdout != "json\n:8\n" {
		t.Errorf("got %q, want files of JSON", stdout)
	}
}

// TestTheUserCommandsByDefault: who commands is recorded without being asked.
func TestTheUserCommandsByDefault(t *testing.T) {
	a, _, _ := newTestApp()
	root := a.rootCommand()
	for _, command := range []string{"approve", "reject", "pause", "resume", "retry", "skip", "abort", "schedule pause", "schedule unpause"} {
		found, _, err := root.Find(strings.Fields(command))
		if err != nil {
			t.Fatal(err)
		}
		if by := found.Flag("by"); by == nil || by.Value.String() != a.user {
			t.Errorf("%s: --by is %v, want %q by default", command, by, a.user)
		}
	}
	for _, command := range []string{"rotate", "plan", "fleet", "schedule apply"} {
		found, _, _ := root.Find(strings.Fields(command))
		if by := found.Flag("requested-by"); by == nil || by.Value.String() != a.user {
			t.Errorf("%s: --requested-by is %v, want %q by default", command, by, a.user)
		}
	}
}

// TestWrongUse needs no server: nothing of it may get as far as that.
func TestWrongUse(t *testing.T) {
	named := []string{"--project", testProject, "--cluster", testCluster}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "a command is missing: see starter --help"},
		{[]string{"schedule"}, "a command is missing: see starter schedule --help"},
		{[]string{"rotat"}, "unknown command"},
		{[]string{"watch", "--nope"}, "unknown flag"},
		{[]string{"watch", "--project", testProject}, "[project cluster]"},
		{[]string{"watch", "--project", testProject, "--cluster", "5196"}, "--cluster: must be 24 hex digits"},
		{[]string{"pause", "--project", "../../groups/5196d3628d", "--cluster", testCluster}, "--project: must be 24 hex digits"},
		{append([]string{"rotate", "argument"}, named...), "unknown command"},
		{append([]string{"report", "-o", "xml"}, named...), "must be one of table, json, csv, markdown"},
		{append([]string{"report", "--run-id", "7"}, named...), "--run-id"},
		{append([]string{"rotate", "-o", "csv"}, named...), "--wait"},
		{append([]string{"rotate", "--on-failure", "retry"}, named...), "--on-failure: must be one of hold, continue, stop"},
		{append([]string{"rotate", "--concurrency", "0"}, named...), "--concurrency: must be 1 to 64"},
		{append([]string{"plan", "--concurrency", "65"}, named...), "--concurrency: must be 1 to 64"},
		{append([]string{"rotate", "--concurrency", "many"}, named...), "invalid argument"},
		{append([]string{"rotate", "--expected-targets", "-1"}, named...), "--expected-targets"},
		{append([]string{"rotate", "--settle-time", "0s"}, named...), "--settle-time: must be more than 0"},
		{append([]string{"rotate", "--hold-timeout", "3 days"}, named...), "invalid argument"},
		{append([]string{"rotate", "--task-queue", ""}, named...), "--task-queue"},
		{append([]string{"rotate", "--connection", ""}, named...), "--connection"},
		{append([]string{"watch", "--connection", "a:b"}, named...), "--connection: " + workflows.ConnectionRule},
		{append([]string{"rotate", "--resume", "--resume-from", "x"}, named...), "[resume resume-from]"},
		{append([]string{"rotate", "--resume-from", "/there/is/no.json"}, named...), "--resume-from"},
		{append([]string{"skip", "--by", "erin"}, named...), `"targets" not set`},
		{append([]string{"approve", "--by", " "}, named...), "--by"},
		{append([]string{"watch", "--profile", "nope"}, named...), "nope"},
		{[]string{"schedule", "aply"}, "unknown command"},
		{[]string{"schedule", "show"}, "[id cluster fleet]"},
		{[]string{"schedule", "delete", "--cluster", testCluster}, "[project cluster]"},
		{[]string{"schedule", "trigger", "--project", testProject, "--cluster", "5196"}, "--cluster: must be 24 hex digits"},
		{[]string{"schedule", "show", "--id", ""}, "--project: must be 24 hex digits"},
		{append([]string{"schedule", "show", "--id", "x"}, named...), "[id"},
		{[]string{"schedule", "pause", "--id", "x", "--by", " "}, "--by"},
		{[]string{"schedule", "apply", "--cron", "@daily"}, "[cluster fleet]"},
		{append([]string{"schedule", "apply"}, named...), "[cron every]"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--every", "24h"}, named...), "[cron every]"},
		{append([]string{"schedule", "apply", "--cron", "0 4 1 13 *"}, named...), `the month "13" must be 1 to 12`},
		{append([]string{"schedule", "apply", "--cron", "@every 24h"}, named...), "2 fields"},
		{append([]string{"schedule", "apply", "--cron", "CRON_TZ=Europe/Berlin 0 4 1 * *"}, named...), "--cron: "},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--time-zone", "Berlin"}, named...), `--time-zone: "Berlin"`},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--time-zone", "Local"}, named...), "--time-zone"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--time-zone", ""}, named...), "--time-zone"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--offset", "1h"}, named...), "--offset: goes with --every"},
		{append([]string{"schedule", "apply", "--every", "0s"}, named...), "--every: must be 1s or more"},
		{append([]string{"schedule", "apply", "--every", "24h", "--offset", "24h"}, named...), "--offset"},
		{append([]string{"schedule", "apply", "--every", "90m0.5s"}, named...), "whole seconds"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--jitter", "-1s"}, named...), "--jitter"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--catch-up", "9s"}, named...), "--catch-up: must be 10s or more"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--note", strings.Repeat("n", 1001)}, named...), "--note"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--hold-timeout", "0s"}, named...), "--hold-timeout: must be more than 0"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--concurrency", "65"}, named...), "--concurrency"},
		{append([]string{"watch", "--fleet"}, named...), "[fleet"},
		{append([]string{"watch", "--workflow-id", "x"}, named...), "[workflow-id"},
		{append([]string{"watch", "--fleet", "--workflow-id", "x"}, "--connection", "berlin"), "[workflow-id connection]"},
		{append([]string{"report", "--clusters", "-o", "csv"}, named...), "--clusters: goes with --fleet only"},
		{[]string{"watch"}, "[cluster fleet]"},
		{[]string{"watch", "--fleet", "--until-held"}, "[fleet until-held]"},
		{[]string{"watch", "--fleet", "--connection", "a:b"}, "--connection: " + workflows.ConnectionRule},
		{[]string{"report", "--fleet", "--clusters"}, "--clusters: goes with -o csv or -o json only"},
		{[]string{"approve", "--fleet"}, "unknown flag"},
		{[]string{"fleet", "--project", testProject}, "unknown flag"},
		{[]string{"fleet", "--expected-targets", "3"}, "unknown flag"},
		{[]string{"fleet", "--projects", testProject + ",5196"}, `--projects: "5196" must be 24 hex digits`},
		{[]string{"fleet", "--cluster-names", "orders("}, "--cluster-names: must be a regular expression"},
		{[]string{"fleet", "--clusters-at-a-time", "0"}, "--clusters-at-a-time: must be 1 to 100"},
		{[]string{"fleet", "--clusters-at-a-time", "101"}, "--clusters-at-a-time: must be 1 to 100"},
		{[]string{"fleet", "--max-failed-clusters", "-1"}, "--max-failed-clusters"},
		{[]string{"fleet", "--on-failure", "retry"}, "--on-failure: must be one of"},
		{[]string{"fleet", "--hold-timeout", "0s"}, "--hold-timeout: must be more than 0"},
		{[]string{"fleet", "-o", "csv"}, "--wait"},
		{append([]string{"schedule", "apply", "--cron", "@daily", "--clusters-at-a-time", "4"}, named...), "[cluster clusters-at-a-time]"},
		{[]string{"schedule", "apply", "--fleet", "--cron", "@daily", "--expected-targets", "4"}, "[fleet expected-targets]"},
		{[]string{"schedule", "apply", "--fleet", "--cron", "@daily", "--projects", "x"}, "--projects"},
		{[]string{"schedule", "show", "--fleet", "--id", "x"}, "[id fleet]"},
	} {
		code, stdout, stderr := runHere(t, []string{"TEMPORAL_ADDRESS=127.0.0.1:1"}, nil, test.args...)
		if code != exitWrongUse || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, %q; want %d and one line with %q", test.args, code, stdout, stderr, exitWrongUse, test.want)
		}
	}
}
