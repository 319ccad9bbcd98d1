package main

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keyturn/opsmanager"
	"keyturn/workflows"
)

// fleetFlags are the flags that apply to fleets only.
type fleetFlags struct {
	projects          []string
	excludeProjects   []string
	clusterNames      string
	clustersAtATime   int
	maxFailedClusters int
}

var (
	// selectionFlags select what a fleet rotates.
	selectionFlags = []string{"projects", "exclude-projects", "cluster-names"}
	// fleetOnlyFlags are those that only fleets have.
	fleetOnlyFlags = append([]string{"clusters-at-a-time", "max-failed-clusters"}, selectionFlags...)
)

func (f *fleetFlags) addFlags(command *cobra.Command) {
	flags, defaults := command.Flags(), workflows.DefaultRotateFleetInput()
	flags.StringSliceVar(&f.projects, "projects", nil, "fleet: project IDs, comma-separated or repeated (default all projects that the API key can see)")
	flags.StringSliceVar(&f.excludeProjects, "exclude-projects", nil, "fleet: IDs of projects to leave out, comma-separated or repeated; they take precedence over --projects")
	flags.StringVar(&f.clusterNames, "cluster-names", "", "fleet: only clusters whose display name matches this regular expression (RE2), such as '^orders-'")
	flags.IntVar(&f.clustersAtATime, "clusters-at-a-time", defaults.ClustersAtATime, fmt.Sprintf("fleet: clusters, or with --deployment projects, rotated in parallel, 1 to %d", workflows.MaxClustersAtATime))
	flags.IntVar(&f.maxFailedClusters, "max-failed-clusters", 0, "fleet: how many clusters, or with --deployment projects, may fail before no more are started")
	for _, name := range fleetOnlyFlags {
		command.MarkFlagsMutuallyExclusive("cluster", name)
		command.MarkFlagsMutuallyExclusive("project", name)
	}
	command.MarkFlagsMutuallyExclusive("deployment", "cluster-names")
}

func (f *fleetFlags) check() error {
	for flag, ids := range map[string][]string{"projects": f.projects, "exclude-projects": f.excludeProjects} {
		for _, id := range ids {
			if !opsmanager.ValidID(id) {
				return usageErrorf("--%s: %q must be 24 hex digits", flag, id)
			}
		}
	}
	_, err := regexp.Compile(f.clusterNames)
	switch {
	case err != nil:
		return usageErrorf("--cluster-names: must be a regular expression (RE2): %v", err)
	case f.clustersAtATime < 1 || f.clustersAtATime > workflows.MaxClustersAtATime:
		return usageErrorf("--clusters-at-a-time: must be 1 to %d", workflows.MaxClustersAtATime)
	case f.maxFailedClusters < 0:
		return usageErrorf("--max-failed-clusters: must not be negative")
	}
	return nil
}

// input is that of a fleet whose clusters or projects are rotated like each. Flags that
// are not set are left to the workflow's defaults, also those of the other kind.
func (f *fleetFlags) input(name rotationName, rotation rotationInput, flags *pflag.FlagSet) workflows.RotateFleetInput {
	each, deployment := rotation.cluster, rotation.deployment
	input := workflows.RotateFleetInput{
		Connection: each.Connection, ProjectIDs: f.projects, ExcludeProjectIDs: f.excludeProjects, ClusterNames: f.clusterNames, MaxFailedClusters: f.maxFailedClusters,
		Rotation: workflows.FleetRotation{
			Concurrency: each.Concurrency, DryRun: each.DryRun,
			RequireApproval: each.RequireApproval, ApprovalTimeout: each.ApprovalTimeout, AllowUnserved: each.AllowUnserved,
			OnFailure: each.OnFailure, HoldTimeout: each.HoldTimeout, RetryTimeout: each.RetryTimeout,
			SettleTime: each.SettleTime, VerifyTimeout: each.VerifyTimeout,
			Proof: deployment.Proof, DeployTimeout: deployment.DeployTimeout, ProofTimeout: deployment.ProofTimeout,
		},
		Change: each.Change,
	}
	if name.deployment {
		input.Kind = workflows.FleetOfDeployments
	}
	if flags.Changed("clusters-at-a-time") {
		input.ClustersAtATime = f.clustersAtATime
	}
	return input
}
