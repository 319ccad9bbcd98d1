package opsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
)

const (
	// itemsPerPage is the most that current versions return; 3.6 and 4.0 return
	// 100, whatever is requested.
	itemsPerPage = 500
	// maxPages is the most that one pass reads.
	maxPages = 1000
	// maxPasses is how often a list of several pages is read at most.
	maxPasses = 6
)

// page is the form of every list's response.
type page struct {
	Links []struct {
		Rel string `json:"rel"`
	} `json:"links"`
	Results    []json.RawMessage `json:"results"`
	TotalCount int               `json:"totalCount"`
}

// entry is what a list needs to know about one of its entries.
type entry struct {
	key     string // identifies it within the list
	problem string // why it makes the list unusable; empty = it does not
	leftOut bool   // it counts, but is not returned
}

// pass is one reading of a list, from its first page on.
type pass[T comparable] struct {
	items []T             // each once
	byKey map[string]T    // the same
	keys  map[string]bool // of all entries, also of those that are left out
	total int             // by the last page
	pages int
	ended bool // the last page has been read
	// unsteady: the pages have different totals, so that the list has changed in
	// between.
	unsteady bool
}

// agreesWith reports whether two passes saw the same list, in whatever order.
func (p *pass[T]) agreesWith(other *pass[T]) bool {
	return other != nil && !p.unsteady && !other.unsteady &&
		p.total == other.total && len(p.keys) == len(other.keys) && maps.Equal(p.byKey, other.byKey)
}

// isShort: fewer entries were listed than there are.
func (p *pass[T]) isShort() bool { return len(p.keys) < p.total }

// list reads a whole list.
func list[T comparable](ctx context.Context, c *Client, r request, read func(json.RawMessage) (T, entry)) ([]T, error) {
	p, err := readList(ctx, c, r, read)
	if err != nil {
		return nil, err
	}
	return p.items, nil
}

// readList reads a whole list and returns the last pass. A list of one page is a
// snapshot; another one is read until two consecutive passes agree.
func readList[T comparable](ctx context.Context, c *Client, r request, read func(json.RawMessage) (T, entry)) (*pass[T], error) {
	var previous *pass[T]
	for range maxPasses {
		p, err := readPages(ctx, c, r, maxPages, read)
		switch {
		case err != nil:
			return nil, err
		case !p.ended:
			return nil, c.unexpected(r, answer{}, fmt.Sprintf("the list does not end within %d pages", maxPages))
		case p.pages == 1 && !p.isShort():
			return p, nil
		case p.agreesWith(previous) && p.isShort():
			return nil, c.unexpected(r, answer{}, fmt.Sprintf("the list ends after %d of %d entries", len(p.keys), p.total))
		case p.agreesWith(previous):
			return p, nil
		}
		previous = p
	}
	return nil, c.networkError(r, fmt.Errorf("the list keeps changing: %d readings of its pages differ", maxPasses), false)
}

// firstPage reads the first page of a list and reports whether that is all of it.
func firstPage[T comparable](ctx context.Context, c *Client, r request, read func(json.RawMessage) (T, entry)) (items []T, all bool, err error) {
	p, err := readPages(ctx, c, r, 1, read)
	if err != nil {
		return nil, false, err
	}
	return p.items, p.ended && !p.isShort(), nil
}

// readPages reads the first pages of a list, at most so many.
func readPages[T comparable](ctx context.Context, c *Client, r request, pages int, read func(json.RawMessage) (T, entry)) (*pass[T], error) {
	p := &pass[T]{keys: map[string]bool{}, byKey: map[string]T{}}
	for p.pages < pages && !p.ended {
		p.pages++
		r.query = pageQuery(r.query, p.pages)
		var next page
		a, err := c.read(ctx, r, &next)
		if err != nil {
			return nil, err
		}
		if next.Results == nil {
			return nil, c.unexpected(r, a, "the response has no results")
		}
		if problem := p.add(next, read); problem != "" {
			return nil, c.unexpected(r, a, problem)
		}
	}
	return p, nil
}

// add adds a page's entries and returns the first problem of one.
func (p *pass[T]) add(next page, read func(json.RawMessage) (T, entry)) (problem string) {
	p.unsteady = p.unsteady || p.pages > 1 && next.TotalCount != p.total
	p.total = next.TotalCount
	before := len(p.keys)
	for _, raw := range next.Results {
		item, e := read(raw)
		if e.problem != "" {
			return e.problem
		}
		if !p.keys[e.key] && !e.leftOut {
			p.items, p.byKey[e.key] = append(p.items, item), item
		}
		p.keys[e.key] = true
	}
	p.ended = next.isLast(len(p.keys)) || len(p.keys) == before
	return ""
}

// isLast uses the page's next link only to see whether there is one: its address
// is the server's own idea of itself.
func (p page) isLast(collected int) bool {
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
