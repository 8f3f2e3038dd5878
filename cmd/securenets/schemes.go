package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/transform"
)

// newSchemes returns the help topic on schemes: what each promises, and no more.
func newSchemes() *cobra.Command {
	var b strings.Builder
	b.WriteString("The schemes, for --scheme of seal, check and demo, with all that each promises:\n")
	for _, s := range transform.Schemes() {
		clouds := "one cloud"
		if n := s.Roles(); n > 1 {
			clouds = fmt.Sprintf("%d clouds", n)
		}
		fmt.Fprintf(&b, "\n%s (%s)", s, clouds)
		if s == transform.DefaultScheme() {
			b.WriteString(", the default")
		}
		b.WriteString("\n\n")
		render.Guarantee(indented{&b}, s.Guarantee())
	}
	return &cobra.Command{Use: "schemes", Short: "What each way of masking promises", Long: strings.TrimSpace(b.String())}
}

// indented writes lines, each whole, two columns in.
type indented struct{ *strings.Builder }

func (w indented) Write(line []byte) (int, error) {
	w.WriteString("  ")
	return w.Builder.Write(line)
}
