// Package bench measures the parts of outsourcing on the machine it runs on: the cloud's
// products, and the host's passes over what it sends and receives.
package bench

import (
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/plan"
)

// A shape is a product of a linear operator with a batch of n samples.
type shape struct {
	name string
	op   plan.Op
	n    int
}

// conv returns a convolution of a square map of so many channels, to keep its size
// by padding or not.
func conv(size, in, out, kernel, pad int) plan.Op {
	return plan.Conv(plan.Conv2D{
		H: size, W: size, C: in, OutC: out, KH: kernel, KW: kernel, SH: 1, SW: 1, DH: 1, DW: 1,
		Top: pad, Left: pad, Bot: pad, Right: pad, Groups: 1,
	})
}

// scope is what tests make smaller.
type scope struct {
	shapes []shape
	budget time.Duration // that a shape is measured for
	memory int           // bytes that are read to measure memory
	served []shape       // through a daemon, all of one operator
}

// newScope returns the whole of what there is to measure, or with o.Quick a third of
// a second of each shape in the place of five.
func newScope(o measure.Options, shapes []shape) scope {
	const memory = 512 << 20 // more than a last cache has
	return scope{shapes: shapes, budget: o.Each(time.Second/3, 5*time.Second), memory: memory}
}
