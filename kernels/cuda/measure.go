//go:build gpu && cgo && linux && amd64

package cuda

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/securenets/securenets/kernels/cuda/internal/driver"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Meter measures one device of a Backend, with operands in its memory. It has exclusive use of
// the device's streams until Close.
type Meter struct {
	dev     *device
	workers []*worker
	blocks  map[Kind][]byte
}

// Meter returns a meter of the backend's first device.
func (b *Backend) Meter(ctx context.Context) (*Meter, error) {
	m := &Meter{dev: b.devices[0], blocks: map[Kind][]byte{}}
	for range cap(m.dev.idle) {
		w, err := m.dev.take(ctx, nil)
		if err != nil {
			m.Close()
			return nil, err
		}
		m.workers = append(m.workers, w)
	}
	return m, nil
}

// Close gives the streams back.
func (m *Meter) Close() {
	for _, w := range m.workers {
		m.dev.give(w)
	}
	m.workers = nil
}

// timed runs queue once to warm up, then measures one or more runs, at least about 1 ms of
// them. It returns the time of one.
func (w *worker) timed(queue func() error) (time.Duration, error) {
	start, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return 0, err
	}
	defer cu.DestroyEvent(&start)
	end, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return 0, err
	}
	defer cu.DestroyEvent(&end)
	const enough = 2 * time.Millisecond
	took := time.Duration(0)
	for times := 1; ; {
		if err := start.Record(w.stream); err != nil {
			return 0, err
		}
		for range times {
			if err := queue(); err != nil {
				return 0, err
			}
		}
		if err := end.Record(w.stream); err != nil {
			return 0, err
		}
		if err := end.Synchronize(); err != nil {
			return 0, err
		}
		ms, err := start.Elapsed(end)
		if err != nil {
			return 0, err
		}
		all := time.Duration(ms * float64(time.Millisecond))
		if took > 0 && (all >= enough/2 || times >= 1000) {
			return all / time.Duration(times), nil
		}
		took = max(1, all/time.Duration(times)) // not counted: the first run warms up
		times = int(min(1000, 1+enough/took))
	}
}

// A Product is the product of loaded random weights with random samples, both words in the
// device's memory.
type Product struct {
	m       *Meter
	w       *worker
	r       *resident
	x, y    memory
	samples int
	tile    int
}

// NewProduct draws the operands. If small is set, weights have 8 bits.
func (m *Meter) NewProduct(r ring.Ring, op plan.Op, samples int, small bool) (*Product, error) {
	p := &Product{m: m, w: m.workers[0], samples: samples}
	rng := rand.New(rand.NewPCG(1, 0))
	words := make([]uint32, op.Rows()*op.Terms())
	for i := range words {
		words[i] = rng.Uint32N(r.Modulus())
		if small {
			words[i] = r.FromSigned(int32(int8(words[i])))
		}
	}
	p.r = m.dev.newResident(r, op, small)
	err := p.w.do(func() error {
		if err := p.r.load(p.w, words); err != nil {
			return err
		}
		var err error
		if p.x, err = m.dev.alloc(forWork, int64(samples)*int64(op.InLen())*wordBytes); err != nil {
			return err
		}
		if p.y, err = m.dev.alloc(forWork, int64(samples)*int64(op.OutLen())*wordBytes); err != nil {
			return err
		}
		block := make([]uint32, min(1<<22, samples*op.InLen()))
		for i := range block {
			block[i] = rng.Uint32N(r.Modulus())
		}
		return m.fill(p.w, p.x, unsafe.Slice((*byte)(unsafe.Pointer(&block[0])), len(block)*wordBytes))
	})
	if err != nil {
		p.Close()
		return nil, err
	}
	// All positions at once, if that leaves room for others.
	p.tile = samples * p.r.op.Positions()
	if each := p.r.tile(); int64(p.tile)*m.dev.tileBytes/int64(each) > m.dev.budget/4 {
		p.tile = each
	}
	return p, nil
}

// fill fills memory with copies of a block. It runs on w's thread.
func (m *Meter) fill(w *worker, to memory, block []byte) error {
	words := unsafe.Slice((*uint32)(unsafe.Pointer(&block[0])), len(block)/wordBytes)
	for at := int64(0); at < to.bytes; at += int64(len(block)) {
		n := min(int64(len(words)), (to.bytes-at)/wordBytes)
		if err := w.upload(to.at+cu.DevicePtr(at), words[:n], false); err != nil {
			return err
		}
		if err := w.stream.Synchronize(); err != nil {
			return err
		}
	}
	return nil
}

// Time measures the product once.
func (p *Product) Time() (took time.Duration, err error) {
	err = p.w.do(func() error {
		took, err = p.w.timed(func() error { return p.w.multiply(p.r, p.y.at, p.x.at, p.samples, p.tile) })
		return err
	})
	return took, p.m.dev.check(err)
}

// Close frees the operands.
func (p *Product) Close() error {
	return p.w.do(func() error {
		for _, m := range []*memory{&p.x, &p.y} {
			if err := p.m.dev.free(m); err != nil {
				return err
			}
		}
		if err := p.w.release(); err != nil {
			return err
		}
		return p.r.free()
	})
}

var types = map[Kind]struct {
	t       driver.Type
	in, out int // bytes
}{
	BF16: {driver.BF16, 2, 2}, FP32: {driver.Float32, 4, 4}, FP64: {driver.Float64, 8, 8}, Int8: {driver.Int8, 1, 4},
}

// A Peer is a plain product of cuBLAS, m x k by k x n, on random operands.
type Peer struct {
	meter   *Meter
	w       *worker
	g       driver.Gemm
	a, b, c memory
}

// NewPeer draws the operands.
func (m *Meter) NewPeer(kind Kind, rows, k, n int) (*Peer, error) {
	t := types[kind]
	p := &Peer{meter: m, w: m.workers[0], g: driver.Gemm{Type: t.t, M: n, N: rows, K: k, Batch: 1, LDA: k, LDB: k, LDC: rows}}
	err := p.w.do(func() error {
		for _, o := range []struct {
			to    *memory
			bytes int
		}{{&p.a, n * k * t.in}, {&p.b, rows * k * t.in}, {&p.c, n * rows * t.out}} {
			var err error
			if *o.to, err = m.dev.alloc(forWork, int64(o.bytes)); err != nil {
				return err
			}
		}
		for _, o := range []memory{p.a, p.b} {
			if err := m.fill(p.w, o, m.block(kind, o.bytes)); err != nil {
				return err
			}
		}
		return nil
	})
	p.g.A, p.g.B, p.g.C = p.a.at, p.b.at, p.c.at
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// block returns random elements in [-1, 1), or bytes: whole words, enough for operands of that
// many bytes or to be repeated.
func (m *Meter) block(kind Kind, bytes int64) []byte {
	size := int(min(1<<24, (bytes+7)/8*8))
	if b := m.blocks[kind]; len(b) >= size {
		return b
	}
	rng := rand.New(rand.NewPCG(2, 0))
	b := make([]byte, size)
	for i := 0; i < size; i += types[kind].in {
		v := 2*rng.Float64() - 1
		switch at := unsafe.Pointer(&b[i]); kind {
		case BF16:
			*(*uint16)(at) = uint16(math.Float32bits(float32(v)) >> 16)
		case FP32:
			*(*float32)(at) = float32(v)
		case FP64:
			*(*float64)(at) = v
		default:
			*(*int8)(at) = int8(127 * v)
		}
	}
	m.blocks[kind] = b
	return b
}

// Time measures the product once.
func (p *Peer) Time() (took time.Duration, err error) {
	err = p.w.do(func() error {
		took, err = p.w.timed(func() error { return driver.Multiply(p.w.blas, p.g) })
		return err
	})
	return took, p.meter.dev.check(err)
}

// Close frees the operands.
func (p *Peer) Close() error {
	return p.w.do(func() error {
		for _, m := range []*memory{&p.a, &p.b, &p.c} {
			if err := p.meter.dev.free(m); err != nil {
				return err
			}
		}
		return nil
	})
}

// Copies measures copies between pinned memory and the device, up bytes to it and down
// bytes from it, both at once: the median of a few. The thread polls, so that no time is counted
// for waking it up.
func (m *Meter) Copies(up, down int64) (took time.Duration, err error) {
	if len(m.workers) < 2 {
		return 0, fmt.Errorf("cuda: copies both ways need two streams")
	}
	to, from := m.workers[0], m.workers[1]
	const runs = 5
	var times []time.Duration
	err = to.do(func() error {
		for _, o := range []struct {
			w     *worker
			bytes int64
		}{{to, up}, {from, down}} {
			if err := o.w.grow(&o.w.x, o.bytes); err != nil {
				return err
			}
			if _, err := o.w.in.grow(int(o.bytes / wordBytes)); err != nil {
				return err
			}
		}
		for range 1 + runs { // the first warms up
			start := time.Now()
			if err := cu.MemcpyHtoDAsync(to.x.at, unsafe.Pointer(&to.in.words[0]), up, to.stream); err != nil {
				return err
			}
			if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&from.in.words[0]), from.x.at, down, from.stream); err != nil {
				return err
			}
			for _, w := range []*worker{to, from} {
				for done := false; !done; {
					if done, err = w.poll(); err != nil {
						return err
					}
				}
			}
			times = append(times, time.Since(start))
		}
		return nil
	})
	if err != nil {
		return 0, m.dev.check(err)
	}
	times = times[1:]
	slices.Sort(times)
	return times[runs/2], nil
}
