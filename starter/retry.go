package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keyturn/workflows"
)

func (a *app) retryCommand() *cobra.Command {
	var targets []string
	return a.updateCommand(updateCommand{
		name:  workflows.RetryUpdate,
		short: "Retry failed targets",
		long: `Without --targets, all failed targets are retried. Nothing is rotated twice: a
target whose PUT may have been accepted is read first, and a process of a
deployment is waited for with the time that was published for it.`,
		addFlags: func(flags *pflag.FlagSet) { addTargetsFlag(flags, &targets) },
		request:  func(by string) any { return workflows.RetryRequest{By: by, Targets: targets} },
	})
}

func (a *app) skipCommand() *cobra.Command {
	var targets []string
	var reason string
	command := a.updateCommand(updateCommand{
		name:  workflows.SkipUpdate,
		short: "Skip failed or pending targets: leave their keys and record it",
		long: `--targets is required: "keyturn report" shows the names of the targets and what
failed. Skipped targets keep their keys; the rotation ends as rotatedWithSkips,
and "keyturn rotate --continue" rotates them later.`,
		exampleFlags: " --targets orders-1 \\\n    --reason decommissioned",
		addFlags: func(flags *pflag.FlagSet) {
			addTargetsFlag(flags, &targets)
			addReasonFlag(flags, &reason)
		},
		request: func(by string) any { return workflows.SkipRequest{By: by, Targets: targets, Reason: reason} },
	})
	must(command.MarkFlagRequired("targets"))
	return command
}
