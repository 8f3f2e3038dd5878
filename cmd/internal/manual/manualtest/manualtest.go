// Package manualtest checks the manual pages of a command.
package manualtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/securenets/securenets/cmd/internal/manual"
)

// Check checks that every command below root has a page that names its flags, in which no
// line of text is a request, and that there are at least so many.
func Check(t *testing.T, root *cobra.Command, least int) {
	t.Helper()
	pages := 0
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		text := manual.Page(cmd)
		pages++
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, `\-\-`+strings.ReplaceAll(f.Name, "-", `\-`)) {
				t.Errorf("%s: no --%s", cmd.CommandPath(), f.Name)
			}
		})
		for line := range strings.Lines(text) {
			request, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") &&
				!slices.Contains([]string{".TH", ".SH", ".B", ".TP", ".nf", ".fi"}, request) {
				t.Errorf("%s: %q", cmd.CommandPath(), line)
			}
		}
		for _, c := range manual.Children(cmd) {
			visit(c)
		}
	}
	visit(root)
	if pages < least {
		t.Errorf("%d pages", pages)
	}
}
