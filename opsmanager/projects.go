package opsmanager

import (
	"context"
	"fmt"
	"net/http"
)

// Projects lists the ids of all projects that the client's key sees, over as
// many pages as there are. The answers hold a secret of each project, its
// agentApiKey: nothing but the ids is decoded, and no error quotes them.
func (c *Client) Projects(ctx context.Context) ([]string, error) {
	r, err := c.request(http.MethodGet, "/groups")
	if err != nil {
		return nil, err
	}
	r.secret = true
	type project struct {
		ID string `json:"id"`
	}
	projects, err := list(ctx, c, r, func(p project) (id, problem string) {
		if !ValidID(p.ID) {
			problem = fmt.Sprintf("the list holds a project whose id is %d characters long", len(p.ID))
		}
		return p.ID, problem
	})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(projects))
	for i, p := range projects {
		ids[i] = p.ID
	}
	return ids, nil
}
