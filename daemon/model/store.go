// Package model stores sealed models on disk, so that they survive a restart. As many as
// a memory budget allows are loaded in a backend, ready to evaluate.
//
// Each caller has a folder of its own in the state directory, callers/OWNER, and shares
// nothing in it with others: a model of two callers is stored twice. A file's name is the
// digest in hex and a suffix:
//
//	.safetensors  a model: digest and content were good when it got the name
//	.part         an upload: the first bytes of a model, to be gone on with
//	.bad          a model found damaged when it was to be loaded; kept for a look, never served
//
// A model appears under its name by one rename, after its bytes are durable. When a store
// is closed, it sets the modification time of each model's file to that of the model's
// last use.
package model

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

const (
	modelSuffix  = ".safetensors"
	uploadSuffix = ".part"
	badSuffix    = ".bad"
	lockName     = "lock"
	callersName  = "callers"
)

// ErrLocked reports a state directory that another process holds.
var ErrLocked = errors.New("model: state directory is in use by another process")

// Options of a Store.
type Options struct {
	Dir       string          // created where it is missing
	Backend   plan.Multiplier // that weights are loaded in
	Own       Owner           // who has the models of a directory that is not divided yet
	MaxModels int             // stored or being uploaded
	MaxBytes  int64           // of one model
	// CallerModels and CallerBytes limit each caller, uploads included; an upload counts
	// with the size of its complete model.
	CallerModels int
	CallerBytes  int64
	// UploadExpiry is how long an upload that nobody resumes is kept; 0: forever.
	UploadExpiry time.Duration
	MaxLoaded    int64                   // bytes that the backend may hold, and loads may take
	MaxWaiting   func(sealed.Digest) int // requests that may wait for a model to be loaded
	Pinned       []sealed.Digest
	// Check returns a *wire.Error for a plan that no caller could use.
	Check   func(plan.Plan) error
	Metrics *metrics.Metrics
	Log     *slog.Logger
}

// Store is a state directory and its models. Methods may be called by several goroutines
// at once. Errors that callers should see are *wire.Error.
type Store struct {
	o    Options
	lock *os.File

	residency *residency

	mu     sync.Mutex // is not waited for with residency.mu held
	models map[key]*Model
	busy   map[key]*claim // being uploaded or removed
}

// key names a model.
type key struct {
	owner  Owner
	digest sealed.Digest
}

// Space is one caller's part of a Store. Store.Of makes it.
type Space struct {
	s     *Store
	owner Owner
}

// Of returns a caller's part of the store.
func (s *Store) Of(o Owner) Space { return Space{s, o} }

// claim keeps others from a model that someone uploads or removes.
type claim struct {
	done   chan struct{}           // closed when it is given up
	cancel context.CancelCauseFunc // of an upload; nil for a removal
	size   int64                   // of the model, once bytes of an upload come; guarded by Store.mu
}

// Model is a stored model.
type Model struct {
	Digest sealed.Digest
	Bytes  int64 // of the sealed model
	Plan   plan.Plan
	// Metrics are shown until the model is removed.
	Metrics *metrics.Model

	space  Space
	suffix string // of its file; that of an upload until it is stored
	need   int64  // the most bytes that loading it takes, see needOf
	pinned bool

	// Guarded by residency.mu.
	weights *weights
	load    *load // waiting or under way
	took    time.Duration
	lastUse time.Time
	stamped time.Time // the time that its file has
	gone    bool
}

// Open locks the state directory, and divides a directory that an earlier version left
// undivided by caller. Call Load next. Its error wraps ErrLocked if another process has
// the directory.
func Open(o Options) (*Store, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("model: state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("model: state directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, o.Dir)
		}
		return nil, &fs.PathError{Op: "flock", Path: lock.Name(), Err: err}
	}
	s := &Store{o: o, lock: lock, models: map[key]*Model{}, busy: map[key]*claim{}}
	s.residency = newResidency(o, s.read)
	if err := s.divide(); err != nil {
		s.residency.close()
		lock.Close()
		return nil, err
	}
	return s, nil
}

// divide moves what lies in the state directory itself to the folder of the
// daemon's own user, one file after the other: it can be cut off anywhere.
func (s *Store) divide() error {
	if err := os.MkdirAll(filepath.Join(s.o.Dir, callersName), 0o700); err != nil {
		return err
	}
	if err := syncDir(s.o.Dir); err != nil {
		return err
	}
	moved := false
	for _, suffix := range []string{modelSuffix, uploadSuffix, badSuffix} {
		found, err := files(s.o.Dir, suffix)
		if err != nil {
			return err
		}
		for _, d := range found {
			if !moved {
				if err := s.Of(s.o.Own).makeDir(); err != nil {
					return err
				}
				moved = true
			}
			if err := os.Rename(filepath.Join(s.o.Dir, d.String()+suffix), s.Of(s.o.Own).path(d, suffix)); err != nil {
				return err
			}
			s.o.Log.Info("model moved to its owner's folder", "model", d, "owner", s.o.Own)
		}
	}
	if !moved {
		return nil
	}
	return errors.Join(syncDir(s.Of(s.o.Own).dir()), syncDir(s.o.Dir))
}

// Close releases all models and the directory. Weights in use are freed by their last
// Release. No upload may be in progress.
func (s *Store) Close() error {
	s.residency.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.models {
		if m.lastUse.After(m.stamped) { // so that the next start knows whom to load first
			if err := os.Chtimes(m.path(), m.lastUse, m.lastUse); err != nil {
				s.o.Log.Warn("cannot store a model's time of last use", "model", m.Digest, "error", err)
			}
		}
	}
	clear(s.models)
	return s.lock.Close()
}

func (s Space) dir() string { return filepath.Join(s.s.o.Dir, callersName, string(s.owner)) }

func (s Space) path(d sealed.Digest, suffix string) string {
	return filepath.Join(s.dir(), d.String()+suffix)
}

// makeDir makes the caller's folder, durably.
func (s Space) makeDir() error {
	if err := os.Mkdir(s.dir(), 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(s.dir()))
}

// spaces returns those of all callers that have a folder.
func (s *Store) spaces() ([]Space, error) {
	entries, err := os.ReadDir(filepath.Join(s.o.Dir, callersName))
	if err != nil {
		return nil, err
	}
	var all []Space
	for _, e := range entries {
		if o := Owner(e.Name()); e.IsDir() && o.valid() {
			all = append(all, s.Of(o))
		}
	}
	return all, nil
}

// files returns the digests of a folder's files with a suffix.
func files(dir, suffix string) ([]sealed.Digest, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []sealed.Digest
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if b, err := hex.DecodeString(name); err == nil && len(b) == len(sealed.Digest{}) {
			found = append(found, sealed.Digest(b))
		}
	}
	return found, nil
}

// syncDir makes names durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Load makes the stored models visible and loads the pinned ones. Its error names a
// pinned model that has no room or cannot be loaded. A damaged model is set aside and
// logged.
func (s *Store) Load(ctx context.Context) error {
	spaces, err := s.spaces()
	if err != nil {
		return err
	}
	for _, space := range spaces {
		if err := errors.Join(ctx.Err(), space.find()); err != nil {
			return err
		}
	}
	s.Expire(time.Now())
	there := map[sealed.Digest]bool{}
	var pinned []*Model
	for _, m := range s.byUse() {
		there[m.Digest] = true
		if m.pinned {
			pinned = append(pinned, m)
		}
	}
	if err := s.loadPinned(ctx, pinned); err != nil {
		return err
	}
	for _, d := range s.o.Pinned {
		if !there[d] {
			s.o.Log.Warn("no caller has a pinned model", "model", d)
		}
	}
	return nil
}

// loadPinned loads models, what is large first: less has to be left for the last one's
// load. What they hold shows only then, so one that has no room is tried before all others,
// once.
func (s *Store) loadPinned(ctx context.Context, all []*Model) error {
	slices.SortStableFunc(all, func(a, b *Model) int { return cmp.Compare(b.need, a.need) })
	first := map[*Model]bool{}
	for i := 0; i < len(all); i++ {
		m := all[i]
		err := s.hold(ctx, m)
		var refused *wire.Error
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && refused.Reason == wire.ReasonModelNotFound: // damaged, and put aside
		case refused != nil && refused.Reason == wire.ReasonTooLarge && i > 0 && !first[m]:
			first[m] = true
			for _, other := range all[:i] {
				s.residency.unload(other)
			}
			copy(all[1:], all[:i])
			all[0] = m
			i = -1
		case refused != nil && refused.Reason == wire.ReasonTooLarge:
			return fmt.Errorf("model: no room for pinned model %v of %s: %w", m.Digest, m.space.owner, err)
		default:
			return fmt.Errorf("model: pinned model %v of %s: %w", m.Digest, m.space.owner, err)
		}
	}
	return nil
}

// hold loads a model and lets it be.
func (s *Store) hold(ctx context.Context, m *Model) error {
	u := s.residency.use(m, false)
	defer u.Release()
	return u.Wait(ctx)
}

// Warm loads the models that there is room for, the most recently used first, until ctx
// ends. It takes no room that others wait for.
func (s *Store) Warm(ctx context.Context) {
	for _, m := range s.byUse() {
		if ctx.Err() != nil {
			return
		}
		s.residency.warm(ctx, m)
	}
}

// byUse returns the models, the last used first.
func (s *Store) byUse() []*Model {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.models))
	s.mu.Unlock()
	s.residency.mu.Lock()
	defer s.residency.mu.Unlock()
	slices.SortFunc(all, func(a, b *Model) int { return b.lastUse.Compare(a.lastUse) })
	return all
}

// find makes a caller's stored models visible.
func (s Space) find() error {
	found, err := files(s.dir(), modelSuffix)
	if err != nil {
		return err
	}
	for _, d := range found {
		m, err := s.open(d, modelSuffix)
		switch {
		case err == nil:
			s.publish(m)
		case errors.Is(err, errDamaged):
			if err := s.putAside(d, err); err != nil {
				return err
			}
		default:
			s.s.o.Log.Error("stored model not usable", "owner", s.owner, "model", d, "error", err)
		}
	}
	return nil
}

// putAside renames the file of a model that is not visible, for why.
func (s Space) putAside(d sealed.Digest, why error) error {
	s.s.o.Log.Error("damaged model set aside", "owner", s.owner, "model", d, "error", why)
	if err := os.Rename(s.path(d, modelSuffix), s.path(d, badSuffix)); err != nil {
		return err
	}
	step("damaged: renamed")
	err := syncDir(s.dir())
	step("damaged: put aside")
	return err
}

// errDamaged reports a file whose bytes are not the model that it is named after.
var errDamaged = errors.New("not the model that it is named after")

// open returns a model of which only the plan is read, and no word is known to be good.
func (s Space) open(d sealed.Digest, suffix string) (*Model, error) {
	f, err := os.Open(s.path(d, suffix))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > s.s.o.MaxBytes {
		return nil, fmt.Errorf("model of %d bytes, at most %d", info.Size(), s.s.o.MaxBytes)
	}
	p, err := sealed.ReadPlan(f, info.Size())
	if errors.Is(err, sealed.ErrInvalid) {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return &Model{
		Digest: d, Bytes: info.Size(), Plan: p, space: s, suffix: suffix,
		need: needOf(info.Size(), p), pinned: slices.Contains(s.s.o.Pinned, d), lastUse: info.ModTime(), stamped: info.ModTime(),
	}, nil
}

func (m *Model) path() string { return m.space.path(m.Digest, m.suffix) }

// read is residency's: it returns the products of a model's file. Errors that callers
// are to know are *wire.Error. A stored model that is damaged is put aside.
func (s *Store) read(ctx context.Context, m *Model) ([]plan.Product, error) {
	products, err := s.loadFile(ctx, m)
	switch {
	case err == nil, ctx.Err() != nil:
		return products, err
	case m.suffix == uploadSuffix: // Finish says what it means
		return nil, err
	case errors.Is(err, errDamaged):
		return nil, s.retire(ctx, m, err)
	case errors.As(err, new(*wire.Error)):
		return nil, err
	case errors.Is(err, kernels.ErrOutOfMemory):
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: time.Second, Message: "no device has room for the weights now"}
	case errors.Is(err, fs.ErrNotExist): // it is being removed
		return nil, NotFound(m.Digest)
	case errors.As(err, new(*fs.PathError)):
		return nil, m.space.storage("load", m.Digest, err)
	}
	s.o.Log.Error("model not loaded", "owner", m.space.owner, "model", m.Digest, "error", err)
	return nil, &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
}

// retire puts a visible model aside that was found damaged, and returns what callers
// are told.
func (s *Store) retire(ctx context.Context, m *Model, why error) error {
	d := m.Digest
	// A removal does not wait for loads, nor an upload of a model that is visible: it ends.
	// An upload of what is to be in this one's place does.
	mine, err := m.space.claim(ctx, d, func(error) {}, m)
	if err != nil {
		return err
	}
	defer m.space.free(d, mine)
	if !s.forget(m) {
		return NotFound(d) // removed meanwhile; what has its name now is another one
	}
	if err := m.space.putAside(d, why); err != nil {
		return m.space.storage("put aside", d, err)
	}
	return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "model " + d.String() + " was damaged on disk: upload it again"}
}

// forget makes a model invisible. It reports whether it was visible.
func (s *Store) forget(m *Model) bool {
	k := key{m.space.owner, m.Digest}
	s.mu.Lock()
	there := s.models[k] == m
	if there {
		delete(s.models, k)
	}
	s.mu.Unlock()
	if there {
		m.Metrics.Drop()
		s.residency.drop(m)
	}
	return there
}

// loadFile reads a whole model, checks it and loads its weights.
func (s *Store) loadFile(ctx context.Context, m *Model) (products []plan.Product, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(m, v)
		}
		if err != nil {
			for i, p := range products {
				if err := p.Close(); err != nil {
					s.o.Log.Error("cannot free weights", "model", m.Digest, "layer", i, "error", err)
				}
			}
			products = nil
		}
	}()
	f, err := os.Open(m.path())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, m.Bytes+1) // one byte more than are to be there
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	b = b[:n]
	step("load: file read")
	if sum := sealed.Sum(b); sum != m.Digest {
		return nil, fmt.Errorf("%w: its digest is %v", errDamaged, sum)
	}
	content, err := sealed.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := s.o.Check(content.Plan); err != nil {
		return nil, err
	}
	if content.Plan.Ring != m.Plan.Ring || !slices.Equal(content.Plan.Ops, m.Plan.Ops) { // which requests are checked against
		return nil, fmt.Errorf("%w: its plan has changed", errDamaged)
	}
	for i, w := range content.Weights {
		p, err := s.o.Backend.Load(ctx, content.Plan.Ring, content.Plan.Ops[i], w)
		if err != nil {
			return products, fmt.Errorf("load operator %d: %w", i, err)
		}
		products = append(products, p)
		step("load: weights of a layer")
	}
	return products, nil
}

// panicked logs a panic of a load, without its value, which may hold words, and returns what
// it is for callers. It ends the load, not the daemon.
func (s *Store) panicked(m *Model, v any) error {
	s.o.Log.Error("panic", "owner", m.space.owner, "model", m.Digest, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
}

// needOf returns the most bytes that loading a model takes: its file, the words in it,
// and what a backend holds.
func needOf(size int64, p plan.Plan) int64 {
	need := 2 * size
	for _, op := range p.Ops {
		need += loadedBytes(op)
	}
	return need
}

// heldBytes returns what a backend holds for a product.
func heldBytes(p plan.Product, op plan.Op) int64 {
	if s, ok := p.(kernels.Sized); ok {
		return s.Bytes()
	}
	return loadedBytes(op)
}

// loadedBytes returns the most bytes that a backend holds for an operator. A
// backend has 16 bytes a weight; or a byte modulo each prime, with zeros between:
// the outputs of each group are filled up to 32, and the channels of each place
// of a kernel to 4; or the words, and on a device the place of each term and 16
// bytes a weight, with terms filled up to 16 and outputs to 4.
func loadedBytes(op plan.Op) int64 {
	groups, run := 1, op.Terms()
	if op.Kind == plan.KindConv2D {
		groups, run = op.Conv.Groups, op.Conv.C/op.Conv.Groups
	}
	up := func(n, to int) int64 { return int64((n + to - 1) / to * to) }
	filled := up(op.Rows()/groups, 32) * int64(groups) * up(run, 4) * int64(op.Terms()/run)
	weights := int64(op.Rows()) * int64(op.Terms())
	device := 4*weights + 16*int64(op.Terms()) + 16*up(op.Rows()/groups, 4)*int64(groups)*up(op.Terms(), 16)
	return max(16*weights, ring.MaxPrimes*filled, device)
}

// publish makes a model visible.
func (s Space) publish(m *Model) {
	m.Metrics = s.s.o.Metrics.Model(m.Digest)
	s.s.mu.Lock()
	s.s.models[key{s.owner, m.Digest}] = m
	s.s.mu.Unlock()
}

// Find returns a use of a model, not begun yet, or false if there is no such model.
func (s Space) Find(d sealed.Digest) (*Use, bool) {
	s.s.mu.Lock()
	m, ok := s.s.models[key{s.owner, d}]
	s.s.mu.Unlock()
	if !ok {
		return nil, false
	}
	return s.s.residency.use(m, true), true
}

// Info describes a model.
type Info struct {
	Digest sealed.Digest
	Bytes  int64
	Layers int
}

// List describes the caller's models, in the order of their digests.
func (s Space) List() []Info {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	var list []Info
	for k, m := range s.s.models {
		if k.owner == s.owner {
			list = append(list, Info{m.Digest, m.Bytes, len(m.Plan.Ops)})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Digest.String() < list[j].Digest.String() })
	return list
}

// Loaded returns the figures of what is loaded.
func (s *Store) Loaded() metrics.Loaded { return s.residency.figures() }

// Size returns how many models all callers have, and the bytes of their files.
func (s *Store) Size() (models int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.models {
		bytes += m.Bytes
	}
	return len(s.models), bytes
}

// Remove deletes a model, or cancels and deletes an unfinished upload. Uses in progress
// finish first; Find no longer finds the model.
func (s Space) Remove(ctx context.Context, d sealed.Digest) error {
	mine, err := s.claim(ctx, d, nil, nil)
	if err != nil {
		return err
	}
	defer s.free(d, mine)
	removed := false
	for _, suffix := range []string{modelSuffix, uploadSuffix} {
		switch err := os.Remove(s.path(d, suffix)); {
		case err == nil:
			removed = true
			step("remove: " + suffix + " removed")
		case !errors.Is(err, fs.ErrNotExist):
			return s.storage("remove", d, err)
		}
	}
	if removed {
		if err := syncDir(s.dir()); err != nil {
			return s.storage("remove", d, err)
		}
	}
	step("remove: durable")
	s.s.mu.Lock()
	m, ok := s.s.models[key{s.owner, d}]
	s.s.mu.Unlock()
	if ok {
		s.s.forget(m)
		step("remove: invisible")
	}
	if !ok && !removed {
		return NotFound(d)
	}
	s.s.o.Log.Info("model removed", "owner", s.owner, "model", d)
	return nil
}

// NotFound returns the error for a model that does not exist.
func NotFound(d sealed.Digest) error {
	return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "no model " + d.String()}
}

// claim waits until no one else uploads or removes a model, and keeps others
// from it until it is freed. An upload comes with a cancel, a removal without;
// a removal cancels an upload that it has to wait for. Where it is for the sake of one
// model it waits as long as that is visible.
func (s Space) claim(ctx context.Context, d sealed.Digest, cancel context.CancelCauseFunc, only *Model) (*claim, error) {
	for {
		s.s.mu.Lock()
		if only != nil && s.s.models[key{s.owner, d}] != only {
			s.s.mu.Unlock()
			return nil, NotFound(d)
		}
		other, taken := s.s.busy[key{s.owner, d}]
		if !taken {
			mine := &claim{done: make(chan struct{}), cancel: cancel}
			s.s.busy[key{s.owner, d}] = mine
			s.s.mu.Unlock()
			return mine, nil
		}
		s.s.mu.Unlock()
		if cancel == nil && other.cancel != nil {
			other.cancel(NotFound(d))
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// free gives a claim up.
func (s Space) free(d sealed.Digest, mine *claim) {
	s.s.mu.Lock()
	delete(s.s.busy, key{s.owner, d})
	s.s.mu.Unlock()
	close(mine.done)
}

// storage logs a failure of the disk and returns what callers are told of it.
func (s Space) storage(what string, d sealed.Digest, err error) error {
	s.s.o.Log.Error("storage failed", "owner", s.owner, "operation", what, "model", d, "error", err)
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // callers need not know the daemon's folders
	}
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonStorage, Message: fmt.Sprintf("%s: %v", what, err)}
}

// Upload is a model being uploaded. It belongs to one goroutine, which closes it.
type Upload struct {
	s      Space
	digest sealed.Digest
	size   int64
	held   int64    // bytes there
	file   *os.File // nil until there is one
	claim  *claim
	ctx    context.Context
	cancel context.CancelCauseFunc
	// stored says that the model is complete and visible.
	stored bool
}

// Upload begins or resumes the upload of a model of size bytes. It waits for another
// upload of the same model to end. When ctx ends, the upload ends.
func (s Space) Upload(ctx context.Context, d sealed.Digest, size int64) (*Upload, error) {
	if size <= 0 || size > s.s.o.MaxBytes {
		return nil, tooLarge("model of %d bytes, want 1 to %d", size, s.s.o.MaxBytes)
	}
	upload, cancel := context.WithCancelCause(ctx)
	mine, err := s.claim(ctx, d, cancel, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	u := &Upload{s: s, digest: d, size: size, claim: mine, ctx: upload, cancel: cancel}
	s.s.mu.Lock()
	m, ok := s.s.models[key{s.owner, d}]
	s.s.mu.Unlock()
	if ok {
		u.stored, u.held = true, m.Bytes
		return u, nil
	}
	switch f, err := os.OpenFile(s.path(d, uploadSuffix), os.O_RDWR|os.O_APPEND, 0); {
	case err == nil:
		u.file = f
		if err := u.measure(); err != nil {
			u.Close()
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		u.Close()
		return nil, s.storage("upload", d, err)
	}
	return u, nil
}

// measure sets held to the bytes there. More than the model has are none of its.
func (u *Upload) measure() error {
	info, err := u.file.Stat()
	if err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	if u.held = info.Size(); u.held > u.size {
		if err := u.file.Truncate(0); err != nil {
			return u.s.storage("upload", u.digest, err)
		}
		u.held = 0
	}
	return nil
}

// Context returns a context that ends when the upload must end; its cause says why.
func (u *Upload) Context() context.Context { return u.ctx }

// Cancel ends the upload's context.
func (u *Upload) Cancel(cause error) { u.cancel(cause) }

// Held returns how many bytes of the model are there, counted from its start.
func (u *Upload) Held() int64 { return u.held }

// Stored reports whether the model is complete and visible.
func (u *Upload) Stored() bool { return u.stored }

// Write appends bytes. More bytes than the model's size end the upload for good.
func (u *Upload) Write(p []byte) error {
	if int64(len(p)) > u.size-u.held {
		return u.refuse(fmt.Errorf("more than the %d bytes announced", u.size))
	}
	if u.claim.size == 0 {
		if err := u.reserve(); err != nil {
			return err
		}
	}
	n, err := u.file.Write(p)
	u.held += int64(n)
	step("upload: bytes written")
	if err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	return nil
}

// refuse drops the bytes: they are not the model, so more of them will not help.
func (u *Upload) refuse(why error) error {
	if err := os.Remove(u.s.path(u.digest, uploadSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return u.s.storage("upload", u.digest, err)
	}
	return &wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadModel, Message: why.Error()}
}

func tooLarge(format string, a ...any) error {
	return &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge, Message: fmt.Sprintf(format, a...)}
}

// part is an upload that has bytes.
type part struct {
	digest sealed.Digest
	bytes  int64 // it holds, or is to hold where someone is at it
	busy   bool
	when   time.Time // of its last change
}

// parts returns the uploads in a space: those with a file, and those whose file has
// just become a model that is not visible yet. s.s.mu is held.
func (s Space) parts() ([]part, error) {
	found, err := files(s.dir(), uploadSuffix)
	if err != nil {
		return nil, err
	}
	all := make([]part, 0, len(found))
	for k, c := range s.s.busy {
		if _, visible := s.s.models[k]; k.owner == s.owner && c.size > 0 && !visible && !slices.Contains(found, k.digest) {
			all = append(all, part{digest: k.digest, bytes: c.size, busy: true})
		}
	}
	for _, d := range found {
		info, err := os.Stat(s.path(d, uploadSuffix))
		if errors.Is(err, fs.ErrNotExist) { // it is no upload any more, or removed
			if c, busy := s.s.busy[key{s.owner, d}]; busy && c.size > 0 {
				all = append(all, part{digest: d, bytes: c.size, busy: true})
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		c, busy := s.s.busy[key{s.owner, d}]
		p := part{digest: d, bytes: info.Size(), busy: busy, when: info.ModTime()}
		if busy {
			p.bytes = max(p.bytes, c.size)
		}
		all = append(all, p)
	}
	return all, nil
}

// Expire removes uploads that nobody has resumed for Options.UploadExpiry.
func (s *Store) Expire(now time.Time) {
	if s.o.UploadExpiry == 0 {
		return
	}
	spaces, err := s.spaces()
	if err != nil {
		s.o.Log.Error("cannot look for old uploads", "error", err)
		return
	}
	for _, space := range spaces {
		if err := space.expire(now.Add(-s.o.UploadExpiry)); err != nil {
			s.o.Log.Error("cannot remove old uploads", "owner", space.owner, "error", err)
		}
	}
}

// expire removes a caller's uploads from before a time. They are locked out meanwhile.
func (s Space) expire(before time.Time) error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	parts, err := s.parts()
	for _, p := range parts {
		if p.busy || !p.when.Before(before) {
			continue
		}
		err = errors.Join(err, os.Remove(s.path(p.digest, uploadSuffix)))
		s.s.o.Log.Info("upload expired", "owner", s.owner, "model", p.digest, "bytes", p.bytes)
	}
	return err
}

// reserve sees to it that there is room for the model among the caller's own, and
// opens the file of a new upload. Where there is none it gives up the caller's
// oldest uploads that no one is at; those of other callers are not touched.
func (u *Upload) reserve() error {
	s, o := u.s.s, u.s.s.o
	s.mu.Lock()
	defer s.mu.Unlock()
	all := len(s.models) // of all callers
	bytes := u.size
	models := 0
	for k, m := range s.models {
		if k.owner == u.s.owner {
			models++
			bytes += m.Bytes
		}
	}
	spaces, err := s.spaces()
	if err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	var idle []part // of this caller
	for _, other := range spaces {
		parts, err := other.parts()
		if err != nil {
			return u.s.storage("upload", u.digest, err)
		}
		for _, p := range parts {
			if other.owner != u.s.owner {
				all++
			} else if p.digest != u.digest {
				all, models, bytes = all+1, models+1, bytes+p.bytes
				if !p.busy {
					idle = append(idle, p)
				}
			}
		}
	}
	slices.SortFunc(idle, func(a, b part) int { return a.when.Compare(b.when) })
	given := 0 // up
	for ; all >= o.MaxModels || models >= o.CallerModels || bytes > o.CallerBytes; given++ {
		switch {
		case given < len(idle):
		case models >= o.CallerModels:
			return tooLarge("%d models and uploads, at most %d of a caller", models+1, o.CallerModels)
		case bytes > o.CallerBytes:
			return tooLarge("%d bytes of models and uploads, at most %d of a caller", bytes, o.CallerBytes)
		default:
			return tooLarge("the daemon has no room for another model")
		}
		all, models, bytes = all-1, models-1, bytes-idle[given].bytes
	}
	for _, p := range idle[:given] {
		if err := os.Remove(u.s.path(p.digest, uploadSuffix)); err != nil {
			return u.s.storage("upload", p.digest, err)
		}
	}
	if u.file == nil {
		if err := u.s.makeDir(); err != nil {
			return u.s.storage("upload", u.digest, err)
		}
		u.file, err = os.OpenFile(u.s.path(u.digest, uploadSuffix), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			u.file = nil
			return u.s.storage("upload", u.digest, err)
		}
		step("upload: file made")
	}
	u.claim.size = u.size
	return nil
}

// Finish makes the bytes durable. Once all are there it checks and loads the
// model and makes it visible.
func (u *Upload) Finish() error {
	if u.stored || u.file == nil {
		return nil
	}
	if err := errors.Join(u.file.Sync(), syncDir(u.s.dir())); err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	if u.held < u.size {
		return nil
	}
	step("upload: bytes durable")
	m, err := u.s.open(u.digest, uploadSuffix)
	if err == nil {
		err = u.s.s.o.Check(m.Plan) // before others make room for it
	}
	if err == nil {
		defer func() {
			if !u.stored {
				u.s.s.residency.drop(m)
			}
		}()
		use := u.s.s.residency.use(m, false)
		defer use.Release()
		err = use.Wait(u.ctx)
	}
	switch {
	case err == nil:
	case errors.Is(err, errDamaged):
		return u.refuse(err)
	case u.ctx.Err() != nil:
		return context.Cause(u.ctx)
	case errors.As(err, new(*wire.Error)):
		return err
	case errors.Is(err, kernels.ErrOutOfMemory):
		u.s.s.o.Log.Warn("no room on a device", "error", err)
		return tooLarge("no device has room for the weights")
	default:
		u.s.s.o.Log.Error("model not loaded", "owner", u.s.owner, "model", u.digest, "error", err)
		return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
	}
	u.s.s.mu.Lock()
	u.claim.size = u.size // also where no byte came this time: it counts until it is visible
	u.s.s.mu.Unlock()
	part := m.path()
	m.suffix = modelSuffix
	err = os.Rename(part, m.path())
	step("upload: renamed")
	if err == nil {
		err = syncDir(u.s.dir())
		step("upload: name durable")
	}
	if err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	u.stored = true
	u.s.publish(m)
	step("upload: visible")
	u.s.s.o.Metrics.Uploaded()
	return nil
}

// Close ends the upload. What was written stays, so that the upload can be resumed.
func (u *Upload) Close() {
	u.cancel(nil)
	if u.file != nil {
		u.file.Close()
	}
	u.s.free(u.digest, u.claim)
}
