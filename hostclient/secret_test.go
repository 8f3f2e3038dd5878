package hostclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func encrypt(t testing.TB, s *hostclient.Secret, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Encrypt(&b, to...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A secret that was written and read runs the network to the same bits.
func TestSecretRoundTrip(t *testing.T) {
	id := identity(t)
	for _, scheme := range schemes {
		for name, g := range nets() {
			r := newRig(t, g, scheme)
			again, err := hostclient.DecryptSecret(bytes.NewReader(encrypt(t, r.secret, id.Recipient())), id)
			if err != nil {
				t.Fatalf("%v %s: %v", scheme, name, err)
			}
			if a, b := r.secret.Describe(), again.Describe(); !reflect.DeepEqual(a, b) {
				t.Errorf("%v %s: %+v became %+v", scheme, name, a, b)
			}
			x := gaussian(rand.New(rand.NewPCG(1, 1)), 2*g.Input.Len())
			a := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 2)
			r.secret = again
			b := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 2)
			if !slices.Equal(bits(a), bits(b)) {
				t.Errorf("%v %s: results differ", scheme, name)
			}
		}
	}
}

func TestDecryptSecret(t *testing.T) {
	_, secret := seal(t, nets()["cnn"], permutePad)
	id, other := identity(t), identity(t)
	right, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	right.SetWorkFactor(10)
	phrase := func(s string) age.Identity {
		i, err := age.NewScryptIdentity(s)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	file, locked := encrypt(t, secret, id.Recipient()), encrypt(t, secret, right)
	plain, err := secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hostclient.DecryptSecret(bytes.NewReader(locked), phrase("correct horse")); err != nil {
		t.Error(err)
	}
	flipped := slices.Clone(file)
	flipped[len(flipped)-100] ^= 1
	foreign := func(b []byte) []byte { // what someone who knows the recipient may send
		var f bytes.Buffer
		w, err := age.Encrypt(&f, id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
		return f.Bytes()
	}
	for _, bad := range []struct {
		what string
		file []byte
		with age.Identity
		says string
	}{
		{"wrong identity", file, other, "wrong identity or passphrase"},
		{"wrong passphrase", locked, phrase("battery staple"), "wrong identity or passphrase"},
		{"empty", nil, id, "not a file encrypted by age"},
		{"plaintext", plain, id, "not a file encrypted by age"},
		{"a short header", file[:40], id, ""},
		{"truncated", file[:len(file)-1], id, "damaged"},
		{"half", file[:len(file)/2], id, "damaged"},
		{"a flipped bit", flipped, id, "damaged"},
		{"more than its vectors", foreign(append(slices.Clone(plain), 0)), id, ""},
		{"foreign content", foreign([]byte("my secret weights")), id, "not a safetensors file"},
		{"no content", foreign(nil), id, "not a safetensors file"},
	} {
		for _, decrypt := range []func() (*hostclient.Secret, error){
			func() (*hostclient.Secret, error) {
				return hostclient.DecryptSecret(bytes.NewReader(bad.file), bad.with)
			},
			func() (*hostclient.Secret, error) { return hostclient.DecryptFile(bad.file, bad.with) },
		} {
			s, err := decrypt()
			if s != nil || !errors.Is(err, hostclient.ErrSecret) || !strings.Contains(fmt.Sprint(err), bad.says) {
				t.Errorf("%s: %v", bad.what, err)
			}
			if err != nil && strings.Contains(err.Error(), "weights") {
				t.Errorf("%s: the error quotes content: %v", bad.what, err)
			}
		}
	}
	if s, err := hostclient.DecryptFile(file, id); err != nil {
		t.Error(err)
	} else if again, err := s.Marshal(); err != nil || !bytes.Equal(again, plain) {
		t.Errorf("read from a file it is another: %v", err)
	}
}

// The plaintext is checked as if it came from an enemy.
func TestHostileSecret(t *testing.T) {
	_, secret := seal(t, nets()["cnn"], permutePad)
	plain, err := secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	parse := func() *safetensors.File {
		f, err := safetensors.Parse(slices.Clone(plain))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	header := func(old, new string) func(*safetensors.File) {
		return func(f *safetensors.File) {
			h := strings.Replace(f.Metadata["securenets.secret"], old, new, 1)
			if h == f.Metadata["securenets.secret"] {
				t.Fatalf("no %q in %s", old, h)
			}
			f.Metadata["securenets.secret"] = h
		}
	}
	tensor := func(name string, change func(*safetensors.Tensor)) func(*safetensors.File) {
		return func(f *safetensors.File) {
			i := slices.IndexFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == name })
			if i < 0 {
				t.Fatalf("no tensor %s", name)
			}
			change(&f.Tensors[i])
		}
	}
	fill := func(v ...byte) func(*safetensors.Tensor) {
		return func(t *safetensors.Tensor) { copy(t.Data, slices.Repeat(v, len(t.Data)/len(v))) }
	}
	shorter := func(t *safetensors.Tensor) {
		t.Shape = []int{t.Shape[0] - 1}
		t.Data = t.Data[:len(t.Data)-t.DType.Size()]
	}
	f := func(v float32) []byte { return safetensors.New("", []float32{v}).Data }
	for what, change := range map[string]func(*safetensors.File){
		"version":           header(`"version":1`, `"version":2`),
		"later version":     header(`"version":1`, `"version":3`),
		"scheme":            header("permute+pad", "permute+pax"),
		"another scheme":    header("permute+pad", "none+pad"),
		"ring":              header("[251,", "[250,"),
		"smaller ring":      header("251,241,", "251,"),
		"no ring":           header("[251,241,239,233]", "null"),
		"digests":           header(`"digests":["`, `"digests":["`+strings.Repeat("0", 64)+`","`),
		"short digest":      header(`"digests":["`, `"digests":["00"],"x":["`),
		"digest":            header(`"digests":["`, `"digests":["x`),
		"no layers":         header(`"x_max":[`, `"x_max":[],"y":[`),
		"layers":            header(`"x_max":[`, `"x_max":[7,`),
		"x_max of 0":        header(`"x_max":[`, `"x_max":[0`),
		"x_max below 0":     header(`"x_max":[`, `"x_max":[-`),
		"x_max too large":   header(`"x_max":[`, `"x_max":[200000`),
		"white space":       header(`"version"`, ` "version"`),
		"more metadata":     func(f *safetensors.File) { f.Metadata["more"] = "" },
		"no metadata":       func(f *safetensors.File) { f.Metadata = nil },
		"a tensor more":     func(f *safetensors.File) { f.Tensors = append(f.Tensors, safetensors.New("x", []uint8{1}, 1)) },
		"a tensor less":     func(f *safetensors.File) { f.Tensors = f.Tensors[:len(f.Tensors)-1] },
		"no tensors":        func(f *safetensors.File) { f.Tensors = nil },
		"order":             func(f *safetensors.File) { f.Tensors[1], f.Tensors[2] = f.Tensors[2], f.Tensors[1] },
		"structure":         tensor("structure", fill('{')),
		"a linear layer":    tensor("structure", func(t *safetensors.Tensor) { copy(t.Data, bytes.Replace(t.Data, []byte("dense"), []byte("DENSE"), 1)) }),
		"scales":            tensor("0.scale", shorter),
		"scale of 0":        tensor("0.scale", fill(f(0)...)),
		"scale below 0":     tensor("1.scale", fill(f(-1)...)),
		"scale NaN":         tensor("1.scale", fill(f(float32(math.NaN()))...)),
		"scale infinite":    tensor("1.scale", fill(f(float32(math.Inf(1)))...)),
		"D":                 tensor("0.D", shorter),
		"D of zeros":        tensor("0.D", fill(0)),
		"D not canonical":   tensor("0.D", fill(0xff)),
		"F":                 tensor("1.F", shorter),
		"F of zeros":        tensor("1.F", fill(0)),
		"E":                 tensor("0.E", shorter),
		"E twice":           tensor("0.E", fill(0)),
		"E beyond":          tensor("0.E", fill(0xff)),
		"U":                 tensor("2.U", shorter),
		"U beyond":          tensor("2.U", fill(0xff)),
		"S":                 tensor("0.S", shorter),
		"S outside":         tensor("0.S", fill(0xff)),
		"V":                 tensor("2.V", shorter),
		"V outside":         tensor("2.V", fill(0xff)),
		"another type":      tensor("0.S", func(t *safetensors.Tensor) { t.DType = safetensors.F64 }),
		"another dimension": tensor("0.S", func(t *safetensors.Tensor) { t.Shape = []int{t.Shape[0], 1} }),
		"another name":      tensor("0.S", func(t *safetensors.Tensor) { t.Name = "0.s" }),
	} {
		file := parse()
		change(file)
		b, err := file.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := hostclient.UnmarshalSecret(b); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if _, err := hostclient.UnmarshalSecret(plain); err != nil {
		t.Error(err)
	}
}

func FuzzSecret(f *testing.F) {
	long := make([]float32, 1025) // a constant of its own
	for i := range long {
		long[i] = float32(i)
	}
	for _, g := range []*graph.Graph{
		chain(graph.Vector(1025), &graph.ElementAffine{Extent: graph.Vector(1025), Scale: long}, &graph.Dense{In: 1025, Out: 1, W: long}),
		{Input: graph.Vector(3), Parts: []graph.Part{{Name: "ids", Shape: graph.Vector(2), Below: 3}, {Name: "x", Shape: graph.Vector(1)}}, Nodes: []graph.Node{
			{Op: graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{To: 2}}, Inputs: []graph.Value{0}},
			{Op: &graph.Embedding{Rows: 3, Width: 2, Table: []float32{1, 2, 3, 4, 5, 6}}, Inputs: []graph.Value{1}},
			{Op: &graph.Conv2D{Geometry: plan.Conv2D{H: 1, W: 2, C: 2, OutC: 4, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, W: make([]float32, 8)}, Inputs: []graph.Value{2}},
			{Op: &graph.Recurrence{Cell: "lstm", Direction: "forward", Functions: []string{"sigmoid", "tanh", "tanh"}, Hidden: 1, R: make([]float32, 4), H: []float32{1}, C: []float32{1}, Cells: true}, Inputs: []graph.Value{3}},
		}, Output: 4},
	} {
		_, secret := seal(f, g, nonePad)
		plain, err := secret.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	for _, scheme := range schemes {
		g := chain(graph.Vector(2), &graph.Dense{In: 2, Out: 1, W: []float32{1, 2}, B: []float32{3}})
		_, secret := seal(f, g, scheme)
		plain, err := secret.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
		for _, p := range []places{0, 1} {
			if plain, err = placed(f, g, scheme, p).secret.Marshal(); err != nil {
				f.Fatal(err)
			}
			f.Add(plain)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := hostclient.UnmarshalSecret(b)
		if err != nil {
			return
		}
		s.Describe()
		again, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hostclient.UnmarshalSecret(again); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRedacted(t *testing.T) {
	_, secret := seal(t, nets()["mlp"], permutePad)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		values := []any{secret, *secret, struct{ S *hostclient.Secret }{secret}, struct{ S hostclient.Secret }{*secret}}
		if verb != "%s" { // which vet refuses for these; fmt follows pointers to show what it cannot print
			values = append(values, struct{ s *hostclient.Secret }{secret}, struct{ s hostclient.Secret }{*secret})
		}
		for _, v := range values {
			if s := fmt.Sprintf(verb, v); strings.ContainsAny(s, "[]") || len(s) > 140 {
				t.Errorf("%s prints %s", verb, s)
			}
		}
	}
}

// TestSessionsPrintRedacted: a session holds scales and biases, a stock's key and the models
// of all roles, in fields whose own Format fmt does not call.
func TestSessionsPrintRedacted(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	if err := s.Precompute(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	e, err := hostclient.NewEmulator(t.Context(), model(nets()["mlp"]), hostclient.SealOptions{Multiplier: kernel})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		for _, v := range []any{s, e, []any{s, e}} {
			if text := fmt.Sprintf(verb, v); strings.ContainsAny(text, "{}") && !strings.HasPrefix(text, "[]interface") || len(text) > 120 {
				t.Errorf("%s of %T prints %.200s", verb, v, text)
			}
		}
	}
}

func TestDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "sealed")
	id := identity(t)
	models, secret := seal(t, nets()["mlp"], permutePad)
	if err := hostclient.WriteDir(dir, secret, models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"role-0.safetensors", "secret.age"}) {
		t.Errorf("%q", names)
	}
	again, err := hostclient.ReadModels(dir)
	if err != nil || !reflect.DeepEqual(again, models) {
		t.Errorf("models differ: %v", err)
	}
	s, err := hostclient.ReadSecret(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	open(t, s, again, dial(t, newCloud(t)), hostclient.Options{})

	// A folder with a secret is not written over.
	others, other := seal(t, nets()["cnn"], permutePad)
	if err := hostclient.WriteDir(dir, other, others, id.Recipient()); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if again, err := hostclient.ReadModels(dir); err != nil || !reflect.DeepEqual(again, models) {
		t.Errorf("models were written over: %v", err)
	}
	// What fails leaves nothing behind, whole or in part.
	empty := t.TempDir()
	if err := hostclient.WriteDir(empty, secret, models); err == nil {
		t.Error("no recipient")
	}
	if entries, _ := os.ReadDir(empty); len(entries) != 0 {
		t.Errorf("%v", entries)
	}
	if _, err := hostclient.ReadSecret(empty, id); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := hostclient.ReadModels(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A folder is sealed anew once its secret is gone: sealed models that were there, as
// those that sealing left where it ended early, are none of the new network's.
func TestDirAnew(t *testing.T) {
	dir, id := t.TempDir(), identity(t)
	two, old := seal(t, nets()["mlp"], split)
	one, secret := seal(t, nets()["mlp"], permutePad)
	for _, seals := range []struct {
		secret *hostclient.Secret
		models []hostclient.SealedModel
	}{{old, two}, {secret, one}} {
		if err := hostclient.WriteDir(dir, seals.secret, seals.models, id.Recipient()); err != nil {
			t.Fatal(err)
		}
		if models, err := hostclient.ReadModels(dir); err != nil || !reflect.DeepEqual(models, seals.models) {
			t.Errorf("%d models, want %d, %v", len(models), len(seals.models), err)
		}
		if err := os.Remove(filepath.Join(dir, "secret.age")); err != nil {
			t.Fatal(err)
		}
	}
	// Nor does a network that is kept whole leave one to push.
	if err := hostclient.WriteDir(dir, secret, nil, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	if models, err := hostclient.ReadModels(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d models, %v", len(models), err)
	}
}

// TestRoleFiles: a folder that does not have one sealed model for each role is refused, as
// whoever takes its role 0 for the only one gives it away without a record.
func TestRoleFiles(t *testing.T) {
	id := identity(t)
	models, secret := seal(t, nets()["mlp"], lagrange)
	single, one := seal(t, nets()["mlp"], permutePad)
	for _, test := range []struct {
		has []string
		ok  bool
	}{
		{[]string{"role-0-of-3", "role-1-of-3", "role-2-of-3"}, true},
		{[]string{"role-0-of-3", "role-1-of-3", "role-2-of-3", "role-x"}, true},
		{[]string{"role-0-of-3"}, false},
		{[]string{"role-2-of-3"}, false},
		{[]string{"role-0-of-3", "role-2-of-3"}, false},
		{[]string{"role-0-of-3", "role-1-of-3"}, false},
		{[]string{"role-0-of-2", "role-1-of-3", "role-2-of-3"}, false},
		{[]string{"role-0", "role-0-of-3", "role-1-of-3", "role-2-of-3"}, false},
		{[]string{"role-0", "role-1", "role-2"}, false},
		{[]string{"role-1"}, false},
		{[]string{"role-0-of-1"}, false},
		{[]string{"role-00"}, false},
	} {
		dir := t.TempDir()
		if err := hostclient.WriteDir(dir, secret, nil, id.Recipient()); err != nil {
			t.Fatal(err)
		}
		for i, name := range test.has {
			if err := os.WriteFile(filepath.Join(dir, name+".safetensors"), models[min(i, 2)].Bytes, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want := hostclient.ErrRoleFiles
		if test.ok {
			want = nil
		}
		if read, err := hostclient.ReadModels(dir); !errors.Is(err, want) || test.ok && !reflect.DeepEqual(read, models) {
			t.Errorf("%q: read %d models, %v", test.has, len(read), err)
		}
		if files, err := hostclient.SealedFiles(dir); !errors.Is(err, want) || len(files) > 0 != test.ok {
			t.Errorf("%q: %d files, %v", test.has, len(files), err)
		}
		if _, err := hostclient.RekeyDir(t.Context(), dir, nil, []age.Identity{id}); !errors.Is(err, want) {
			t.Errorf("%q: rekeyed, %v", test.has, err)
		}
		if !test.ok {
			clients := clientsAt(t, "a", "b", "c")
			if err := errors.Join(secret.Bind(0, "a"), secret.Bind(1, "b"), secret.Bind(2, "c")); err != nil {
				t.Fatal(err)
			}
			if _, err := hostclient.OpenDir(t.Context(), dir, secret, clients, hostclient.Options{Multiplier: kernel}); !errors.Is(err, want) {
				t.Errorf("%q: opened, %v", test.has, err)
			}
		}
	}
	// A part of what was sealed does not get the names of a whole.
	dir := t.TempDir()
	if err := hostclient.WriteDir(dir, secret, models[:1], id.Recipient()); err != nil {
		t.Fatal(err)
	}
	if read, err := hostclient.ReadModels(dir); !errors.Is(err, hostclient.ErrRoleFiles) {
		t.Errorf("%d models, %v", len(read), err)
	}
	dir = t.TempDir()
	if err := hostclient.WriteDir(dir, one, single, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	if _, err := hostclient.OpenDir(t.Context(), dir, secret, clientsAt(t, "a", "b", "c"), hostclient.Options{}); !errors.Is(err, hostclient.ErrMismatch) {
		t.Error(err)
	}
}

func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		scheme   transform.Scheme
		up, down []int64
	}{
		{permutePad, []int64{144, 64, 36}, []int64{288, 36, 5}},
		// Unrolled: a patch of 18 or 24 words for each of 72 or 6 positions.
		{permute, []int64{72 * 18, 6 * 24, 36}, []int64{288, 36, 5}},
	} {
		models, secret := seal(t, nets()["cnn"], test.scheme)
		d := secret.Describe()
		if d.Scheme != test.scheme.String() || d.Guarantee != test.scheme.Guarantee() ||
			d.Input != [3]int{2, 9, 8} || d.Output != 5 || !slices.Equal(d.Digests, []string{models[0].Digest.String()}) {
			t.Errorf("%+v", d)
		}
		var names []string
		var up, down, work []int64
		for _, l := range d.Layers {
			names = append(names, l.Name+" "+l.Shape)
			if l.Cloud == "" {
				if l.MulAdds+l.WordsUp+l.WordsDown != 0 || l.XMax != 0 {
					t.Errorf("%+v", l)
				}
				continue
			}
			if l.XMax < 1 {
				t.Errorf("%+v", l)
			}
			up, down, work = append(up, l.WordsUp), append(down, l.WordsDown), append(work, l.MulAdds)
		}
		want := []string{"conv2d 9x8x4", "max_pool 4x4x4", "relu 4x4x4", "conv2d 3x2x6", "relu 3x2x6", "reshape 36", "dense 5"}
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "max_pool", graph.MaxPool{}.Name())
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q", names)
		}
		if !slices.Equal(up, test.up) || !slices.Equal(down, test.down) || !slices.Equal(work, []int64{288 * 18, 36 * 24, 180}) {
			t.Errorf("%v: %d up, %d down, %d multiply-adds", test.scheme, up, down, work)
		}
	}
}

func TestSeal(t *testing.T) {
	ctx := t.Context()
	rnd := rand.New(rand.NewPCG(2, 2))
	good := nets()["cnn"]
	broken := dense(rnd, 3, 2)
	broken.W[4] = float32(math.NaN())
	long := &graph.Dense{In: 1<<16 + 1, Out: 1, W: make([]float32, 1<<16+1)}
	wide := plan.Conv2D{H: 2200, W: 2200, C: 1, OutC: 1, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	calibrated := func(x ...float32) hostclient.SealOptions {
		return hostclient.SealOptions{Calibration: x, Multiplier: kernel}
	}
	for _, bad := range []struct {
		what string
		g    *graph.Graph
		o    hostclient.SealOptions
		want error
	}{
		{"no linear layer", chain(graph.Vector(3), graph.ReLU{}), hostclient.SealOptions{}, graph.ErrInvalid},
		{"NaN weight", chain(graph.Vector(3), broken), hostclient.SealOptions{}, graph.ErrNotFinite},
		{"no weights", chain(graph.Vector(3), &graph.Dense{In: 3, Out: 2}), hostclient.SealOptions{}, graph.ErrInvalid},
		{"too many terms", chain(graph.Vector(3), dense(rnd, 3, 1<<16+1), long), hostclient.SealOptions{}, plan.ErrInvalid},
		{"a map larger than a message", chain(graph.Shape{H: 2200, W: 2200, C: 1}, conv(rnd, wide)), hostclient.SealOptions{}, hostclient.ErrTooLarge},
		{"scheme", good, hostclient.SealOptions{Scheme: transform.Scheme{Weights: transform.WeightNone, Inputs: transform.InputPermute}}, transform.ErrScheme},
		{"calibration's length", good, calibrated(1, 2, 3), hostclient.ErrInput},
		{"calibration not finite", good, calibrated(slices.Repeat([]float32{float32(math.NaN())}, 144)...), hostclient.ErrInput},
		{"no multiplier", good, hostclient.SealOptions{Calibration: make([]float32, 144)}, hostclient.ErrMultiplier},
	} {
		models, secret, err := hostclient.SealGraph(ctx, bad.g, bad.o)
		if models != nil || secret != nil || !errors.Is(err, bad.want) {
			t.Errorf("%s: %v", bad.what, err)
		}
		if bad.what == "too many terms" && !strings.Contains(fmt.Sprint(err), "node 1") {
			t.Errorf("does not say where: %v", err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := hostclient.SealGraph(cancelled, good, hostclient.SealOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, _, err := hostclient.Seal(ctx, []byte("no model"), hostclient.SealOptions{}); err == nil {
		t.Error("no model is sealed")
	}

	var steps [][2]int
	models, secret, err := hostclient.SealGraph(ctx, good, hostclient.SealOptions{
		Progress: func(done, total int) { steps = append(steps, [2]int{done, total}) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if secret.Describe().Scheme != transform.DefaultScheme().String() {
		t.Error("not the default scheme")
	}
	if want := [][2]int{{1, 3}, {2, 3}, {3, 3}}; !slices.Equal(steps, want) {
		t.Errorf("progress %v", steps)
	}
	// Nothing but masked weights and shapes is in the sealed model.
	m, err := sealed.Parse(models[0].Bytes)
	if err != nil || len(m.Weights) != 3 || sealed.Sum(models[0].Bytes) != models[0].Digest {
		t.Error(err)
	}
	again, _, err := hostclient.SealGraph(ctx, good, hostclient.SealOptions{})
	if err != nil || again[0].Digest == models[0].Digest {
		t.Errorf("masks are not drawn anew: %v", err)
	}
}

// Calibration gives layers with peaked activations more bits, and keeps results right.
func TestCalibration(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	g := chain(graph.Vector(512), dense(rnd, 512, 16), graph.ReLU{}, dense(rnd, 16, 4))
	flat, peaked := gaussian(rnd, 6*512), make([]float32, 6*512)
	for i := range flat {
		flat[i] = 1
	}
	for i := range 6 {
		peaked[i*512+i] = 1
	}
	bound := func(x []float32) int32 {
		_, secret, err := hostclient.SealGraph(t.Context(), g, hostclient.SealOptions{Calibration: x, Multiplier: kernel})
		if err != nil {
			t.Fatal(err)
		}
		return xmax(secret)[0]
	}
	if f, p := bound(flat), bound(peaked); f >= p {
		t.Errorf("inputs of at most %d where flat, %d where peaked", f, p)
	}
	if z := bound(make([]float32, 2*512)); z < 1 { // nothing to learn
		t.Error(z)
	}
}

// TestSecretMemory: sizes that a secret names take no memory before its vectors
// are found to have them.
func TestSecretMemory(t *testing.T) {
	_, secret := seal(t, chain(graph.Vector(2), &graph.Dense{In: 2, Out: 1, W: []float32{1, 2}}), nonePad)
	plain, err := secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	const channels, groups = 1 << 26, 1 << 10
	op := &graph.Conv2D{Geometry: plan.Conv2D{H: 1, W: 1, C: channels, OutC: groups, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: groups}}
	structure, err := graph.EncodeStructure(&graph.Graph{
		Input:  graph.Shape{H: 1, W: 1, C: channels},
		Nodes:  []graph.Node{{Op: op, Inputs: []graph.Value{0}}},
		Output: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]safetensors.Tensor{
		"structure": safetensors.New("structure", structure, len(structure)),
		"0.scale":   safetensors.New("0.scale", slices.Repeat([]float32{1}, groups), groups),
	}
	for i, tensor := range f.Tensors {
		if r, ok := replace[tensor.Name]; ok {
			f.Tensors[i] = r
			delete(replace, tensor.Name)
		}
	}
	if len(replace) != 0 {
		t.Fatalf("the file has no %v", slices.Collect(maps.Keys(replace)))
	}
	b, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = hostclient.UnmarshalSecret(b)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("accepted")
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("%d bytes took %d to refuse", len(b), took)
	}
}
