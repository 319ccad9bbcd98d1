package opsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Projects lists the ids of all projects that the API key can see, read like
// [Client.Clusters]. The responses hold a secret of each project, its
// agentApiKey: only the ids are decoded, and no error quotes a response. An id
// that is not one of Ops Manager's is an error, because that project could not be
// read.
func (c *Client) Projects(ctx context.Context) ([]string, error) {
	r, err := c.request(http.MethodGet, "/groups")
	if err != nil {
		return nil, err
	}
	r.secret = true
	return list(ctx, c, r, func(raw json.RawMessage) (id string, e entry) {
		var project struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(raw, &project) != nil {
			return "", entry{problem: "the list contains a project that cannot be decoded"}
		}
		if !ValidID(project.ID) {
			return "", entry{problem: fmt.Sprintf("the list contains a project whose id has %d characters", len(project.ID))}
		}
		return project.ID, entry{key: strings.ToLower(project.ID)}
	})
}
