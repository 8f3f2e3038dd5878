//go:build gpu && cgo && linux && amd64

package cuda

import (
	"testing"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/kernels/cuda/internal/fake"
)

// TestMeter: everything is measured, and given back.
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

// BenchmarkCard prints rates of large products; it says something on a card alone.
func BenchmarkCard(b *testing.B) {
	if !*card {
		b.Skip("needs a card")
	}
	for _, path := range []string{PathFused, PathInt8} {
		back := mustOpen(b, options(path))
		m, err := back.Meter(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range []struct{ m, k, n int }{{1024, 1024, 1024}, {4096, 4096, 512}, {4096, 4096, 4096}, {8192, 8192, 8192}, {16384, 16384, 16384}, {4096, 4096, 1}, {4096, 4096, 64}, {4096, 4096, 128}, {4096, 4096, 256}} {
			p, err := m.NewProduct(ring.Q4(), plan.Dense(s.k, s.m), s.n, false)
			if err != nil {
				b.Fatal(err)
			}
			macs := float64(s.m) * float64(s.k) * float64(s.n)
			var best float64
			for range 3 {
				took, err := p.Time()
				if err != nil {
					b.Fatal(err)
				}
				best = max(best, macs/took.Seconds()/1e12)
			}
			b.Logf("%s %v: %.2f TMAC/s, %.1f us", path, s, best, macs/best/1e6)
			p.Close()
			if path == PathInt8 {
				for _, kind := range []Kind{BF16, Int8, FP64} {
					q, err := m.NewPeer(kind, s.m, s.k, s.n)
					if err != nil {
						b.Fatal(err)
					}
					var best float64
					for range 3 {
						took, err := q.Time()
						if err != nil {
							b.Logf("%s: %v", kind, err)
							break
						}
						best = max(best, macs/took.Seconds()/1e12)
					}
					b.Logf("  %s %v: %.2f TMAC/s", kind, s, best)
					q.Close()
				}
			}
		}
		took, err := m.Copies(64<<20, 64<<20)
		b.Logf("copies of 64 MiB both ways: %v %v, %.1f GB/s each", took, err, (64<<20)/took.Seconds()/1e9)
		m.Close()
	}
}
