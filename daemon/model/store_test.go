package model_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend counts the open products, and fails if a test sets err.
type backend struct {
	open atomic.Int64
	err  error
	gate chan struct{} // if not nil: products close once it is closed
}

func (b *backend) Load(ctx context.Context, _ ring.Ring, _ plan.Op, w ring.Matrix) (plan.Product, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.err != nil && b.open.Load() > 0 { // the second operator
		return nil, b.err
	}
	b.open.Add(1)
	return &product{b: b}, nil
}

type product struct {
	plan.Product
	b      *backend
	closed atomic.Bool
}

func (p *product) Close() error {
	if p.closed.Swap(true) {
		panic("closed twice")
	}
	if p.b.gate != nil {
		<-p.b.gate
	}
	p.b.open.Add(-1)
	return nil
}

// sealedModel returns the bytes of a model of two operators.
func sealedModel(t testing.TB, seed uint64) ([]byte, sealed.Digest) {
	t.Helper()
	m := sealed.Model{Plan: plan.Plan{Ring: ring.Q4(), Ops: []plan.Op{plan.Dense(20, 30), plan.Dense(30, 4)}}}
	rnd := rand.New(rand.NewPCG(seed, 1))
	for _, op := range m.Plan.Ops {
		w := ring.NewMatrix(op.Rows(), op.Terms())
		for i := range w.Data {
			w.Data[i] = rnd.Uint32N(m.Plan.Ring.Modulus())
		}
		m.Weights = append(m.Weights, w)
	}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b, sealed.Sum(b)
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

const someone model.Owner = "uid-1"

// dir is the caller's folder.
func (f *fixture) dir() string { return filepath.Join(f.o.Dir, "callers", string(someone)) }

// fixture is a store that a test can close and open again.
type fixture struct {
	*model.Store
	model.Space // of one caller
	t           *testing.T
	o           model.Options
	backend     *backend
	log         *logBuffer
}

func open(t *testing.T) *fixture {
	t.Helper()
	b, l := &backend{}, &logBuffer{}
	f := &fixture{t: t, backend: b, log: l, o: model.Options{
		Dir: filepath.Join(t.TempDir(), "state"), Backend: b, MaxModels: 3, MaxBytes: 1 << 20,
		Own: someone, CallerModels: 3, CallerBytes: 1 << 30,
		MaxLoaded: 1 << 30, MaxWaiting: func(sealed.Digest) int { return 100 }, Check: func(plan.Plan) error { return nil },
		Log: slog.New(slog.NewTextHandler(l, nil)), Metrics: metrics.New(),
	}}
	f.open()
	t.Cleanup(func() {
		f.Close()
		if n := b.open.Load(); n != 0 {
			t.Errorf("%d products left open", n)
		}
	})
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	s, err := model.Open(f.o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Store, f.Space = s, s.Of(someone)
	if err := s.Load(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	s.Warm(f.t.Context())
}

func (f *fixture) restart() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

// upload sends b as one part of a model and finishes.
func (f *fixture) upload(d sealed.Digest, size int, b []byte) (held int64, stored bool, err error) {
	f.t.Helper()
	u, err := f.Upload(f.t.Context(), d, int64(size), nil)
	if err != nil {
		return 0, false, err
	}
	defer u.Close()
	for len(b) > 0 {
		n := min(len(b), 1000)
		if err := u.Write(b[:n]); err != nil {
			return 0, false, err
		}
		b = b[n:]
	}
	err = u.Finish()
	return u.Held(), u.Stored(), err
}

func (f *fixture) store(b []byte, d sealed.Digest) {
	f.t.Helper()
	if held, stored, err := f.upload(d, len(b), b); err != nil || !stored || held != int64(len(b)) {
		f.t.Fatalf("upload: %d held, stored %v, %v", held, stored, err)
	}
}

func (f *fixture) names() (names []string) {
	entries, err := os.ReadDir(f.dir())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// use begins a use of a stored model, loading it if necessary.
func (f *fixture) use(d sealed.Digest) (*model.Use, error) { return use(f.t.Context(), f.Space, d) }

func use(ctx context.Context, s model.Space, d sealed.Digest) (*model.Use, error) {
	u, ok := s.Find(d)
	if !ok {
		return nil, model.NotFound(d)
	}
	if err := u.Wait(ctx); err != nil {
		u.Release()
		return nil, err
	}
	return u, nil
}

func (f *fixture) has(d sealed.Digest) bool {
	u, err := f.use(d)
	if err == nil {
		u.Release()
	}
	return err == nil
}

func wantReason(t *testing.T, err error, want wire.Reason) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Reason != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestStoreAndRestart(t *testing.T) {
	f := open(t)
	b1, d1 := sealedModel(t, 1)
	b2, d2 := sealedModel(t, 2)
	f.store(b1, d1)
	f.store(b2, d2)
	want := []model.Info{{Digest: d1, Bytes: int64(len(b1)), Layers: 2}, {Digest: d2, Bytes: int64(len(b2)), Layers: 2}}
	if d2.String() < d1.String() {
		want[0], want[1] = want[1], want[0]
	}
	for range 2 {
		if got := f.List(); !reflect.DeepEqual(got, want) {
			t.Errorf("list %v, want %v", got, want)
		}
		if n := f.backend.open.Load(); n != 4 {
			t.Errorf("%d products open", n)
		}
		m, err := f.use(d1)
		if err != nil || m.Digest != d1 || m.Plan.Ops[1] != plan.Dense(30, 4) || m.Product(0) == m.Product(1) {
			t.Fatalf("model %+v, %v", m, err)
		}
		m.Release()
		if f.has(sealed.Digest{}) {
			t.Error("a model that is not there")
		}
		f.restart()
	}
	// A second upload is complete at once.
	u, err := f.Upload(t.Context(), d1, int64(len(b1)), nil)
	if err != nil || !u.Stored() || u.Held() != int64(len(b1)) {
		t.Errorf("again: %v", err)
	}
	u.Close()
	if info, err := os.Stat(filepath.Join(f.dir(), d1.String()+".safetensors")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestResume(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	for i, part := range [][]byte{b[:10], nil, b[10:2000], b[2000 : len(b)-1]} {
		held, stored, err := f.upload(d, len(b), part)
		if err != nil || stored {
			t.Fatalf("part %d: stored %v, %v", i, stored, err)
		}
		if f.has(d) || len(f.List()) != 0 {
			t.Fatal("a part is visible")
		}
		f.restart()
		if again, _, err := f.upload(d, len(b), nil); err != nil || again != held {
			t.Fatalf("part %d: %d bytes held after a restart, %d before: %v", i, again, held, err)
		}
	}
	if held, stored, err := f.upload(d, len(b), b[len(b)-1:]); err != nil || !stored || held != int64(len(b)) || !f.has(d) {
		t.Errorf("last byte: %d held, stored %v, %v", held, stored, err)
	}
}

func TestRefusedUploads(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	other, od := sealedModel(t, 2)

	for size, want := range map[int]wire.Reason{0: wire.ReasonBadModel, -1: wire.ReasonBadModel, 1<<20 + 1: wire.ReasonTooLarge, 1 << 62: wire.ReasonTooLarge} {
		_, _, err := f.upload(d, size, nil)
		wantReason(t, err, want)
	}
	for name, c := range map[string]struct {
		d    sealed.Digest
		size int
		b    []byte
	}{
		"garbage":        {d, len(b), bytes.Repeat([]byte("x"), len(b))},
		"another model":  {d, len(other), other},
		"one bit":        {d, len(b), append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1)},
		"cut":            {d, len(b) - 1, b[:len(b)-1]},
		"too long":       {d, len(b) - 1, b},
		"not a model":    {sealed.Sum([]byte("hello")), 5, []byte("hello")},
		"header cut":     {sealed.Sum(b[:50]), 50, b[:50]},
		"trailing bytes": {sealed.Sum(append(bytes.Clone(b), 0)), len(b) + 1, append(bytes.Clone(b), 0)},
	} {
		_, _, err := f.upload(c.d, c.size, c.b)
		wantReason(t, err, wire.ReasonBadModel)
		if names := f.names(); len(names) != 0 {
			t.Fatalf("%s: %v stayed behind", name, names)
		}
	}
	// An unfinished upload with another size does not block this one.
	if _, _, err := f.upload(d, 1<<20, make([]byte, len(b)+1)); err != nil {
		t.Fatal(err)
	}
	f.store(b, d)
	f.store(other, od)
}

// TestDamagedAtRest: damaged models are put aside, and the others are served.
func TestDamagedAtRest(t *testing.T) {
	f := open(t)
	b1, d1 := sealedModel(t, 1)
	b2, d2 := sealedModel(t, 2)
	f.store(b1, d1)
	f.store(b2, d2)
	damage := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.dir(), d1.String()+".safetensors"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		f.restart()
		if f.has(d1) || !f.has(d2) {
			t.Error("the wrong models are served")
		}
	}
	damage(b1[:100])
	damage(nil)
	damage(b2)
	if !strings.Contains(f.log.String(), d1.String()) {
		t.Error("not logged")
	}
	if _, err := os.Stat(filepath.Join(f.dir(), d1.String()+".bad")); err != nil {
		t.Error(err)
	}
	f.restart()
	if f.has(d1) {
		t.Error("a damaged model came back")
	}
	// A file above the size limit is not read. It may be sound, so it stays.
	big := filepath.Join(f.dir(), d1.String()+".safetensors")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 1<<40); err != nil {
		t.Fatal(err)
	}
	f.restart()
	if _, err := os.Stat(big); err != nil || f.has(d1) {
		t.Errorf("an absurd size: %v", err)
	}
	// Good again.
	f.store(b1, d1)
	f.restart()
	if !f.has(d1) || !f.has(d2) {
		t.Error("the model that was uploaded anew is not served")
	}
	// The store ignores files with other names.
	for _, name := range []string{"x.safetensors", strings.Repeat("zz", 32) + ".safetensors", "readme"} {
		if err := os.WriteFile(filepath.Join(f.dir(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(f.dir(), sealed.Digest{}.String()+".safetensors"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.restart()
}

func TestBackendFails(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	f.backend.err = errors.New("out of memory")
	_, _, err := f.upload(d, len(b), b)
	wantReason(t, err, wire.ReasonInternal)
	if f.has(d) || f.backend.open.Load() != 0 {
		t.Error("half a model")
	}
	// All bytes are stored, so asking again is enough.
	f.backend.err = nil
	if _, stored, err := f.upload(d, len(b), nil); err != nil || !stored || !f.has(d) {
		t.Errorf("asked again: stored %v, %v", stored, err)
	}
}

func TestRemove(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	wantReason(t, f.Remove(t.Context(), d), wire.ReasonModelNotFound)
	f.store(b, d)
	m, err := f.use(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if f.has(d) || len(f.List()) != 0 || len(f.names()) != 0 {
		t.Errorf("still there: %v", f.names())
	}
	if n := f.backend.open.Load(); n != 2 {
		t.Errorf("%d products open while in use", n)
	}
	// A new upload while the old model is in use.
	f.store(b, d)
	if n := f.backend.open.Load(); n != 4 {
		t.Errorf("%d products open", n)
	}
	f.backend.gate = make(chan struct{})
	m.Release() // does not wait for the device
	close(f.backend.gate)
	for end := time.Now().Add(time.Minute); f.backend.open.Load() != 2; time.Sleep(time.Millisecond) { // freed in the background
		if time.Now().After(end) {
			t.Fatalf("%d products open after the last use", f.backend.open.Load())
		}
	}
	if err := f.Remove(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	// An upload that has not finished can be removed too.
	if _, _, err := f.upload(d, len(b), b[:10]); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context(), d); err != nil || len(f.names()) != 0 {
		t.Errorf("upload: %v, %v", err, f.names())
	}
}

// TestConcurrentUse uploads, uses and removes the same models at once.
func TestConcurrentUse(t *testing.T) {
	f := open(t)
	var wg sync.WaitGroup
	for i := range uint64(2) {
		b, d := sealedModel(t, i)
		for range 2 {
			wg.Go(func() {
				for range 20 {
					u, err := f.Upload(t.Context(), d, int64(len(b)), nil)
					if err != nil {
						t.Error(err)
						return
					}
					if !u.Stored() {
						err := errors.Join(u.Write(b[u.Held():]), u.Finish())
						if err != nil && !errors.Is(err, context.Cause(u.Context())) { // removed meanwhile
							t.Error(err)
						}
					}
					u.Close()
				}
			})
			wg.Go(func() {
				for range 200 {
					if m, err := f.use(d); err == nil {
						if m.Product(0).(*product).closed.Load() {
							t.Error("a product was closed in use")
						}
						m.Release()
					}
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				err := f.Remove(t.Context(), d)
				var e *wire.Error
				if err != nil && (!errors.As(err, &e) || e.Reason != wire.ReasonModelNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestLimit: abandoned uploads are removed to make room, oldest first; uploads in progress and
// models are not.
func TestLimit(t *testing.T) {
	f := open(t) // 3 models
	b, d := sealedModel(t, 0)
	f.store(b, d)
	_, old := sealedModel(t, 1)
	_, young := sealedModel(t, 2)
	for i, d := range []sealed.Digest{old, young} {
		if _, _, err := f.upload(d, len(b), b[:10]); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(filepath.Join(f.dir(), d.String()+".part"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	b3, d3 := sealedModel(t, 3)
	f.store(b3, d3)
	if held, _, err := f.upload(young, len(b), nil); err != nil || held != 10 {
		t.Errorf("the younger upload: %d held, %v", held, err)
	}
	if held, _, err := f.upload(old, len(b), nil); err != nil || held != 0 {
		t.Errorf("the older upload: %d held, %v", held, err)
	}
	u, err := f.Upload(t.Context(), young, int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = f.upload(old, len(b), b[:10])
	wantReason(t, err, wire.ReasonTooLarge)
	u.Close()
	if _, _, err = f.upload(old, len(b), b[:10]); err != nil {
		t.Error(err)
	}
}

func TestOneUploadAtATime(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	u, err := f.Upload(t.Context(), d, int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Upload(ctx, d, int64(len(b)), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second upload: %v", err)
	}
	second := make(chan int64)
	go func() {
		held, _, err := f.upload(d, len(b), nil)
		if err != nil {
			t.Error(err)
		}
		second <- held
	}()
	if err := u.Write(b[:7]); err != nil {
		t.Fatal(err)
	}
	u.Close()
	if held := <-second; held != 7 {
		t.Errorf("the second found %d bytes", held)
	}
}

// TestRemoveCancels: a removal cancels an upload of the model and does not wait for its caller.
func TestRemoveCancels(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	u, err := f.Upload(t.Context(), d, int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Write(b[:7]); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-u.Context().Done()
		u.Close()
	}()
	if err := f.Remove(t.Context(), d); err != nil {
		t.Error(err)
	}
	wantReason(t, context.Cause(u.Context()), wire.ReasonModelNotFound)
	if names := f.names(); len(names) != 0 {
		t.Errorf("%v stayed behind", names)
	}
	f.store(b, d)
}

// TestRefusedLoads: a plan that exceeds limits, and weights that can never have room, are refused
// with a reason: when they are uploaded, when the upload is repeated without a byte, and when a
// model found at the start is used.
func TestRefusedLoads(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	other, od := sealedModel(t, 2)
	f.store(other, od)
	refuse := &wire.Error{Reason: wire.ReasonTooLarge, Message: "of no use"}
	for name, change := range map[string]func(){
		"plan":   func() { f.o.Check = func(plan.Plan) error { return refuse } },
		"weight": func() { f.o.MaxLoaded = 20000 }, // Dense(20, 30) may take 19,104, and its file 2,400
	} {
		good := f.o
		change()
		f.restart()
		_, err := f.use(od)
		wantReason(t, err, wire.ReasonTooLarge)
		if n := f.backend.open.Load(); n != 0 || len(f.List()) != 1 {
			t.Errorf("%s: %d products at the start, %v", name, n, f.List())
		}
		_, _, err = f.upload(d, len(b), b)
		wantReason(t, err, wire.ReasonTooLarge)
		_, _, err = f.upload(d, len(b), nil)
		wantReason(t, err, wire.ReasonTooLarge)
		f.o = good
		f.restart()
		if held, stored, err := f.upload(d, len(b), nil); err != nil || !stored || held != int64(len(b)) || !f.has(od) {
			t.Errorf("%s: afterwards %d bytes, stored %v, %v", name, held, stored, err)
		}
		if err := f.Remove(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
}

func TestLock(t *testing.T) {
	f := open(t)
	if _, err := model.Open(f.o); !errors.Is(err, model.ErrLocked) {
		t.Errorf("error %v", err)
	}
	f.restart()
}

func TestCancelledLoad(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	f.store(b, d)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := model.Open(f.o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	if !f.has(d) {
		t.Error("put aside for a cancelled load")
	}
}

// TestStorageFails: a disk error is reported with reason STORAGE and without paths.
func TestStorageFails(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	u, err := f.Upload(t.Context(), d, int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	// A folder stands where the file should be.
	if err := os.MkdirAll(filepath.Join(f.dir(), d.String()+".part"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = u.Write(b)
	u.Close()
	wantReason(t, err, wire.ReasonStorage)
	if strings.Contains(err.Error(), f.o.Dir) || !strings.Contains(f.log.String(), f.o.Dir) {
		t.Errorf("error %v, log %s", err, f.log.String())
	}
	_, _, err = f.upload(d, len(b), b)
	wantReason(t, err, wire.ReasonStorage)
}

const another model.Owner = "tls-00000000000000000000000000000000000000000000000000000000000000ff"

// put uploads a whole model for a caller.
func put(t *testing.T, s model.Space, d sealed.Digest, b []byte) error {
	t.Helper()
	u, err := s.Upload(t.Context(), d, int64(len(b)), nil)
	if err != nil {
		return err
	}
	defer u.Close()
	if u.Held() != 0 || u.Stored() {
		t.Errorf("%d bytes are there already", u.Held())
	}
	if err := u.Write(b); err != nil {
		return err
	}
	return u.Finish()
}

// TestCallersApart: two callers with the same model each have their own copy, before and after a
// restart; neither sees or removes the other's, finished or not.
func TestCallersApart(t *testing.T) {
	f := open(t)
	f.Close()
	f.o.MaxModels = 10
	f.open()
	b, d := sealedModel(t, 1)
	b2, d2 := sealedModel(t, 2)
	f.store(b, d)
	other := func() model.Space { return f.Of(another) }
	if list := other().List(); len(list) != 0 {
		t.Errorf("another's list: %v", list)
	}
	if _, ok := other().Find(d); ok {
		t.Error("another's model is served")
	}
	wantReason(t, other().Remove(t.Context(), d), wire.ReasonModelNotFound)
	if err := put(t, other(), d, b); err != nil { // with every byte
		t.Fatal(err)
	}
	if n := f.backend.open.Load(); n != 4 {
		t.Errorf("%d products, want each caller's own", n)
	}
	// One caller's upload in progress does not block the other's, whose removal does not end it.
	u, err := f.Upload(t.Context(), d2, int64(len(b2)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Write(b2[:100]); err != nil {
		t.Fatal(err)
	}
	wantReason(t, other().Remove(t.Context(), d2), wire.ReasonModelNotFound)
	if err := put(t, other(), d2, b2); err != nil {
		t.Error(err)
	}
	if u.Context().Err() != nil {
		t.Error("an upload was ended by another caller")
	}
	u.Close()
	f.restart()
	if len(f.List()) != 1 || len(other().List()) != 2 {
		t.Errorf("after a restart: %v, %v", f.List(), other().List())
	}
	if err := f.Remove(t.Context(), d); err != nil {
		t.Error(err)
	}
	m, err := use(t.Context(), other(), d)
	if f.has(d) || err != nil {
		t.Fatal("one caller removed the other's model")
	}
	m.Release()
	if held, stored, err := f.upload(d2, len(b2), b2[100:]); err != nil || !stored || held != int64(len(b2)) {
		t.Errorf("%d held, stored %v, %v", held, stored, err)
	}
}

// TestCallerModels: each caller has its own limit on models, and only its own uploads are
// removed to make room for it.
func TestCallerModels(t *testing.T) {
	f := open(t)
	f.Close()
	f.o.MaxModels, f.o.CallerModels = 4, 2
	f.open()
	var b [6][]byte
	var d [6]sealed.Digest
	for i := range b {
		b[i], d[i] = sealedModel(t, uint64(i))
	}
	f.store(b[0], d[0])
	f.store(b[1], d[1])
	wantReason(t, put(t, f.Space, d[2], b[2]), wire.ReasonTooLarge)
	other := f.Of(another)
	if err := put(t, other, d[3], b[3]); err != nil {
		t.Fatal(err)
	}
	// An idle upload of the other caller is removed for another one of its own,
	u, err := other.Upload(t.Context(), d[4], int64(len(b[4])), nil)
	if err == nil {
		err = u.Write(b[4][:10])
		u.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	// but not for uploads of others, even if the daemon's limit is reached.
	wantReason(t, put(t, f.Of("uid-7"), d[5], b[5]), wire.ReasonTooLarge)
	if err := put(t, other, d[5], b[5]); err != nil {
		t.Error(err)
	}
	if len(f.List()) != 2 || len(other.List()) != 2 {
		t.Errorf("%v, %v", f.List(), other.List())
	}
}

// TestCallerBytes: a caller's limit on bytes counts its models and the complete sizes of its
// uploads, and nothing of others.
func TestCallerBytes(t *testing.T) {
	f := open(t)
	b, d := sealedModel(t, 1)
	b2, d2 := sealedModel(t, 2)
	b3, d3 := sealedModel(t, 3)
	f.Close()
	f.o.MaxModels, f.o.CallerBytes = 10, int64(2*len(b))
	f.open()
	f.store(b, d)
	u, err := f.Upload(t.Context(), d2, int64(len(b2)), nil)
	if err == nil {
		err = u.Write(b2[:1])
	}
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, put(t, f.Space, d3, b3), wire.ReasonTooLarge)
	for i, s := range []model.Owner{another, "uid-7"} {
		if err := put(t, f.Of(s), d, b); err != nil {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	u.Close()
	// The abandoned upload has one byte and is removed to make room.
	if err := put(t, f.Space, d3, b3); err != nil {
		t.Error(err)
	}
	if held, _, err := f.upload(d2, len(b2), nil); err != nil || held != 0 {
		t.Errorf("%d held, %v", held, err)
	}
	wantReason(t, put(t, f.Space, d2, b2), wire.ReasonTooLarge)
}

// TestDivide: the models of an earlier version's directory go to the daemon's own user, wherever
// an earlier division was interrupted.
func TestDivide(t *testing.T) {
	b, d := sealedModel(t, 1)
	b2, d2 := sealedModel(t, 2)
	for cut := range 4 {
		f := open(t)
		f.store(b, d)
		if _, _, err := f.upload(d2, len(b2), b2[:500]); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		old := []string{d.String() + ".safetensors", d2.String() + ".part"}
		for i, name := range old {
			if cut <= i { // not yet moved
				if err := os.Rename(filepath.Join(f.dir(), name), filepath.Join(f.o.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if cut == 0 { // not even begun
			if err := os.RemoveAll(filepath.Join(f.o.Dir, "callers")); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			f.open()
			if !f.has(d) || len(f.Of(another).List()) != 0 {
				t.Errorf("cut %d: the model is not its owner's", cut)
			}
			if held, _, err := f.upload(d2, len(b2), nil); err != nil || held != 500 {
				t.Errorf("cut %d: %d bytes of the upload, %v", cut, held, err)
			}
			if entries, err := os.ReadDir(f.o.Dir); err != nil || len(entries) != 2 {
				t.Errorf("cut %d: %v, %v", cut, entries, err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		f.open()
	}
}

// TestOwners: whatever name a certificate has, its owner is a valid folder name.
func TestOwners(t *testing.T) {
	if o := model.User(4294967295); o != "uid-4294967295" {
		t.Errorf("%s", o)
	}
	seen := map[model.Owner]bool{}
	for _, name := range []string{"", "cn:a", "dns:a", "uri:a", "cn:../../lock", "cn:uid-0", "cn:" + strings.Repeat("x", 5000), "cn:a\x00"} {
		o := model.Certified(name)
		if seen[o] || len(o) != 68 || strings.ContainsAny(string(o), "/.\x00") {
			t.Errorf("%q is %s", name, o)
		}
		seen[o] = true
	}
}

// TestRenamedCounts: a model counts towards limits between the rename of its file and its
// becoming visible, and other uploads can go on meanwhile.
func TestRenamedCounts(t *testing.T) {
	for _, resumed := range []bool{false, true} {
		f := open(t)
		f.Close()
		f.o.CallerModels, f.o.MaxModels = 1, 2
		f.open()
		b, d := sealedModel(t, 1)
		if resumed {
			f.backend.err = errors.New("not now")
			if _, stored, _ := f.upload(d, len(b), b); stored {
				t.Fatal("stored")
			}
			f.backend.err = nil
		}
		b2, d2 := sealedModel(t, 2)
		checked := false
		model.SetStep(func(name string) {
			if name != "upload: renamed" || checked {
				return
			}
			checked = true
			wantReason(t, put(t, f.Space, d2, b2), wire.ReasonTooLarge)
			if err := put(t, f.Of(another), d2, b2); err != nil {
				t.Error(err)
			}
		})
		rest := b
		if resumed {
			rest = nil
		}
		if _, stored, err := f.upload(d, len(b), rest); err != nil || !stored || !checked {
			t.Errorf("stored %v, looked at %v, %v", stored, checked, err)
		}
		model.SetStep(func(string) {})
	}
}
