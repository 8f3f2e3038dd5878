// Package kerneltest is the conformance suite of kernels.Backend: Run for a
// backend's tests, Digest for any program.
package kerneltest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// WantDigest is what Digest returns, in hexadecimal, for every right backend.
const WantDigest = "293ecf8ed6fd5fc1e13e8d385a95cad4e3856c21831dddc4e5101394007db06e"

// Digest returns the SHA-256 of a backend's outputs, as bytes on the wire, for a fixed
// list of rings, operators and seeded words. Backends, machines or versions that differ
// in a single word have different digests.
func Digest(ctx context.Context, b kernels.Backend) ([sha256.Size]byte, error) {
	h := sha256.New()
	for i, r := range rings {
		rng := rand.New(rand.NewPCG(uint64(i), 2018))
		for _, op := range operators {
			w := uniform(rng, r, op.Rows(), op.Terms())
			x := uniform(rng, r, 3, op.InLen())
			y, err := product(ctx, b, r, op, w, x)
			if err != nil {
				return [sha256.Size]byte{}, fmt.Errorf("kerneltest: digest of %v over %v: %w", op, r, err)
			}
			out := make([]byte, len(y.Data)*r.WordBytes())
			r.PutWords(out, y.Data)
			h.Write(out)
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// product loads w, evaluates one batch and closes the product.
func product(ctx context.Context, b kernels.Backend, r ring.Ring, op plan.Op, w, x ring.Matrix) (ring.Matrix, error) {
	p, err := b.Load(ctx, r, op, w)
	if err != nil {
		return ring.Matrix{}, err
	}
	y := ring.NewMatrix(x.Rows, op.OutLen())
	return y, errors.Join(p.Evaluate(ctx, y, x), p.Close())
}

// uniform returns a matrix of seeded words. It uses rng.Uint64 alone, whose stream never
// changes.
func uniform(rng *rand.Rand, r ring.Ring, rows, cols int) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = uint32(rng.Uint64() % uint64(r.Modulus()))
	}
	return m
}

// rings are those that a backend must serve: the default, a 3-byte one with an
// odd number of primes, one of tiny primes, and one of a single prime.
var rings = []ring.Ring{ring.Q4(), ring.Q3(), mustRing(3, 5), mustRing(251)}

func mustRing(primes ...uint32) ring.Ring {
	r, err := ring.New(primes...)
	if err != nil {
		panic(err) // constants of this package
	}
	return r
}

// operators has every kind of geometry at small odd sizes.
var operators = []plan.Op{
	plan.Dense(1, 1),
	plan.Dense(1, 37),
	plan.Dense(259, 1),
	plan.Dense(61, 43),
	plan.Dense(300, 129),
	conv(plan.Conv2D{H: 12, W: 11, C: 1, OutC: 5, KH: 5, KW: 5}),
	conv(plan.Conv2D{H: 7, W: 6, C: 5, OutC: 9, KH: 3, KW: 2}),
	conv(plan.Conv2D{H: 9, W: 10, C: 3, OutC: 4, KH: 3, KW: 3, SH: 2, SW: 3}),
	conv(plan.Conv2D{H: 8, W: 7, C: 3, OutC: 6, KH: 3, KW: 3, Top: 1, Left: 1, Bot: 1, Right: 1}),
	conv(plan.Conv2D{H: 8, W: 7, C: 3, OutC: 6, KH: 3, KW: 3, Top: 2}),
	conv(plan.Conv2D{H: 8, W: 7, C: 3, OutC: 6, KH: 3, KW: 3, Left: 2}),
	conv(plan.Conv2D{H: 8, W: 7, C: 3, OutC: 6, KH: 3, KW: 3, Bot: 2}),
	conv(plan.Conv2D{H: 8, W: 7, C: 3, OutC: 6, KH: 3, KW: 3, Right: 2}),
	conv(plan.Conv2D{H: 28, W: 28, C: 1, OutC: 5, KH: 5, KW: 5, SH: 2, SW: 2, Top: 1, Left: 1}), // CryptoNets
	conv(plan.Conv2D{H: 11, W: 12, C: 2, OutC: 3, KH: 3, KW: 2, DH: 2, DW: 3}),
	conv(plan.Conv2D{H: 10, W: 9, C: 4, OutC: 6, KH: 3, KW: 3, SH: 2, DW: 2, Top: 1, Right: 3, Groups: 2}),
	conv(plan.Conv2D{H: 6, W: 7, C: 9, OutC: 15, KH: 2, KW: 3, Groups: 3}),
	conv(plan.Conv2D{H: 6, W: 6, C: 7, OutC: 7, KH: 3, KW: 3, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 7}), // depthwise
	conv(plan.Conv2D{H: 6, W: 5, C: 5, OutC: 10, KH: 3, KW: 3, Groups: 5}),                                   // depthwise, two outputs per channel
	conv(plan.Conv2D{H: 5, W: 6, C: 11, OutC: 7, KH: 1, KW: 1}),
	conv(plan.Conv2D{H: 5, W: 7, C: 3, OutC: 4, KH: 1, KW: 1, SH: 2, SW: 2}),
	conv(plan.Conv2D{H: 5, W: 4, C: 6, OutC: 11, KH: 5, KW: 4}), // kernel = map
	conv(plan.Conv2D{H: 1, W: 1, C: 1, OutC: 1, KH: 1, KW: 1}),
	conv(plan.Conv2D{H: 1, W: 9, C: 2, OutC: 3, KH: 1, KW: 4}),
	conv(plan.Conv2D{H: 2, W: 2, C: 3, OutC: 2, KH: 4, KW: 4, Top: 3, Left: 3, Bot: 3, Right: 3}), // more padding than map
}

// conv returns the convolution, with a stride, dilation or groups of 1 if left out.
func conv(c plan.Conv2D) plan.Op {
	for _, size := range []*int{&c.SH, &c.SW, &c.DH, &c.DW, &c.Groups} {
		*size = max(*size, 1)
	}
	return plan.Conv(c)
}
