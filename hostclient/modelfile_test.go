package hostclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

// openModel writes a model to a file and opens it.
func openModel(t testing.TB, g *graph.Graph) *hostclient.ModelFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, model(g), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := hostclient.OpenModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// names returns what a folder holds.
func names(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestSealDir: a folder that a model's file is sealed to, whatever is sent of it, opens
// either way, and gives what the emulator does.
func TestSealDir(t *testing.T) {
	g := nets()["cnn"]
	m := openModel(t, g)
	if m.Input() != [3]int{2, 9, 8} {
		t.Errorf("input of %v", m.Input())
	}
	rnd := rand.New(rand.NewPCG(8, 8))
	x := gaussian(rnd, 3*2*9*8)
	for _, s := range transform.Schemes() {
		for _, kept := range []places{0b000, 0b010, 0b101, 0b111} {
			what := fmt.Sprintf("%v, %03b kept", s, kept)
			o := hostclient.SealOptions{Scheme: s, Multiplier: kernel}
			if kept != 0 {
				o = o.Costing(kept.costs(3)...)
			}
			var progress []int
			o.Progress = func(done, total int) { progress = append(progress, done, total) }
			dir, id := filepath.Join(t.TempDir(), "a", "b"), identity(t)
			secret, files, err := m.SealDir(t.Context(), dir, o, id.Recipient())
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if !slices.Equal(progress, []int{1, 3, 2, 3, 3, 3}) {
				t.Errorf("%s: progress %v", what, progress)
			}
			r := &rig{}
			if r.secret, err = hostclient.ReadSecret(dir, id); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if !reflect.DeepEqual(r.secret.Describe(), secret.Describe()) {
				t.Errorf("%s: the secret that is returned is not the one written", what)
			}
			if secret.Roles() > 0 {
				if r.models, err = hostclient.ReadModels(dir); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if again, err := hostclient.SealedFiles(dir); err != nil || !reflect.DeepEqual(again, files) {
					t.Errorf("%s: folder has %+v, want %+v, %v", what, again, files, err)
				}
			}
			if err := secret.CheckFiles(files); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if len(files) > 0 {
				wrong := slices.Clone(files)
				wrong[len(wrong)-1].Digest[31] ^= 1
				for _, models := range [][]hostclient.SealedFile{wrong, files[1:], append(files[:1:1], files...)} {
					if err := secret.CheckFiles(models); !errors.Is(err, hostclient.ErrMismatch) {
						t.Errorf("%s: %+v: %v", what, models, err)
					}
				}
			}
			if len(files) != secret.Roles() || len(r.models) != len(files) || len(names(t, dir)) != len(files)+1 {
				t.Fatalf("%s: %d roles, folder has %q", what, len(files), names(t, dir))
			}
			for i, f := range files {
				if b := r.models[i]; f.Role != i || f.Size != int64(len(b.Bytes)) || f.Digest != sealed.Sum(b.Bytes) {
					t.Errorf("%s: %+v is not of role %d", what, f, i)
				}
			}
			e, err := m.NewEmulator(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			want, err := e.Infer(t.Context(), x, 3)
			if err := errors.Join(err, e.Close()); err != nil {
				t.Fatal(err)
			}
			r.push(t)
			ss, err := hostclient.OpenDir(t.Context(), dir, r.secret, r.clients, hostclient.Options{Multiplier: kernel})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, ss := range []*hostclient.Session{ss, r.open(t, hostclient.Options{Multiplier: kernel})} {
				if y := infer(t, ss, x, 3); !slices.Equal(bits(y), bits(want)) {
					t.Errorf("%s: other results than emulated", what)
				}
			}
			if err := ss.Close(); err != nil {
				t.Error(err)
			}
			if secret.Roles() == 0 {
				if err := os.WriteFile(filepath.Join(dir, "role-0.safetensors"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := hostclient.OpenDir(t.Context(), dir, r.secret, nil, hostclient.Options{Multiplier: kernel}); !errors.Is(err, hostclient.ErrMismatch) {
					t.Errorf("%s: a sealed model beside it: %v", what, err)
				}
			}
		}
	}
}

// A model that was opened says what the functions for its bytes do.
func TestModelFile(t *testing.T) {
	g := nets()["cnn"]
	m := openModel(t, g)
	want, err := hostclient.Preview(model(g), split, hostclient.RingQ3)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := m.Preview(split, hostclient.RingQ3); err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("preview %+v, want %+v, %v", d, want, err)
	}
	kept := places(0b101)
	secret := placed(t, g, split, kept).secret
	want = secret.Describe()
	want.Digests, want.Providers = nil, nil
	d, err := m.Place(t.Context(), hostclient.SealOptions{Scheme: split}.Costing(kept.costs(3)...))
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("placed\n%+v, want\n%+v, %v", d, want, err)
	}
	if _, err := hostclient.OpenModel(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	nan := nets()["mlp"]
	nan.Nodes[0].Op.(*graph.Dense).W[3] = 1e38
	nan.Nodes[0].Op.(*graph.Dense).B = nil
	nan.Nodes[1].Op = &graph.Affine{Scale: slices.Repeat([]float32{1e38}, 9)} // overflows, once it is folded
	m = openModel(t, nan)
	dir := filepath.Join(t.TempDir(), "sealed")
	_, err = m.Preview(split, hostclient.RingQ4)
	_, _, sealErr := m.SealDir(t.Context(), dir, hostclient.SealOptions{}, identity(t).Recipient())
	for _, err := range []error{err, sealErr} {
		if !errors.Is(err, graph.ErrNotFinite) {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// refusing is a recipient to whom nothing can be encrypted.
type refusing struct{ err error }

func (r refusing) Wrap([]byte) ([]*age.Stanza, error) { return nil, r.err }

// TestSealDirFails: sealing that ends early, wherever it does, leaves no folder where
// there was none, and one that was there as it was.
func TestSealDirFails(t *testing.T) {
	m := openModel(t, nets()["cnn"])
	id := identity(t)
	sizes := func(dir string) (sizes []uint64) {
		t.Helper()
		for _, name := range names(t, dir) {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, uint64(info.Size()))
		}
		return sizes
	}
	whole := filepath.Join(t.TempDir(), "whole")
	if _, _, err := m.SealDir(t.Context(), whole, hostclient.SealOptions{Scheme: lagrange}, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	of := sizes(whole) // role 0, 1, 2 and the secret, which is the largest
	if of[3] <= of[2] {
		t.Fatalf("files of %d bytes", of)
	}
	nobody := errors.New("nobody")
	type failure struct {
		what string
		want error
		seal func(dir string) error
	}
	sealTo := func(ctx context.Context, dir string, o hostclient.SealOptions, to ...age.Recipient) error {
		o.Scheme = lagrange
		_, _, err := m.SealDir(ctx, dir, o, to...)
		return err
	}
	failures := []failure{
		{"no recipient", nil, func(dir string) error { return sealTo(t.Context(), dir, hostclient.SealOptions{}) }},
		{"a recipient that refuses", nobody, func(dir string) error {
			return sealTo(t.Context(), dir, hostclient.SealOptions{}, refusing{nobody})
		}},
		{"options", hostclient.ErrRing, func(dir string) error {
			return sealTo(t.Context(), dir, hostclient.SealOptions{Ring: "q5"}, id.Recipient())
		}},
	}
	for after := range 4 {
		failures = append(failures, failure{fmt.Sprint("cancelled after layers: ", after), context.Canceled, func(dir string) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if after == 0 {
				cancel()
			}
			return sealTo(ctx, dir, hostclient.SealOptions{Progress: func(done, _ int) {
				if done == after {
					cancel()
				}
			}}, id.Recipient())
		}})
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, model(nets()["cnn"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []uint64{0, 100, of[0] - 1, of[3] - 1} {
		failures = append(failures, failure{fmt.Sprint("files of no more bytes than ", limit), unix.EFBIG, func(dir string) error {
			c := exec.Command(os.Args[0], "-test.run=^TestFullChild$")
			c.Env = append(os.Environ(), fullEnv+"="+strings.Join([]string{fmt.Sprint(limit), path, dir, id.Recipient().String()}, "\n"))
			out, err := c.CombinedOutput()
			if err == nil && bytes.HasPrefix(out, []byte("full\n")) {
				return unix.EFBIG
			}
			return fmt.Errorf("%w: %s", err, out)
		}})
	}
	for _, f := range failures {
		above := t.TempDir()
		if err := f.seal(filepath.Join(above, "a", "b")); err == nil || f.want != nil && !errors.Is(err, f.want) {
			t.Errorf("%s: %v", f.what, err)
		}
		if left := names(t, above); left != nil {
			t.Errorf("%s: left %q", f.what, left)
		}
		there := filepath.Join(above, "there")
		for _, name := range []string{"notes", "role-0.safetensors"} {
			if err := errors.Join(os.MkdirAll(there, 0o700), os.WriteFile(filepath.Join(there, name), []byte(name), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.seal(there); err == nil || f.want != nil && !errors.Is(err, f.want) {
			t.Errorf("%s: %v", f.what, err)
		}
		if left := names(t, there); !slices.Equal(left, []string{"notes", "role-0.safetensors"}) || !slices.Equal(sizes(there), []uint64{5, 18}) {
			t.Errorf("%s: left %q of %d bytes", f.what, left, sizes(there))
		}
	}
	if _, _, err := m.SealDir(t.Context(), whole, hostclient.SealOptions{}, id.Recipient()); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if again := sizes(whole); !slices.Equal(again, of) {
		t.Errorf("a folder with a secret has files of %d bytes, had %d", again, of)
	}
}

const fullEnv = "SECURENETS_TEST_FULL"

// TestFullChild seals in a process whose files may not be long; in this process, nothing.
func TestFullChild(t *testing.T) {
	args := strings.Split(os.Getenv(fullEnv), "\n")
	if len(args) != 4 {
		return
	}
	limit, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	to, err := age.ParseX25519Recipient(args[3])
	if err != nil {
		t.Fatal(err)
	}
	m, err := hostclient.OpenModel(args[1])
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	_, _, err = m.SealDir(t.Context(), args[2], hostclient.SealOptions{Scheme: lagrange}, to)
	if !errors.Is(err, unix.EFBIG) {
		t.Fatal(err)
	}
	fmt.Println("full")
}

// What a process that was killed left unfinished goes when the folder is written.
func TestSealDirSweeps(t *testing.T) {
	dir, id := t.TempDir(), identity(t)
	for _, name := range []string{".role-0.safetensors.12", ".role-17.safetensors.3000000000", ".role-1-of-3.safetensors.4", ".role-1-of-x.safetensors.4", ".secret.age.7", ".secret.agent.7", ".role-x.safetensors.1", "notes"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := openModel(t, nets()["mlp"]).SealDir(t.Context(), dir, hostclient.SealOptions{}, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir); !slices.Equal(left, []string{".role-1-of-x.safetensors.4", ".role-x.safetensors.1", ".secret.agent.7", "notes", "role-0.safetensors", "secret.age"}) {
		t.Errorf("%q", left)
	}
}

// allocated returns the bytes that f allocates, freed or not.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// TestSealMemory: sealing and opening hold the weights of one layer, not those of all.
func TestSealMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("slow under the race detector, with which pools lose what they hold")
	}
	const size, layers = 1280, 6
	rnd := rand.New(rand.NewPCG(9, 9))
	var ops []graph.Op
	for range layers {
		ops = append(ops, &graph.Dense{In: size, Out: size, W: gaussian(rnd, size*size)}, graph.ReLU{})
	}
	const weights = 4 * layers * size * size
	g := chain(graph.Vector(size), ops...)
	b, m := model(g), openModel(t, g)
	for _, s := range []transform.Scheme{permutePad, split, lagrange} {
		dir, id := filepath.Join(t.TempDir(), "sealed"), identity(t)
		o := hostclient.SealOptions{Scheme: s}
		var err error
		// A layer of floats, and for each layer 1 MiB of its words and pieces of files; under
		// lagrange also R, and more words.
		most := weights * 4 / 5
		if s == lagrange {
			most += weights * 5 / 4
		}
		if n := allocated(func() { _, _, err = m.SealDir(t.Context(), dir, o, id.Recipient()) }); err != nil || n > most {
			t.Errorf("%v: sealing %d bytes of weights allocates %d, want at most %d, %v", s, weights, n, most, err)
		}
		// Sealed models in memory are those bytes once more for each role.
		if n := allocated(func() { _, _, err = hostclient.Seal(t.Context(), b, o) }); err != nil || n > most+s.Roles()*weights {
			t.Errorf("%v: sealing %d bytes of weights in memory allocates %d, %v", s, weights, n, err)
		}
		if s == permutePad {
			continue // its products with the weights stay
		}
		secret, err := hostclient.ReadSecret(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		var clients []*hostclient.Client
		for role := range secret.Roles() {
			client := dial(t, newCloud(t))
			if err := secret.Bind(role, client.Provider()); err != nil {
				t.Fatal(err)
			}
			clients = append(clients, client)
		}
		var ss *hostclient.Session
		if n := allocated(func() { ss, err = hostclient.OpenDir(t.Context(), dir, secret, clients, hostclient.Options{}) }); err != nil || n > s.Roles()*weights/4 {
			t.Errorf("%v: opening models of %d bytes for %d roles allocates %d, %v", s, weights, s.Roles(), n, err)
		}
		ss.Close()
	}
	if n := allocated(func() { _, _ = m.Preview(permutePad, hostclient.RingQ4) }); n > weights/2 {
		t.Errorf("a preview of %d bytes of weights allocates %d", weights, n)
	}
}

// A secret's file is in memory once.
func TestSecretHeldOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	c := plan.Conv2D{H: 128, W: 128, C: 8, OutC: 8, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	_, secret := seal(t, chain(graph.Shape{H: 128, W: 128, C: 8}, conv(rnd, c), conv(rnd, c), conv(rnd, c)), permutePad)
	id := identity(t)
	b := encrypt(t, secret, id.Recipient())
	var err error
	if n := allocated(func() { err = secret.Encrypt(new(counter), id.Recipient()) }); err != nil || n > len(b)/4 {
		t.Errorf("writing %d bytes allocates %d, %v", len(b), n, err)
	}
	if n := allocated(func() { _, err = hostclient.DecryptFile(b, id) }); err != nil || n > len(b)*5/2 { // of it age as much, a chunk at a time
		t.Errorf("reading %d bytes allocates %d, %v", len(b), n, err)
	}
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// TestOpenDir: sealed models that are not the secret's, or change, or are not there.
func TestOpenDir(t *testing.T) {
	m, id := openModel(t, nets()["cnn"]), identity(t)
	dir, other := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for _, dir := range []string{dir, other} {
		if _, _, err := m.SealDir(t.Context(), dir, hostclient.SealOptions{}, id.Recipient()); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := hostclient.ReadSecret(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	clients := []*hostclient.Client{dial(t, newCloud(t))}
	refused := func(what string, dir string, want error) {
		t.Helper()
		ss, err := hostclient.OpenDir(t.Context(), dir, secret, clients, hostclient.Options{Multiplier: kernel})
		if ss != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refused("another network's", other, hostclient.ErrMismatch)
	refused("none", t.TempDir(), fs.ErrNotExist)
	path := filepath.Join(dir, "role-0.safetensors")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, good[:len(good)-1], append(slices.Clone(good), 0), bytes.Replace(good, []byte(`stride\":[1,1]`), []byte(`stride\":[2,1]`), 1)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(fmt.Sprintf("%d bytes", len(bad)), dir, hostclient.ErrMismatch)
	}
	for i := range good {
		if i%7 != 0 && i > 200 {
			continue
		}
		bad := slices.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(fmt.Sprint("byte ", i), dir, hostclient.ErrMismatch)
	}
}
