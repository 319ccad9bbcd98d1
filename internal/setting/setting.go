// Package setting holds what all readers of settings share: the environment, the
// error that names a wrong setting, and the reading of files that settings name.
package setting

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// Environment holds environment variables by name. It implements
// [go.temporal.io/sdk/contrib/envconfig.EnvLookup], with one difference from the
// process's own environment: an empty variable counts as unset.
type Environment map[string]string

// NewEnvironment takes "name=value" entries as in [os.Environ].
func NewEnvironment(entries []string) Environment {
	env := make(Environment, len(entries))
	for _, entry := range entries {
		if name, value, found := strings.Cut(entry, "="); found {
			env[name] = value
		}
	}
	return env
}

// LookupEnv returns the value of a variable, and whether it is set and not empty.
func (e Environment) LookupEnv(name string) (string, bool) {
	value := e[name]
	return value, value != ""
}

// Environ returns all variables, including the empty ones: an empty
// TEMPORAL_GRPC_META_* removes a header of the profile.
func (e Environment) Environ() []string {
	entries := make([]string, 0, len(e))
	for name, value := range e {
		entries = append(entries, name+"="+value)
	}
	return entries
}

// Error names the setting that is wrong: a variable, a flag, or a variable that
// names a file and the key in that file. It never shows a value, which may be a
// secret in the wrong place.
type Error struct {
	// Setting is the name as the user writes it.
	Setting string
	// Problem says what is wrong, or what the setting must be.
	Problem string
}

// Error is one line that begins with the setting.
func (e *Error) Error() string { return e.Setting + ": " + e.Problem }

// Errorf returns an [*Error] about the setting of this name.
func Errorf(name, format string, args ...any) error {
	return &Error{Setting: name, Problem: fmt.Sprintf(format, args...)}
}

// ReadFile returns the contents of the file at path, which the setting of this
// name gives. The error is an [*Error] without the path: people put a secret
// itself where the name of its file belongs.
func ReadFile(name, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case err != nil:
		return nil, Errorf(name, "cannot read the file: %v", WithoutPath(err))
	case len(data) == 0:
		return nil, Errorf(name, "the file is empty")
	}
	return data, nil
}

// WithoutPath returns what is wrong with a file, without the file's path.
func WithoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// CheckText refuses white space around a value and control characters in it,
// which come from a line end or a tab that was copied with it. The error is an
// [*Error].
func CheckText(name, value string) error {
	switch {
	case strings.ContainsFunc(value, unicode.IsControl):
		return Errorf(name, "contains a control character, such as a line end")
	case value != strings.TrimSpace(value):
		return Errorf(name, "begins or ends with white space")
	}
	return nil
}
