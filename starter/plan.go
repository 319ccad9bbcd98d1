package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"keyturn/workflows"
)

func (a *app) planCommand() *cobra.Command {
	f := &startFlags{}
	command := &cobra.Command{
		Use:     "plan",
		GroupID: groupRotate,
		Short:   "Show what a rotation would rotate; changes nothing",
		Long: `Lists the targets of a cluster and reads the ID of each one's current key. With
--fleet, does so for every cluster of the fleet, and prints how many clusters
would be rotated and which ones would be left out; "keyturn report --fleet
--plan --each-cluster" then prints the targets of each cluster. Nothing is
changed.

With --deployment, lists the processes of a project's deployments, the time of
each one's last rotation, and its current key where a snapshot shows it. A plan
is refused for the same reasons as a rotation: a member that is down, a pinned
key identifier, a project that someone else manages. With --fleet --deployment,
does so for every project.

A plan is a dry run of the rotation under the same workflow ID: while that
rotation is running, it fails with ClusterBusy. "keyturn report --plan" shows
the last plan again.`,
		Example: exampleFor("plan", "") + "\n  keyturn plan --deployment --project 5196d3628d022db4cbc26d9e\n  keyturn plan --fleet\n  keyturn plan --fleet --deployment",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, command *cobra.Command) error {
		if err := cmp.Or(a.rotation.check(), f.check(a.rotation, command.Flags())); err != nil {
			return err
		}
		input := f.input(a.rotation, command.Flags())
		input.cluster.DryRun, input.deployment.DryRun = true, true
		err := a.withSession(ctx, func(s *session) error {
			return a.plan(ctx, s, f.request(a.rotation, input, command.Flags()))
		})
		if err == nil && a.rotation.fleet {
			fmt.Fprintf(a.stderr, "the targets of each rotation, with their current keys:\n  %s\n", a.commandLine("report", "--plan", "--each-cluster", "-o", "csv"))
		}
		return err
	})
	f.addPlanFlags(a, command)
	for name, usage := range planUsages {
		command.Flags().Lookup(name).Usage = usage
	}
	a.format.addFlag(command)
	return command
}

func (a *app) plan(ctx context.Context, s *session, request startRequest) error {
	run, err := a.start(ctx, s, request)
	if err != nil {
		return err
	}
	return a.watch(ctx, s, watchOptions{runID: run.GetRunID(), taskQueue: request.taskQueue, dryRun: true, view: &noticeView{out: a.stderr}})
}

// planUsages describe flags that rotate has, too, as far as a plan goes.
var planUsages = map[string]string{
	"allow-unserved":      "plan also on Ops Manager 8.0 or later, where the rotation will need this flag, too",
	"concurrency":         fmt.Sprintf("keys of a cluster read in parallel, 1 to %d", workflows.MaxConcurrency),
	"clusters-at-a-time":  fmt.Sprintf("fleet: clusters, or with --deployment projects, read in parallel, 1 to %d", workflows.MaxClustersAtATime),
	"max-failed-clusters": "fleet: how many clusters, or with --deployment projects, may fail before no more are read",
	"requested-by":        "requester to record",
	"retry-timeout":       "how long to retry transient errors",
}
