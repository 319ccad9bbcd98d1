package main

import (
	"strings"
)

// environment holds environment variables by name. It is what
// [envconfig.EnvLookup] asks for, with one difference from the process's own: an
// empty variable is as good as none, everywhere.
type environment map[string]string

// newEnvironment takes "name=value" entries as in [os.Environ].
func newEnvironment(entries []string) environment {
	env := make(environment, len(entries))
	for _, entry := range entries {
		if name, value, found := strings.Cut(entry, "="); found {
			env[name] = value
		}
	}
	return env
}

// LookupEnv returns a variable's value, and whether it has one.
func (e environment) LookupEnv(name string) (string, bool) {
	value := e[name]
	return value, value != ""
}

// Environ returns all variables, the empty ones included: an empty
// TEMPORAL_GRPC_META_* takes a header of the profile away.
func (e environment) Environ() []string {
	entries := make([]string, 0, len(e))
	for name, value := range e {
		entries = append(entries, name+"="+value)
	}
	return entries
}
