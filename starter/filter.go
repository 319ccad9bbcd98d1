package main

import (
	"time"

	"github.com/spf13/cobra"

	"keyturn/opsmanager"
	"keyturn/workflows"
)

// filterFlags are the flags that select rotations, wherever they are listed.
type filterFlags struct {
	period
	connection, project, cluster string
	deployment, fleet            bool
	ticket                       string
	limit                        int
}

// addFlags adds the flags but those of the period. fleetHelp says what becomes of a
// fleet's rotations.
func (f *filterFlags) addFlags(command *cobra.Command, fleetHelp string, limit int, limitHelp string) {
	flags := command.Flags()
	flags.StringVar(&f.connection, "connection", "", "name of the Ops Manager connection (default all)")
	flags.StringVar(&f.project, "project", "", "ID of the Ops Manager project, 24 hex digits")
	flags.StringVar(&f.cluster, "cluster", "", "ID or display name of a cluster; includes rotations of deployments that it belongs to")
	flags.BoolVar(&f.deployment, "deployment", false, "only rotations of deployments")
	flags.BoolVar(&f.fleet, "fleet", false, "only fleets; the rotations of their clusters "+fleetHelp)
	flags.StringVar(&f.ticket, "ticket", "", "change ticket")
	flags.IntVar(&f.limit, "limit", limit, limitHelp)
	for _, other := range []string{"deployment", "cluster", "project"} {
		command.MarkFlagsMutuallyExclusive(other, "fleet")
	}
}

func (f *filterFlags) check(now time.Time) error {
	switch {
	case f.project != "" && !opsmanager.ValidID(f.project):
		return usageErrorf("--project: must be 24 hex digits")
	case f.connection != "" && !workflows.ValidConnection(f.connection):
		return usageErrorf("--connection: %s", workflows.ConnectionRule)
	case f.limit < 0:
		return usageErrorf("--limit: must not be negative")
	}
	return f.period.check(now)
}
