package simulator

import (
	"net/http"
	"net/url"
	"strconv"
)

const defaultItemsPerPage = 100

// page answers one page of items, with links to itself and the adjacent pages. Only
// the bodies of that page are made.
func page[T any](c *call, items []T, body func(T) map[string]any) answer {
	number, refused := positive(c.r, "pageNum", 1)
	if refused != nil {
		return *refused
	}
	size, refused := positive(c.r, "itemsPerPage", defaultItemsPerPage)
	if refused != nil {
		return *refused
	}
	size = min(size, c.s.options.MaxItemsPerPage)
	// Compared before it is multiplied: a page number may be as great as it likes.
	from := len(items)
	if number-1 <= len(items)/size {
		from = min((number-1)*size, len(items))
	}
	to := min(from+size, len(items))
	results := make([]map[string]any, 0, to-from)
	for _, item := range items[from:to] {
		results = append(results, body(item))
	}
	return answer{status: http.StatusOK, list: true, body: map[string]any{
		"links":      c.s.pageLinks(c, number, size, to < len(items)),
		"results":    results,
		"totalCount": len(items),
	}}
}

// positive reads a query parameter that is a number from 1.
func positive(r *http.Request, name string, otherwise int) (int, *answer) {
	given := r.URL.Query().Get(name)
	if given == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 1 {
		return 0, apiError(http.StatusBadRequest, "INVALID_QUERY_PARAMETER",
			"Invalid query parameter "+name+" specified.", name)
	}
	return n, nil
}

func (s *Simulator) pageLinks(c *call, number, size int, more bool) []map[string]any {
	links := []map[string]any{}
	add := func(relation string, number int) {
		query := c.r.URL.Query()
		query.Set("pageNum", strconv.Itoa(number))
		query.Set("itemsPerPage", strconv.Itoa(size))
		links = append(links, s.link(c, relation, c.route.path, query))
	}
	if number > 1 {
		add("previous", number-1)
	}
	add("self", number)
	if more {
		add("next", number+1)
	}
	return links
}

// link points to a path below the API's root, at the server's own idea of its
// address.
func (s *Simulator) link(c *call, relation, path string, query url.Values) map[string]any {
	href := s.centralURL(c.r) + s.APIPath() + path
	if len(query) > 0 {
		href += "?" + query.Encode()
	}
	return map[string]any{"rel": relation, "href": href}
}

func (s *Simulator) centralURL(r *http.Request) string {
	if s.options.CentralURL != "" {
		return s.options.CentralURL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
