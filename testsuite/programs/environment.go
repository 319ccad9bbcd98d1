package programs

import (
	"os"
	"strings"
)

// Variable is one of the environment.
type Variable struct{ Name, Value string }

// Environment is the user's own without what would lead elsewhere, and with the
// variables.
func Environment(variables ...Variable) []string {
	var kept []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !LeadsElsewhere(name) {
			kept = append(kept, entry)
		}
	}
	for _, variable := range variables {
		kept = append(kept, variable.Name+"="+variable.Value)
	}
	return kept
}

// LeadsElsewhere tells the variables that the worker and the starter are
// configured with.
func LeadsElsewhere(name string) bool {
	for _, prefix := range []string{"TEMPORAL_", "OPS_MANAGER_", "KEYTURN_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
