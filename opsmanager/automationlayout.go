package opsmanager

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// rotationField is the field of a process whose change rotates its master key.
const rotationField = "lastKmipMasterKeyRotation"

var byteOrderMark = []byte("\ufeff")

// layout has the positions of parts in a configuration's text.
type layout struct {
	version   int64
	processes []processLayout
}

// processLayout is the position of a process in the text.
type processLayout struct {
	// name is "" where the process has none that is a string.
	name string
	// inside is the position behind the opening brace.
	inside int
	// hasRotation: the process has a rotationField, whose value is at [from, to).
	hasRotation bool
	from, to    int
}

// layoutError is a text that is no automation configuration. It quotes nothing of it.
type layoutError struct {
	problem string
	at      int64
}

func (e layoutError) Error() string {
	return fmt.Sprintf("this is not an automation configuration: %s (at byte %d)", e.problem, e.at)
}

// scan reads a configuration's text, which must be one JSON object in which no
// object has a name twice. It keeps no part of the text but the names of the
// processes.
func scan(text []byte) (layout, error) {
	start := 0
	if bytes.HasPrefix(text, byteOrderMark) {
		start = len(byteOrderMark)
	}
	s := &scanner{
		// Given a buffer, the decoder reads the text in place. It refuses names
		// that stand twice. A lone surrogate is grammatical, and not re-encoded.
		decoder: jsontext.NewDecoder(bytes.NewBuffer(text[start:]), jsontext.AllowInvalidUTF8(true)),
		start:   start,
	}
	found, err := s.config()
	if err != nil {
		return layout{}, err
	}
	if _, err := s.decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return layout{}, s.problem("there is text after the object")
	}
	return found, nil
}

type scanner struct {
	decoder *jsontext.Decoder
	start   int // of the decoder's input in the text
}

// problem says nothing of the text but the position.
func (s *scanner) problem(what string) error {
	return layoutError{what, int64(s.start) + s.decoder.InputOffset()}
}

func (s *scanner) invalid() error { return s.problem("it is not valid JSON, or repeats a name") }

// position is the one behind the last token.
func (s *scanner) position() int { return s.start + int(s.decoder.InputOffset()) }

// open reads the beginning of an object or of a list.
func (s *scanner) open(kind jsontext.Kind, otherwise string) error {
	if s.decoder.PeekKind() != kind {
		return s.problem(otherwise)
	}
	if _, err := s.decoder.ReadToken(); err != nil {
		return s.invalid()
	}
	return nil
}

// members reads an object from its first member to its end. member reads the
// value of each.
func (s *scanner) members(member func(name string) error) error {
	for s.decoder.PeekKind() != '}' {
		name, err := s.decoder.ReadToken()
		if err != nil {
			return s.invalid()
		}
		if err := member(name.String()); err != nil {
			return err
		}
	}
	return s.end()
}

func (s *scanner) end() error {
	if _, err := s.decoder.ReadToken(); err != nil {
		return s.invalid()
	}
	return nil
}

func (s *scanner) skip() error {
	if s.decoder.SkipValue() != nil {
		return s.invalid()
	}
	return nil
}

// value reads a value and gives its bytes, which are valid until the next call.
func (s *scanner) value() (jsontext.Value, error) {
	value, err := s.decoder.ReadValue()
	if err != nil {
		return nil, s.invalid()
	}
	return value, nil
}

func (s *scanner) config() (found layout, err error) {
	var hasVersion, hasProcesses bool
	if err := s.open('{', "it is not a JSON object"); err != nil {
		return layout{}, err
	}
	err = s.members(func(name string) (err error) {
		switch name {
		case "version":
			value, err := s.value()
			if err != nil {
				return err
			}
			hasVersion = true
			if found.version, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return s.problem("its version is not a whole number")
			}
			return nil
		case "processes":
			hasProcesses = true
			found.processes, err = s.processes()
			return err
		default:
			return s.skip()
		}
	})
	switch {
	case err != nil:
		return layout{}, err
	case !hasVersion:
		return layout{}, s.problem("it has no version")
	case !hasProcesses:
		return layout{}, s.problem("it has no processes")
	}
	return found, nil
}

func (s *scanner) processes() (found []processLayout, err error) {
	if err := s.open('[', "its processes are not a list"); err != nil {
		return nil, err
	}
	for s.decoder.PeekKind() != ']' {
		process, err := s.process()
		if err != nil {
			return nil, err
		}
		found = append(found, process)
	}
	return found, s.end()
}

func (s *scanner) process() (found processLayout, err error) {
	if err := s.open('{', "one of its processes is not an object"); err != nil {
		return processLayout{}, err
	}
	found.inside = s.position()
	err = s.members(func(name string) error {
		switch name {
		case "name":
			if s.decoder.PeekKind() != '"' {
				return s.skip()
			}
			token, err := s.decoder.ReadToken()
			if err != nil {
				return s.invalid()
			}
			found.name = token.String()
			return nil
		case rotationField:
			value, err := s.value()
			if err != nil {
				return err
			}
			found.hasRotation, found.to = true, s.position()
			found.from = found.to - len(value)
			return nil
		default:
			return s.skip()
		}
	})
	return found, err
}

// WithRotationTime returns a copy in which the named processes have another
// lastKmipMasterKeyRotation: the time, in UTC and whole seconds. No other byte
// differs. Each name must be that of exactly one process.
func (a AutomationConfig) WithRotationTime(processes []string, at time.Time) (AutomationConfig, error) {
	if len(processes) == 0 {
		return AutomationConfig{}, errors.New("no process is named")
	}
	wanted := map[string]int{} // how many processes of that name were found
	for _, name := range processes {
		wanted[name] = 0
	}
	value := strconv.Quote(RotationTime(at))
	member := strconv.Quote(rotationField) + ":" + value + ","
	from := a.get()
	text, copied := make([]byte, 0, len(from.text)+len(processes)*len(member)), 0
	for _, process := range from.layout.processes {
		if _, found := wanted[process.name]; !found || process.name == "" {
			continue
		}
		wanted[process.name]++
		if process.hasRotation {
			text = append(append(text, from.text[copied:process.from]...), value...)
			copied = process.to
			continue
		}
		// A process that has a name has at least this member.
		text = append(append(text, from.text[copied:process.inside]...), member...)
		copied = process.inside
	}
	text = append(text, from.text[copied:]...)
	if err := eachOnce(wanted); err != nil {
		return AutomationConfig{}, err
	}
	return newAutomationConfig(text, from.noSecrets)
}

// eachOnce names the first processes that were not found once.
func eachOnce(found map[string]int) error {
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if n := found[name]; n != 1 {
			problems = append(problems, fmt.Sprintf("%d processes have the name %q", n, printable(name)))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(problems[:min(len(problems), 5)], ", ") + "; expected one each")
}

// RotationTime is the text of a time in lastKmipMasterKeyRotation.
func RotationTime(at time.Time) string { return at.UTC().Truncate(time.Second).Format(time.RFC3339) }
