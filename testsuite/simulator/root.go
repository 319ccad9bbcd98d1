package simulator

import "net/http"

// getRoot is GET of the API's root, which says nothing of any project.
func (s *Simulator) getRoot(c *call) answer {
	return object(http.StatusOK, map[string]any{
		"appName": "MongoDB Ops Manager", "build": "4c1f0d2e9b", "throttling": false,
		"links": []map[string]any{s.link(c, "self", "", nil), s.link(c, "http://mms.mongodb.com/groups", "/groups", nil)},
	})
}
