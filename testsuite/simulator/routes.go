package simulator

import (
	"net/http"
	"slices"
	"strings"
)

// Kind names what a request's path is about, whatever ids it holds.
type Kind string

// The kinds of paths. A path that the API does not have is KindUnknown.
const (
	KindRoot                 Kind = "root"                 // the API's root itself
	KindProjects             Kind = "projects"             // /groups
	KindProject              Kind = "project"              // /groups/{project}
	KindOrganizations        Kind = "organizations"        // /orgs
	KindOrganizationProjects Kind = "organizationProjects" // /orgs/{org}/groups
	KindInventory            Kind = "inventory"            // /clusters
	KindClusters             Kind = "clusters"             // /groups/{project}/clusters
	KindCluster              Kind = "cluster"              // /groups/{project}/clusters/{cluster}
	KindSnapshots            Kind = "snapshots"            // /groups/{project}/clusters/{cluster}/snapshots
	KindRestoreJobs          Kind = "restoreJobs"          // /groups/{project}/clusters/{cluster}/restoreJobs
	KindBackupConfigs        Kind = "backupConfigs"        // /groups/{project}/backupConfigs
	KindBackupConfig         Kind = "backupConfig"         // /groups/{project}/backupConfigs/{cluster}
	KindKey                  Kind = "key"                  // /groups/{project}/backupConfigs/{cluster}/encryptionKey
	KindAutomationConfig     Kind = "automationConfig"     // /groups/{project}/automationConfig, also with /noSecrets
	KindAutomationStatus     Kind = "automationStatus"     // /groups/{project}/automationStatus
	KindHosts                Kind = "hosts"                // /groups/{project}/hosts
	KindEvents               Kind = "events"               // /groups/{project}/events
	KindControlledFeature    Kind = "controlledFeature"    // /groups/{project}/controlledFeature
	KindUnknown              Kind = "unknown"
)

// resource is one kind of path and what answers a GET of it.
type resource struct {
	kind    Kind
	pattern []string
	methods []string
	get     func(*Simulator, *call) answer
}

// resources is filled by init, because the handlers lead back to it.
var resources []resource

func init() {
	add := func(kind Kind, pattern string, get func(*Simulator, *call) answer, methods ...string) {
		resources = append(resources, resource{
			kind: kind, pattern: strings.Split(pattern, "/"), get: get,
			methods: append([]string{http.MethodGet}, methods...),
		})
	}
	add(KindRoot, "", (*Simulator).getRoot)
	add(KindProjects, "groups", (*Simulator).getProjects)
	add(KindProject, "groups/{project}", (*Simulator).getProject)
	add(KindOrganizations, "orgs", (*Simulator).getOrganizations)
	add(KindOrganizationProjects, "orgs/{org}/groups", (*Simulator).getOrganizationProjects)
	add(KindInventory, "clusters", (*Simulator).getInventory)
	add(KindClusters, "groups/{project}/clusters", (*Simulator).getClusters)
	add(KindCluster, "groups/{project}/clusters/{cluster}", (*Simulator).getCluster)
	add(KindSnapshots, "groups/{project}/clusters/{cluster}/snapshots", (*Simulator).getSnapshots)
	add(KindRestoreJobs, "groups/{project}/clusters/{cluster}/restoreJobs", (*Simulator).getRestoreJobs)
	add(KindBackupConfigs, "groups/{project}/backupConfigs", (*Simulator).getBackupConfigs)
	add(KindBackupConfig, "groups/{project}/backupConfigs/{cluster}", (*Simulator).getBackupConfig)
	add(KindKey, "groups/{project}/backupConfigs/{cluster}/encryptionKey", (*Simulator).getKey, http.MethodPut)
	add(KindAutomationConfig, "groups/{project}/automationConfig", (*Simulator).getAutomationConfig, http.MethodPut)
	add(KindAutomationConfig, "groups/{project}/automationConfig/noSecrets", (*Simulator).getAutomationConfig, http.MethodPut)
	add(KindAutomationStatus, "groups/{project}/automationStatus", (*Simulator).getAutomationStatus)
	add(KindHosts, "groups/{project}/hosts", (*Simulator).getHosts)
	add(KindEvents, "groups/{project}/events", (*Simulator).getEvents)
	add(KindControlledFeature, "groups/{project}/controlledFeature", (*Simulator).getControlledFeature)
}

// route is a parsed path below the API's root.
type route struct {
	resource
	path, organizationID, projectID, clusterID string
}

func parseRoute(path string) route {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, candidate := range resources {
		found := route{resource: candidate, path: path}
		if found.take(segments) {
			return found
		}
	}
	return route{resource: resource{kind: KindUnknown}, path: path}
}

// take reads the ids off a path, and reports whether the path has its pattern.
func (p *route) take(segments []string) bool {
	if len(segments) != len(p.pattern) {
		return false
	}
	for i, expected := range p.pattern {
		switch expected {
		case "{org}":
			p.organizationID = segments[i]
		case "{project}":
			p.projectID = segments[i]
		case "{cluster}":
			p.clusterID = segments[i]
		case segments[i]:
		default:
			return false
		}
	}
	return true
}

func knownKind(kind Kind) bool {
	return kind == KindUnknown || slices.ContainsFunc(resources, func(r resource) bool { return r.kind == kind })
}

// isRotation reports whether the request asks for another key of a cluster.
func (c *call) isRotation() bool {
	return c.route.kind == KindKey && c.r.Method == http.MethodPut
}

// isPublication reports whether the request sends an automation configuration.
func (c *call) isPublication() bool {
	return c.route.kind == KindAutomationConfig && c.r.Method == http.MethodPut
}

// natural is the answer of an undisturbed request. refused is what a PUT was
// refused with.
func (s *Simulator) natural(c *call, refused *answer) answer {
	if refused == nil {
		refused = c.checkMethod()
	}
	switch {
	case refused != nil:
		return *refused
	case c.isRotation():
		return object(http.StatusCreated, map[string]any{})
	case c.isPublication():
		return object(http.StatusOK, map[string]any{})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.route.get(s, c)
}

// checkMethod is nil for a path and a method that the API has.
func (c *call) checkMethod() *answer {
	if c.route.kind == KindUnknown {
		return apiError(http.StatusNotFound, "RESOURCE_NOT_FOUND", "Cannot find resource "+c.route.path+".", c.route.path)
	}
	if slices.Contains(c.route.methods, c.r.Method) {
		return nil
	}
	refused := apiError(http.StatusMethodNotAllowed, "", "The "+c.r.Method+" method is not allowed for this resource.")
	refused.header = map[string]string{"Allow": strings.Join(c.route.methods, ", ")}
	return refused
}
