package model_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// scales is a backend that adds up the bytes of the weights that it holds, and of the files and
// words of models that are being loaded. A model is identified by the number of inputs of its
// first operator.
type scales struct {
	test  *testing.T
	sizes map[int]int64             // by model: of its file
	load  func(model, op int) error // called in every load, if it is not nil
	light map[int]bool              // models that hold a byte a weight

	mu      sync.Mutex
	budget  int64
	held    int64
	most    int64       // maximum of held and files together
	reading map[int]int // by model: loads, of which each owner may have one
	there   map[int]int // by model: products held
	loads   map[int]int // by model: number of loads
	order   []int       // of loads
}

// sizes of the models that the tests use: two operators each.
func opsOf(number int) []plan.Op {
	return []plan.Op{plan.Dense(100+number, 64), plan.Dense(64, 100+number)}
}

func (s *scales) add(number int) ([]byte, sealed.Digest) {
	s.test.Helper()
	m := sealed.Model{Plan: plan.Plan{Ring: ring.Q4(), Ops: opsOf(number)}}
	for _, op := range m.Plan.Ops {
		m.Weights = append(m.Weights, ring.NewMatrix(op.Rows(), op.Terms()))
	}
	b, err := m.Marshal()
	if err != nil {
		s.test.Fatal(err)
	}
	s.sizes[number] = int64(len(b))
	return b, sealed.Sum(b)
}

// weigh checks that the budget is not exceeded. s.mu must be held.
func (s *scales) weigh() {
	all := s.held
	for m, loads := range s.reading {
		all += int64(loads) * 2 * s.sizes[m]
	}
	s.most = max(s.most, all)
	if all > s.budget {
		s.test.Errorf("%d bytes of %d: %d held, loads of %v", all, s.budget, s.held, s.reading)
	}
}

func (s *scales) Load(ctx context.Context, _ ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	p := &weighed{s: s, model: max(op.In, op.Out) - 100, bytes: 12 * int64(len(w.Data))}
	if s.light[p.model] {
		p.bytes /= 12
	}
	i := 0
	if op.In == 64 {
		i = 1
	} else { // a file has been read
		s.mu.Lock()
		s.reading[p.model]++
		s.weigh()
		s.mu.Unlock()
	}
	over := true // the load ends with this operator
	defer func() {
		if over {
			s.mu.Lock()
			s.reading[p.model]--
			s.mu.Unlock()
		}
	}()
	if s.load != nil {
		if err := s.load(p.model, i); err != nil {
			return nil, err
		}
	}
	over = i == 1
	s.mu.Lock()
	defer s.mu.Unlock()
	if i == 0 {
		s.loads[p.model]++
		s.order = append(s.order, p.model)
	}
	s.there[p.model]++
	s.held += p.bytes
	s.weigh()
	return p, nil
}

type weighed struct {
	plan.Product
	s     *scales
	model int
	bytes int64
	gone  bool
}

func (p *weighed) Bytes() int64 { return p.bytes }

func (p *weighed) Close() error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.gone {
		p.s.test.Error("closed twice")
	}
	p.gone = true
	p.s.held -= p.bytes
	p.s.there[p.model]--
	return nil
}

// resident returns the models whose weights are held.
func (s *scales) resident() (all []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m, n := range s.there {
		if n > 0 {
			all = append(all, m)
		}
	}
	slices.Sort(all)
	return all
}

// shelf is a store of many models on scales.
type shelf struct {
	*fixture
	*scales
	files   map[int][]byte
	digests map[int]sealed.Digest
}

// need is the bytes that loading one of the tests' models may take, and held what it then holds.
var need = model.NeedOf(2*4*64*110+1024, plan.Plan{Ops: opsOf(10)})

const held = 2 * 12 * 64 * 110

// openShelf opens a store with room for one load and the given number of models beside it.
func openShelf(t *testing.T, beside int) *shelf {
	t.Helper()
	s := &scales{test: t, sizes: map[int]int64{}, reading: map[int]int{}, there: map[int]int{}, loads: map[int]int{}}
	f := open(t)
	f.Close()
	s.budget = need + int64(beside)*held
	f.o.Backend, f.o.MaxLoaded = s, s.budget
	f.o.MaxModels, f.o.CallerModels = 100, 100
	f.open()
	return &shelf{fixture: f, scales: s, files: map[int][]byte{}, digests: map[int]sealed.Digest{}}
}

// put stores models.
func (s *shelf) put(numbers ...int) {
	s.t.Helper()
	for _, i := range numbers {
		s.files[i], s.digests[i] = s.add(i)
		s.store(s.files[i], s.digests[i])
		synctest.Wait() // evictions
	}
}

// mustUse begins a use of a stored model.
func (s *shelf) mustUse(number int) *model.Use {
	s.t.Helper()
	u, err := s.use(s.digests[number])
	if err != nil {
		s.t.Fatal(err)
	}
	if p := u.Product(0).(*weighed); p.model != number || p.gone {
		s.t.Fatalf("model %d is %+v", number, p)
	}
	return u
}

func (s *shelf) wantResident(want ...int) {
	s.t.Helper()
	synctest.Wait()
	if got := s.resident(); !slices.Equal(got, want) {
		s.t.Errorf("resident %v, want %v", got, want)
	}
}

// inBubble runs a test with a clock that stands still while goroutines work.
func inBubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

// TestLeastRecentlyUsed: the least recently used model leaves first, and is loaded again when it
// is used.
func TestLeastRecentlyUsed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 2)
		tick := func() { time.Sleep(time.Second) }
		s.put(1)
		tick()
		s.put(2)
		tick()
		s.put(3)
		s.wantResident(1, 2, 3)
		tick()
		s.mustUse(1).Release()
		tick()
		s.put(4)
		s.wantResident(1, 3, 4)
		tick()
		s.mustUse(3).Release()
		tick()
		s.mustUse(2).Release()
		s.wantResident(2, 3, 4)
		if !maps.Equal(s.loads, map[int]int{1: 1, 2: 2, 3: 1, 4: 1}) {
			t.Errorf("loads %v", s.loads)
		}
		if got := s.Loaded(); got.Resident != 3 || got.Bytes != s.held || got.Limit != s.budget || got.Waiting != 0 {
			t.Errorf("%+v with %d bytes held", got, s.held)
		}
		if len(s.List()) != 4 {
			t.Errorf("list %v", s.List())
		}
	})
}

// TestInUseStays: weights stay as long as they are in use. If all are in use, the model that
// must leave is loaded again after the one that it made room for.
func TestInUseStays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		s.wantResident(2)
		two := s.mustUse(2)
		got := make(chan int, 2)
		ask := func(number int) {
			go func() {
				u := s.mustUse(number)
				got <- number
				time.Sleep(time.Minute)
				u.Release()
			}()
			synctest.Wait()
		}
		ask(1)
		ask(2) // takes no new uses
		s.wantResident(2)
		if two.Product(0).(*weighed).gone || len(got) != 0 || s.Loaded().Waiting != 2 {
			t.Errorf("in use: %+v", s.Loaded())
		}
		time.Sleep(time.Second)
		two.Release()
		s.wantResident(1)
		if first := <-got; first != 1 {
			t.Errorf("%d is there first", first)
		}
		if second := <-got; second != 2 {
			t.Errorf("%d is there second", second)
		}
		time.Sleep(time.Hour)
		s.wantResident(2)
	})
}

// TestOneLoad: all uses that wait for a model share one load. A use whose context ends returns
// at once, and uses of other models do not wait.
func TestOneLoad(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 1)
		s.put(1, 2, 3)
		s.wantResident(2, 3)
		s.o.MaxWaiting = func(sealed.Digest) int { return 6 }
		s.restart() // with the limit
		s.wantResident(2, 3)
		resume := make(chan struct{})
		s.load = func(m, op int) error {
			if m == 1 {
				<-resume
			}
			return nil
		}
		before := s.loads[1]
		const n = 5
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { s.mustUse(1).Release() })
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := use(ctx, s.Space, s.digests[1]); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		synctest.Wait()
		ctx, cancel = context.WithCancel(t.Context())
		go func() { use(ctx, s.Space, s.digests[1]) }()
		synctest.Wait()
		u, ok := s.Find(s.digests[1])
		if !ok || u.Take() {
			t.Fatalf("found %v, and loaded", ok)
		}
		err := u.Wait(t.Context())
		wantReason(t, err, wire.ReasonOverloaded)
		u.Release()
		var e *wire.Error
		if errors.As(err, &e) && e.RetryAfter <= 0 {
			t.Error("no word of when to come back")
		}
		cancel()
		if u, ok = s.Find(s.digests[1]); !ok || u.Take() {
			t.Fatalf("found %v, and loaded", ok)
		}
		u.Release() // without waiting
		begun = time.Now()
		for _, other := range s.resident() {
			s.mustUse(other).Release()
		}
		if time.Since(begun) != 0 {
			t.Error("others waited")
		}
		close(resume)
		wg.Wait()
		if s.loads[1] != before+1 {
			t.Errorf("%d loads", s.loads[1]-before)
		}
	})
}

// TestNobodyWaits: a load that has no room yet is cancelled once nobody waits for it.
func TestNobodyWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		two := s.mustUse(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := use(ctx, s.Space, s.digests[1]); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		two.Release()
		s.wantResident()
		if s.loads[1] != 1 || s.Loaded().Waiting != 0 {
			t.Errorf("%d loads, %+v", s.loads[1], s.Loaded())
		}
		s.mustUse(2).Release()
	})
}

// TestPatience: with more models in use than there is room for, all are served in turn, and
// loads take no more than their share of the time.
func TestPatience(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const load, models, span = 2 * time.Second, 3, 3 * time.Minute
		s := openShelf(t, 0)
		for i := range models {
			s.put(i)
		}
		loading := time.Duration(0)
		s.load = func(_, op int) error {
			time.Sleep(load / 2)
			loading += load / 2 // one at a time: there is no room for two
			return nil
		}
		var served [2 * models]int
		var longest [2 * models]time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		var wg sync.WaitGroup
		for i := range served { // two of each model, so that it is always in use
			wg.Go(func() {
				for ctx.Err() == nil {
					begun := time.Now()
					u, err := use(ctx, s.Space, s.digests[i%models])
					if err != nil {
						return
					}
					longest[i] = max(longest[i], time.Since(begun))
					time.Sleep(time.Duration(50+rand.IntN(10)) * time.Millisecond)
					served[i]++
					u.Release()
				}
			})
		}
		wg.Wait()
		if part := loading.Seconds() / span.Seconds(); part > 0.2 || part < 0.15 {
			t.Errorf("loads take %.3f of the time", part)
		}
		for i := range served {
			// Others have 5 loads of time each, and then it is loaded.
			if longest[i] > (models-1)*5*load+load+time.Second || served[i] < int(span/models/(80*time.Millisecond)) {
				t.Errorf("caller %d served %d times, waited for up to %v", i, served[i], longest[i])
			}
		}
	})
}

// TestTurns: many loads of one owner do not delay the single load of another.
func TestTurns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2, 3, 4, 5)
		b, d := s.add(9)
		if err := put(t, s.Of(another), d, b); err != nil {
			t.Fatal(err)
		}
		s.load = func(int, int) error { time.Sleep(time.Second); return nil }
		s.order = nil
		var wg sync.WaitGroup
		for i := 1; i <= 4; i++ {
			wg.Go(func() { s.mustUse(i).Release() })
			synctest.Wait()
		}
		time.Sleep(time.Millisecond)
		nine, ok := s.Of(another).Find(d)
		if !ok || nine.Take() {
			t.Fatal("it has no load to wait for")
		}
		if err := nine.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		nine.Release()
		wg.Wait()
		if at := slices.Index(s.order, 9); at != 1 || len(s.order) != 5 || !slices.Equal(slices.Delete(slices.Clone(s.order), at, at+1), []int{1, 2, 3, 4}) {
			t.Errorf("loaded in the order %v", s.order)
		}
	})
}

// TestPinned: pinned models are loaded before all others, and stay.
func TestPinned(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 1)
		s.put(1, 2, 3)
		s.o.Pinned = []sealed.Digest{s.digests[1], sealed.Sum(nil)}
		s.Close()
		st, err := model.Open(s.o)
		if err != nil {
			t.Fatal(err)
		}
		s.Store, s.Space = st, st.Of(someone)
		if err := st.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantResident(1)
		for range 3 {
			for _, i := range []int{2, 3} {
				s.mustUse(i).Release()
				time.Sleep(time.Second)
			}
		}
		s.wantResident(1, 3)
		if s.loads[1] != 2 || !strings.Contains(s.log.String(), "pinned model is not stored by any caller") {
			t.Errorf("%d loads, %s", s.loads[1], s.log.String())
		}
		// A model that has no room beside it is refused at once.
		s.o.MaxLoaded = need + held/2
		s.budget = s.o.MaxLoaded
		s.restart()
		_, err = s.use(s.digests[2])
		wantReason(t, err, wire.ReasonTooLarge)
		b, d := s.add(7)
		_, _, err = s.upload(d, len(b), b)
		wantReason(t, err, wire.ReasonTooLarge)
		// Once it is removed there is.
		if err := s.Remove(t.Context(), s.digests[1]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.mustUse(2).Release()
		if _, stored, err := s.upload(d, len(b), nil); err != nil || !stored {
			t.Error(err)
		}
		// With too many pinned models the store does not open.
		s.o.Pinned = []sealed.Digest{s.digests[2], s.digests[3]}
		s.Close()
		if st, err = model.Open(s.o); err != nil {
			t.Fatal(err)
		}
		err = st.Load(t.Context())
		wantReason(t, err, wire.ReasonTooLarge)
		if err == nil || !strings.Contains(err.Error(), "pinned") {
			t.Error(err)
		}
		s.Store = st
	})
}

// TestDamagedOnDemand: a model that is damaged while it is not loaded is put aside, all uses
// that wait for it fail with an error, and it can be uploaded again.
func TestDamagedOnDemand(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		path := filepath.Join(s.dir(), s.digests[1].String())
		good := s.fixture.names()
		for name, change := range map[string]func(b []byte) []byte{
			"a bit of a word": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"its end":         func(b []byte) []byte { return b[:len(b)-4] },
			"more":            func(b []byte) []byte { return append(b, 0) },
			"another":         func([]byte) []byte { return s.files[2] },
			"nothing":         func([]byte) []byte { return nil },
		} {
			if err := os.WriteFile(path+".safetensors", change(bytes.Clone(s.files[1])), 0o600); err != nil {
				t.Fatal(err)
			}
			two := s.mustUse(2)
			errs := make(chan error, 3)
			for range cap(errs) {
				go func() { _, err := s.use(s.digests[1]); errs <- err }()
			}
			synctest.Wait()
			two.Release()
			for range cap(errs) {
				err := <-errs
				if wantReason(t, err, wire.ReasonModelNotFound); err == nil || !strings.Contains(err.Error(), "damaged") {
					t.Errorf("%s: %v", name, err)
				}
			}
			_, err := s.use(s.digests[1])
			wantReason(t, err, wire.ReasonModelNotFound)
			if len(s.List()) != 1 || !slices.Contains(s.names(), s.digests[1].String()+".bad") {
				t.Errorf("%s: %v, %v", name, s.List(), s.names())
			}
			s.mustUse(2).Release()
			s.store(s.files[1], s.digests[1])
			s.mustUse(1).Release()
			time.Sleep(time.Hour)
			s.mustUse(2).Release()
			if err := os.Remove(path + ".bad"); err != nil || !slices.Equal(s.names(), good) {
				t.Errorf("%s: %v, %v", name, s.names(), err)
			}
		}
	})
}

// TestRemovedWhileWanted: uses that wait for a model fail when it is removed, before its load or
// during it, and nothing of it is left.
func TestRemovedWhileWanted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, begun := range []bool{false, true} {
			s := openShelf(t, 0)
			s.put(1, 2)
			two := s.mustUse(2)
			resume := make(chan struct{})
			s.load = func(m, _ int) error {
				if m == 1 {
					<-resume
				}
				return nil
			}
			told := make(chan error)
			go func() { _, err := s.use(s.digests[1]); told <- err }()
			synctest.Wait()
			if begun {
				two.Release()
				synctest.Wait()
			}
			if err := s.Remove(t.Context(), s.digests[1]); err != nil {
				t.Fatal(err)
			}
			if !begun {
				wantReason(t, <-told, wire.ReasonModelNotFound)
				two.Release()
			}
			close(resume)
			if begun {
				wantReason(t, <-told, wire.ReasonModelNotFound)
			}
			s.mustUse(2).Release()
			s.wantResident(2)
			if got := s.Loaded(); got.Bytes != s.held {
				t.Errorf("%+v with %d bytes held", got, s.held)
			}
			s.Close()
		}
	})
}

// TestLoadFails: if a load fails, the uses that wait for it fail, without the backend's error in
// theirs, and the next use tries again.
func TestLoadFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		for op := range 2 {
			s.load = func(m, i int) error {
				if m == 1 && i == op {
					return errors.New("a secret of the backend's")
				}
				return nil
			}
			_, err := s.use(s.digests[1])
			if wantReason(t, err, wire.ReasonInternal); strings.Contains(fmt.Sprint(err), "secret") {
				t.Error(err)
			}
			s.wantResident()
			if got := s.Loaded(); got.Bytes != 0 {
				t.Errorf("%+v", got)
			}
			s.load = nil
			s.mustUse(1).Release()
			time.Sleep(time.Hour)
			s.mustUse(2).Release()
		}
	})
}

// TestLastUsedFirst: the model used last is loaded first at the next start.
func TestLastUsedFirst(t *testing.T) {
	s := openShelf(t, 0)
	for i := 1; i <= 3; i++ {
		s.files[i], s.digests[i] = s.add(i)
		s.store(s.files[i], s.digests[i])
	}
	for _, last := range []int{2, 1, 3, 3} {
		s.mustUse(last).Release()
		s.restart()
		if got := s.resident(); !slices.Equal(got, []int{last}) {
			t.Errorf("resident %v, %d was used last", got, last)
		}
	}
}

// TestBudget: whatever many callers do at the same time, the budget is not exceeded, and every
// use has the right model.
func TestBudget(t *testing.T) {
	for _, beside := range []int{0, 1, 5} {
		s := openShelf(t, beside)
		const models = 6
		for i := range models {
			s.files[i], s.digests[i] = s.add(i)
		}
		s.load = func(int, int) error { time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond); return nil }
		var wg sync.WaitGroup
		for c := range uint64(8) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(c, 3))
				owner := s.Of([]model.Owner{someone, another}[c%2])
				for range 60 {
					i := rnd.IntN(models)
					switch d := s.digests[i]; rnd.IntN(8) {
					case 0, 1:
						u, err := owner.Upload(t.Context(), d, int64(len(s.files[i])), nil)
						if err != nil {
							t.Error(err)
							return
						}
						if !u.Stored() {
							err := errors.Join(u.Write(s.files[i][u.Held():]), u.Finish())
							if err != nil && !errors.Is(err, context.Cause(u.Context())) { // removed meanwhile
								t.Error(err)
							}
						}
						u.Close()
					case 2:
						var e *wire.Error
						if err := owner.Remove(t.Context(), d); err != nil && (!errors.As(err, &e) || e.Reason != wire.ReasonModelNotFound) {
							t.Error(err)
						}
					default:
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(20000))*time.Microsecond)
						u, err := use(ctx, owner, d)
						if err == nil {
							for op := range 2 {
								if p := u.Product(op).(*weighed); p.model != i || p.gone {
									t.Errorf("model %d is %d", i, p.model)
								}
							}
							time.Sleep(time.Duration(rnd.IntN(200)) * time.Microsecond)
							u.Release()
						} else if ctx.Err() == nil {
							wantReason(t, err, wire.ReasonModelNotFound)
						}
						cancel()
					}
				}
			})
		}
		wg.Wait()
		s.Close()
		if s.held != 0 || len(s.resident()) != 0 {
			t.Errorf("%d bytes held at the end", s.held)
		}
		t.Logf("%d beside: at most %d of %d bytes, loads %v", beside, s.most, s.budget, s.loads)
	}
}

// TestUploadsExpire: uploads that nobody resumes expire, for all callers.
func TestUploadsExpire(t *testing.T) {
	f := open(t)
	f.Close()
	f.o.MaxModels, f.o.UploadExpiry = 10, time.Hour
	f.open()
	now := time.Now()
	b, d := sealedModel(t, 99)
	for i, s := range []model.Space{f.Space, f.Of(another)} {
		for j, age := range []time.Duration{2 * time.Hour, 30 * time.Minute} {
			_, d := sealedModel(t, uint64(10*i+j))
			u, err := s.Upload(t.Context(), d, int64(len(b)), nil)
			if err == nil {
				err = u.Write(b[:10])
				u.Close()
			}
			path := filepath.Join(f.o.Dir, "callers", string([]model.Owner{someone, another}[i]), d.String()+".part")
			if err := errors.Join(err, os.Chtimes(path, now, now.Add(-age))); err != nil {
				t.Fatal(err)
			}
		}
	}
	busy, err := f.Upload(t.Context(), d, int64(len(b)), nil)
	if err == nil {
		err = errors.Join(busy.Write(b[:10]), os.Chtimes(filepath.Join(f.dir(), d.String()+".part"), now, now.Add(-2*time.Hour)))
	}
	if err != nil {
		t.Fatal(err)
	}
	parts := func() (n int) {
		all, err := filepath.Glob(filepath.Join(f.o.Dir, "callers", "*", "*.part"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	f.Expire(now)
	if n := parts(); n != 3 {
		t.Errorf("%d uploads are left, want those that are young or under way", n)
	}
	if err := busy.Write(b[10:]); err != nil {
		t.Error(err)
	}
	if err := busy.Finish(); err != nil || !busy.Stored() {
		t.Error(err)
	}
	busy.Close()
	f.o.UploadExpiry = 20 * time.Minute
	f.restart() // expires uploads too
	if n := parts(); n != 0 || !f.has(d) {
		t.Errorf("%d uploads are left", n)
	}
}

// TestUploadEndsWhileLoading: an upload that is given up while its model is loaded leaves no
// weights, and it can be resumed.
func TestUploadEndsWhileLoading(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 2)
		b, d := s.add(1)
		resume := make(chan struct{})
		s.load = func(int, int) error { <-resume; return nil }
		u, err := s.Upload(t.Context(), d, int64(len(b)), nil)
		if err == nil {
			err = u.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- u.Finish() }()
		synctest.Wait()
		why := errors.New("given up")
		u.Cancel(why)
		if err := <-ended; !errors.Is(err, why) || u.Stored() {
			t.Errorf("stored %v, %v", u.Stored(), err)
		}
		u.Close()
		close(resume)
		s.wantResident()
		if got := s.Loaded(); got.Bytes != 0 || len(s.List()) != 0 {
			t.Errorf("%+v, %v", got, s.List())
		}
		if held, stored, err := s.upload(d, len(b), nil); err != nil || !stored || held != int64(len(b)) {
			t.Errorf("%d held, stored %v, %v", held, stored, err)
		}
		s.wantResident(1)
	})
}

// TestRunningLoadsFirst: nothing is evicted for a load that will have room once a load in
// progress is done and takes less.
func TestRunningLoadsFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2, 3, 4)
		s.Close()
		s.budget = need + 3*held
		s.o.MaxLoaded = s.budget
		st, err := model.Open(s.o)
		if err == nil {
			err = st.Load(t.Context()) // and no more
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Store, s.Space = st, st.Of(someone)
		s.mustUse(2).Release()
		s.mustUse(3).Release()
		resume := make(chan struct{})
		s.load = func(int, int) error { <-resume; return nil }
		var wg sync.WaitGroup
		for _, i := range []int{1, 4} {
			wg.Go(func() { s.mustUse(i).Release() })
			synctest.Wait()
		}
		s.wantResident(2, 3)
		if got := s.Loaded(); got.Waiting != 1 {
			t.Errorf("%+v", got)
		}
		close(resume)
		wg.Wait()
		s.wantResident(1, 2, 3, 4)
	})
}

// TestOtherPlan: a file whose plan differs from the one that was read at the start is not
// served, as requests are checked against that one.
func TestOtherPlan(t *testing.T) {
	f := open(t)
	conv := plan.Conv2D{H: 9, W: 4, C: 1, OutC: 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	m := sealed.Model{Plan: plan.Plan{Ring: ring.Q4(), Ops: []plan.Op{plan.Conv(conv)}}, Weights: []ring.Matrix{ring.NewMatrix(2, 1)}}
	good, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	d := sealed.Sum(good)
	f.store(good, d)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(good, []byte("[9,4,1]"), []byte("[8,4,1]"), 1)
	path := filepath.Join(f.dir(), d.String()+".safetensors")
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if f.Store, err = model.Open(f.o); err != nil {
		t.Fatal(err)
	}
	f.Space = f.Store.Of(someone)
	if err := errors.Join(f.Load(t.Context()), os.WriteFile(path, good, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = f.use(d)
	wantReason(t, err, wire.ReasonModelNotFound)
	f.store(good, d)
	if !f.has(d) {
		t.Error("uploaded again, it is not served")
	}
}

// TestRemovedBeforeWait: a use that was found before a removal does not get the model that was
// uploaded after it.
func TestRemovedBeforeWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		u, ok := s.Find(s.digests[1])
		if !ok || u.Take() {
			t.Fatalf("found %v, and loaded", ok)
		}
		if err := s.Remove(t.Context(), s.digests[1]); err != nil {
			t.Fatal(err)
		}
		s.store(s.files[1], s.digests[1])
		time.Sleep(time.Hour)
		s.mustUse(2).Release()
		before := s.loads[1]
		wantReason(t, u.Wait(t.Context()), wire.ReasonModelNotFound)
		u.Release()
		if s.loads[1] != before {
			t.Error("it was loaded")
		}
	})
}

// late returns how long f takes by the bubble's clock.
func late(f func()) time.Duration {
	begun := time.Now()
	f()
	return time.Since(begun)
}

// mustPut stores a model for an owner.
func (s *shelf) mustPut(o model.Owner, number int) {
	s.t.Helper()
	s.files[number], s.digests[number] = s.add(number)
	if err := put(s.t, s.Of(o), s.digests[number], s.files[number]); err != nil {
		s.t.Error(err)
	}
	synctest.Wait()
}

// slowly makes loads take a second.
func (s *shelf) slowly() {
	s.load = func(_, op int) error { time.Sleep(time.Duration(1-op) * time.Second); return nil }
}

// TestDebt: an owner whose upload evicted another's model may not do so again for four times as
// long as that load took. Others' loads go first, and its own models make room.
func TestDebt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.slowly()
		s.mustPut(someone, 1)
		if d := late(func() { s.mustPut(another, 9) }); d != time.Second {
			t.Errorf("without a debt it takes %v", d)
		}
		if d := late(func() { s.mustPut(another, 8) }); d != time.Second {
			t.Errorf("its own model leaves after %v", d)
		}
		s.mustPut(someone, 2)
		s.order = nil
		var wg sync.WaitGroup
		wg.Go(func() {
			if d := late(func() { s.mustPut(another, 7) }); d != 3*time.Second { // 4 + 1 after the first, less 2
				t.Errorf("with a debt it takes %v", d)
			}
		})
		time.Sleep(time.Millisecond)
		third := model.Owner("uid-3")
		s.files[5], s.digests[5] = s.add(5)
		if err := put(t, s.Of(third), s.digests[5], s.files[5]); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if !slices.Equal(s.order, []int{5, 7}) {
			t.Errorf("loaded in the order %v", s.order)
		}
	})
}

// TestDebtOfWhoLeaves: a request that evicts another's model and then does not wait leaves a
// debt, as does an upload that is removed before its load begins.
func TestDebtOfWhoLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, removed := range []bool{false, true} {
			s := openShelf(t, 0)
			s.slowly()
			s.mustPut(another, 9)
			s.mustPut(someone, 1)
			time.Sleep(time.Hour)
			one := s.mustUse(1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
			if removed {
				ctx, cancel = context.WithCancel(t.Context())
				go func() {
					synctest.Wait()
					if err := s.Of(another).Remove(t.Context(), s.digests[9]); err != nil {
						t.Error(err)
					}
				}()
			}
			if _, err := use(ctx, s.Of(another), s.digests[9]); err == nil {
				t.Error("it was there")
			}
			cancel()
			one.Release()
			s.wantResident()
			s.mustPut(someone, 2)
			if d := late(func() { s.mustPut(another, 8) }); d != 4*time.Second {
				t.Errorf("removed %v: its next load is done after %v", removed, d)
			}
			s.Close()
		}
	})
}

// TestBadPlanMakesNoRoom: nothing is loaded of an upload whose plan is refused, and nothing is
// evicted for it.
func TestBadPlanMakesNoRoom(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.Close()
		s.o.Check = func(p plan.Plan) error {
			if p.Ops[0].In == 109 {
				return &wire.Error{Reason: wire.ReasonTooLarge}
			}
			return nil
		}
		s.fixture.open()
		s.mustPut(someone, 1)
		b, d := s.add(9)
		for range 2 {
			u, err := s.Of(another).Upload(t.Context(), d, int64(len(b)), nil)
			if err == nil {
				err = errors.Join(u.Write(b[u.Held():]), u.Finish())
				u.Close()
			}
			wantReason(t, err, wire.ReasonTooLarge)
			s.wantResident(1)
		}
	})
}

// TestSmallBesideLarge: when models take turns, one that loads quickly gets as much time as one
// that loads slowly.
func TestSmallBesideLarge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const span = time.Hour
		s := openShelf(t, 0)
		s.put(1, 2)
		s.load = func(m, op int) error {
			if m == 1 {
				time.Sleep(5 * time.Second)
			} else {
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		var served [2]time.Duration
		var wg sync.WaitGroup
		for i := range served {
			wg.Go(func() {
				for ctx.Err() == nil {
					u, err := use(ctx, s.Space, s.digests[1+i])
					if err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
					served[i] += 100 * time.Millisecond
					u.Release()
				}
			})
		}
		wg.Wait()
		if served[0] < span*2/5 || served[1] < span*2/5 {
			t.Errorf("of %v they are served for %v", span, served)
		}
	})
}

// TestUploadBesideDamage: a load that finds damage does not deadlock with a new upload of the
// same model, which was removed meanwhile and whose load waits for this one.
func TestUploadBesideDamage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		if err := os.WriteFile(filepath.Join(s.dir(), s.digests[1].String()+".safetensors"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var first sync.Once
		resume := make(chan struct{})
		model.SetStep(func(step string) {
			if step == "load: file read" {
				first.Do(func() { <-resume })
			}
		})
		defer model.SetStep(func(string) {})
		told, uploaded := make(chan error), make(chan error)
		go func() { _, err := s.use(s.digests[1]); told <- err }()
		synctest.Wait()
		if err := s.Remove(t.Context(), s.digests[1]); err != nil {
			t.Fatal(err)
		}
		go func() { uploaded <- put(t, s.Space, s.digests[1], s.files[1]) }()
		synctest.Wait()
		close(resume)
		wantReason(t, <-told, wire.ReasonModelNotFound)
		if err := <-uploaded; err != nil {
			t.Error(err)
		}
		s.mustUse(1).Release()
	})
}

// TestLoadPanics: a panic fails only its load, and its value appears nowhere.
func TestLoadPanics(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2)
		s.load = func(m, op int) error {
			if m == 1 && op == 1 {
				panic("a secret word")
			}
			return nil
		}
		_, err := s.use(s.digests[1])
		wantReason(t, err, wire.ReasonInternal)
		b := bytes.Clone(s.files[1])
		wantReason(t, put(t, s.Of(another), s.digests[1], b), wire.ReasonInternal)
		if log := s.log.String(); !strings.Contains(log, "msg=panic") || strings.Contains(log, "secret") {
			t.Errorf("log %s", log)
		}
		s.wantResident()
		if got := s.Loaded(); got.Bytes != 0 || s.held != 0 {
			t.Errorf("%+v with %d bytes held", got, s.held)
		}
		s.load = nil
		s.mustUse(1).Release()
	})
}

// TestPinnedMustLoad: the store does not open if a pinned model cannot be loaded. One that finds
// no room after others is tried before them.
func TestPinnedMustLoad(t *testing.T) {
	s := openShelf(t, 2)
	for _, i := range []int{1, 10} {
		s.files[i], s.digests[i] = s.add(i)
		s.store(s.files[i], s.digests[i])
	}
	s.o.Pinned = []sealed.Digest{s.digests[1], s.digests[10]}
	start := func() error {
		t.Helper()
		s.Close()
		st, err := model.Open(s.o)
		if err != nil {
			t.Fatal(err)
		}
		s.Store, s.Space = st, st.Of(someone)
		return st.Load(t.Context())
	}
	for _, why := range []error{errors.New("broken"), kernels.ErrOutOfMemory, &os.PathError{Op: "read", Err: errors.New("broken")}} {
		s.load = func(m, _ int) error {
			if m == 10 {
				return why
			}
			return nil
		}
		if err := start(); err == nil || !strings.Contains(err.Error(), s.digests[10].String()) {
			t.Errorf("start with %v: %v", why, err)
		}
	}
	s.load = nil
	s.light = map[int]bool{1: true}
	s.budget = model.NeedOf(s.sizes[10], plan.Plan{Ops: opsOf(10)}) + 2*64*101 // and what 1 holds
	s.o.MaxLoaded = s.budget
	if err := start(); err != nil {
		t.Error(err)
	}
	if got := s.resident(); !slices.Equal(got, []int{1, 10}) || s.loads[1] < 2 {
		t.Errorf("resident %v", got)
	}
	s.budget--
	s.o.MaxLoaded = s.budget
	wantReason(t, start(), wire.ReasonTooLarge)
}

// TestStay: a model may stay for four times the slowest load among the models that it evicted
// and those loaded while it waited.
func TestStay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := openShelf(t, 0)
		s.put(1, 2, 3)
		s.load = func(m, op int) error {
			if op == 0 && m == 1 {
				time.Sleep(5 * time.Second)
			} else if op == 0 {
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		s.mustUse(1).Release()
		s.mustUse(2).Release()
		if d := late(func() { s.mustUse(3).Release() }); d != 20*time.Second+time.Millisecond {
			t.Errorf("it stays %v beside one that it made leave", d)
		}
		time.Sleep(time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() { s.mustUse(1).Release() })
		synctest.Wait()
		wg.Go(func() { s.mustUse(2).Release() }) // makes 1 leave
		synctest.Wait()
		s.mustUse(3).Release() // makes 2 leave
		wg.Wait()
		if d := late(func() { s.mustUse(2).Release() }); d != 20*time.Second+time.Millisecond {
			t.Errorf("it stays %v after one that came before it", d)
		}
	})
}
