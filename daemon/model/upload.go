package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

// Upload is a model being uploaded. It belongs to one goroutine, which closes it.
type Upload struct {
	s      Space
	digest sealed.Digest
	size   int64
	held   int64    // bytes stored
	file   *os.File // nil until there is one
	claim  *claim
	ctx    context.Context
	cancel context.CancelCauseFunc
	stored bool // the model is complete and visible
}

// Upload begins or resumes the upload of a model of size bytes. It waits for another
// upload of the same model to end, and calls waits, if that is not nil, before it does. When ctx
// ends, the upload ends.
func (s Space) Upload(ctx context.Context, d sealed.Digest, size int64, waits func()) (*Upload, error) {
	switch {
	case size <= 0:
		return nil, badModel("model of %d bytes", size)
	case size > s.s.o.MaxBytes:
		return nil, tooLarge("model of %d bytes, want at most %d", size, s.s.o.MaxBytes)
	}
	upload, cancel := context.WithCancelCause(ctx)
	mine, err := s.claim(ctx, d, cancel, nil, waits)
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

// measure sets held to the size of the file. A file larger than the model cannot be its
// beginning, and is emptied.
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

// Held returns how many bytes of the model are stored, counted from its start.
func (u *Upload) Held() int64 { return u.held }

// Stored reports whether the model is complete and visible.
func (u *Upload) Stored() bool { return u.stored }

// Write appends bytes. If they exceed the model's size, the upload is deleted.
func (u *Upload) Write(p []byte) error {
	if int64(len(p)) > u.size-u.held {
		return u.refuse(fmt.Errorf("more bytes than the size announced, %d", u.size))
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

// refuse deletes the uploaded bytes, which cannot become the model, and returns the error for
// callers.
func (u *Upload) refuse(why error) error {
	if err := os.Remove(u.s.path(u.digest, uploadSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return u.s.storage("upload", u.digest, err)
	}
	return badModel("%v", why)
}

func badModel(format string, a ...any) error {
	return &wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadModel, Message: fmt.Sprintf(format, a...)}
}

func tooLarge(format string, a ...any) error {
	return &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge, Message: fmt.Sprintf(format, a...)}
}

// part is an unfinished upload.
type part struct {
	digest sealed.Digest
	bytes  int64     // of its file; of the complete model if it is busy
	busy   bool      // claimed by an upload or removal in progress
	when   time.Time // of its last change
}

// parts returns the uploads in a space: those with a file, and those whose file has just been
// renamed to a model that is not visible yet. s.s.mu must be held.
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
		if errors.Is(err, fs.ErrNotExist) { // it has been renamed or removed
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
		s.o.Log.Error("cannot list expired uploads", "error", err)
		return
	}
	for _, space := range spaces {
		if err := space.expire(now.Add(-s.o.UploadExpiry)); err != nil {
			s.o.Log.Error("cannot remove expired uploads", "owner", space.owner, "error", err)
		}
	}
}

// expire removes a caller's uploads whose last change was before a time. s.s.mu keeps claims
// from being made meanwhile.
func (s Space) expire(before time.Time) error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	parts, err := s.parts()
	for _, p := range parts {
		if p.busy || !p.when.Before(before) {
			continue
		}
		if failed := os.Remove(s.path(p.digest, uploadSuffix)); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		s.s.o.Log.Info("upload expired", "owner", s.owner, "model", p.digest, "bytes", p.bytes)
	}
	return err
}

// usage is what limits count when an upload reserves room.
type usage struct {
	all    int    // models and other uploads of all callers
	models int    // models and other uploads of the caller
	bytes  int64  // of the caller's models and uploads, this upload included
	idle   []part // the caller's uploads that are not in progress, the oldest first
}

// usage counts the store's models and uploads. Store.mu must be held.
func (u *Upload) usage() (usage, error) {
	s := u.s.s
	n := usage{all: len(s.models), bytes: u.size}
	for k, m := range s.models {
		if k.owner == u.s.owner {
			n.models++
			n.bytes += m.Bytes
		}
	}
	spaces, err := s.spaces()
	if err != nil {
		return usage{}, err
	}
	for _, other := range spaces {
		parts, err := other.parts()
		if err != nil {
			return usage{}, err
		}
		for _, p := range parts {
			if other.owner != u.s.owner {
				n.all++
			} else if p.digest != u.digest {
				n.all, n.models, n.bytes = n.all+1, n.models+1, n.bytes+p.bytes
				if !p.busy {
					n.idle = append(n.idle, p)
				}
			}
		}
	}
	slices.SortFunc(n.idle, func(a, b part) int { return a.when.Compare(b.when) })
	return n, nil
}

// reserve makes room for the model within the limits and opens the file of a new upload. If
// room is missing, it removes the caller's own idle uploads, the oldest first. It does not
// touch uploads of other callers.
func (u *Upload) reserve() error {
	s, o := u.s.s, u.s.s.o
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := u.usage()
	if err != nil {
		return u.s.storage("upload", u.digest, err)
	}
	given := 0 // number of idle uploads to remove
	for ; n.all >= o.MaxModels || n.models >= o.CallerModels || n.bytes > o.CallerBytes; given++ {
		switch {
		case given < len(n.idle):
		case n.models >= o.CallerModels:
			return tooLarge("%d models and uploads, want at most %d for each caller", n.models+1, o.CallerModels)
		case n.bytes > o.CallerBytes:
			return tooLarge("%d bytes of models and uploads, want at most %d for each caller", n.bytes, o.CallerBytes)
		default:
			return tooLarge("the daemon has no room for another model")
		}
		n.all, n.models, n.bytes = n.all-1, n.models-1, n.bytes-n.idle[given].bytes
	}
	for _, p := range n.idle[:given] {
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

// Finish makes the bytes durable. If the upload is complete, it checks and loads the model
// and makes it visible.
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
		err = u.s.s.o.Check(m.Plan) // before other models are evicted for it
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
		u.s.s.o.Log.Warn("no device has room", "error", err)
		return tooLarge("no device has room for the weights")
	default:
		u.s.s.o.Log.Error("cannot load model", "owner", u.s.owner, "model", u.digest, "error", err)
		return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
	}
	u.s.s.mu.Lock()
	u.claim.size = u.size // Write may not have set it; it counts until the model is visible
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

// Close ends the upload. The bytes written stay, so that it can be resumed.
func (u *Upload) Close() {
	u.cancel(nil)
	if u.file != nil {
		u.file.Close()
	}
	u.s.free(u.digest, u.claim)
}
