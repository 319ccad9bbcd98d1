package opsmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// pageQuery is the query of one page of a list: the list's own parameters, and
// which page is wanted. A list may set its own itemsPerPage.
func pageQuery(own url.Values, number int) url.Values {
	query := maps.Clone(own)
	if query == nil {
		query = url.Values{}
	}
	query.Set("pageNum", strconv.Itoa(number))
	if !query.Has("itemsPerPage") {
		query.Set("itemsPerPage", strconv.Itoa(itemsPerPage))
	}
	return query
}

// listRecords lists records that hold lists of their own. decode reads what is
// used of an entry and its id ("" = it has none), and never fails: an entry that
// cannot be read hides no other one.
func listRecords[T any](ctx context.Context, c *Client, r request, decode func(json.RawMessage) (record T, id string)) ([]T, error) {
	texts, err := list(ctx, c, r, func(raw json.RawMessage) (string, entry) {
		record, id := decode(raw)
		text, err := json.Marshal(record) // to be compared with another reading
		if err != nil {
			return "", entry{problem: "an entry cannot be kept: " + err.Error()}
		}
		return string(text), entry{key: cmp.Or(id, string(raw))}
	})
	if err != nil {
		return nil, err
	}
	records := make([]T, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal([]byte(text), &records[i]); err != nil {
			return nil, c.unexpected(r, answer{}, "an entry cannot be kept: "+err.Error())
		}
	}
	return records, nil
}

// object is one JSON object whose fields are read one by one: a field that is
// missing or of another type has the zero value and spoils no other field.
type object map[string]json.RawMessage

func objectOf(raw json.RawMessage) (object, bool) {
	var o object
	err := json.Unmarshal(raw, &o)
	return o, err == nil && o != nil
}

func (o object) has(name string) bool {
	raw, found := o[name]
	return found && string(raw) != "null"
}

// text is a printable form of a field's string, of at most maxRecordText characters.
func (o object) text(name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil {
		return ""
	}
	return printable(s)
}

// flag is nil where the field is missing or no boolean.
func (o object) flag(name string) *bool {
	var b *bool
	if json.Unmarshal(o[name], &b) != nil {
		return nil
	}
	return b
}

// integer is a field's whole number; ok is false where it has none.
func (o object) integer(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(o[name]), 10, 64)
	return n, err == nil
}

// time reads RFC 3339, or an object with such a date, as snapshots have it.
func (o object) time(name string) time.Time {
	text := o.text(name)
	if nested, ok := objectOf(o[name]); ok {
		text = nested.text("date")
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// list is a field's entries; ok is false where the field is there and is no list.
func (o object) list(name string) (entries []json.RawMessage, ok bool) {
	if !o.has(name) {
		return nil, true
	}
	err := json.Unmarshal(o[name], &entries)
	return entries, err == nil
}

// keyID is the id of a master key in field name; "" where there is none that can
// be one.
func (o object) keyID(name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil || !isKeyID(s) {
		return ""
	}
	return s
}

// isKeyID reports whether s can be a master key's id, which is an opaque string.
func isKeyID(s string) bool {
	return s != "" && len(s) <= maxKeyID && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

// maxRecordText bounds the names that are kept of a record, in characters.
const maxRecordText = 256

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > maxRecordText {
		return string(runes[:maxRecordText])
	}
	return s
}
