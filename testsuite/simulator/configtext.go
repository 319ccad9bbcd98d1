package simulator

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// rotationField is the field of a process whose change rotates its master key.
const rotationField = "lastKmipMasterKeyRotation"

// span is where a value stands in a JSON text, and where its name begins; nameAt
// is -1 for an element of a list.
type span struct{ nameAt, from, to int }

// cursor reads a JSON text that json.Valid has accepted. It has nothing in common
// with the product's reader, which it judges.
type cursor struct {
	text []byte
	at   int
}

func (c *cursor) space() {
	for c.at < len(c.text) && isSpace(c.text[c.at]) {
		c.at++
	}
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// value reads a value of any type, and nothing of what is in it.
func (c *cursor) value() (from, to int) {
	c.space()
	from = c.at
	for depth := 0; ; {
		switch c.text[c.at] {
		case '{', '[':
			depth++
			c.at++
		case '}', ']':
			depth--
			c.at++
		case '"':
			c.quoted()
		case ',', ':', ' ', '\n', '\t', '\r':
			c.at++
		default:
			for c.at < len(c.text) && !isSpace(c.text[c.at]) && strings.IndexByte(",]}", c.text[c.at]) < 0 {
				c.at++
			}
		}
		if depth == 0 {
			return from, c.at
		}
	}
}

// quoted reads a string.
func (c *cursor) quoted() {
	for c.at++; c.text[c.at] != '"'; c.at++ {
		if c.text[c.at] == '\\' {
			c.at++
		}
	}
	c.at++
}

// members reads an object, as long as each returns true.
func (c *cursor) members(each func(name string, at span) bool) {
	c.list('}', func(int) bool {
		nameAt, end := c.value()
		name := unquoted(c.text[nameAt:end])
		c.space()
		c.at++ // the colon
		from, to := c.value()
		return each(name, span{nameAt, from, to})
	})
}

// elements reads a list, as long as each returns true.
func (c *cursor) elements(each func(i int, at span) bool) {
	c.list(']', func(i int) bool {
		from, to := c.value()
		return each(i, span{-1, from, to})
	})
}

func (c *cursor) list(end byte, entry func(i int) bool) {
	c.at++
	for i := 0; ; i++ {
		c.space()
		switch c.text[c.at] {
		case end:
			c.at++
			return
		case ',':
			c.at++
		}
		if !entry(i) {
			return
		}
	}
}

func unquoted(text []byte) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	var s string
	_ = json.Unmarshal(text, &s)
	return s
}

// children calls each for the members or elements of the value at from, as long
// as it returns true.
func children(text []byte, from int, each func(name string, at span) bool) {
	c := &cursor{text, from}
	c.space()
	switch text[c.at] {
	case '{':
		c.members(each)
	case '[':
		c.elements(func(i int, at span) bool { return each(strconv.Itoa(i), at) })
	}
}

// find gives the value at a path of names and positions.
func find(text []byte, path ...string) (found span, ok bool) {
	return findFrom(text, 0, path...)
}

// findFrom gives the value at a path below the value at from.
func findFrom(text []byte, from int, path ...string) (found span, ok bool) {
	found, ok = span{-1, from, len(text)}, true
	if from == 0 {
		c := &cursor{text: text}
		found.from, found.to = c.value()
	}
	for _, step := range path {
		ok = false
		children(text, found.from, func(name string, at span) bool {
			if ok = name == step; ok {
				found = at
			}
			return !ok
		})
		if !ok {
			return span{}, false
		}
	}
	return found, true
}

// everyMember calls each for every member of every object, in one pass: for those
// of an object before the object itself.
func everyMember(text []byte, each func(path []string, name string, at span)) {
	(&cursor{text: text}).walk(nil, each)
}

func (c *cursor) walk(path []string, each func(path []string, name string, at span)) (from, to int) {
	c.space()
	from = c.at
	switch c.text[c.at] {
	case '{':
		c.list('}', func(int) bool {
			nameAt, end := c.value()
			name := unquoted(c.text[nameAt:end])
			c.space()
			c.at++ // the colon
			below := append(path, name)
			valueFrom, valueTo := c.walk(below, each)
			each(below, name, span{nameAt, valueFrom, valueTo})
			return true
		})
	case '[':
		c.list(']', func(i int) bool {
			c.walk(append(path, strconv.Itoa(i)), each)
			return true
		})
	default:
		c.value()
	}
	return from, c.at
}

// withValue replaces the value at a path, or adds it as the first member of the
// object that it belongs to, which must be there.
func withValue(text []byte, value string, path ...string) []byte {
	if at, ok := find(text, path...); ok {
		return slices.Concat(text[:at.from], []byte(value), text[at.to:])
	}
	last := len(path) - 1
	parent, ok := find(text, path[:last]...)
	if !ok || text[parent.from] != '{' {
		panic("simulator: the configuration has no object /" + strings.Join(path[:last], "/"))
	}
	added := strconv.Quote(path[last]) + ":" + value
	inside := &cursor{text, parent.from + 1}
	if inside.space(); text[inside.at] != '}' {
		added += ","
	}
	return slices.Concat(text[:parent.from+1], []byte(added), text[parent.from+1:])
}

// without removes the member at a path, if it is there.
func without(text []byte, path ...string) []byte {
	at, ok := find(text, path...)
	if !ok {
		return text
	}
	return withoutMember(text, at)
}

// withoutMember removes a member and the comma that separates it.
func withoutMember(text []byte, at span) []byte {
	from, to := at.nameAt, at.to
	after := &cursor{text, to}
	if after.space(); text[after.at] == ',' {
		return slices.Concat(text[:from], text[after.at+1:])
	}
	before := bytes.TrimRight(text[:from], " \t\r\n")
	return slices.Concat(bytes.TrimSuffix(before, []byte(",")), text[to:])
}

// processText is what a configuration's text says of a process.
type processText struct {
	name string
	at   span
	// rotation is where the value of rotationField stands; hasRotation is false if
	// there is none.
	rotation    span
	hasRotation bool
	// pinned: the KMIP settings name a key.
	pinned bool
}

func processesOf(text []byte) (processes []processText) {
	list, ok := find(text, "processes")
	if !ok || text[list.from] != '[' {
		return nil
	}
	children(text, list.from, func(_ string, at span) bool {
		p := processText{at: at}
		children(text, at.from, func(name string, value span) bool {
			switch name {
			case "name":
				if text[value.from] == '"' {
					p.name = unquoted(text[value.from:value.to])
				}
			case rotationField:
				p.rotation, p.hasRotation = value, true
			case "args2_6":
				p.pinned = isPinned(text, value.from)
			}
			return true
		})
		processes = append(processes, p)
		return true
	})
	return processes
}

// isPinned reports whether a process's arguments name its key.
func isPinned(text []byte, arguments int) bool {
	at, ok := findFrom(text, arguments, "security", "kmip", "keyIdentifier")
	value := string(text[at.from:at.to])
	return ok && value != `""` && value != "null"
}

// pathOfProcess is the path of a process, or of a field of it. If there is no such
// process, nothing is at the path.
func pathOfProcess(text []byte, name string, more ...string) []string {
	at := slices.IndexFunc(processesOf(text), func(p processText) bool { return p.name == name })
	return append([]string{"processes", strconv.Itoa(at)}, more...)
}

// isConfiguration reports whether Ops Manager takes a text for a configuration.
func isConfiguration(text []byte) bool {
	if !json.Valid(text) {
		return false
	}
	list, ok := find(text, "processes")
	return ok && text[list.from] == '['
}

// versionOf is 0 where the text has none.
func versionOf(text []byte) int64 {
	at, ok := find(text, "version")
	if !ok {
		return 0
	}
	version, _ := strconv.ParseInt(string(text[at.from:at.to]), 10, 64)
	return version
}

func withVersion(text []byte, version int64) []byte {
	return withValue(text, strconv.FormatInt(version, 10), "version")
}

// redacted stands where a secret was.
const redacted = `"<redacted>"`

// isSecret reports whether Ops Manager leaves the value of that name out.
func isSecret(name string) bool {
	lower := strings.ToLower(name)
	return lower == "key" || strings.Contains(lower, "password") || strings.Contains(lower, "pwd") || strings.Contains(lower, "secret")
}

// withoutSecrets is the text with a placeholder for each secret.
func withoutSecrets(text []byte) []byte {
	return replaceMembers(text, func(_ []string, name string, value []byte) []byte {
		if isSecret(name) && value[0] == '"' {
			return []byte(redacted)
		}
		return nil
	})
}

// withSecretsOf puts the secrets of another text where placeholders are.
func withSecretsOf(text, other []byte) []byte {
	secrets := map[string][]byte{}
	everyMember(other, func(path []string, name string, at span) {
		if isSecret(name) {
			secrets[strings.Join(path, "/")] = other[at.from:at.to]
		}
	})
	return replaceMembers(text, func(path []string, name string, value []byte) []byte {
		if isSecret(name) && string(value) == redacted {
			return secrets[strings.Join(path, "/")]
		}
		return nil
	})
}

// replaceMembers replaces the values for which value gives another one.
func replaceMembers(text []byte, value func(path []string, name string, now []byte) []byte) []byte {
	replaced, copied := make([]byte, 0, len(text)), 0
	everyMember(text, func(path []string, name string, at span) {
		if at.from < copied {
			return // something in it was replaced
		}
		if instead := value(path, name, text[at.from:at.to]); instead != nil {
			replaced = append(append(replaced, text[copied:at.from]...), instead...)
			copied = at.to
		}
	})
	return append(replaced, text[copied:]...)
}
