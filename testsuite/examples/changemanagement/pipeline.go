// Package changemanagement is an example of a change-management pipeline that
// rotates the keys of a cluster: it opens a change, waits for its approval,
// rotates, and closes the change with the records.
//
// There are three variants of the step that rotates: [Child], [Nexus] and
// [ByName]. Choose one by how much code and which namespace your pipeline
// shares with keyturn.
package changemanagement

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Names of the workflow type and its update.
const (
	ManageChangeType = "ManageChange"
	ApproveUpdate    = "approve"
)

// Pipeline manages changes.
type Pipeline struct {
	Rotator Rotator
}

// Rotator is the step that rotates. The records that it returns are attached to
// the change, also if it fails.
type Rotator interface {
	Rotate(workflow.Context, Change) (records any, err error)
}

// Request is a request for a change.
type Request struct {
	RequestedBy string `json:"requestedBy"`
	ProjectID   string `json:"projectId"`
	ClusterID   string `json:"clusterId"`
}

// Change is a request with a ticket.
type Change struct {
	Request
	Ticket string
}

// Approval approves a change.
type Approval struct {
	By string `json:"by"`
}

// Register registers the pipeline and the activities of the ticket system.
func Register(registry worker.Registry, p Pipeline, t *Tickets) {
	registry.RegisterWorkflowWithOptions(p.ManageChange, workflow.RegisterOptions{Name: ManageChangeType})
	registerTickets(registry, t)
}

// ManageChange carries out one change. It returns the closed ticket. If the
// change failed, the ticket has the reason and the records of what was done.
func (p Pipeline) ManageChange(ctx workflow.Context, request Request) (*Ticket, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute,
		WaitForCancellation: true, // an opened change must be concluded
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

// serveApproval accepts one approval, by anyone but the requester.
func serveApproval(ctx workflow.Context, request Request, approval *Approval) error {
	approve := func(_ workflow.Context, given Approval) error {
		*approval = given
		return nil
	}
	check := func(given Approval) error {
		switch {
		case approval.By != "":
			return fmt.Errorf("already approved by %s", approval.By)
		case given.By == "" || given.By == request.RequestedBy:
			return errors.New("the requester cannot approve")
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

// conclude records the outcome of a change, also of a canceled one.
func conclude(ctx workflow.Context, conclusion Conclusion) (*Ticket, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var ticket Ticket
	err := workflow.ExecuteActivity(ctx, concludeChangeName, conclusion).Get(ctx, &ticket)
	return &ticket, err
}

// explanation is the type and the message of a failure.
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
