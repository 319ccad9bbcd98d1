package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"keyturn/internal/temporalclient"
	"keyturn/opsmanager"
	"keyturn/workflows"
)

var onFailureValues = []string{string(workflows.OnFailureHold), string(workflows.OnFailureContinue), string(workflows.OnFailureStop)}

// startFlags are the flags of everything that starts a rotation: rotate, plan
// and schedule apply.
type startFlags struct {
	values    rotationInput // the defaults, until a flag is set
	onFailure string
	clusters  []string // of --cluster, which takes several for a deployment
	fleet     fleetFlags
	taskQueue string
	// fields are the input fields that a flag sets.
	fields []inputFlag
}

// inputFlag is a flag of one field of the input.
type inputFlag struct {
	name string
	copy func(to *rotationInput)
}

// rotationInput is the input of a rotation: that of its kind is used. A fleet has the
// values of both.
type rotationInput struct {
	cluster    workflows.RotateClusterInput
	deployment workflows.RotateDeploymentInput
}

// deploymentOnlyFlags are those that only rotations of deployments have.
var deploymentOnlyFlags = []string{"proof", "deploy-timeout", "proof-timeout"}

var proofValues = []string{string(workflows.ProofAgent), string(workflows.ProofSnapshot), string(workflows.ProofKMIP)}

// addPlanFlags adds the flags that apply to plans, too.
func (f *startFlags) addPlanFlags(a *app, command *cobra.Command) {
	a.rotation.addStartFlags(command, &f.clusters)
	f.fleet.addFlags(command)
	f.values = rotationInput{workflows.DefaultRotateClusterInput(), workflows.DefaultRotateDeploymentInput()}
	flags, v, d := command.Flags(), &f.values.cluster, &f.values.deployment
	flags.StringVar(&f.taskQueue, "task-queue", a.defaultTaskQueue(), "the worker's task queue ("+temporalclient.TaskQueueVariable+")")
	flags.IntVar(&v.Concurrency, "concurrency", v.Concurrency, fmt.Sprintf("targets of a cluster, or with --deployment replica sets, rotated in parallel, 1 to %d; the first one always runs alone (default %d, with --deployment %d)", workflows.MaxConcurrency, v.Concurrency, d.Concurrency))
	flags.Lookup("concurrency").DefValue = "0" // the text has both
	flags.IntVar(&v.ExpectedTargets, "expected-targets", 0, "expected number of targets; 0 = do not check")
	flags.BoolVar(&v.AllowUnserved, "allow-unserved", false, "rotate also on Ops Manager 8.0 or later, whose endpoint serves backups of FCV 4.0 or earlier only")
	flags.Var(&v.RetryTimeout, "retry-timeout", "how long to retry a target's transient errors")
	flags.StringVar(&v.Change.Ticket, "ticket", "", "change ticket to record")
	flags.StringVar(&v.Change.RequestedBy, "requested-by", a.user, "requester to record; the requester cannot approve")
	addReasonFlag(flags, &v.Change.Reason)
	flags.StringVar((*string)(&d.Proof), "proof", string(d.Proof), "deployment: what shows that the keys are new: agent = nothing does, the agents' reports are enough; snapshot = a later snapshot of each replica set; kmip = a snapshot, and the KMIP server's time of its key")
	completeWith(command, "proof", proofValues)
	command.MarkFlagsMutuallyExclusive("fleet", "expected-targets")
	command.MarkFlagsMutuallyExclusive("deployment", "allow-unserved")
	f.fields = append(f.fields, []inputFlag{
		{"concurrency", func(to *rotationInput) {
			to.cluster.Concurrency, to.deployment.Concurrency = v.Concurrency, v.Concurrency
		}},
		{"expected-targets", func(to *rotationInput) {
			to.cluster.ExpectedTargets, to.deployment.ExpectedTargets = v.ExpectedTargets, v.ExpectedTargets
		}},
		{"retry-timeout", func(to *rotationInput) {
			to.cluster.RetryTimeout, to.deployment.RetryTimeout = v.RetryTimeout, v.RetryTimeout
		}},
		{"allow-unserved", func(to *rotationInput) { to.cluster.AllowUnserved = v.AllowUnserved }},
		{"proof", func(to *rotationInput) { to.deployment.Proof = d.Proof }},
	}...)
}

// addRotateFlags adds the flags that do not apply to plans.
func (f *startFlags) addRotateFlags(command *cobra.Command) {
	flags, v, d := command.Flags(), &f.values.cluster, &f.values.deployment
	flags.BoolVar(&v.RequireApproval, "require-approval", false, "change nothing until someone else approves")
	flags.Var(&v.ApprovalTimeout, "approval-timeout", "how long to wait for approval")
	flags.StringVar(&f.onFailure, "on-failure", "", fmt.Sprintf("when a target fails for good: hold = start no new target, wait for an operator; continue = rotate the other targets, then fail; stop = start no new target, then fail (default %q, with --fleet %q)",
		v.OnFailure, workflows.DefaultRotateFleetInput().Rotation.OnFailure))
	flags.Var(&v.HoldTimeout, "hold-timeout", "how long a held rotation waits for an operator")
	flags.Var(&v.SettleTime, "settle-time", "after a PUT with an unknown outcome, how long the key must keep its old ID, or with --deployment the new time must be absent, before another PUT")
	flags.Var(&v.VerifyTimeout, "verify-timeout", "how long a new key may take to appear")
	flags.Var(&d.DeployTimeout, "deploy-timeout", "deployment: longest time without progress after a publication: no process restarts or reaches the configuration")
	flags.Var(&d.ProofTimeout, "proof-timeout", "deployment: how long to wait for the snapshot of a replica set after its last member has restarted")
	completeWith(command, "on-failure", onFailureValues)
	command.MarkFlagsMutuallyExclusive("deployment", "verify-timeout")
	f.fields = append(f.fields, []inputFlag{
		{"require-approval", func(to *rotationInput) {
			to.cluster.RequireApproval, to.deployment.RequireApproval = v.RequireApproval, v.RequireApproval
		}},
		{"approval-timeout", func(to *rotationInput) {
			to.cluster.ApprovalTimeout, to.deployment.ApprovalTimeout = v.ApprovalTimeout, v.ApprovalTimeout
		}},
		{"on-failure", func(to *rotationInput) {
			to.cluster.OnFailure, to.deployment.OnFailure = workflows.OnFailure(f.onFailure), workflows.OnFailure(f.onFailure)
		}},
		{"hold-timeout", func(to *rotationInput) {
			to.cluster.HoldTimeout, to.deployment.HoldTimeout = v.HoldTimeout, v.HoldTimeout
		}},
		{"settle-time", func(to *rotationInput) { to.cluster.SettleTime, to.deployment.SettleTime = v.SettleTime, v.SettleTime }},
		{"verify-timeout", func(to *rotationInput) { to.cluster.VerifyTimeout = v.VerifyTimeout }},
		{"deploy-timeout", func(to *rotationInput) { to.deployment.DeployTimeout = d.DeployTimeout }},
		{"proof-timeout", func(to *rotationInput) { to.deployment.ProofTimeout = d.ProofTimeout }},
	}...)
}

// input has the fields whose flags are set; the workflow's defaults apply to the
// others.
func (f *startFlags) input(name rotationName, flags *pflag.FlagSet) rotationInput {
	change := f.values.cluster.Change
	input := rotationInput{
		workflows.RotateClusterInput{ProjectID: name.project, ClusterID: name.cluster, Change: change},
		workflows.RotateDeploymentInput{ProjectID: name.project, ClusterIDs: f.clusters, Change: change},
	}
	if name.connection != workflows.DefaultConnection {
		input.cluster.Connection, input.deployment.Connection = name.connection, name.connection
	}
	for _, field := range f.fields {
		if flags.Changed(field.name) {
			field.copy(&input)
		}
	}
	return input
}

// check rejects values that the workflow would reject, before it is started.
func (f *startFlags) check(name rotationName, flags *pflag.FlagSet) error {
	for _, flag := range deploymentOnlyFlags {
		if !name.deployment && flags.Changed(flag) {
			return usageErrorf("--%s requires --deployment", flag)
		}
	}
	if !name.deployment && len(f.clusters) > 1 {
		return usageErrorf("--cluster: give one ID; only --deployment takes several")
	}
	for _, id := range f.clusters {
		if !opsmanager.ValidID(id) {
			return usageErrorf("--cluster: %q must be 24 hex digits", id)
		}
	}
	v := f.values.cluster
	switch {
	case v.Concurrency < 1 || v.Concurrency > workflows.MaxConcurrency:
		return usageErrorf("--concurrency: must be 1 to %d", workflows.MaxConcurrency)
	case v.ExpectedTargets < 0:
		return usageErrorf("--expected-targets: must not be negative")
	case flags.Changed("on-failure") && !slices.Contains(onFailureValues, f.onFailure):
		return usageErrorf("--on-failure: must be one of %s", strings.Join(onFailureValues, ", "))
	case !slices.Contains(proofValues, string(f.values.deployment.Proof)):
		return usageErrorf("--proof: must be one of %s", strings.Join(proofValues, ", "))
	case f.taskQueue == "":
		return usageErrorf("--task-queue: must not be empty")
	}
	for _, field := range f.fields {
		// In an input, zero is a field left out: the default would apply.
		if duration, isDuration := flags.Lookup(field.name).Value.(*workflows.Duration); isDuration && *duration <= 0 {
			return usageErrorf("--%s: must be more than 0", field.name)
		}
	}
	return f.fleet.check()
}

// startRequest is a workflow to start.
type startRequest struct {
	name      rotationName
	taskQueue string
	summary   string
	input     any
	// continues is the fleet that a fleet continues; nil = none.
	continues *workflows.ContinuedFleet
}

// arguments are those of the workflow.
func (r startRequest) arguments() []any {
	if r.continues == nil {
		return []any{r.input}
	}
	return []any{r.input, workflows.FleetContinuation{Continues: r.continues}}
}

// request is what the flags ask for.
func (f *startFlags) request(name rotationName, input rotationInput, flags *pflag.FlagSet) startRequest {
	if name.fleet {
		return f.fleetRequest(name, f.fleet.input(name, input, flags))
	}
	if name.deployment {
		return startRequest{name: name, taskQueue: f.taskQueue, summary: workflows.RotateDeploymentSummary(input.deployment), input: input.deployment}
	}
	named := input.cluster
	named.ClusterID = cmp.Or(name.displayName, named.ClusterID) // the workflow's ID has the cluster's
	return startRequest{name: name, taskQueue: f.taskQueue, summary: workflows.RotateClusterSummary(named), input: input.cluster}
}

func (f *startFlags) fleetRequest(name rotationName, input workflows.RotateFleetInput) startRequest {
	return startRequest{name: name, taskQueue: f.taskQueue, summary: workflows.RotateFleetSummary(input), input: input}
}

// rotateFlags are the flags of rotate.
type rotateFlags struct {
	startFlags
	wait      bool
	untilHeld bool
	from      continueFlags
}

func (a *app) rotateCommand() *cobra.Command {
	f := &rotateFlags{}
	command := &cobra.Command{
		Use:     "rotate",
		GroupID: groupRotate,
		Short:   "Rotate the master keys of a cluster, of deployments or of a fleet",
		Long:    rotateHelp,
		Example: rotateExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, command *cobra.Command) error {
		if err := cmp.Or(a.rotation.check(), a.checkOutput(f.wait), f.check(a.rotation, command.Flags()), f.from.check(a.rotation, f.clusters)); err != nil {
			return err
		}
		return a.rotate(ctx, f, command.Flags())
	})
	f.addPlanFlags(a, command)
	f.addRotateFlags(command)
	f.from.addFlags(command)
	a.format.addFlag(command)
	command.Flags().BoolVar(&f.wait, "wait", false, "follow progress until the rotation ends or waits for a person")
	addUntilHeld(command.Flags(), &f.untilHeld)
	return command
}

func (a *app) checkOutput(wait bool) error {
	if !wait && (a.format == formatCSV || a.format == formatMarkdown) {
		return usageErrorf("-o %s requires --wait: there are no records yet", a.format)
	}
	return nil
}

func (a *app) rotate(ctx context.Context, f *rotateFlags, flags *pflag.FlagSet) error {
	input := f.input(a.rotation, flags)
	err := a.continueFromFile(f.from, &input)
	if err == nil {
		err = a.withSession(ctx, func(s *session) error { return a.startRotation(ctx, s, f, input, flags) })
	}
	var nothingLeft *nothingLeftError
	if f.wait && errors.As(err, &nothingLeft) {
		return cmp.Or(a.write(nothingLeft.records, nothingLeft.records.result()), err)
	}
	return err
}

func (a *app) startRotation(ctx context.Context, s *session, f *rotateFlags, input rotationInput, flags *pflag.FlagSet) (err error) {
	if f.from.lastRun && !a.rotation.fleet {
		if err := a.continueFromLastRun(ctx, s, &input); err != nil {
			return err
		}
	}
	request := f.request(a.rotation, input, flags)
	if f.from.lastRun && a.rotation.fleet {
		if request, err = a.continuedFleet(ctx, s, f, f.fleet.input(a.rotation, input, flags), flags); err != nil {
			return err
		}
	}
	run, err := a.start(ctx, s, request)
	if err != nil {
		return err
	}
	if !f.wait {
		return a.showStarted(run)
	}
	return a.watch(ctx, s, watchOptions{runID: run.GetRunID(), taskQueue: request.taskQueue, untilHeld: f.untilHeld, view: a.newView()})
}

// start starts the only rotation of the cluster, or of the connection's fleet.
// It is an error if one is running.
func (a *app) start(ctx context.Context, s *session, request startRequest) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	run, err := s.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                                       request.name.workflowID(),
		TaskQueue:                                request.taskQueue,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            request.summary,
	}, request.name.kind().workflowType, request.arguments()...)
	var busy *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &busy):
		return nil, a.busy(busy.RunId)
	case err != nil:
		return nil, s.explain(err)
	}
	return run, nil
}

func (a *app) busy(runID string) error {
	busy := fmt.Errorf("%s is already running: workflow ID %s, run ID %s; watch it with", a.rotation.kind().rotation, a.rotation.workflowID(), runID)
	return withHint(busy, a.commandLine("watch"))
}

func (a *app) showStarted(run client.WorkflowRun) error {
	if a.format == formatJSON {
		return json.NewEncoder(a.stdout).Encode(struct {
			WorkflowID string `json:"workflowId"`
			RunID      string `json:"runId"`
		}{run.GetID(), run.GetRunID()})
	}
	return a.println("started", "  workflow ID  "+run.GetID(), "  run ID       "+run.GetRunID(),
		"watch it with", "  "+a.commandLine("watch"), "and see its records with", "  "+a.commandLine("report"))
}

const rotateHelp = `Starts the rotation of a cluster, with --deployment of a project's deployments,
or with --fleet of a fleet. While it is running, another rotation of the same
cluster, deployments or fleet fails with ClusterBusy.

For each target (a shard, a config server or a replica set), keyturn reads the
key's ID, sends one PUT to rotate it, and reads again until the new ID appears.
The first target runs alone; the others start when it is verified.

On Ops Manager 8.0 or later, the rotation fails with NotServed before anything
is rotated: the endpoint serves no backup of a MongoDB that it supports.
--allow-unserved rotates anyway. Such backups have the keys of the deployment:
use --deployment.

With --deployment, a target is a process: a mongod with KMIP encryption at rest.
For each replica set, keyturn publishes one time in the automation configuration
and changes nothing else in it. The agents restart the members, one after
another, with new keys. keyturn waits until each agent reports the configuration
and each member has restarted: the process is rotated. Then the next replica set
follows; the first one always runs alone. --proof says what else must show the
new key, for each replica set:

  snapshot  a snapshot that was begun after the last restart (default); its
            member becomes verified, and the others stay rotated
  kmip      a snapshot, and the KMIP server says that its key was made after
            the published time
  agent     nothing: the agents' reports are enough

Snapshots are taken hours apart: the rotation waits for them, up to
--proof-timeout, while it rotates the next replica sets. If one is missing then,
the outcome is rotatedUnproven. Nothing needs to be rotated again: this is a
warning with exit code 0, and --continue waits for the proof again. A script
that must have the proof looks at "outcome" of -o json.

--continue continues from the last run (plans do not count): targets that were
verified there are read once more and, if they still have that key, are not
rotated again. Processes are not rotated again while the configuration has the
time of that run for them, and the clusters are those of that run.
--continue-from does the same with a report saved by "keyturn report -o json".
If that run rotated every target, nothing is started, and the exit code is 0.
If the last run has ended and waits for its ledger, as after an abort,
--continue waits for it, for a minute at most.

A fleet rotates every cluster of --projects (default: all projects that the API
key can see) with a rotation of its own, under the cluster's own workflow ID. A
connection has one fleet at a time. Clusters that another rotation is rotating
count as busy, and those without an encrypted backup as not encrypted; neither
is a failure. After more than --max-failed-clusters failures, no new cluster
starts, those in progress finish, and the fleet fails; "keyturn report --fleet"
lists the failed clusters. A fleet that is started again rotates every cluster
again. With --continue, it rotates only the clusters that the connection's last
fleet did not rotate, and continues those that it rotated in part. It selects
the same clusters, and keeps the settings of the last fleet unless a flag
changes them.

With --fleet --deployment, a fleet rotates the deployments of every project, or
of --projects, each with a rotation of its own: read project where this help
says cluster. --clusters-at-a-time counts projects; each keeps its place until
its keys are proven, which takes up to --proof-timeout. Projects without
encryption at rest count as not encrypted. Such a fleet may run at the same time
as one of clusters, and --continue continues the last one of its kind.

--concurrency, --require-approval, --allow-unserved, --on-failure and the
timeouts apply to each cluster of a fleet. A cluster that is held or waits for
approval keeps its place among --clusters-at-a-time until an operator handles it
by its own IDs.

Flags that are not set are left out of the workflow's input, so the worker's
defaults apply; the defaults shown here are the same.

With --wait, the exit code is that of "keyturn watch".`

const rotateExamples = `  keyturn rotate --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a --ticket CHG0031337 --wait

  # Someone else must approve; expect 12 shards and a config server
  keyturn rotate --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a --require-approval --expected-targets 13

  # Continue where the last run failed
  keyturn rotate --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a --continue --wait

  # The deployments of a project; only two of its clusters
  keyturn rotate --deployment --project 5196d3628d022db4cbc26d9e --wait
  keyturn rotate --deployment --project 5196d3628d022db4cbc26d9e \
    --cluster 65a1f1aa0000000000000001,65a1f1aa0000000000000002 --concurrency 4

  # Every cluster that the API key can see
  keyturn rotate --fleet --ticket CHG0031337 --reason quarterly --wait

  # The clusters that the last fleet did not rotate
  keyturn rotate --fleet --continue --ticket CHG0031337 --wait

  # The deployments of every project, twenty at a time
  keyturn rotate --fleet --deployment --clusters-at-a-time 20 --wait

  # Clusters of one project whose names start with orders-, eight at a time;
  # stop after the third failure
  keyturn rotate --fleet --projects 5196d3628d022db4cbc26d9e \
    --cluster-names '^orders-' --clusters-at-a-time 8 --max-failed-clusters 2`
