package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
)

// jsonFlag gives cmd the flag --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print the result as JSON")
}

// progress shows how far work is, on a terminal alone.
type progress struct {
	w     io.Writer // nil: shows nothing
	label string
	drawn time.Time
}

// newProgress shows progress on cmd's standard error where that is a terminal.
func newProgress(cmd *cobra.Command) *progress {
	if f, ok := cmd.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &progress{w: f}
	}
	return &progress{}
}

const clearLine = "\r\x1b[K"

// step draws that done of total are done of what label says; total 0: it is not known.
func (p *progress) step(label string, done, total int64) {
	const pause = 100 * time.Millisecond // between drawings of one label
	if p.w == nil || label == p.label && time.Since(p.drawn) < pause {
		return
	}
	p.label, p.drawn = label, time.Now()
	text := label + " " + render.Count(done)
	if total > 0 {
		const width = 30
		full := int(done * width / total)
		text = fmt.Sprintf("%s [%s%s] %s of %s", label, strings.Repeat("=", full), strings.Repeat(" ", width-full), render.Count(done), render.Count(total))
	}
	io.WriteString(p.w, clearLine+text)
}

// clear removes what was drawn.
func (p *progress) clear() {
	if p.w != nil && p.label != "" {
		io.WriteString(p.w, clearLine)
		p.label = ""
	}
}

// clearing writes where a progress may stand, in its place.
type clearing struct {
	*progress
	w io.Writer
}

func (c clearing) Write(b []byte) (int, error) {
	c.clear()
	return c.w.Write(b)
}
