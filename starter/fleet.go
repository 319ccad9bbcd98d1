package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keyturn/opsmanager"
	"keyturn/workflows"
)

// fleetFlags are the flags that only a fleet has; those of its rotations are a
// cluster's.
type fleetFlags struct {
	projects          []string
	clusterNames      string
	clustersAtATime   int
	maxFailedClusters int
}

// names of the flags.
var fleetFlagNames = []string{"projects", "cluster-names", "clusters-at-a-time", "max-failed-clusters"}

func (f *fleetFlags) addFlags(flags *pflag.FlagSet) {
	defaults := workflows.DefaultRotateFleetInput()
	flags.StringSliceVar(&f.projects, "projects", nil, "ids of the fleet's projects, with commas or repeated (default: every project that the key sees)")
	flags.StringVar(&f.clusterNames, "cluster-names", "", "only the fleet's clusters whose display name has a match of this regular expression (RE2), such as '^orders-'")
	flags.IntVar(&f.clustersAtATime, "clusters-at-a-time", defaults.ClustersAtATime, fmt.Sprintf("clusters of the fleet in work at a time, 1 to %d", workflows.MaxClustersAtATime))
	flags.IntVar(&f.maxFailedClusters, "max-failed-clusters", 0, "how many clusters of the fleet may fail before no other is started")
}

func (f *fleetFlags) check() error {
	for _, id := range f.projects {
		if !opsmanager.ValidID(id) {
			return wrongUse("--projects: %q must be 24 hex digits", id)
		}
	}
	_, err := regexp.Compile(f.clusterNames)
	switch {
	case err != nil:
		return wrongUse("--cluster-names: must be a regular expression (RE2): %v", err)
	case f.clustersAtATime < 1 || f.clustersAtATime > workflows.MaxClustersAtATime:
		return wrongUse("--clusters-at-a-time: must be 1 to %d", workflows.MaxClustersAtATime)
	case f.maxFailedClusters < 0:
		return wrongUse("--max-failed-clusters: must not be negative")
	}
	return nil
}

// input is that of a fleet whose clusters are rotated as the flags of a
// cluster's rotation say; what is not set is left to the workflow's defaults.
func (f *fleetFlags) input(each workflows.RotateClusterInput, flags *pflag.FlagSet) workflows.RotateFleetInput {
	input := workflows.RotateFleetInput{
		Connection: each.Connection, ProjectIDs: f.projects, ClusterNames: f.clusterNames, MaxFailedClusters: f.maxFailedClusters,
		Rotation: workflows.FleetRotation{
			Concurrency: each.Concurrency, DryRun: each.DryRun,
			RequireApproval: each.RequireApproval, ApprovalTimeout: each.ApprovalTimeout,
			OnFailure: each.OnFailure, HoldTimeout: each.HoldTimeout, RetryTimeout: each.RetryTimeout,
			SettleTime: each.SettleTime, VerifyTimeout: each.VerifyTimeout,
		},
		Change: each.Change,
	}
	if flags.Changed("clusters-at-a-time") {
		input.ClustersAtATime = f.clustersAtATime
	}
	return input
}

func (a *app) fleetCommand() *cobra.Command {
	each, f := &rotateFlags{}, &fleetFlags{}
	var dryRun bool
	command := &cobra.Command{
		Use:     "fleet",
		GroupID: groupRun,
		Short:   "Rotate the master keys of every cluster of an Ops Manager, or of some of its projects",
		Long:    fleetHelp,
		Example: fleetExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, command *cobra.Command) error {
		a.rotation.fleet = true
		flags := command.Flags()
		if err := cmp.Or(a.checkRotate(each, flags), f.check()); err != nil {
			return err
		}
		cluster := each.input(a.rotation, flags)
		cluster.DryRun = dryRun
		return a.startFleet(ctx, each, f.input(cluster, flags))
	})
	flags := command.Flags()
	a.rotation.defineConnection(flags)
	a.format.addFlag(command)
	f.addFlags(flags)
	each.addCommonFlags(flags, a)
	each.values.OnFailure = workflows.DefaultRotateFleetInput().Rotation.OnFailure
	each.addRotateFlags(command)
	flags.BoolVar(&dryRun, "dry-run", false, "plan only: list the clusters and read their keys, change nothing")
	flags.BoolVar(&each.wait, "wait", false, "follow it until it ends")
	return command
}

func (a *app) startFleet(ctx context.Context, each *rotateFlags, input workflows.RotateFleetInput) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return a.startAndWatch(ctx, s, each, each.beginFleet(a.rotation, input))
}

func (f *rotateFlags) beginFleet(name rotationName, input workflows.RotateFleetInput) beginning {
	return beginning{name: name, taskQueue: f.taskQueue, summary: workflows.FleetSummary(input), input: input}
}

const fleetHelp = `Starts the rotation of a fleet: of every cluster of the projects, or of every project
that the key sees, each by a rotation of its own under the cluster's own id. There is
one fleet of a connection at a time, under the id rotate-fleet:CONNECTION; while one is
running, another is refused, with the command to watch it.

A cluster that somebody else's rotation has in work is counted as busy, one without an
encrypted backup as not encrypted; neither is a failure. When more clusters have failed
than --max-failed-clusters says, no other is started, those in work go on, and the fleet
fails; its records list the failed ones (see report --fleet).

--concurrency, --require-approval, --on-failure and the timeouts are for each cluster's
rotation, as in starter rotate, but that --on-failure is stop: a cluster that is held, or
that waits for approval, keeps its place among --clusters-at-a-time until somebody sees
to it by its own ids. A flag that isn't set is left out of the workflow's input, so that
the worker's defaults apply, which are those shown here.

A fleet that is started again rotates every cluster again, also those that were
verified. To go on after failures, see to the failed clusters: starter rotate --resume
--project ... --cluster ... for each that the report lists; or start a fleet of the rest
with --projects and --cluster-names.

With --wait, the exit code tells how it ended: 0 = rotated, or planned; 1 = a cluster has
failed, or the fleet. A paused fleet is waited for.`

const fleetExamples = `  # what is there, with the keys of now? A plan changes nothing
  starter fleet --dry-run --wait

  # every cluster that the key sees
  starter fleet --ticket CHG0031337 --reason quarterly --wait

  # two projects, only the clusters named orders-..., eight at a time; stop at the third that fails
  starter fleet --projects 5196d3628d022db4cbc26d9e,5196d3628d022db4cbc26d9f --cluster-names '^orders-' \
    --clusters-at-a-time 8 --max-failed-clusters 2

  # look, hold, go on, end it
  starter watch --fleet
  starter pause --fleet --by erin --reason 'peak hour'
  starter resume --fleet --by erin
  starter abort --fleet --by erin --reason 'goes on tomorrow'

  # which key before, which after, over the whole fleet
  starter report --fleet --clusters -o csv > fleet.csv`
