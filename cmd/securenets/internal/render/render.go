// Package render writes results for people, and as JSON.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/securenets/securenets/transform"
)

// JSON writes v indented.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// File makes a file of what write writes. Where that fails, the file stays as it was.
func File(path string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// Table returns a writer that aligns cells, which tabs separate. Flush it.
func Table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// Cell returns text that a table of Markdown keeps in one cell.
func Cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\r\n", "; ", "\n", "; ", "\r", "; ").Replace(text)
}

// Count returns n with commas between thousands.
func Count[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Guarantee writes what a scheme promises, one paragraph each.
func Guarantee(w io.Writer, g transform.Guarantee) {
	const label, width = 11, 100
	for _, p := range []struct{ what, text string }{
		{"inputs", g.Inputs}, {"weights", g.Weights}, {"integrity", g.Integrity}, {"leakage", g.Leakage}, {"host work", g.Work},
	} {
		for _, line := range Wrap(p.text, width-label) {
			fmt.Fprintf(w, "%-*s%s\n", label, p.what, line)
			p.what = ""
		}
	}
}

// Wrap breaks text into lines of at most width bytes, but for longer words.
func Wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(word) <= width {
			lines[n-1] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}
