package childproc

import (
	"os"
	"strings"
)

// Variable is an environment variable.
type Variable struct{ Name, Value string }

// Environment returns the environment of this process without keyturn's
// settings, plus the variables.
func Environment(variables ...Variable) []string {
	var kept []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !IsKeyturnSetting(name) {
			kept = append(kept, entry)
		}
	}
	for _, variable := range variables {
		kept = append(kept, variable.Name+"="+variable.Value)
	}
	return kept
}

// IsKeyturnSetting reports whether a variable configures the worker or the
// command line.
func IsKeyturnSetting(name string) bool {
	for _, prefix := range []string{"TEMPORAL_", "OPS_MANAGER_", "KMIP_", "KEYTURN_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
