package kernels_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// fake is a backend with given errors and wrong words, which counts calls of Free.
type fake struct {
	kernels.Base
	load, evaluate, free error
	freed                int
	spoil                bool
}

func open(f *fake) *fake {
	f.Init("fake", func(_ context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
		own := ring.Matrix{Rows: w.Rows, Cols: w.Cols, Data: slices.Clone(w.Data)}
		return kernels.Loaded{
			Bytes: 42,
			Evaluate: func(ctx context.Context, y, x ring.Matrix) error {
				copy(y.Data, kernels.Direct(r, op, own, x).Data)
				if f.spoil {
					y.Data[0] = r.Add(y.Data[0], 1)
				}
				return f.evaluate
			},
			Free: func() error { f.freed++; return f.free },
		}, f.load
	})
	return f
}

// TestErrors: a device's errors are returned, and failed calls are not counted.
func TestErrors(t *testing.T) {
	device := errors.New("device lost")
	op, w := plan.Dense(2, 2), ring.NewMatrix(2, 2)

	b := open(&fake{load: device})
	if p, err := b.Load(t.Context(), ring.Q4(), op, w); p != nil || !errors.Is(err, device) {
		t.Errorf("Load: product %v, error %v", p, err)
	}
	if s := b.Stats(); s != (kernels.Stats{}) {
		t.Errorf("after a failed Load: %+v", s)
	}

	b = open(&fake{evaluate: device, free: device})
	p, err := b.Load(t.Context(), ring.Q4(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Evaluate(t.Context(), ring.NewMatrix(1, 2), ring.NewMatrix(1, 2)); !errors.Is(err, device) {
		t.Errorf("Evaluate: error %v", err)
	}
	if s := b.Stats(); s != (kernels.Stats{Loaded: 1, Bytes: 42}) {
		t.Errorf("after a failed Evaluate: %+v", s)
	}
	if err := p.Close(); !errors.Is(err, device) {
		t.Errorf("Close: error %v", err)
	}
	if err := p.Close(); err != nil || b.freed != 1 {
		t.Errorf("second Close: error %v, freed %d times", err, b.freed)
	}
	if s := b.Stats(); s != (kernels.Stats{}) {
		t.Errorf("after Close: %+v", s)
	}
}

// TestCloseBeside: a backend stays open while a product is loaded or freed.
func TestCloseBeside(t *testing.T) {
	var b kernels.Base
	closed := func(when string) {
		if err := b.Close(); !errors.Is(err, kernels.ErrClosed) {
			t.Errorf("%s: %v", when, err)
		}
	}
	b.Init("fake", func(context.Context, ring.Ring, plan.Op, ring.Matrix) (kernels.Loaded, error) {
		closed("while a product is loaded")
		return kernels.Loaded{Free: func() error {
			closed("while it is freed")
			return nil
		}}, nil
	})
	p, err := b.Load(t.Context(), ring.Q4(), plan.Dense(1, 1), ring.NewMatrix(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(t.Context(), ring.Ring{}, plan.Dense(1, 1), ring.NewMatrix(1, 1)); !errors.Is(err, ring.ErrParameters) {
		t.Error(err)
	}
	if err := errors.Join(p.Close(), p.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if _, err := b.Load(t.Context(), ring.Q4(), plan.Dense(1, 1), ring.NewMatrix(1, 1)); !errors.Is(err, kernels.ErrClosed) {
		t.Errorf("once it is closed: %v", err)
	}
}

func TestSelfTest(t *testing.T) {
	device := errors.New("device lost")
	for name, test := range map[string]struct {
		backend *fake
		want    error
	}{
		"right":         {open(&fake{}), nil},
		"wrong":         {open(&fake{spoil: true}), kernels.ErrWrong},
		"fails to load": {open(&fake{load: device}), device},
		"fails":         {open(&fake{evaluate: device}), device},
		"fails to free": {open(&fake{free: device}), device},
	} {
		if err := kernels.SelfTest(t.Context(), test.backend); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
		if s := test.backend.Stats(); s.Loaded != 0 {
			t.Errorf("%s: %d products are left", name, s.Loaded)
		}
	}
}
