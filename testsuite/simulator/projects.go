package simulator

import (
	"net/http"
	"regexp"
	"slices"
)

// Ids and the secret that hold where a Project leaves a field empty.
const (
	// DefaultProjectID is the project of the documentation's sample call.
	DefaultProjectID = "5196d3628d022db4cbc26d9e"
	// DefaultOrganizationID is the organization of projects that name none.
	DefaultOrganizationID = "5196d3628d022db4cbc26d00"
	// PlantedSecret is the agentApiKey in every project's body: whatever is
	// tested must neither log nor keep it.
	PlantedSecret = "planted-agent-api-key-that-nobody-may-log-or-keep"
)

var idPattern = regexp.MustCompile(`^[0-9a-f]{24}$`)

// IsID reports whether a string has the form of an id: 24 hex digits in lower
// case. The API answers 404 to any other.
func IsID(id string) bool {
	return idPattern.MatchString(id)
}

// Organization is an organization of projects.
type Organization struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Project is a project, which the API calls a group.
type Project struct {
	// ID is 24 hex digits.
	ID string `json:"id"`
	// Name is the ID if it is empty.
	Name string `json:"name"`
	// OrganizationID is DefaultOrganizationID if it is empty; the organization
	// is made if there is none.
	OrganizationID string   `json:"orgId"`
	Tags           []string `json:"tags"`
	// AgentAPIKey is PlantedSecret if it is empty.
	AgentAPIKey string `json:"agentApiKey"`
}

// AddOrganization adds an organization, or replaces the one with its id.
func (s *Simulator) AddOrganization(o Organization) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data.putOrganization(o)
	s.mustSave()
}

// AddProject adds a project, or replaces the one with its id.
func (s *Simulator) AddProject(p Project) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data.putProject(p)
	s.mustSave()
}

func (d *dataset) putOrganization(o Organization) {
	if at := slices.IndexFunc(d.Organizations, func(other *Organization) bool { return other.ID == o.ID }); at >= 0 {
		d.Organizations[at] = &o
		return
	}
	d.Organizations = append(d.Organizations, &o)
}

func (d *dataset) putProject(p Project) {
	p = p.withDefaults()
	if d.organization(p.OrganizationID) == nil {
		d.putOrganization(Organization{ID: p.OrganizationID, Name: "organization " + p.OrganizationID})
	}
	if at := slices.IndexFunc(d.Projects, func(other *Project) bool { return other.ID == p.ID }); at >= 0 {
		d.Projects[at] = &p
		return
	}
	d.Projects = append(d.Projects, &p)
}

func (p Project) withDefaults() Project {
	if p.Name == "" {
		p.Name = p.ID
	}
	if p.OrganizationID == "" {
		p.OrganizationID = DefaultOrganizationID
	}
	if p.AgentAPIKey == "" {
		p.AgentAPIKey = PlantedSecret
	}
	p.Tags = append([]string{}, p.Tags...)
	return p
}

func (d *dataset) organization(id string) *Organization {
	for _, o := range d.Organizations {
		if o.ID == id {
			return o
		}
	}
	return nil
}

func (d *dataset) project(id string) *Project {
	for _, p := range d.Projects {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// checkProject is nil when the path's project is there and the request's key
// may see it.
func (s *Simulator) checkProject(c *call) *answer {
	id := c.route.projectID
	switch {
	case !idPattern.MatchString(id):
		return apiError(http.StatusNotFound, "INVALID_GROUP_ID", "An invalid group ID "+id+" was specified.", id)
	case s.data.project(id) == nil:
		return apiError(http.StatusNotFound, "GROUP_NOT_FOUND", "No group with ID "+id+" exists.", id)
	case !c.key.sees(id):
		return unauthorized("NOT_IN_GROUP", "The current user is not in the group with ID "+id+".", id)
	}
	return nil
}

// visibleProjects are those that the request's key sees, in the order in which
// they were added; an empty organization means all.
func (s *Simulator) visibleProjects(c *call, organizationID string) []*Project {
	var visible []*Project
	for _, p := range s.data.Projects {
		if c.key.sees(p.ID) && (organizationID == "" || p.OrganizationID == organizationID) {
			visible = append(visible, p)
		}
	}
	return visible
}

func (s *Simulator) getProjects(c *call) answer {
	return s.projectPage(c, s.visibleProjects(c, ""))
}

func (s *Simulator) getOrganizationProjects(c *call) answer {
	id := c.route.organizationID
	if s.data.organization(id) == nil {
		return *apiError(http.StatusNotFound, "RESOURCE_NOT_FOUND", "No organization with ID "+id+" exists.", id)
	}
	return s.projectPage(c, s.visibleProjects(c, id))
}

func (s *Simulator) projectPage(c *call, projects []*Project) answer {
	return page(c, projects, func(p *Project) map[string]any { return s.projectBody(c, p) })
}

func (s *Simulator) getProject(c *call) answer {
	if refused := s.checkProject(c); refused != nil {
		return *refused
	}
	return object(http.StatusOK, s.projectBody(c, s.data.project(c.route.projectID)))
}

func (s *Simulator) projectBody(c *call, p *Project) map[string]any {
	shards, replicaSets := 0, 0
	for _, k := range s.data.clustersOf(p.ID) {
		switch {
		case k.isShard():
			shards++
		case k.TypeName == TypeReplicaSet:
			replicaSets++
		}
	}
	return map[string]any{
		"id": p.ID, "name": p.Name, "orgId": p.OrganizationID, "tags": p.Tags,
		"agentApiKey": p.AgentAPIKey, "activeAgentCount": 1, "publicApiEnabled": true,
		"replicaSetCount": replicaSets, "shardCount": shards,
		"links": []map[string]any{s.link(c, "self", "/groups/"+p.ID, nil)},
	}
}

func (s *Simulator) getOrganizations(c *call) answer {
	var visible []*Organization
	for _, o := range s.data.Organizations {
		if len(c.key.ProjectIDs) == 0 || len(s.visibleProjects(c, o.ID)) > 0 {
			visible = append(visible, o)
		}
	}
	return page(c, visible, func(o *Organization) map[string]any {
		self := s.link(c, "self", "/orgs/"+o.ID, nil)
		return map[string]any{"id": o.ID, "name": o.Name, "links": []map[string]any{self}}
	})
}
