package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"keyturn/testsuite/programs"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// hint is something to try: what it shows, and the commands that do it.
type hint struct {
	shows    string
	commands []string
}

// hints tell where to look, and what to try next.
func (s *sandbox) hints(ctx context.Context) string {
	var b strings.Builder
	b.WriteString("\nWhere to look\n")
	for _, cluster := range s.clusters {
		fmt.Fprintf(&b, "  %-12s %s\n", cluster.Name, s.webPage(ctx, cluster))
	}
	fmt.Fprintf(&b, "  %-12s %s\n", "Ops Manager", s.om.Address)
	fmt.Fprintf(&b, "  %-12s %s/simulator/ledger: the keys, and the PUTs that have changed them\n", "ledger", s.om.Address)
	fmt.Fprintf(&b, "  %-12s %s\n", "worker's log", s.folder.workerLog())
	b.WriteString("\nWhat to try next, in another terminal\n")
	for _, hint := range s.thingsToTry() {
		fmt.Fprintf(&b, "\n%s:\n", hint.shows)
		for _, command := range hint.commands {
			fmt.Fprintf(&b, "  %s\n", command)
		}
	}
	return b.String()
}

// webPage is the rotation's page in the Web UI.
func (s *sandbox) webPage(ctx context.Context, cluster simulator.ShardedCluster) string {
	page := fmt.Sprintf("%s/namespaces/%s/workflows/%s", s.temporal.UIAddress, s.temporal.Namespace, url.PathEscape(workflowID(cluster)))
	temporal, err := s.temporal.Dial(ctx)
	if err != nil {
		return page
	}
	defer temporal.Close()
	described, err := temporal.DescribeWorkflowExecution(ctx, workflowID(cluster), "")
	if err != nil {
		return page
	}
	return page + "/" + described.GetWorkflowExecutionInfo().GetExecution().GetRunId() + "/history"
}

func workflowID(cluster simulator.ShardedCluster) string {
	return workflows.RotateClusterID(workflows.DefaultConnection, cluster.ProjectID, cluster.ID)
}

// thingsToTry can be tried in this order; each but the first can be by itself.
func (s *sandbox) thingsToTry() []hint {
	cluster := s.clusters[0]
	return []hint{
		{"First, so that the commands find the sandbox", s.preparations()},
		{"What would be rotated, with the keys of now; nothing is changed", []string{starterCommand("plan", cluster)}},
		{"Another rotation, and its records", []string{
			starterCommand("rotate", cluster, "--wait"),
			starterCommand("report", cluster, "-o", "json"),
		}},
		{"The same without the starter, as any Temporal client can", []string{
			s.temporalCommand("start", "--type", workflows.RotateClusterType, "--task-queue", workflows.DefaultTaskQueue,
				"--workflow-id", workflowID(cluster), "--input", inputFor(cluster)),
			starterCommand("watch", cluster),
			s.temporalCommand("query", "--workflow-id", workflowID(cluster), "--type", workflows.ProgressQuery),
		}},
		{"A failure: Ops Manager refuses one PUT, the rotation is held (exit status 3), an operator has it retried", []string{
			s.faultCommand(cluster),
			// After an operator's retry, the key is read for the settle time
			// first: half a minute, if it isn't set.
			starterCommand("rotate", cluster, "--wait", "--settle-time", "2s"),
			starterCommand("retry", cluster, "--by", "operator"),
			starterCommand("watch", cluster),
		}},
		{"A second worker beside the first", []string{"go run ./worker"}},
	}
}

// preparations are commands for the shell's own environment.
func (s *sandbox) preparations() []string {
	commands := []string{"cd " + shellWord(s.root)}
	temporal, opsManager := s.temporalVariables(), s.opsManagerVariables()
	if misleading := misleadingVariables(os.Environ(), append(temporal, opsManager...)); len(misleading) > 0 {
		commands = append(commands, "unset "+strings.Join(misleading, " "))
	}
	return append(commands, exportCommand(temporal), exportCommand(opsManager))
}

// misleadingVariables are those of the user's that would lead the commands
// elsewhere, and that no export replaces.
func misleadingVariables(environment []string, exported []programs.Variable) (names []string) {
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		isExported := slices.ContainsFunc(exported, func(v programs.Variable) bool { return v.Name == name })
		if programs.LeadsElsewhere(name) && !isExported {
			names = append(names, name)
		}
	}
	return names
}

func exportCommand(variables []programs.Variable) string {
	words := []string{"export"}
	for _, v := range variables {
		words = append(words, v.Name+"="+shellWord(v.Value))
	}
	return strings.Join(words, " ")
}

func starterCommand(command string, cluster simulator.ShardedCluster, more ...string) string {
	return commandLine(append(append([]string{"go", "run", "./starter"}, rotationArguments(command, cluster)...), more...)...)
}

func (s *sandbox) temporalCommand(words ...string) string {
	return commandLine(append([]string{s.executable, "workflow"}, words...)...)
}

func (s *sandbox) faultCommand(cluster simulator.ShardedCluster) string {
	return commandLine("curl", "-sS", "--noproxy", loopback, "-d", jsonOf(refusalFor(cluster)), s.om.Address+"/simulator/faults")
}

// refusalFor is a fault that no retry mends, met once: by the second target's
// PUT, so that the first one is seen to stay verified.
func refusalFor(cluster simulator.ShardedCluster) simulator.Fault {
	return simulator.Fault{
		Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: cluster.TargetIDs()[1], Apply: simulator.ApplyNo,
		Status: http.StatusForbidden, Body: `{"error":403,"errorCode":"IP_ADDRESS_NOT_ON_ACCESS_LIST"}`,
	}
}

func inputFor(cluster simulator.ShardedCluster) string {
	return jsonOf(workflows.RotateClusterInput{ProjectID: cluster.ProjectID, ClusterID: cluster.ID})
}

// jsonOf is for values that have nothing in them that JSON lacks.
func jsonOf(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func commandLine(words ...string) string {
	shown := make([]string, len(words))
	for i, word := range words {
		shown[i] = shellWord(word)
	}
	return strings.Join(shown, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// shellWord is a word as a shell must be given it.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
