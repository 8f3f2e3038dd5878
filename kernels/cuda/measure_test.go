//go:build gpu && cgo && linux && amd64

package cuda

import (
	"testing"

	"github.com/securenets/securenets/kernels/cuda/internal/fake"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// TestMeter: every kind of product is measured, and all memory is freed.
func TestMeter(t *testing.T) {
	if !*card {
		machine(t, fake.Hopper(1))
	}
	b := mustOpen(t, options(PathAuto))
	m, err := b.Meter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := b.Devices()[0]
	for _, small := range []bool{false, true} {
		p, err := m.NewProduct(ring.Q4(), plan.Dense(33, 70), 130, small)
		if err != nil {
			t.Fatal(err)
		}
		if took, err := p.Time(); err != nil || took <= 0 {
			t.Errorf("product, small %v: %v, %v", small, took, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, kind := range []Kind{BF16, FP32, FP64, Int8} {
		p, err := m.NewPeer(kind, 12, 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		if took, err := p.Time(); err != nil || took <= 0 {
			t.Errorf("%s: %v, %v", kind, took, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := b.Devices()[0]; after.Weights != before.Weights || after.Work > before.Work {
		t.Errorf("%d and %d bytes are held, before it was %d and %d", after.Weights, after.Work, before.Weights, before.Work)
	}
	if took, err := m.Copies(1<<20, 1<<19); err != nil || took <= 0 {
		t.Errorf("copies: %v, %v", took, err)
	}
	m.Close()
}
