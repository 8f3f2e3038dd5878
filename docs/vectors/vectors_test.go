// Package vectors_test generates the protocol's test vectors with the packages of
// this module, and holds the published ones against what it generates and
// against check.py, a second implementation that shares no code.
//
//	go test ./docs/vectors -update
//
// writes them anew. Everything that is random in a vector stands in it.
package vectors_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

var update = flag.Bool("update", false, "write the vectors anew")

// files are the published vectors, each with a change that check.py must notice.
var files = []struct {
	name   string
	what   string
	cases  func(t *testing.T) []any
	before *regexp.Regexp // the first place that a wrong value is put at
	wrong  string
}{
	{"ring.json", "Arithmetic of the ring: spec, section 2.", ringCases, regexp.MustCompile(`"want":[0-9]+`), `"want":1`},
	{"prg.json", "The PRG: spec, section 4.", prgCases, regexp.MustCompile(`"words":\[[0-9]+`), `"words":[1`},
	{"masks.json", "Masking and unmasking a layer: spec, section 5.", maskCases, regexp.MustCompile(`"what":\[[0-9]+`), `"what":[1`},
	{"check.json", "The check: spec, section 6.", checkCases, regexp.MustCompile(`"expect":"accept"`), `"expect":"reject"`},
	{"sealed.json", "Sealed models: spec, section 7.", sealedCases, regexp.MustCompile(`"expect":"reject"`), `"expect":"accept"`},
	{"frames.json", "Messages of Evaluate: spec, section 8.", frameCases, regexp.MustCompile(`BAD_LENGTH`), `BAD_REQUEST`},
}

// TestVectors: the packages of this module give what is published, byte for byte.
func TestVectors(t *testing.T) {
	for _, f := range files {
		t.Run(f.name, func(t *testing.T) {
			got := encode(t, f.what, f.cases(t))
			if *update {
				if err := os.WriteFile(f.name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(f.name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(got, want) {
				return
			}
			g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
			for i := range min(len(g), len(w)) {
				if g[i] != w[i] {
					t.Fatalf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
				}
			}
			t.Fatalf("%d lines, want %d", len(g), len(w))
		})
	}
}

// encode returns a file of vectors, one case a line.
func encode(t *testing.T, what string, cases []any) []byte {
	t.Helper()
	about, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("{\"about\":" + string(about) + ",\n\"cases\":[\n")
	for i, c := range cases {
		line, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		if i+1 < len(cases) {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]}\n")
	return b.Bytes()
}

// check runs check.py over a folder of vectors.
func check(t *testing.T, dir string) (output string, ok bool) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: check.py, the independent implementation, did NOT check the vectors")
	}
	out, err := exec.Command(python, "-B", "check.py", dir).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// TestIndependentProgram: check.py agrees with every published vector.
func TestIndependentProgram(t *testing.T) {
	out, ok := check(t, ".")
	t.Log(out)
	if !ok {
		t.Fatalf("check.py disagrees:\n%s", out)
	}
}

// TestIndependentProgramNotices: check.py does read and compute: one wrong value
// in each file is found.
func TestIndependentProgramNotices(t *testing.T) {
	dir := t.TempDir()
	for _, f := range files {
		b, err := os.ReadFile(f.name)
		if err != nil {
			t.Fatal(err)
		}
		at := f.before.FindIndex(b)
		if at == nil {
			t.Fatalf("%s has no %v", f.name, f.before)
		}
		b = bytes.Join([][]byte{b[:at[0]], []byte(f.wrong), b[at[1]:]}, nil)
		if err := os.WriteFile(filepath.Join(dir, f.name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, ok := check(t, dir)
	if ok {
		t.Error("check.py takes wrong vectors")
	}
	for _, f := range files {
		if strings.Count(out, "FAIL "+f.name) != 1 {
			t.Errorf("%s is not named once:\n%s", f.name, out)
		}
	}
}

// dealing calls do with crypto/rand giving out the given bytes, then any.
func dealing(b []byte, do func()) {
	defer func(before io.Reader) { rand.Reader = before }(rand.Reader)
	rand.Reader = io.MultiReader(bytes.NewReader(b), mathrand.NewChaCha8([32]byte{}))
	do()
}

// random returns a generator of a vector's inputs.
func random(stream uint64) *mathrand.Rand { return mathrand.New(mathrand.NewPCG(2018, stream)) }

// signed returns n integers of at most most in magnitude, its bounds among them.
func signed(rng *mathrand.Rand, n int, most int32) []int32 {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(rng.Int64N(2*int64(most)+1) - int64(most))
		if rng.IntN(6) == 0 {
			v[i] = []int32{most, -most, 0}[rng.IntN(3)]
		}
	}
	return v
}

func seedBytes(rng *mathrand.Rand) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newRing(t *testing.T, primes ...uint32) ring.Ring {
	return must[ring.Ring](t)(ring.New(primes...))
}

// model returns a sealed model with random weights.
func model(t *testing.T, rng *mathrand.Rand, r ring.Ring, ops ...plan.Op) *sealed.Model {
	t.Helper()
	m := &sealed.Model{Plan: plan.Plan{Ring: r, Ops: ops}}
	for _, op := range ops {
		w := ring.NewMatrix(op.Rows(), op.Terms())
		for i := range w.Data {
			w.Data[i] = rng.Uint32N(r.Modulus())
		}
		m.Weights = append(m.Weights, w)
	}
	return m
}

// opJSON returns an operator as a sealed model has it.
func opJSON(t *testing.T, op plan.Op) json.RawMessage {
	t.Helper()
	b := must[[]byte](t)(model(t, random(0), ring.Q4(), op).Marshal())
	f := must[*safetensors.File](t)(safetensors.Parse(b))
	var p struct{ Ops []json.RawMessage }
	if err := json.Unmarshal([]byte(f.Metadata["securenets.plan"]), &p); err != nil {
		t.Fatal(err)
	}
	return p.Ops[0]
}
