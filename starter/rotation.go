package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"google.golang.org/grpc/codes"

	"keyturn/opsmanager"
	"keyturn/workflows"
)

// rotationName is what names a rotation on the command line: that of a cluster,
// or of a fleet.
type rotationName struct {
	connection, project, cluster string

	fleet bool
	id    string // of a fleet that was started under another id than its own
}

func (n *rotationName) addFlags(command *cobra.Command) {
	n.define(command.Flags(), " (required)")
	for _, required := range []string{"project", "cluster"} {
		must(command.MarkFlagRequired(required))
	}
}

// addFlagsOrFleet adds the flags that name a rotation of either kind.
func (a *app) addFlagsOrFleet(command *cobra.Command) {
	n := &a.rotation
	n.define(command.Flags(), "")
	n.defineFleet(command)
	command.MarkFlagsOneRequired("cluster", "fleet")
	command.MarkFlagsRequiredTogether("project", "cluster")
	command.Flags().StringVar(&n.id, "workflow-id", "", "with --fleet: the fleet's workflow id, if a schedule has started it, or somebody under an id of their own")
	for _, other := range []string{"project", "cluster", "connection"} {
		command.MarkFlagsMutuallyExclusive("workflow-id", other)
	}
	must(command.RegisterFlagCompletionFunc("workflow-id", a.completeIDs((*session).fleetIDs)))
}

func (n *rotationName) defineFleet(command *cobra.Command) {
	command.Flags().BoolVar(&n.fleet, "fleet", false, "the fleet's rotation (see starter fleet), instead of --project and --cluster")
	command.MarkFlagsMutuallyExclusive("fleet", "project")
	command.MarkFlagsMutuallyExclusive("fleet", "cluster")
}

func (n *rotationName) define(flags *pflag.FlagSet, remark string) {
	flags.StringVar(&n.project, "project", "", "id of the Ops Manager project, 24 hex digits"+remark)
	flags.StringVar(&n.cluster, "cluster", "", "id of the sharded cluster or replica set, 24 hex digits"+remark)
	n.defineConnection(flags)
}

func (n *rotationName) defineConnection(flags *pflag.FlagSet) {
	flags.StringVar(&n.connection, "connection", workflows.DefaultConnection, "the Ops Manager, by the name that the worker knows it under")
}

func (n rotationName) check() error {
	switch {
	case n.id != "" && !n.fleet:
		return wrongUse("--workflow-id: goes with --fleet only")
	case !n.fleet && !opsmanager.ValidID(n.project):
		return wrongUse("--project: must be 24 hex digits")
	case !n.fleet && !opsmanager.ValidID(n.cluster):
		return wrongUse("--cluster: must be 24 hex digits")
	case !workflows.ValidConnection(n.connection):
		return wrongUse("--connection: %s", workflows.ConnectionRule)
	}
	return nil
}

func (n rotationName) workflowID() string {
	switch {
	case n.id != "":
		return n.id
	case n.fleet:
		return workflows.RotateFleetID(n.connection)
	default:
		return workflows.RotateClusterID(n.connection, n.project, n.cluster)
	}
}

func (n rotationName) workflowType() string {
	if n.fleet {
		return workflows.RotateFleetType
	}
	return workflows.RotateClusterType
}

// kind is what is rotated, in a word.
func (n rotationName) kind() string {
	if n.fleet {
		return "fleet"
	}
	return "cluster"
}

// asGiven repeats the flags for a command that is shown to the user.
func (n rotationName) asGiven() []string {
	words := []string{"--project", n.project, "--cluster", n.cluster}
	switch {
	case n.id != "":
		return []string{"--fleet", "--workflow-id", n.id}
	case n.fleet:
		words = []string{"--fleet"}
	}
	if n.connection != workflows.DefaultConnection {
		words = append(words, "--connection", n.connection)
	}
	return words
}

// commandLine is a command for the same rotation, to be copied by the user.
func (a *app) commandLine(command string, more ...string) string {
	return a.commandLineFor(a.rotation, command, more...)
}

func (a *app) commandLineFor(name rotationName, command string, more ...string) string {
	return a.shellLine(append([]string{command}, name.asGiven()...), more...)
}

// shellLine is a command line of the starter for the same Temporal, whose flags
// stand before more.
func (a *app) shellLine(words []string, more ...string) string {
	words = slices.Concat([]string{"starter"}, words, a.server.asGiven(), more)
	for i, word := range words {
		words[i] = shellWord(word)
	}
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// describe tells of a run of the rotation; an empty run id is the latest one.
func (a *app) describe(ctx context.Context, s *session, runID string) (*workflowpb.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	id := a.rotation.workflowID()
	described, err := s.DescribeWorkflowExecution(ctx, id, runID)
	switch {
	case isNotFound(err):
		return nil, fmt.Errorf("there is no workflow %s%s in namespace %q: no rotation of this %s was started%s, or it is past Temporal's retention",
			id, ofRun(runID), s.namespace, a.rotation.kind(), a.rotation.underThisID())
	case err != nil:
		return nil, s.explain(err)
	}
	info := described.GetWorkflowExecutionInfo()
	if found := info.GetType().GetName(); found != a.rotation.workflowType() {
		return nil, fmt.Errorf("workflow %s is a %s, no %s", id, found, a.rotation.workflowType())
	}
	return info, nil
}

// underThisID reminds of the fleets that have other ids.
func (n rotationName) underThisID() string {
	if !n.fleet || n.id != "" {
		return ""
	}
	return " under this id (one that a schedule has started needs --workflow-id, see starter schedule show)"
}

func ofRun(runID string) string {
	if runID == "" {
		return ""
	}
	return " with run " + runID
}

func isRunning(info *workflowpb.WorkflowExecutionInfo) bool {
	return info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// progress asks a run for its progress; an empty run id is the latest one.
func (s *session) progress(ctx context.Context, name rotationName, runID string) (account, error) {
	answer, err := s.QueryWorkflow(ctx, name.workflowID(), runID, workflows.ProgressQuery)
	if err != nil {
		return nil, err
	}
	progress := name.newAccount()
	if err := answer.Get(progress); err != nil {
		return nil, fmt.Errorf("the progress can't be read: %w", err)
	}
	return progress, nil
}

// unanswered explains why a query, or an update, had no answer of the workflow:
// it is a worker that gives it.
func (s *session) unanswered(err error, taskQueue string) error {
	var failed *serviceerror.QueryFailed
	if errors.As(err, &failed) {
		return fmt.Errorf("the workflow can't answer: %w", err)
	}
	switch codeOf(err) {
	case codes.FailedPrecondition, codes.DeadlineExceeded:
		return fmt.Errorf("no worker answers for the workflow: is a worker running on task queue %q?", taskQueue)
	}
	return s.explain(err)
}

// must is for errors that only a mistake in this program can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
