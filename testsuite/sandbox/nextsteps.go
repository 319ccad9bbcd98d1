package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/freeport"
)

// nextStep is something to try next: its purpose and its commands.
type nextStep struct {
	purpose  string
	commands []string
}

// nextStepsText shows the addresses of the sandbox and what to try next.
func (s *sandbox) nextStepsText(ctx context.Context) string {
	var b strings.Builder
	b.WriteString("\nAddresses\n")
	for _, r := range s.kind.rotations() {
		fmt.Fprintf(&b, "  %-12s %s\n", r.name, s.webPage(ctx, r.workflowID))
	}
	fmt.Fprintf(&b, "  %-12s %s\n", "Ops Manager", s.om.Address)
	fmt.Fprintf(&b, "  %-12s %s/simulator/ledger: keys and applied PUTs\n", "ledger", s.om.Address)
	fmt.Fprintf(&b, "  %-12s %s\n", "KMIP server", s.kmipAddress)
	fmt.Fprintf(&b, "  %-12s http://%s/metrics, and /readyz\n", "metrics", s.monitoring)
	fmt.Fprintf(&b, "  %-12s %s\n", "worker log", s.folder.workerLog())
	b.WriteString("\nNext steps, in another terminal\n")
	for _, step := range s.nextSteps() {
		fmt.Fprintf(&b, "\n%s:\n", step.purpose)
		for _, command := range step.commands {
			fmt.Fprintf(&b, "  %s\n", command)
		}
	}
	return b.String()
}

// webPage is the page of the last run of a workflow in the Web UI.
func (s *sandbox) webPage(ctx context.Context, workflowID string) string {
	page := fmt.Sprintf("%s/namespaces/%s/workflows/%s", s.temporal.UIAddress, s.temporal.Namespace, url.PathEscape(workflowID))
	temporal, err := s.temporal.Dial(ctx)
	if err != nil {
		return page
	}
	defer temporal.Close()
	described, err := temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	if err != nil {
		return page
	}
	return page + "/" + described.GetWorkflowExecutionInfo().GetExecution().GetRunId() + "/history"
}

// nextSteps can be run in this order. Each step except the first is optional.
func (s *sandbox) nextSteps() []nextStep {
	steps := []nextStep{{"Configure the shell for the sandbox", s.preparations()}}
	steps = append(steps, s.kind.nextSteps(s)...)
	steps = append(steps, nextStep{"Show what the ledger has recorded, check that nobody has changed it, and write it into one file", []string{
		keyturn("history"), keyturn("ledger", "verify"), keyturn("overdue"), keyturn("evidence") + " > evidence.html",
	}})
	return append(steps, nextStep{"Start a second worker", []string{"go run ./worker"}})
}

// preparations set the environment of the shell.
func (s *sandbox) preparations() []string {
	commands := []string{"cd " + shellWord(s.root)}
	temporal, opsManager, kmip, ledger := s.temporalVariables(), s.opsManagerVariables(), s.kmipVariables(), s.ledgerVariables()
	if conflicting := conflictingVariables(os.Environ(), slices.Concat(temporal, opsManager, kmip, ledger)); len(conflicting) > 0 {
		commands = append(commands, "unset "+strings.Join(conflicting, " "))
	}
	return append(commands, exportCommand(temporal), exportCommand(opsManager), exportCommand(kmip), exportCommand(ledger))
}

// conflictingVariables are variables in the user's environment that configure
// the programs and that no export replaces.
func conflictingVariables(environment []string, exported []childproc.Variable) (names []string) {
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		isExported := slices.ContainsFunc(exported, func(v childproc.Variable) bool { return v.Name == name })
		if childproc.IsKeyturnSetting(name) && !isExported {
			names = append(names, name)
		}
	}
	return names
}

func exportCommand(variables []childproc.Variable) string {
	words := []string{"export"}
	for _, v := range variables {
		words = append(words, v.Name+"="+shellWord(v.Value))
	}
	return strings.Join(words, " ")
}

// keyturn is a command of the command line, run from the sources.
func keyturn(arguments ...string) string {
	return commandLine(append([]string{"go", "run", "./starter"}, arguments...)...)
}

func (s *sandbox) temporalCommand(words ...string) string {
	return commandLine(append([]string{s.executable, "workflow"}, words...)...)
}

// controlCommand sends something to the simulated Ops Manager, besides its API.
func (s *sandbox) controlCommand(path string, body any) string {
	return commandLine("curl", "-sS", "--noproxy", freeport.Loopback, "-d", jsonOf(body), s.om.Address+"/simulator/"+path)
}

// jsonOf is for values that JSON can always represent.
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

// shellWord quotes a word for a shell.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
