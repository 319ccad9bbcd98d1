package main

import (
	"github.com/spf13/cobra"

	"keyturn/workflows"
)

func (a *app) pauseCommand() *cobra.Command {
	return a.operatorCommand(updateCommand{
		name:  workflows.PauseUpdate,
		short: "Pause a rotation: start no new target; targets in progress finish",
		long: `With --fleet, no new cluster starts either. The rotations that the fleet has in
progress are paused with it: each shows the pause as its own until the fleet is
resumed. A cluster that an operator paused separately stays paused when the
fleet is resumed.`,
		forFleets: true,
	})
}

func (a *app) resumeCommand() *cobra.Command {
	return a.operatorCommand(updateCommand{
		name:      workflows.ResumeUpdate,
		short:     "Resume a paused rotation",
		long:      `To continue a rotation that has ended, use "keyturn rotate --continue".`,
		forFleets: true,
	})
}
