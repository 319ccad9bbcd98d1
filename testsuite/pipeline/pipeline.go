// Package pipeline is a small change-management pipeline that rotates the keys
// of a cluster: it opens a change, has it approved, rotates, and closes the
// change with the records.
//
// Its step that rotates is there in three variants, for pipelines that know
// more or less of this module: [Child], [Nexus] and [ByName]. They are what
// another team would write.
package pipeline

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Names of the pipeline's workflow and of its update.
const (
	ManageChangeType = "ManageChange"
	ApproveUpdate    = "approve"
)

// Pipeline manages changes.
type Pipeline struct {
	Rotator Rotator
}

// Rotator is the step that rotates. What it gives is attached to the change,
// whether it fails or not.
type Rotator interface {
	Rotate(workflow.Context, Change) (records any, err error)
}

// Request asks for a change.
type Request struct {
	RequestedBy string `json:"requestedBy"`
	ProjectID   string `json:"projectId"`
	ClusterID   string `json:"clusterId"`
}

// Change is a request that has a ticket.
type Change struct {
	Request
	Ticket string
}

// Approval lets a change be made.
type Approval struct {
	By string `json:"by"`
}

// Register registers the pipeline and the ticket system that it writes to.
func Register(registry worker.Registry, p Pipeline, t *Tickets) {
	registry.RegisterWorkflowWithOptions(p.ManageChange, workflow.RegisterOptions{Name: ManageChangeType})
	registerTickets(registry, t)
}

// ManageChange makes one change. It gives the closed ticket; where the change
// was not made, the ticket says why, and has the records of what was done.
func (p Pipeline) ManageChange(ctx workflow.Context, request Request) (*Ticket, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute,
		WaitForCancellation: true, // a change that is being opened must be concluded
	})
	var approval Approval
	if err := serveApproval(ctx, request, &approval); err != nil {
		return nil, err
	}
	change := Change{Request: request}
	if err := workflow.ExecuteActivity(ctx, openChangeName, request).Get(ctx, &change.Ticket); err != nil {
		return nil, err
	}
	records, err := p.approvedRotation(ctx, change, &approval)
	ticket, concludeErr := conclude(ctx, Conclusion{
		Ticket: change.Ticket, ApprovedBy: approval.By, Records: records, Failure: explanation(err),
	})
	switch {
	case concludeErr != nil:
		return nil, concludeErr
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return ticket, err
	}
}

// serveApproval takes one approval, by somebody else than who asked.
func serveApproval(ctx workflow.Context, request Request, approval *Approval) error {
	approve := func(_ workflow.Context, given Approval) error {
		*approval = given
		return nil
	}
	check := func(given Approval) error {
		switch {
		case approval.By != "":
			return fmt.Errorf("%s has approved already", approval.By)
		case given.By == "" || given.By == request.RequestedBy:
			return errors.New("somebody else must approve")
		default:
			return nil
		}
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, ApproveUpdate, approve, workflow.UpdateHandlerOptions{Validator: check})
}

func (p Pipeline) approvedRotation(ctx workflow.Context, change Change, approval *Approval) (records any, err error) {
	if err := workflow.Await(ctx, func() bool { return approval.By != "" }); err != nil {
		return nil, err
	}
	return p.Rotator.Rotate(ctx, change)
}

// conclude writes down what has become of a change, of a canceled one too.
func conclude(ctx workflow.Context, conclusion Conclusion) (*Ticket, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var ticket Ticket
	err := workflow.ExecuteActivity(ctx, concludeChangeName, conclusion).Get(ctx, &ticket)
	return &ticket, err
}

// explanation is a failure in words, its type first.
func explanation(err error) string {
	var failure *temporal.ApplicationError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &failure):
		return failure.Type() + ": " + failure.Message()
	default:
		return err.Error()
	}
}
