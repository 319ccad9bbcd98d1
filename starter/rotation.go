package main

import (
	"cmp"
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

	"keyturn/internal/temporalclient"
	"keyturn/opsmanager"
	"keyturn/workflows"
)

// rotationName names a rotation on the command line: that of a cluster, of a
// project's deployments, or of a fleet of either.
type rotationName struct {
	connection, project, cluster string
	// displayName is the cluster's, if that was given instead of its ID.
	displayName string

	deployment bool // with fleet: those of its projects
	fleet      bool
	id         string // the workflow ID, if it is not the rotation's own
}

// addFlags adds the flags that name a rotation with targets.
func (n *rotationName) addFlags(command *cobra.Command) {
	n.addTargetFlags(command)
	command.MarkFlagsOneRequired("cluster", "deployment")
}

// addFlagsOrFleet adds the flags that name a rotation of any kind.
func (n *rotationName) addFlagsOrFleet(a *app, command *cobra.Command) {
	n.addTargetFlags(command)
	n.addFleetFlag(command)
	command.MarkFlagsOneRequired("cluster", "deployment", "fleet")
	command.Flags().StringVar(&n.id, "workflow-id", "", "with --fleet: the workflow ID, if a schedule started the fleet or if it was started under a custom ID")
	for _, other := range []string{"project", "cluster", "connection"} {
		command.MarkFlagsMutuallyExclusive("workflow-id", other)
	}
	must(command.RegisterFlagCompletionFunc("workflow-id", a.completeIDs((*session).fleetIDs)))
}

// addStartFlags adds the flags that name what to rotate. With --deployment, clusters
// are a part of it.
func (n *rotationName) addStartFlags(command *cobra.Command, clusters *[]string) {
	n.addCommonFlags(command.Flags())
	command.Flags().Var(&clusterFlag{n, clusters}, "cluster", "ID or unique display name of the sharded cluster or replica set; with --deployment, rotate only this cluster: IDs are comma-separated or repeated (default every encrypted cluster of the project)")
	n.addFleetFlag(command)
	command.MarkFlagsOneRequired("cluster", "deployment", "fleet")
}

// addTargetFlags adds the flags that name a rotation with targets, whatever is
// rotated.
func (n *rotationName) addTargetFlags(command *cobra.Command) {
	n.addCommonFlags(command.Flags())
	command.Flags().StringVar(&n.cluster, "cluster", "", "ID or unique display name of the sharded cluster or replica set")
	command.MarkFlagsMutuallyExclusive("cluster", "deployment")
}

func (n *rotationName) addFleetFlag(command *cobra.Command) {
	command.Flags().BoolVar(&n.fleet, "fleet", false, "the connection's fleet, instead of --project and --cluster; with --deployment, the connection's fleet of deployments")
	for _, other := range []string{"project", "cluster"} {
		command.MarkFlagsMutuallyExclusive("fleet", other)
	}
}

func (n *rotationName) addCommonFlags(flags *pflag.FlagSet) {
	flags.StringVar(&n.project, "project", "", "ID of the Ops Manager project, 24 hex digits")
	flags.BoolVar(&n.deployment, "deployment", false, "the deployments of --project, whose keys protect the data and snapshots of current MongoDB versions, instead of a cluster's backup")
	flags.StringVar(&n.connection, "connection", workflows.DefaultConnection, "name of the Ops Manager connection configured in the worker")
}

// clusterFlag takes one ID or several.
type clusterFlag struct {
	name *rotationName
	all  *[]string
}

// Set implements [pflag.Value].
func (f *clusterFlag) Set(text string) error {
	f.name.cluster = text
	*f.all = append(*f.all, strings.Split(text, ",")...)
	return nil
}

// String implements [pflag.Value].
func (f *clusterFlag) String() string {
	if f.all == nil { // pflag asks a zero value for its default
		return ""
	}
	return strings.Join(*f.all, ",")
}

// Type implements [pflag.Value]; the help shows it.
func (f *clusterFlag) Type() string { return "strings" }

func (n rotationName) check() error {
	switch {
	case n.id != "" && !n.fleet:
		return usageErrorf("--workflow-id requires --fleet")
	case n.fleet:
	case n.deployment && n.project == "":
		return usageErrorf("--deployment requires --project or --fleet")
	case n.project == "":
		return usageErrorf("--cluster requires --project")
	case !opsmanager.ValidID(n.project):
		return usageErrorf("--project: must be 24 hex digits")
	case !n.deployment && !opsmanager.ValidID(n.cluster):
		return usageErrorf("--cluster: must be 24 hex digits")
	}
	if !workflows.ValidConnection(n.connection) {
		return usageErrorf("--connection: %s", workflows.ConnectionRule)
	}
	return nil
}

func (n rotationName) workflowID() string {
	return cmp.Or(n.id, n.kind().workflowID(n))
}

// flags are the flags that name the rotation, for a command shown to the user.
func (n rotationName) flags() []string {
	words := n.kind().flags(n)
	if n.id != "" {
		return append(words, "--workflow-id", n.id)
	}
	if n.connection != workflows.DefaultConnection {
		words = append(words, "--connection", n.connection)
	}
	return words
}

// commandLine is a command for the same rotation, ready to be pasted.
func (a *app) commandLine(command string, more ...string) string {
	return a.commandLineFor(a.rotation, command, more...)
}

func (a *app) commandLineFor(name rotationName, command string, more ...string) string {
	return a.shellLine(append([]string{command}, name.flags()...), more...)
}

// shellLine is a command line for the same Temporal, whose flags come before
// more.
func (a *app) shellLine(words []string, more ...string) string {
	words = slices.Concat([]string{programName}, words, a.server.flags(), more)
	for i, word := range words {
		words[i] = shellWord(word)
	}
	return strings.Join(words, " ")
}

var unquotedWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

func shellWord(word string) string {
	if unquotedWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// exampleFor is the example of a command that takes a cluster.
func exampleFor(command, flags string) string {
	return strings.TrimRight("  "+programName+" "+command+" --project 5196d3628d022db4cbc26d9e \\\n    --cluster 5196e5b0e4b0fca9cc88334a "+flags, " ")
}

// describe describes a run of the rotation; an empty run ID is the latest run.
func (a *app) describe(ctx context.Context, s *session, runID string) (*workflowpb.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	id := a.rotation.workflowID()
	described, err := s.DescribeWorkflowExecution(ctx, id, runID)
	switch {
	case isNotFound(err) && runID != "":
		return nil, noRunErrorf("workflow %s has no run %s in namespace %q: check --run-id; runs past Temporal's retention are gone", id, runID, s.namespace)
	case isNotFound(err):
		return nil, noRunErrorf("workflow %s does not exist in namespace %q: %s%s, or its last rotation is past Temporal's retention",
			id, s.namespace, a.rotation.kind().neverRotated, a.rotation.underThisID())
	case err != nil:
		return nil, s.explain(err)
	}
	info := described.GetWorkflowExecutionInfo()
	if found := info.GetType().GetName(); found != a.rotation.kind().workflowType {
		return nil, fmt.Errorf("workflow %s has type %s, want %s: check --workflow-id", id, found, a.rotation.kind().workflowType)
	}
	return info, nil
}

// noRunError reports that Temporal has no such run, or has it no longer.
type noRunError struct{ problem string }

func (e *noRunError) Error() string { return e.problem }

func noRunErrorf(format string, args ...any) error { return &noRunError{fmt.Sprintf(format, args...)} }

// underThisID mentions the fleets that have other workflow IDs.
func (n rotationName) underThisID() string {
	if !n.fleet || n.id != "" {
		return ""
	}
	return " under this ID (for a fleet that a schedule started, give the --workflow-id that keyturn schedule show prints)"
}

func isRunning(info *workflowpb.WorkflowExecutionInfo) bool {
	return info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// progress queries a run for its progress; an empty run ID is the latest run.
func (s *session) progress(ctx context.Context, name rotationName, runID string) (statusView, error) {
	answer, err := s.QueryWorkflow(ctx, name.workflowID(), runID, workflows.ProgressQuery)
	if err != nil {
		return nil, err
	}
	progress := name.newStatus()
	if err := answer.Get(progress.value()); err != nil {
		return nil, fmt.Errorf("cannot read the progress: %w", err)
	}
	return progress, nil
}

// explainQuery explains why a query failed. Workers answer queries.
func (s *session) explainQuery(err error, taskQueue string) error {
	var failed *serviceerror.QueryFailed
	if errors.As(err, &failed) {
		return fmt.Errorf("the workflow cannot answer the query: %w", err)
	}
	switch temporalclient.CodeOf(err) {
	case codes.FailedPrecondition, codes.DeadlineExceeded:
		return fmt.Errorf("no worker answers the query: start a worker on task queue %q", taskQueue)
	}
	return s.explain(err)
}

// must panics on an error that only a bug in this program can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// mustHave is must for a call that returns a value.
func mustHave[T any](value T, err error) T {
	must(err)
	return value
}
