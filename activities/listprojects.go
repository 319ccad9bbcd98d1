package activities

import (
	"context"
	"slices"
	"strings"
)

// ListProjectsInput says which projects are meant. The Scope's ProjectID is not
// used.
type ListProjectsInput struct {
	Scope
	// ProjectIDs are the projects; none = every one that the key sees.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ExcludeProjectIDs are left out.
	ExcludeProjectIDs []string `json:"excludeProjectIds,omitempty"`
	// After is the last project of the list before; "" = from the beginning.
	After string `json:"after,omitempty"`
	// Limit is how many projects are returned at most.
	Limit int `json:"limit"`
}

// ListProjectsResult has the projects in the order of their ids.
type ListProjectsResult struct {
	// ProjectIDs are in lower case, at most as many as Limit.
	ProjectIDs []string `json:"projectIds"`
	// More: there are projects after these.
	More bool `json:"more,omitempty"`
	// Total is how many there are, whatever After and Limit are.
	Total int `json:"total"`
}

// ListProjects lists projects. Transient errors are retried within the attempt.
// Given ids are not looked up.
func (a *Activities) ListProjects(ctx context.Context, in ListProjectsInput) (ListProjectsResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ListProjectsResult{}, err
	}
	defer at.finish()
	ids := slices.Clone(in.ProjectIDs)
	if len(ids) == 0 {
		err := at.retryTransient(ctx, func() (err error) {
			ids, err = at.client.Projects(ctx)
			return err
		})
		if err != nil {
			return ListProjectsResult{}, at.failure(err)
		}
	}
	excluded := map[string]bool{}
	for _, id := range in.ExcludeProjectIDs {
		excluded[strings.ToLower(id)] = true
	}
	for i := range ids {
		ids[i] = strings.ToLower(ids[i])
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return excluded[id] })
	result := ListProjectsResult{ProjectIDs: []string{}, Total: len(ids)}
	for _, id := range ids {
		if id <= in.After {
			continue
		}
		if result.More = len(result.ProjectIDs) == in.Limit; result.More {
			break
		}
		result.ProjectIDs = append(result.ProjectIDs, id)
	}
	return result, nil
}
