package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// daemon is the path of a daemon's program, built from here, once.
var daemon = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "securenetsd-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "securenetsd")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/securenets/securenets/cmd/securenetsd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var built string // the folder of daemon; "": none

func buildDaemon(t *testing.T) string {
	t.Helper()
	path, err := daemon()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}
