// Package version holds the version of both programs.
package version

import "runtime/debug"

// Version is the semantic version.
const Version = "0.1.0"

// String returns Version and, in a binary built from a repository, the revision.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Version
	}
	return format(info.Settings)
}

func format(settings []debug.BuildSetting) string {
	var revision, modified string
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				modified = ", modified"
			}
		}
	}
	if revision == "" {
		return Version
	}
	return Version + " (" + revision + modified + ")"
}
