// Package model keeps sealed models: on disk, so that they survive a restart,
// and loaded in a backend, ready to evaluate.
//
// The state directory is flat. A file's name is the digest in hex and a suffix:
//
//	.safetensors  a model: digest and content were good when it got the name
//	.part         an upload: the first bytes of a model, to be gone on with
//	.bad          a model found damaged at a start; kept for a look, never served
//
// A model appears under its name by one rename, after its bytes are durable.
package model

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
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
)

// ErrLocked reports a state directory that another process holds.
var ErrLocked = errors.New("model: state directory is in use by another process")

// Options of a Store.
type Options struct {
	Dir       string          // created where it is missing
	Backend   plan.Multiplier // that weights are loaded in
	MaxModels int             // stored or being uploaded
	MaxBytes  int64           // of one model
	MaxLoaded int64           // bytes that the backend may hold
	Loaded    func() int64    // bytes that it holds
	// Check returns a *wire.Error for a plan that would not be of use to any caller.
	Check   func(plan.Plan) error
	Metrics *metrics.Metrics
	Log     *slog.Logger
}

// Store is a state directory and its models. Methods may be called by several
// goroutines at once; what callers are to be told comes as *wire.Error.
type Store struct {
	o    Options
	lock *os.File

	// loading lets the bytes of one model at a time into memory.
	loading sync.Mutex

	mu     sync.Mutex
	models map[sealed.Digest]*Model
	busy   map[sealed.Digest]*claim // being uploaded or removed
}

// claim keeps others from a model that someone uploads or removes.
type claim struct {
	done   chan struct{}           // closed when it is given up
	cancel context.CancelCauseFunc // of an upload; nil for a removal
}

// Model is a loaded model, usable until Release.
type Model struct {
	Digest sealed.Digest
	Bytes  int64 // of the sealed model
	Plan   plan.Plan
	// Metrics are shown until the model is removed.
	Metrics *metrics.Model

	products []plan.Product
	refs     atomic.Int64
	log      *slog.Logger
}

// Product returns the product of operator i of the plan.
func (m *Model) Product(i int) plan.Product { return m.products[i] }

// Release ends a use that began with Store.Acquire. The last one, after the
// model was removed, closes the products.
func (m *Model) Release() {
	if m.refs.Add(-1) > 0 {
		return
	}
	for i, p := range m.products {
		if err := p.Close(); err != nil {
			m.log.Error("cannot free weights", "model", m.Digest, "layer", i, "error", err)
		}
	}
}

// Open locks the state directory. Load has yet to be called. Its error wraps
// ErrLocked where another process has the directory.
func Open(o Options) (*Store, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, o.Dir)
		}
		return nil, &fs.PathError{Op: "flock", Path: lock.Name(), Err: err}
	}
	return &Store{
		o: o, lock: lock,
		models: map[sealed.Digest]*Model{},
		busy:   map[sealed.Digest]*claim{},
	}, nil
}

// Close lets go of all models and of the directory. Models in use are closed by
// their last Release.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.models {
		m.Release()
	}
	clear(s.models)
	return s.lock.Close()
}

func (s *Store) path(d sealed.Digest, suffix string) string {
	return filepath.Join(s.o.Dir, d.String()+suffix)
}

// files returns the digests of the files with a suffix.
func (s *Store) files(suffix string) ([]sealed.Digest, error) {
	entries, err := os.ReadDir(s.o.Dir)
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
func (s *Store) syncDir() error {
	d, err := os.Open(s.o.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Load loads the stored models. A damaged one is put aside and logged, one that
// the backend or the limits do not take is logged; neither is served nor keeps
// the others from it.
func (s *Store) Load(ctx context.Context) error {
	found, err := s.files(modelSuffix)
	if err != nil {
		return err
	}
	for _, d := range found {
		m, err := s.loadFile(ctx, d, s.path(d, modelSuffix))
		switch {
		case err == nil:
			s.publish(m)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errDamaged):
			s.o.Log.Error("damaged model put aside", "model", d, "error", err)
			if err := os.Rename(s.path(d, modelSuffix), s.path(d, badSuffix)); err != nil {
				return err
			}
			if err := s.syncDir(); err != nil {
				return err
			}
		default:
			s.o.Log.Error("model not loaded", "model", d, "error", err)
		}
	}
	return nil
}

// errDamaged reports a file whose bytes are not the model that it is named after.
var errDamaged = errors.New("not the model that it is named after")

// loadFile reads a whole model, checks it and loads its weights.
func (s *Store) loadFile(ctx context.Context, d sealed.Digest, path string) (*Model, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > s.o.MaxBytes {
		return nil, fmt.Errorf("model of %d bytes, at most %d", info.Size(), s.o.MaxBytes)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	if sealed.Sum(b) != d {
		return nil, fmt.Errorf("%w: its digest is %v", errDamaged, sealed.Sum(b))
	}
	content, err := sealed.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := s.o.Check(content.Plan); err != nil {
		return nil, err
	}
	m := &Model{Digest: d, Bytes: info.Size(), Plan: content.Plan, log: s.o.Log}
	m.refs.Store(1) // the store's
	for i, w := range content.Weights {
		p, err := s.load(ctx, m.Plan.Ring, m.Plan.Ops[i], w)
		if err != nil {
			m.Release()
			return nil, fmt.Errorf("load operator %d: %w", i, err)
		}
		m.products = append(m.products, p)
	}
	return m, nil
}

// load loads the weights of an operator, if there is room for them.
func (s *Store) load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	// No other loads meanwhile.
	if have, more := s.o.Loaded(), loadedBytes(op); more > s.o.MaxLoaded-have {
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge,
			Message: fmt.Sprintf("loading takes up to %d bytes, %d of %d are left", more, max(0, s.o.MaxLoaded-have), s.o.MaxLoaded)}
	}
	p, err := s.o.Backend.Load(ctx, r, op, w)
	if errors.Is(err, kernels.ErrOutOfMemory) {
		s.o.Log.Warn("no room on a device", "error", err)
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge, Message: "no device has room for the weights"}
	}
	return p, err
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

// publish makes a loaded model visible.
func (s *Store) publish(m *Model) {
	m.Metrics = s.o.Metrics.Model(m.Digest)
	s.mu.Lock()
	s.models[m.Digest] = m
	s.mu.Unlock()
	s.o.Log.Info("model loaded", "model", m.Digest, "bytes", m.Bytes, "layers", len(m.Plan.Ops))
}

// Acquire returns a model, which the caller releases, or false.
func (s *Store) Acquire(d sealed.Digest) (*Model, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.models[d]
	if ok {
		m.refs.Add(1) // above 0, as the store holds one
	}
	return m, ok
}

// Info describes a model.
type Info struct {
	Digest sealed.Digest
	Bytes  int64
	Layers int
}

// List describes the models, in the order of their digests.
func (s *Store) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Info, 0, len(s.models))
	for _, m := range s.models {
		list = append(list, Info{m.Digest, m.Bytes, len(m.Plan.Ops)})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Digest.String() < list[j].Digest.String() })
	return list
}

// Size returns how many models there are, and the bytes of their files.
func (s *Store) Size() (models int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.models {
		bytes += m.Bytes
	}
	return len(s.models), bytes
}

// Remove deletes a model, or an upload that has not finished, which it cancels.
// Uses under way finish first; new ones do not find it.
func (s *Store) Remove(ctx context.Context, d sealed.Digest) error {
	free, err := s.claim(ctx, d, nil)
	if err != nil {
		return err
	}
	defer free()
	removed := false
	for _, suffix := range []string{modelSuffix, uploadSuffix} {
		switch err := os.Remove(s.path(d, suffix)); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist):
			return s.storage("remove", d, err)
		}
	}
	if err := s.syncDir(); err != nil {
		return s.storage("remove", d, err)
	}
	s.mu.Lock()
	m, ok := s.models[d]
	delete(s.models, d)
	s.mu.Unlock()
	if ok {
		m.Metrics.Drop()
		m.Release()
	}
	if !ok && !removed {
		return NotFound(d)
	}
	s.o.Log.Info("model removed", "model", d)
	return nil
}

// NotFound is the error for a model that is not there.
func NotFound(d sealed.Digest) error {
	return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "no model " + d.String()}
}

// claim waits until no one else uploads or removes a model, and keeps others
// from it until free is called. An upload comes with a cancel, a removal without;
// a removal cancels an upload that it has to wait for.
func (s *Store) claim(ctx context.Context, d sealed.Digest, cancel context.CancelCauseFunc) (free func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[d]
		if !taken {
			mine := &claim{make(chan struct{}), cancel}
			s.busy[d] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, d)
				s.mu.Unlock()
				close(mine.done)
			}, nil
		}
		s.mu.Unlock()
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

// storage logs a failure of the disk and returns what callers are told of it.
func (s *Store) storage(what string, d sealed.Digest, err error) error {
	s.o.Log.Error("storage failed", "operation", what, "model", d, "error", err)
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // callers need not know the daemon's folders
	}
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonStorage, Message: fmt.Sprintf("%s: %v", what, err)}
}

// Upload is a model on its way in. It belongs to one goroutine, which closes it.
type Upload struct {
	s      *Store
	digest sealed.Digest
	size   int64
	held   int64    // bytes there
	file   *os.File // nil until there is one
	free   func()
	ctx    context.Context
	cancel context.CancelCauseFunc
	// stored says that the model is complete and visible.
	stored bool
}

// Upload begins or goes on with the upload of a model of size bytes. It waits
// for another upload of the same model to end. When ctx ends the upload does.
func (s *Store) Upload(ctx context.Context, d sealed.Digest, size int64) (*Upload, error) {
	if size <= 0 || size > s.o.MaxBytes {
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge,
			Message: fmt.Sprintf("model of %d bytes, want 1 to %d", size, s.o.MaxBytes)}
	}
	upload, cancel := context.WithCancelCause(ctx)
	free, err := s.claim(ctx, d, cancel)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	u := &Upload{s: s, digest: d, size: size, free: free, ctx: upload, cancel: cancel}
	s.mu.Lock()
	m, ok := s.models[d]
	s.mu.Unlock()
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

// Context ends when the upload is to: its cause says why.
func (u *Upload) Context() context.Context { return u.ctx }

// Cancel ends the upload's context.
func (u *Upload) Cancel(cause error) { u.cancel(cause) }

// Held returns the bytes there, from the start.
func (u *Upload) Held() int64 { return u.held }

// Stored reports whether the model is complete and visible.
func (u *Upload) Stored() bool { return u.stored }

// Write appends bytes. More than the model has end the upload for good.
func (u *Upload) Write(p []byte) error {
	if int64(len(p)) > u.size-u.held {
		return u.refuse(fmt.Errorf("more than the %d bytes announced", u.size))
	}
	if u.file == nil {
		f, err := u.s.create(u.digest)
		if err != nil {
			return err
		}
		u.file = f
	}
	n, err := u.file.Write(p)
	u.held += int64(n)
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

// create makes the file of a new upload. Where there are too many models it
// gives up the oldest upload that no one is at.
func (s *Store) create(d sealed.Digest) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts, err := s.files(uploadSuffix)
	if err != nil {
		return nil, s.storage("upload", d, err)
	}
	if len(s.models)+len(parts) >= s.o.MaxModels {
		var oldest string
		var when time.Time
		for _, p := range parts {
			if _, taken := s.busy[p]; taken {
				continue
			}
			info, err := os.Stat(s.path(p, uploadSuffix))
			if err != nil {
				return nil, s.storage("upload", p, err)
			}
			if oldest == "" || info.ModTime().Before(when) {
				oldest, when = s.path(p, uploadSuffix), info.ModTime()
			}
		}
		if oldest == "" {
			return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge,
				Message: fmt.Sprintf("%d models and uploads, which is the limit", s.o.MaxModels)}
		}
		if err := os.Remove(oldest); err != nil {
			return nil, s.storage("upload", d, err)
		}
	}
	f, err := os.OpenFile(s.path(d, uploadSuffix), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, s.storage("upload", d, err)
	}
	return f, nil
}

// Finish makes the bytes durable. Once all are there it checks and loads the
// model and makes it visible.
func (u *Upload) Finish() error {
	if u.stored || u.file == nil {
		return nil
	}
	if err := errors.Join(u.file.Sync(), u.s.syncDir()); err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	if u.held < u.size {
		return nil
	}
	part := u.s.path(u.digest, uploadSuffix)
	m, err := u.s.loadFile(u.ctx, u.digest, part)
	switch {
	case errors.Is(err, errDamaged):
		return u.refuse(err)
	case err != nil && u.ctx.Err() != nil:
		return context.Cause(u.ctx)
	case errors.As(err, new(*wire.Error)):
		return err
	case err != nil:
		u.s.o.Log.Error("model not loaded", "model", u.digest, "error", err)
		return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
	}
	err = os.Rename(part, u.s.path(u.digest, modelSuffix))
	if err == nil {
		err = u.s.syncDir()
	}
	if err != nil {
		m.Release()
		return u.s.storage("upload", u.digest, err)
	}
	u.stored = true
	u.s.publish(m)
	u.s.o.Metrics.Uploaded()
	return nil
}

// Close ends the upload. What was written stays, to be gone on with.
func (u *Upload) Close() {
	u.cancel(nil)
	if u.file != nil {
		u.file.Close()
	}
	u.free()
}
