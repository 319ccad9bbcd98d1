package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keyturn/workflows"
)

func (a *app) approveCommand() *cobra.Command {
	var comment string
	return a.updateCommand(updateCommand{
		name:  workflows.ApproveUpdate,
		short: "Approve a rotation that waits for approval",
		long: `The requester of a rotation cannot approve it. A rotation that was started
without a requester (the field change.requestedBy of its input) can be approved
by anyone. Names are recorded, not authenticated.`,
		addFlags: func(flags *pflag.FlagSet) { flags.StringVar(&comment, "comment", "", "comment to record") },
		request:  func(by string) any { return workflows.ApproveRequest{By: by, Comment: comment} },
	})
}

func (a *app) rejectCommand() *cobra.Command {
	return a.operatorCommand(updateCommand{
		name:  workflows.RejectUpdate,
		short: "Reject a rotation that waits for approval; nothing is rotated",
	})
}

// operatorCommand is an update that takes a reason and nothing else.
func (a *app) operatorCommand(u updateCommand) *cobra.Command {
	var reason string
	u.addFlags = func(flags *pflag.FlagSet) { addReasonFlag(flags, &reason) }
	u.request = func(by string) any { return workflows.OperatorRequest{By: by, Reason: reason} }
	return a.updateCommand(u)
}
