// Package importrules holds the architecture: which package may reach which.
package importrules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/securenets/securenets/"

// listed is one package as go list prints it.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

// packages returns the project's packages as they are built with some tags, test files
// left out.
func packages(t *testing.T, tags string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", tags, "-deps", "-json=ImportPath,Imports,Deps,Standard", module+"...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // what is built with C counts too
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var own []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(p.ImportPath, module) {
			own = append(own, p)
		}
	}
	return own
}

// within reports whether package path (module prefix cut off) is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func withinAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return within(path, d) })
}

// only: a package below the key reaches, of this module, nothing but itself and these.
var only = map[string][]string{
	"ring":                 {},
	"plan":                 {"ring"},
	"internal/cpuid":       {},
	"internal/pool":        {},
	"internal/parallel":    {},
	"internal/reread":      {},
	"internal/prg":         {"ring", "internal/cpuid"},
	"internal/safetensors": {},
	"internal/sealed":      {"ring", "plan", "internal/safetensors"},
	"internal/graph":       {"ring", "plan", "internal/cpuid"},
	"internal/few":         {},
	"internal/onnx":        {"ring", "plan", "internal/cpuid", "internal/few", "internal/graph"},
	"internal/dataset":     {"internal/few"},
	"internal/lane":        {},
	"internal/localsocket": {},
	"internal/wire":        {"ring", "plan", "internal/lane", "internal/localsocket", "internal/pool", "api"},
	"daemon/config":        {"ring", "plan", "internal/lane", "internal/localsocket", "internal/pool", "internal/wire", "api"},
	"internal/version":     {},
	"internal/reference":   {"ring", "plan", "internal/cpuid", "internal/graph"},
	"verify":               {"ring", "plan", "internal/cpuid", "internal/pool", "internal/parallel"},
	"transform":            {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/parallel", "verify"},
	"internal/padstock":    {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/parallel", "verify", "transform"},
	"hostclient": {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/parallel", "verify", "transform", "internal/padstock", "internal/few", "internal/graph",
		"internal/onnx", "internal/reread", "internal/safetensors", "internal/sealed", "internal/lane", "internal/localsocket", "internal/wire", "api"},
	"internal/attack": {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/parallel", "verify", "transform", "internal/graph"},
	"kernels":         {"ring", "plan"},
	"daemon": {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/safetensors", "internal/sealed",
		"internal/lane", "internal/localsocket", "internal/reread", "internal/wire", "internal/version", "kernels", "api"},
	"cmd/securenetsd": {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/safetensors", "internal/sealed",
		"internal/lane", "internal/localsocket", "internal/reread", "internal/wire", "internal/version", "kernels", "api", "daemon", "cmd/internal/manual"},
	"cmd/internal/manual": {"internal/version"},
	// What benches share reaches none of them.
	"cmd/securenets/internal/bench/measure": {"internal/version"},
	"cmd/securenets/internal/bench/layer":   {"ring", "plan", "internal/cpuid", "internal/prg", "internal/pool", "internal/parallel", "verify", "transform"},
	"cmd/securenets/internal/bench/traffic": {"ring", "plan", "internal/pool", "internal/safetensors", "internal/sealed", "internal/lane", "internal/localsocket", "internal/wire", "api"},
}

// confined: only packages below these reach the module or package of the key.
var confined = map[string][]string{
	"gorgonia.org/gorgonia":            {"internal/reference", "models/train", "cmd/securenets"},
	"gonum.org/v1/gonum":               {"kernels/gonum", "kernels/cuda", "internal/graph", "internal/onnx", "internal/attack", "internal/adversary", "internal/reference", "hostclient", "models/train", "cmd/securenets", "cmd/securenetsd"},
	"gonum.org/v1/plot":                {"cmd/securenets"},
	"gorgonia.org/cu":                  {"kernels/cuda", "cmd/securenets", "cmd/securenetsd"},
	"github.com/NVIDIA/go-nvml":        {"kernels/cuda", "cmd/securenets", "cmd/securenetsd"},
	"filippo.io/age":                   {"hostclient", "cmd/securenets"},
	module + "daemon":                  {"daemon", "cmd/securenetsd"},
	module + "internal/adversary":      {"internal/adversary", "cmd/securenets"},
	module + "internal/attack":         {"internal/attack", "cmd/securenets"},
	"google.golang.org/grpc":           {"api", "internal/wire", "internal/adversary", "daemon", "hostclient", "cmd"},
	"google.golang.org/protobuf":       {"api", "internal/onnx", "internal/wire", "daemon/config", "internal/adversary", "internal/reference", "daemon", "hostclient", "models/train", "cmd"},
	"github.com/BurntSushi/toml":       {"daemon", "cmd/securenetsd"},
	"github.com/prometheus":            {"daemon", "cmd/securenetsd"},
	"github.com/spf13/cobra":           {"cmd"},
	"github.com/bufbuild/protocompile": {"api/generate"},
}

func TestImportRules(t *testing.T) {
	for _, tags := range []string{"", "gpu"} {
		t.Run(tags, func(t *testing.T) { testImportRules(t, packages(t, tags)) })
	}
}

func testImportRules(t *testing.T, own []listed) {
	if len(own) < len(only) {
		t.Fatalf("go list names %d packages of the module", len(own))
	}
	seen := map[string]bool{}
	for _, p := range own {
		path := strings.TrimPrefix(p.ImportPath, module)
		for dir, allowed := range only {
			if !within(path, dir) {
				continue
			}
			seen[dir] = true
			for _, d := range p.Deps {
				d, mine := strings.CutPrefix(d, module)
				if mine && !within(d, dir) && !withinAny(d, allowed) {
					t.Errorf("%s reaches %s, which %s may not", path, d, dir)
				}
			}
		}
		for target, allowed := range confined {
			if withinAny(path, allowed) {
				continue
			}
			for _, d := range append(p.Deps, p.ImportPath) {
				if within(d, target) && d != p.ImportPath {
					t.Errorf("%s reaches %s, which only %v may", path, d, allowed)
					break
				}
			}
		}
	}
	for dir := range only {
		if !seen[dir] {
			t.Errorf("the rules name %s, which is no package", dir)
		}
	}
}

// The ring is the bottom: the standard library alone.
func TestRingIsStandardLibraryOnly(t *testing.T) {
	for _, p := range packages(t, "") {
		if p.ImportPath != module+"ring" {
			continue
		}
		for _, d := range p.Deps {
			if first, _, _ := strings.Cut(d, "/"); strings.Contains(first, ".") && !strings.HasPrefix(d, "vendor/") {
				t.Errorf("ring reaches %s", d)
			}
		}
		return
	}
	t.Fatal("no ring")
}
