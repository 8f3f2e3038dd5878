package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Load makes the stored models visible and loads the pinned ones. Its error names a
// pinned model that has no room or cannot be loaded. A damaged model is logged and put
// aside.
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
			s.o.Log.Warn("pinned model is not stored by any caller", "model", d)
		}
	}
	return nil
}

// loadPinned loads models, the largest first: loading takes more memory than holding, so less
// must be left for the last load. How much a model holds is known only once it is loaded, so
// one that finds no room is tried once more, before all others.
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
		case errors.As(err, &refused) && refused.Reason == wire.ReasonModelNotFound: // it was damaged, and put aside
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

// hold loads a model.
func (s *Store) hold(ctx context.Context, m *Model) error {
	u := s.residency.use(m, false)
	defer u.Release()
	return u.Wait(ctx)
}

// Warm loads models, the most recently used first, as long as there is room, until ctx ends.
// It takes no room that a request's load waits for.
func (s *Store) Warm(ctx context.Context) {
	for _, m := range s.byUse() {
		if ctx.Err() != nil {
			return
		}
		s.residency.warm(ctx, m)
	}
}

// byUse returns the models, the most recently used first.
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
			s.s.o.Log.Error("cannot use stored model", "owner", s.owner, "model", d, "error", err)
		}
	}
	return nil
}

// putAside renames the file of a model that is damaged, for the reason why, and not visible.
func (s Space) putAside(d sealed.Digest, why error) error {
	s.s.o.Log.Error("damaged model put aside", "owner", s.owner, "model", d, "error", why)
	if err := os.Rename(s.path(d, modelSuffix), s.path(d, badSuffix)); err != nil {
		return err
	}
	step("damaged: renamed")
	err := syncDir(s.dir())
	step("damaged: put aside")
	return err
}

// errDamaged reports a file whose content does not match its digest or is not a sealed model.
var errDamaged = errors.New("not the model of this digest")

// open returns a model after reading only its plan. Its digest and words are not checked yet.
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
		return nil, fmt.Errorf("model of %d bytes, want at most %d", info.Size(), s.s.o.MaxBytes)
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

// read loads a model's file for the residency and returns its products. Errors that callers
// should see are *wire.Error. A stored model that is damaged is put aside.
func (s *Store) read(ctx context.Context, m *Model) ([]plan.Product, error) {
	products, err := s.loadFile(ctx, m)
	switch {
	case err == nil, ctx.Err() != nil:
		return products, err
	case m.suffix == uploadSuffix: // Finish interprets it
		return nil, err
	case errors.Is(err, errDamaged):
		return nil, s.retire(ctx, m, err)
	case errors.As(err, new(*wire.Error)):
		return nil, err
	case errors.Is(err, kernels.ErrOutOfMemory):
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: time.Second, Message: "no device has room for the weights now"}
	case errors.Is(err, fs.ErrNotExist): // the model is being removed
		return nil, NotFound(m.Digest)
	case errors.As(err, new(*fs.PathError)):
		return nil, m.space.storage("load", m.Digest, err)
	}
	s.o.Log.Error("cannot load model", "owner", m.space.owner, "model", m.Digest, "error", err)
	return nil, &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
}

// retire puts a visible model that was found damaged aside and returns the error for callers.
func (s *Store) retire(ctx context.Context, m *Model, why error) error {
	d := m.Digest
	// This runs within a load, so nothing that it waits for may wait for a load. A removal does
	// not, and an upload of a visible model ends at once. An upload of a new copy, once this model
	// is gone, may: the claim then fails instead of waiting.
	mine, err := m.space.claim(ctx, d, func(error) {}, m, nil)
	if err != nil {
		return err
	}
	defer m.space.free(d, mine)
	if !s.forget(m) {
		return NotFound(d) // removed meanwhile; its name may belong to a new model now
	}
	if err := m.space.putAside(d, why); err != nil {
		return m.space.storage("put aside", d, err)
	}
	return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "model " + d.String() + " was damaged on disk; upload it again"}
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
	b := make([]byte, m.Bytes+1) // one more than expected, to notice a longer file
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	b = b[:n]
	step("load: file read")
	if sum := sealed.Sum(b); sum != m.Digest {
		return nil, fmt.Errorf("%w: the content has digest %v", errDamaged, sum)
	}
	content, err := sealed.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := s.o.Check(content.Plan); err != nil {
		return nil, err
	}
	if content.Plan.Ring != m.Plan.Ring || !slices.Equal(content.Plan.Ops, m.Plan.Ops) { // requests are checked against m.Plan
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

// panicked logs a panic of a load, without its value, which may hold words, and returns the
// error for callers.
func (s *Store) panicked(m *Model, v any) error {
	s.o.Log.Error("panic", "owner", m.space.owner, "model", m.Digest, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "cannot load the model"}
}

// needOf returns the most bytes that loading a model takes: its file, its decoded words and
// what a backend holds.
func needOf(size int64, p plan.Plan) int64 {
	need := 2 * size
	for _, op := range p.Ops {
		need += loadedBytes(op)
	}
	return need
}

// heldBytes returns the bytes that a backend holds for a product.
func heldBytes(p plan.Product, op plan.Op) int64 {
	if s, ok := p.(kernels.Sized); ok {
		return s.Bytes()
	}
	return loadedBytes(op)
}

// loadedBytes returns the most bytes that any backend holds for an operator: the largest of
//   - 16 bytes a weight;
//   - a byte a weight for each prime, with the outputs of each group padded to a multiple of
//     32, and the channels of each kernel position to a multiple of 4;
//   - the words and, on a device, 16 bytes for the position of each term and 16 bytes a
//     weight, with terms padded to a multiple of 16 and outputs to a multiple of 4.
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
