package activities

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"keyturn/internal/ellipsis"
	"keyturn/opsmanager"
)

// parallelProjects is the number of projects that are listed at a time.
const parallelProjects = 4

// Limits of what a list contains for people to read, in characters, and of the
// projects in UnlistedAhead.
const (
	maxClusterName   = 100
	maxUnlistedText  = 500
	maxUnlistedAhead = 100
)

// ListClustersInput selects clusters. The Scope's ProjectID is not used.
type ListClustersInput struct {
	Scope
	// ProjectIDs are the projects; empty = every project that the API key sees.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ExcludeProjectIDs are projects to leave out.
	ExcludeProjectIDs []string `json:"excludeProjectIds,omitempty"`
	// ClusterNames is a regular expression (RE2) on display names; empty =
	// every cluster.
	ClusterNames string `json:"clusterNames,omitempty"`
	// After is Last of the previous list; nil = from the beginning.
	After *ClusterRef `json:"after,omitempty"`
	// Limit is the maximum number of clusters and unlisted projects.
	Limit int `json:"limit"`
	// Count requests the totals, beyond the limit.
	Count bool `json:"count,omitempty"`
	// ReportUnlisted returns the projects that cannot be listed in the result.
	// Without it, the first of them fails the activity.
	ReportUnlisted bool `json:"reportUnlisted,omitempty"`
}

// ClusterRef identifies a top-level cluster.
type ClusterRef struct {
	ProjectID   string `json:"projectId"`             // 24 hexadecimal digits, in lower case
	ClusterID   string `json:"clusterId"`             // 24 hexadecimal digits, in lower case; empty for a project that cannot be listed
	ClusterName string `json:"clusterName,omitempty"` // the display name, up to 100 characters
}

func (r ClusterRef) compare(other ClusterRef) int {
	return cmp.Or(strings.Compare(r.ProjectID, other.ProjectID), strings.Compare(r.ClusterID, other.ClusterID))
}

// UnlistedProject is a project whose clusters cannot be listed, and why.
type UnlistedProject struct {
	ProjectID string    `json:"projectId"` // the project
	Type      ErrorType `json:"type"`      // the type of the error
	Message   string    `json:"message"`   // the error, up to 500 characters
}

// ListClustersResult has clusters by project ID and cluster ID. This order does
// not depend on when the list is continued.
type ListClustersResult struct {
	// Clusters are at most as many as Limit.
	Clusters []ClusterRef `json:"clusters"`
	// Unlisted are the projects that cannot be listed and have their place
	// among these clusters.
	Unlisted []UnlistedProject `json:"unlisted,omitempty"`
	// UnlistedAhead are the first 100 of those that come after these clusters,
	// where the totals are requested.
	UnlistedAhead []UnlistedProject `json:"unlistedAhead,omitempty"`
	// Last is the position at which the next list continues.
	Last *ClusterRef `json:"last,omitempty"`
	// More reports that there are clusters after Last.
	More bool `json:"more,omitempty"`
	// Total is the number of all clusters and unlisted projects, where
	// requested.
	Total int `json:"total,omitempty"`
	// TotalUnlisted is the number of unlisted projects in Total.
	TotalUnlisted int `json:"totalUnlisted,omitempty"`
}

// ListClusters lists the top-level clusters of many projects: sharded clusters,
// and replica sets that are not part of one. Transient errors are retried within
// the attempt, those of all projects together for RetryTimeout. It fails if not
// one project can be listed.
func (a *Activities) ListClusters(ctx context.Context, in ListClustersInput) (ListClustersResult, error) {
	names, err := regexp.Compile(in.ClusterNames)
	if err != nil {
		return ListClustersResult{}, permanent(ErrorInvalidInput, "clusterNames: %v", err)
	}
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ListClustersResult{}, err
	}
	defer at.finish()
	listing := &clusterListing{
		at: at, lists: &a.lists, in: in, names: names, retries: at.newRetries(), outage: at.newRetries(),
		clusters: map[string][]ClusterRef{}, failed: map[string]error{},
	}
	projects, err := listing.projects(ctx)
	if err == nil {
		err = listing.listAll(ctx, projects)
	}
	if err == nil {
		err = listing.wholeError(projects)
	}
	if err != nil {
		return ListClustersResult{}, at.failure(err)
	}
	return listing.result(), nil
}

// clusterListing is what one attempt of ListClusters has found.
type clusterListing struct {
	at    *attempt
	lists *clusterLists
	in    ListClustersInput
	names *regexp.Regexp
	// retries begins when every project was listed once, outage with the first
	// transient error.
	retries, outage retries
	outageBegan     bool
	lastError       error

	mu       sync.Mutex
	clusters map[string][]ClusterRef // by project
	failed   map[string]error        // by project: why it cannot be listed
}

// projects returns the projects that are still to be listed, by ID.
func (l *clusterListing) projects(ctx context.Context) (ids []string, err error) {
	given := l.in.ProjectIDs
	if len(given) == 0 {
		err = l.at.retryTransient(ctx, func() error {
			given, err = l.at.client.Projects(ctx)
			return err
		})
	}
	for _, id := range given {
		if id = strings.ToLower(id); l.isAhead(id) && !slices.Contains(l.in.ExcludeProjectIDs, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// isAhead reports whether a project may have clusters after After. A position
// without a cluster is that of an unlisted project, which is not listed again.
func (l *clusterListing) isAhead(project string) bool {
	after := l.in.After
	return after == nil || project > after.ProjectID || project == after.ProjectID && after.ClusterID != ""
}

// listAll lists the projects, in their order, until there is enough. Projects
// with transient errors are listed again after the others, all of them within
// one RetryTimeout: the time does not grow with their number.
func (l *clusterListing) listAll(ctx context.Context, projects []string) error {
	var again []string
	for try := 1; ; try++ {
		failed, err := l.listProjects(ctx, again, func() bool { return try > 2 && l.retries.left() <= 0 })
		if err != nil {
			return err
		}
		for again = failed; len(projects) > 0 && !l.isEnough() && !l.isOutage(); {
			some := projects[:min(parallelProjects, len(projects))]
			projects = projects[len(some):]
			failed, err := l.listProjects(ctx, some, func() bool { return false })
			if err != nil {
				return err
			}
			again = append(again, failed...)
		}
		if len(again) == 0 {
			return nil
		}
		waiting, err := l.waitForRetry(ctx, again, try)
		if err != nil {
			return err
		}
		if !waiting {
			l.giveUp(again)
			if l.isOutage() {
				l.giveUp(projects)
			}
			return nil
		}
	}
}

// waitForRetry pauses before projects are listed again. It returns false where
// their time is up.
func (l *clusterListing) waitForRetry(ctx context.Context, again []string, try int) (waiting bool, err error) {
	longest, _ := opsmanager.AsError(l.failed[again[0]])
	for _, project := range again {
		if apiError, _ := opsmanager.AsError(l.failed[project]); apiError.RetryAfter > longest.RetryAfter {
			longest = apiError
		}
	}
	pause, ok := l.retries.next(longest, try)
	if ok && !l.isOutage() {
		return true, l.at.wait(ctx, pause)
	}
	return false, nil
}

// giveUp records why projects are not listed again; one that was not listed
// during an outage, with the error of another.
func (l *clusterListing) giveUp(projects []string) {
	for _, project := range projects {
		l.lastError = cmp.Or(l.failed[project], l.lastError)
		l.failed[project] = gaveUpError{l.lastError}
	}
}

// isEnough reports whether the list is full, where no totals are requested.
func (l *clusterListing) isEnough() bool {
	n := len(l.failed)
	for _, clusters := range l.clusters {
		n += len(clusters)
	}
	return !l.in.Count && n > l.in.Limit
}

// isOutage reports whether, for the whole RetryTimeout, not one project could be
// listed.
func (l *clusterListing) isOutage() bool {
	return len(l.clusters) == 0 && l.outageBegan && l.outage.left() <= 0
}

// listProjects lists some projects once, and returns those with transient
// errors. It stops early where expired returns true.
func (l *clusterListing) listProjects(ctx context.Context, projects []string, expired func() bool) (transient []string, err error) {
	for ; len(projects) > 0; projects = projects[min(parallelProjects, len(projects)):] {
		select {
		case <-l.at.stopping:
			return nil, errWorkerStopping
		default:
		}
		if expired() {
			return append(transient, projects...), nil
		}
		group, groupCtx := errgroup.WithContext(ctx)
		some := projects[:min(parallelProjects, len(projects))]
		for _, project := range some {
			group.Go(func() error { return l.listProject(groupCtx, project) })
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		for _, project := range some {
			if apiError, ok := opsmanager.AsError(l.failed[project]); ok && classify(apiError).retryable {
				transient = append(transient, project)
			}
		}
	}
	if len(transient) > 0 && !l.outageBegan {
		l.outageBegan = true
		l.outage.left() // its time begins
	}
	return transient, nil
}

// listProject lists the clusters of one project. It fails only where the attempt
// does: errors of Ops Manager are the project's.
func (l *clusterListing) listProject(ctx context.Context, project string) error {
	all, err := l.clustersOf(ctx, project)
	apiError, ok := opsmanager.AsError(err)
	if err != nil && !ok || l.at.ctx.Err() != nil {
		return cmp.Or(err, errCanceled)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.failed, project)
	switch {
	case ok && apiError.Kind == opsmanager.NotFound && len(l.in.ProjectIDs) == 0: // deleted since the projects were listed
	case ok:
		l.failed[project] = err
	default:
		l.clusters[project] = l.selected(project, all)
	}
	return nil
}

// clustersOf lists a project afresh where a fleet begins, so that none of its
// clusters is missing that was there at that time. The list may be continued from
// one that other activities have read.
func (l *clusterListing) clustersOf(ctx context.Context, project string) ([]opsmanager.Cluster, error) {
	user, asked := l.at.listUser(project), l.at.moment()
	if l.in.After != nil {
		last, err := l.lists.lastOf(ctx, user)
		if err != nil {
			return nil, err
		}
		if last != nil {
			if isRecent, err := l.lists.confirm(ctx, user, last); isRecent || err != nil {
				return last.Clusters, err
			}
		}
	}
	list, err := l.lists.readSince(ctx, user, asked)
	if err != nil {
		return nil, err
	}
	return list.Clusters, nil
}

// selected returns the clusters that the input selects, by ID.
func (l *clusterListing) selected(project string, all []opsmanager.Cluster) (refs []ClusterRef) {
	for _, c := range all {
		ref := ClusterRef{ProjectID: project, ClusterID: strings.ToLower(c.ID), ClusterName: cmp.Or(c.ClusterName, c.ReplicaSetName, c.ID)}
		if c.IsTopLevel() && l.names.MatchString(ref.ClusterName) && (l.in.After == nil || ref.compare(*l.in.After) > 0) {
			ref.ClusterName = ellipsis.Cut(ref.ClusterName, maxClusterName)
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, ClusterRef.compare)
	return refs
}

// wholeError returns the error that ends the fleet: that of the first project if
// no project can be listed, or of any if they are not to be reported.
func (l *clusterListing) wholeError(projects []string) error {
	failed := slices.Sorted(maps.Keys(l.failed))
	switch {
	case len(failed) == 0:
		return nil
	case !l.in.ReportUnlisted:
		return l.failed[failed[0]]
	case l.in.After == nil && len(l.clusters) == 0:
		err := l.failed[failed[0]]
		apiError, _ := opsmanager.AsError(err)
		if len(failed) == 1 {
			return err
		}
		return l.at.finalFailure(apiError, fmt.Sprintf("none of %d projects can be listed: %s", len(projects), l.reason(err)))
	}
	return nil
}

// reason is the beginning of a message about a transient error.
func (l *clusterListing) reason(err error) string {
	apiError, _ := opsmanager.AsError(err)
	if !classify(apiError).retryable {
		return ""
	}
	return l.at.giveUpReason(apiError)
}

func (l *clusterListing) unlisted(project string) UnlistedProject {
	err := l.failed[project]
	apiError, _ := opsmanager.AsError(err)
	class := classify(apiError)
	return UnlistedProject{project, class.errorType, ellipsis.Cut(l.reason(err)+message(apiError, class), maxUnlistedText)}
}

// result returns what fits, in order.
func (l *clusterListing) result() (result ListClustersResult) {
	var all []ClusterRef
	for _, project := range slices.Sorted(maps.Keys(l.clusters)) {
		all = append(all, l.clusters[project]...)
	}
	for _, project := range slices.Sorted(maps.Keys(l.failed)) {
		all = append(all, ClusterRef{ProjectID: project})
	}
	slices.SortFunc(all, ClusterRef.compare)
	if l.in.Count {
		result.Total, result.TotalUnlisted = len(all), len(l.failed)
	}
	some := all[:min(len(all), l.in.Limit)]
	for _, ref := range some {
		if ref.ClusterID == "" {
			result.Unlisted = append(result.Unlisted, l.unlisted(ref.ProjectID))
		} else {
			result.Clusters = append(result.Clusters, ref)
		}
	}
	for _, ref := range all[len(some):] {
		result.More = true
		if l.in.Count && ref.ClusterID == "" && len(result.UnlistedAhead) < maxUnlistedAhead {
			result.UnlistedAhead = append(result.UnlistedAhead, l.unlisted(ref.ProjectID))
		}
	}
	if len(some) > 0 {
		result.Last = &some[len(some)-1]
	}
	return result
}
