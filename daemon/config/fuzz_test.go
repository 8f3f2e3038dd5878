package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/securenets/securenets/daemon/config"
)

// FuzzParse: whatever the text, there is a valid configuration or an error that
// wraps ErrInvalid, and never both.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.toml", "testdata/bad/*.toml", "../../config.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Parse(text)
		switch {
		case err == nil:
			if err := c.Validate(); err != nil {
				t.Errorf("accepted, but %v", err)
			}
		case !errors.Is(err, config.ErrInvalid):
			t.Errorf("error of no kind: %v", err)
		case !reflect.DeepEqual(c, config.Config{}):
			t.Error("a configuration came with the error")
		}
	})
}
