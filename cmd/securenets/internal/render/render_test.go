package render_test

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
)

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", -999: "-999", -1000: "-1,000", 123456: "123,456",
		1234567: "1,234,567", -123456: "-123,456", math.MaxInt64: "9,223,372,036,854,775,807",
	} {
		if got := render.Count(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestCell(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "plain": "plain", "a|b": `a\|b`, "|": `\|`, "one\ntwo": "one; two", "one\r\ntwo|\rthree": `one; two\|; three`,
	} {
		if got := render.Cell(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"one two three", []string{"one two", "three"}},
		{"exactly 7 overlong-word x", []string{"exactly", "7", "overlong-word", "x"}},
	} {
		if got := render.Wrap(c.text, 7); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

// TestFile: a file is what was written, and stays as it was where writing fails.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	broken := errors.New("broken")
	for _, c := range []struct {
		text, want string
		err        error
	}{
		{"longer", "longer", nil}, {"short", "short", nil}, {"half", "short", broken},
	} {
		err := render.File(path, func(w io.Writer) error {
			_, err := io.WriteString(w, c.text)
			return errors.Join(err, c.err)
		})
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.text, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != c.want {
			t.Errorf("%s: the file has %q, %v", c.text, got, err)
		}
	}
}
