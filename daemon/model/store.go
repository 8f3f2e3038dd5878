// Package model stores sealed models on disk, so that they survive a restart. As many as
// a memory budget allows are loaded in a backend, ready to evaluate.
//
// Each caller has a folder of its own in the state directory, callers/OWNER, and shares
// nothing in it with others: a model of two callers is stored twice. A file's name is the
// digest in hex and a suffix:
//
//	.safetensors  a model: its digest and content were checked before it got this name
//	.part         an unfinished upload: the first bytes of a model
//	.bad          a model found damaged when it was loaded; kept for inspection, never served
//
// A model gets its name by one rename, after its bytes are durable. When a store is closed,
// it sets the modification time of each model's file to the time of the model's last use.
package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

const (
	modelSuffix  = ".safetensors"
	uploadSuffix = ".part"
	badSuffix    = ".bad"
	lockName     = "lock"
	callersName  = "callers"
)

// ErrLocked reports a state directory that another process has locked.
var ErrLocked = errors.New("model: state directory is in use by another process")

// Options of a Store.
type Options struct {
	Dir       string          // created if it is missing
	Backend   plan.Multiplier // loads the weights
	Own       Owner           // gets the models of a directory that is not divided by caller yet
	MaxModels int             // stored or being uploaded
	MaxBytes  int64           // of one model
	// CallerModels and CallerBytes limit each caller, uploads included. An upload counts with
	// the size of its complete model.
	CallerModels int
	CallerBytes  int64
	// UploadExpiry is how long an upload that nobody resumes is kept; 0: forever.
	UploadExpiry time.Duration
	MaxLoaded    int64                   // bytes of loaded weights and of loads in progress
	MaxWaiting   func(sealed.Digest) int // requests that may wait for a model to be loaded
	Pinned       []sealed.Digest
	// Check returns a *wire.Error for a plan that exceeds the daemon's limits.
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

	mu     sync.Mutex // must not be locked while residency.mu is held
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

// claim is an exclusive right to upload or remove a model.
type claim struct {
	done   chan struct{}           // closed when the claim is freed
	cancel context.CancelCauseFunc // of an upload; nil for a removal
	size   int64                   // of the model, once an upload has bytes; guarded by Store.mu
}

// Model is a stored model.
type Model struct {
	Digest  sealed.Digest
	Bytes   int64 // of the sealed model
	Plan    plan.Plan
	Metrics *metrics.Model // shown until the model is removed

	space  Space
	suffix string // of its file: uploadSuffix until it is stored
	need   int64  // the most bytes that loading it takes, see needOf
	pinned bool

	// Guarded by residency.mu.
	weights *weights
	load    *load // waiting or in progress
	took    time.Duration
	lastUse time.Time
	stamped time.Time // modification time of its file
	gone    bool
}

// Open locks the state directory. A directory of an earlier version it divides by caller. Call
// Load next. Its error wraps ErrLocked if another process has locked the directory.
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

// Close releases all models and unlocks the directory. Weights in use are freed by their last
// Release. No upload may be in progress.
func (s *Store) Close() error {
	s.residency.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.models {
		if m.lastUse.After(m.stamped) { // tells the next start which models to load first
			if err := os.Chtimes(m.path(), m.lastUse, m.lastUse); err != nil {
				s.o.Log.Warn("cannot store a model's time of last use", "model", m.Digest, "error", err)
			}
		}
	}
	clear(s.models)
	return s.lock.Close()
}

func (m *Model) path() string { return m.space.path(m.Digest, m.suffix) }

// forget makes a model invisible. It returns false if it was not visible.
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

// publish makes a model visible.
func (s Space) publish(m *Model) {
	m.Metrics = s.s.o.Metrics.Model(m.Digest)
	s.s.mu.Lock()
	s.s.models[key{s.owner, m.Digest}] = m
	s.s.mu.Unlock()
}

// Find returns a use of a model, which has yet to begin, or false if there is no such model.
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

// List describes the caller's models, ordered by digest.
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

// Loaded returns the metrics of the loaded models.
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

// Remove deletes a model, or cancels and deletes an unfinished upload. Find then no longer
// finds the model. Its weights are freed when uses in progress have ended.
func (s Space) Remove(ctx context.Context, d sealed.Digest) error {
	mine, err := s.claim(ctx, d, nil, nil, nil)
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

// claim waits until no one else uploads or removes a model, and claims it until free is
// called. cancel is nil for a removal, which cancels an upload that it waits for. If only is
// not nil, the claim fails once that model is no longer visible. waits, if not nil, is called
// before each wait.
func (s Space) claim(ctx context.Context, d sealed.Digest, cancel context.CancelCauseFunc, only *Model, waits func()) (*claim, error) {
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
		if waits != nil {
			waits()
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// free ends a claim.
func (s Space) free(d sealed.Digest, mine *claim) {
	s.s.mu.Lock()
	delete(s.s.busy, key{s.owner, d})
	s.s.mu.Unlock()
	close(mine.done)
}

// storage logs a disk error and returns the error for callers.
func (s Space) storage(what string, d sealed.Digest, err error) error {
	s.s.o.Log.Error("storage failed", "owner", s.owner, "operation", what, "model", d, "error", err)
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // callers need not know the daemon's folders
	}
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonStorage, Message: fmt.Sprintf("%s: %v", what, err)}
}
