package temporalserver

import "strings"

// environmentWithout returns the variables (as in [os.Environ]) without those
// that match a name; a name that ends in "*" is a prefix.
func environmentWithout(environment []string, names ...string) []string {
	var kept []string
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		if !matchesAny(name, names) {
			kept = append(kept, entry)
		}
	}
	return kept
}

func matchesAny(name string, patterns []string) bool {
	for _, pattern := range patterns {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		if name == pattern || isPrefix && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
