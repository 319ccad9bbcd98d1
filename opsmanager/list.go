package opsmanager

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
)

const (
	// itemsPerPage is the most that current versions give; 3.6 and 4.0 give
	// 100, whatever is asked for.
	itemsPerPage = 500
	// maxPages ends a listing whose pages never end.
	maxPages = 1000
)

// page is the form of every list's answer.
type page[T any] struct {
	Links []struct {
		Rel string `json:"rel"`
	} `json:"links"`
	Results    []T `json:"results"`
	TotalCount int `json:"totalCount"`
}

// list collects all pages of a list, each item once, by its id. check gives an
// item's id, and what is wrong with it; empty = nothing.
func list[T any](ctx context.Context, c *Client, r request, check func(T) (id, problem string)) ([]T, error) {
	items, complete, err := listPages(ctx, c, r, maxPages, check)
	if err == nil && !complete {
		err = c.unexpected(r, answer{}, fmt.Sprintf("the list does not end within %d pages", maxPages))
	}
	return items, err
}

// listPages collects the first pages of a list, and tells whether that is all.
func listPages[T any](ctx context.Context, c *Client, r request, pages int, check func(T) (id, problem string)) (items []T, complete bool, err error) {
	seen := map[string]bool{}
	for number := 1; number <= pages; number++ {
		r.query = url.Values{"pageNum": {strconv.Itoa(number)}, "itemsPerPage": {strconv.Itoa(itemsPerPage)}}
		var p page[T]
		a, err := c.read(ctx, r, &p)
		if err != nil {
			return nil, false, err
		}
		if p.Results == nil {
			return nil, false, c.unexpected(r, a, "the answer holds no results")
		}
		before := len(items)
		for _, item := range p.Results {
			id, problem := check(item)
			if problem != "" {
				return nil, false, c.unexpected(r, a, problem)
			}
			if !seen[id] {
				seen[id] = true
				items = append(items, item)
			}
		}
		if p.isLast(len(items)) || len(items) == before {
			if len(items) < p.TotalCount {
				return nil, false, c.unexpected(r, a, fmt.Sprintf("the list ends after %d of %d entries", len(items), p.TotalCount))
			}
			return items, true, nil
		}
	}
	return items, false, nil
}

// isLast goes by the page's next link only to see whether there is one: its
// address is the server's own idea of itself.
func (p page[T]) isLast(collected int) bool {
	if len(p.Results) == 0 {
		return true
	}
	for _, link := range p.Links {
		if link.Rel == "next" {
			return false
		}
	}
	return collected >= p.TotalCount
}
