package opsmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// EventAutomationConfigPublished is the type of the event that someone has
// published an automation configuration.
const EventAutomationConfigPublished = "AUTOMATION_CONFIG_PUBLISHED_AUDIT"

// Event is an entry of a project's activity feed. Fields that the response leaves
// out, or that cannot be read, have the zero value.
type Event struct {
	// ID is Ops Manager's.
	ID string
	// TypeName is such as [EventAutomationConfigPublished].
	TypeName string
	// Created is when it happened.
	Created time.Time
	// Username is who did it in the UI, and PublicKey the API key that did it.
	Username, PublicKey string
	// RemoteAddress is the IP address from which it was done.
	RemoteAddress string
}

// Actor is who did it, or "" if the event does not say.
func (e Event) Actor() string { return cmp.Or(e.Username, e.PublicKey) }

// Events lists the events of a type since a time, in the order of the response.
func (c *Client) Events(ctx context.Context, projectID, eventType string, since time.Time) ([]Event, error) {
	r, err := c.request(http.MethodGet, "/groups/%s/events", projectID)
	if err != nil {
		return nil, err
	}
	r.query = url.Values{"eventType": {eventType}, "minDate": {since.UTC().Format(time.RFC3339)}}
	return listRecords(ctx, c, r, func(raw json.RawMessage) (Event, string) {
		o, _ := objectOf(raw)
		e := Event{
			ID: o.text("id"), TypeName: o.text("eventTypeName"), Created: o.time("created"),
			Username: o.text("username"), PublicKey: o.text("publicKey"), RemoteAddress: o.text("remoteAddress"),
		}
		return e, e.ID
	})
}
