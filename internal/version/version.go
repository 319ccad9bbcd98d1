// Package version knows which version of keyturn the program is.
package version

import "runtime/debug"

// unknown is what Go calls a build of a working copy.
const unknown = "(devel)"

// linked is set where the build has no repository to take it from, such as that
// of a container image: -ldflags "-X keyturn/internal/version.linked=v1.2.3".
var linked string

// String is the version that the build was told, else the module's, and the
// commit of a build that has none.
func String() string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return unknown
	}
	if info.Main.Version != unknown {
		return info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return unknown + " " + setting.Value
		}
	}
	return unknown
}
