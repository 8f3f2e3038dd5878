package model

import (
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/gonum"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// TestLoadedBytes: no backend holds more for an operator than it is charged.
func TestLoadedBytes(t *testing.T) {
	conv := func(k, c, outC, groups int) plan.Op {
		return plan.Conv(plan.Conv2D{H: k, W: k, C: c, OutC: outC, KH: k, KW: k, SH: 1, SW: 1, DH: 1, DW: 1, Groups: groups})
	}
	backends := []kernels.Backend{gonum.New()}
	for _, tier := range cpu.Tiers() {
		b, err := cpu.Open(cpu.Options{Tier: tier})
		if err != nil {
			t.Fatal(err)
		}
		backends = append(backends, b)
	}
	for _, op := range []plan.Op{
		plan.Dense(1, 1), plan.Dense(1, 33), plan.Dense(1000, 1), plan.Dense(256, 128), plan.Dense(5, 1000),
		conv(1, 4096, 4096, 4096), conv(3, 100, 100, 100), conv(2, 64, 96, 32), conv(5, 1, 6, 1), conv(5, 6, 16, 1), conv(3, 32, 17*32, 32),
	} {
		for _, b := range backends {
			p, err := b.Load(t.Context(), ring.Q4(), op, ring.NewMatrix(op.Rows(), op.Terms()))
			if err != nil {
				t.Fatal(err)
			}
			if held, most := b.Stats().Bytes, loadedBytes(op); held > most {
				t.Errorf("%s: %v: %d bytes held, %d charged", b.Name(), op, held, most)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
