package main

import (
	"github.com/spf13/cobra"

	"keyturn/workflows"
)

func (a *app) abortCommand() *cobra.Command {
	return a.operatorCommand(updateCommand{
		name:      workflows.AbortUpdate,
		short:     "Abort a rotation: finish targets in progress, then stop",
		long:      "With --fleet, no new cluster starts, and the rotations in progress are aborted.",
		forFleets: true,
	})
}
