package changemanagement

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
)

// Statuses of a ticket.
const (
	StatusOpen   = "open"
	StatusClosed = "closed"
	// StatusFailed: an operator must look at the change.
	StatusFailed = "failed"
)

// Ticket is a change in the ticket system.
type Ticket struct {
	ID          string          `json:"id"`
	Status      string          `json:"status"`
	RequestedBy string          `json:"requestedBy"`
	ApprovedBy  string          `json:"approvedBy"`
	Failure     string          `json:"failure"`
	Records     json.RawMessage `json:"records"`
}

// Conclusion is the outcome of a change. An empty Failure means success.
type Conclusion struct {
	Ticket     string `json:"ticket"`
	ApprovedBy string `json:"approvedBy"`
	Failure    string `json:"failure"`
	Records    any    `json:"records"`
}

// Tickets is an in-memory ticket system. The zero value has no tickets.
type Tickets struct {
	mu      sync.Mutex
	tickets []Ticket
	// opened has the ticket IDs by the workflow run that opened them.
	opened map[string]string
}

const (
	openChangeName     = "OpenChange"
	concludeChangeName = "ConcludeChange"
)

func registerTickets(registry worker.ActivityRegistry, t *Tickets) {
	registry.RegisterActivityWithOptions(t.openChange, activity.RegisterOptions{Name: openChangeName})
	registry.RegisterActivityWithOptions(t.concludeChange, activity.RegisterOptions{Name: concludeChangeName})
}

// Ticket returns a copy of a ticket; false if it does not exist.
func (t *Tickets) Ticket(id string) (Ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.find(id); found != nil {
		return *found, true
	}
	return Ticket{}, false
}

func (t *Tickets) find(id string) *Ticket {
	for i := range t.tickets {
		if t.tickets[i].ID == id {
			return &t.tickets[i]
		}
	}
	return nil
}

// openChange returns the ticket that the run has already opened if the activity
// is retried.
func (t *Tickets) openChange(ctx context.Context, request Request) (id string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	run := activity.GetInfo(ctx).WorkflowExecution.RunID
	if id, found := t.opened[run]; found {
		return id, nil
	}
	id = fmt.Sprintf("CHG%07d", len(t.tickets)+1)
	t.tickets = append(t.tickets, Ticket{ID: id, Status: StatusOpen, RequestedBy: request.RequestedBy})
	if t.opened == nil {
		t.opened = map[string]string{}
	}
	t.opened[run] = id
	return id, nil
}

// conclusion is a Conclusion with its records as raw JSON.
type conclusion struct {
	Conclusion
	Records json.RawMessage `json:"records"`
}

func (t *Tickets) concludeChange(_ context.Context, c conclusion) (Ticket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ticket := t.find(c.Ticket)
	if ticket == nil {
		return Ticket{}, temporal.NewNonRetryableApplicationError("no such change: "+c.Ticket, "NoSuchChange", nil)
	}
	ticket.Status, ticket.ApprovedBy, ticket.Failure, ticket.Records = StatusClosed, c.ApprovedBy, c.Failure, c.Records
	if c.Failure != "" {
		ticket.Status = StatusFailed
	}
	return *ticket, nil
}
