package simulator

import (
	"bytes"
	"slices"
	"strings"
)

const (
	// maxEdits bounds the search for the changes between two texts. Texts that
	// differ more are reported as one change.
	maxEdits = 1000
	// maxChangeText is how much of a change is kept, in bytes.
	maxChangeText = 500
)

// TextChange is a place where one text differs from another.
type TextChange struct {
	// Offset is where it begins in the text before, in bytes.
	Offset int `json:"offset"`
	// Path is that of the innermost value around it: /processes/3/args2_6.
	Path string `json:"path"`
	// Removed and Added are at most the first 500 bytes of it, RemovedBytes and
	// AddedBytes its lengths.
	Removed      string `json:"removed"`
	Added        string `json:"added"`
	RemovedBytes int    `json:"removedBytes"`
	AddedBytes   int    `json:"addedBytes"`
}

// RotationChange is another time of one process.
type RotationChange struct {
	Process string `json:"process"`
	// Before and After are the values as JSON; "" = none.
	Before string `json:"before"`
	After  string `json:"after"`
}

// changesBetween gives the changes of the processes' times, and every other byte
// that differs.
func changesBetween(before, after []byte) (rotations []RotationChange, others []TextChange) {
	times := map[string]processText{}
	for _, p := range processesOf(before) {
		times[p.name] = p
	}
	undone, copied := make([]byte, 0, len(after)), 0
	for _, p := range processesOf(after) {
		former, known := times[p.name]
		delete(times, p.name)
		was, is := former.time(before), p.time(after)
		if !known || was == is {
			continue
		}
		rotations = append(rotations, RotationChange{Process: p.name, Before: was, After: is})
		switch {
		case !p.hasRotation: // the diff below reports what went with it
		case former.hasRotation:
			undone = append(append(undone, after[copied:p.rotation.from]...), was...)
			copied = p.rotation.to
		default:
			from, to := p.rotation.nameAt, p.rotation.to
			if after[to] == ',' {
				to++
			} else if from > copied && after[from-1] == ',' {
				from--
			}
			undone = append(undone, after[copied:from]...)
			copied = to
		}
	}
	undone = append(undone, after[copied:]...)
	return rotations, textChanges(before, undone)
}

func (p processText) time(text []byte) string {
	if !p.hasRotation {
		return ""
	}
	return string(text[p.rotation.from:p.rotation.to])
}

// textChanges gives every difference, by the texts' lexemes.
func textChanges(before, after []byte) []TextChange {
	if bytes.Equal(before, after) {
		return nil
	}
	a, b := lexemes(before), lexemes(after)
	start := 0
	for start < min(len(a), len(b)) && bytes.Equal(a[start], b[start]) {
		start++
	}
	endA, endB := len(a), len(b)
	for endA > start && endB > start && bytes.Equal(a[endA-1], b[endB-1]) {
		endA, endB = endA-1, endB-1
	}
	var changes []TextChange
	at := lengthOf(a[:start])
	for _, e := range edits(a[start:endA], b[start:endB]) {
		removed, added := bytes.Join(e.removed, nil), bytes.Join(e.added, nil)
		changes = append(changes, TextChange{
			Offset: at + e.offset, Path: pathAt(before, at+e.offset),
			Removed: beginning(removed), Added: beginning(added),
			RemovedBytes: len(removed), AddedBytes: len(added),
		})
	}
	return changes
}

func beginning(text []byte) string { return string(text[:min(len(text), maxChangeText)]) }

func lengthOf(parts [][]byte) (n int) {
	for _, part := range parts {
		n += len(part)
	}
	return n
}

// lexemes splits any text into strings, runs of white space, single punctuation
// marks, and what is between them.
func lexemes(text []byte) (parts [][]byte) {
	for at := 0; at < len(text); {
		from := at
		switch c := text[at]; {
		case c == '"':
			for at++; at < len(text) && text[at] != '"'; at++ {
				if text[at] == '\\' {
					at++
				}
			}
			at = min(at+1, len(text))
		case strings.IndexByte("{}[]:,", c) >= 0:
			at++
		case isSpace(c):
			for at < len(text) && isSpace(text[at]) {
				at++
			}
		default:
			for at < len(text) && strings.IndexByte("{}[]:,\" \t\r\n", text[at]) < 0 {
				at++
			}
		}
		parts = append(parts, text[from:at])
	}
	return parts
}

type edit struct {
	offset         int // in bytes, from the beginning of the lexemes before
	removed, added [][]byte
}

// edits finds a shortest list of edits by Myers' algorithm.
func edits(a, b [][]byte) []edit {
	trace := shortestPath(a, b)
	if trace == nil {
		return []edit{{0, a, b}}
	}
	// Backwards, from both ends: which lexemes are in neither common run.
	goneA, newB := make([]bool, len(a)), make([]bool, len(b))
	x, y := len(a), len(b)
	for d := len(trace) - 1; d > 0; d-- {
		v, k := trace[d-1], x-y
		down := k == -d || (k != d && v[k-1+d] < v[k+1+d])
		previous := k - 1
		if down {
			previous = k + 1
		}
		fromX := v[previous+d]
		fromY := fromX - previous
		if down {
			newB[fromY] = true
		} else {
			goneA[fromX] = true
		}
		x, y = fromX, fromY
	}
	return grouped(a, b, goneA, newB)
}

// shortestPath gives the furthest points for each number of edits, or nil if
// there are too many. Those of d edits are stored with diagonal 0 at d+1.
func shortestPath(a, b [][]byte) (trace [][]int) {
	v := []int{0, 0, 0}
	for d := 0; d <= maxEdits; d++ {
		next := make([]int, 2*d+5)
		for k := -d; k <= d; k += 2 {
			x := 0
			switch {
			case d == 0:
			case k == -d || (k != d && v[k-1+d] < v[k+1+d]):
				x = v[k+1+d]
			default:
				x = v[k-1+d] + 1
			}
			for x < len(a) && x-k < len(b) && bytes.Equal(a[x], b[x-k]) {
				x++
			}
			next[k+d+1] = x
			if x >= len(a) && x-k >= len(b) {
				return append(trace, next)
			}
		}
		trace = append(trace, next)
		v = next
	}
	return nil
}

func grouped(a, b [][]byte, goneA, newB []bool) (list []edit) {
	i, j, offset := 0, 0, 0
	for i < len(a) || j < len(b) {
		if i < len(a) && j < len(b) && !goneA[i] && !newB[j] {
			offset += len(a[i])
			i, j = i+1, j+1
			continue
		}
		e := edit{offset: offset}
		for (i < len(a) && goneA[i]) || (j < len(b) && newB[j]) {
			if i < len(a) && goneA[i] {
				e.removed = append(e.removed, a[i])
				offset += len(a[i])
				i++
			} else {
				e.added = append(e.added, b[j])
				j++
			}
		}
		list = append(list, e)
	}
	return list
}

// pathAt is the path of the innermost value of a valid text around a position.
func pathAt(text []byte, position int) string {
	var path []string
	from := 0
	for {
		inner, ok := span{}, false
		var step string
		children(text, from, func(name string, at span) bool {
			begin := at.from
			if at.nameAt >= 0 {
				begin = at.nameAt
			}
			if ok = begin <= position && position < at.to; ok {
				inner, step = at, name
			}
			return !ok
		})
		if !ok {
			return "/" + strings.Join(path, "/")
		}
		path = append(slices.Clone(path), step)
		from = inner.from
	}
}
