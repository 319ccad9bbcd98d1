// Package version reports the version of keyturn.
package version

import "runtime/debug"

// unknown is Go's version of a build of a working copy.
const unknown = "(devel)"

// linked is set by builds without a repository, such as that of a container image: -ldflags "-X keyturn/internal/version.linked=v1.2.3".
var linked string

// String returns the version that the build was given, or else the module's, or
// the commit if the module has none.
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
