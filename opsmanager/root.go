package opsmanager

import (
	"context"
	"net/http"
)

// CheckAccess reads the API's root, the cheapest authenticated answer that there
// is: nil = Ops Manager answers, and takes the client's credentials. It says
// nothing of any project.
func (c *Client) CheckAccess(ctx context.Context) error {
	r, err := c.request(http.MethodGet, "")
	if err != nil {
		return err
	}
	var root struct {
		// Links is the one field that every version has had.
		Links []struct{} `json:"links"`
	}
	a, err := c.read(Patiently(ctx), r, &root)
	if err != nil {
		return err
	}
	if root.Links == nil {
		return c.unexpected(r, a, "the answer is not that of the API's root")
	}
	return nil
}
