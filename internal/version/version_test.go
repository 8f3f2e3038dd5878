package version

import (
	"runtime/debug"
	"testing"
)

func TestFormat(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	for want, settings := range map[string][]debug.BuildSetting{
		Version:                               nil,
		Version + " (0123456789ab)":           {revision, {Key: "vcs.modified", Value: "false"}},
		Version + " (0123456789ab, modified)": {{Key: "vcs.modified", Value: "true"}, revision},
	} {
		if got := format(settings); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
