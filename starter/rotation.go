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

// rotationName is what names a rotation on the command line.
type rotationName struct{ connection, project, cluster string }

func (n *rotationName) addFlags(command *cobra.Command) {
	n.define(command.Flags(), " (required)")
	for _, required := range []string{"project", "cluster"} {
		must(command.MarkFlagRequired(required))
	}
}

func (n *rotationName) define(flags *pflag.FlagSet, remark string) {
	flags.StringVar(&n.project, "project", "", "id of the Ops Manager project, 24 hex digits"+remark)
	flags.StringVar(&n.cluster, "cluster", "", "id of the sharded cluster or replica set, 24 hex digits"+remark)
	flags.StringVar(&n.connection, "connection", workflows.DefaultConnection, "the Ops Manager, by the name that the worker knows it under")
}

func (n rotationName) check() error {
	switch {
	case !opsmanager.ValidID(n.project):
		return wrongUse("--project: must be 24 hex digits")
	case !opsmanager.ValidID(n.cluster):
		return wrongUse("--cluster: must be 24 hex digits")
	case !workflows.ValidConnection(n.connection):
		return wrongUse("--connection: %s", workflows.ConnectionRule)
	}
	return nil
}

func (n rotationName) workflowID() string {
	return workflows.RotateClusterID(n.connection, n.project, n.cluster)
}

// commandLine is a command for the same rotation, to be copied by the user.
func (a *app) commandLine(command string, more ...string) string {
	return a.commandLineFor(a.rotation, command, more...)
}

func (a *app) commandLineFor(name rotationName, command string, more ...string) string {
	words := []string{command, "--project", name.project, "--cluster", name.cluster}
	if name.connection != workflows.DefaultConnection {
		words = append(words, "--connection", name.connection)
	}
	return a.shellLine(words, more...)
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
		return nil, fmt.Errorf("there is no workflow %s%s in namespace %q: no rotation of this cluster was started, or it is past Temporal's retention",
			id, ofRun(runID), s.namespace)
	case err != nil:
		return nil, s.explain(err)
	}
	return described.GetWorkflowExecutionInfo(), nil
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

// queryProgress asks a run for its progress.
func (a *app) queryProgress(ctx context.Context, s *session, runID string) (*workflows.Progress, error) {
	return s.progress(ctx, a.rotation, runID)
}

func (s *session) progress(ctx context.Context, name rotationName, runID string) (*workflows.Progress, error) {
	answer, err := s.QueryWorkflow(ctx, name.workflowID(), runID, workflows.ProgressQuery)
	if err != nil {
		return nil, err
	}
	var progress workflows.Progress
	if err := answer.Get(&progress); err != nil {
		return nil, fmt.Errorf("the progress can't be read: %w", err)
	}
	return &progress, nil
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
