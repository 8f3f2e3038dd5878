package throughput

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// referenceOp and referenceRows are the small product that tells whether the machine
// stays as it was: 64 million multiply-adds.
var referenceOp = plan.Dense(512, 512)

const referenceRows = 256

func (r *running) openReference(ctx context.Context) error {
	b := cpu.New(cpu.Options{Threads: 1})
	r.defers(b.Close)
	m := traffic.Model(9, referenceOp)
	var err error
	if r.reference, err = b.Load(ctx, m.Plan.Ring, referenceOp, m.Weights[0]); err != nil {
		return err
	}
	r.defers(r.reference.Close)
	return nil
}

// readReference measures the reference product, in elapsed time, as all else is.
func (r *running) readReference(ctx context.Context) error {
	const span, least = 50 * time.Millisecond, 5
	x, y := traffic.Rows(referenceOp, referenceRows), ring.NewMatrix(referenceRows, referenceOp.OutLen())
	var rates measure.Series
	for begin := time.Now(); time.Since(begin) < span || len(rates) < least; {
		start := time.Now()
		if err := r.reference.Evaluate(ctx, y, x); err != nil {
			return err
		}
		rates = append(rates, referenceRows*float64(referenceOp.MulAdds())/float64(time.Since(start).Nanoseconds()))
	}
	r.report.Reference.GMACs = append(r.report.Reference.GMACs, measure.Round(rates.Median()))
	return nil
}

// limit reads the most that the cloud's device does, in 10^9 ring multiply-adds a second.
type limit interface {
	read() (limits, error)
}

// limits are those of all threads or devices and, of a processor, of one thread in its
// own processor time. 0 stands for one that cannot be had.
type limits struct{ all, one float64 }

// openLimit finds out what can be had: nothing of a machine elsewhere.
func (r *running) openLimit(ctx context.Context, device bool) error {
	d := &r.report.Daemon
	r.limit = noLimit{}
	switch {
	case r.o.Endpoint != "":
	case device:
		ready := slices.DeleteFunc(slices.Clone(d.Devices), func(d cuda.Device) bool { return d.State != cuda.Ready })
		if len(ready) == 0 || slices.ContainsFunc(ready, func(d cuda.Device) bool { return d.Name != ready[0].Name }) {
			return nil
		}
		b, err := cuda.Open(cuda.Options{Devices: []int{ready[0].Ordinal}, Memory: 1 << 30, Streams: 1, Driver: r.o.driver, BLAS: r.o.driver})
		if errors.Is(err, cuda.ErrUnavailable) { // this program was built without CUDA
			return nil
		}
		if err != nil {
			return err
		}
		r.defers(b.Close)
		m, err := b.Meter(ctx)
		if err != nil {
			return err
		}
		r.defers(func() error { m.Close(); return nil })
		size := r.sweep.peer
		peer, err := m.NewPeer(cuda.Int8, size, size, size)
		if err != nil {
			return err
		}
		r.defers(peer.Close)
		r.limit = deviceLimit{peer, float64(len(ready)) * float64(size) * float64(size) * float64(size) / 4}
		d.LimitOf = fmt.Sprintf("a quarter of cuBLAS' int8 product of %d x %d by %d, measured beside each row, on %d device(s)", size, size, size, len(ready))
	case roofline.Available() && strings.HasPrefix(d.Backend, "cpu"):
		const memory = 1 << 20 // read for nothing: what is wanted are products
		threads := runtime.NumCPU()
		r.limit = processorLimit{roofline.NewMeter(threads, memory), roofline.NewMeter(1, memory), r.sweep.readings}
		of := "half of vpmaddwd, with sums of more than 32 bits,"
		if roofline.HasVNNI() {
			of = "a quarter of vpdpbusd"
		}
		d.LimitOf = fmt.Sprintf("%s on %d thread(s), measured beside each row", of, threads)
	}
	return nil
}

type noLimit struct{}

func (noLimit) read() (limits, error) { return limits{}, nil }

type processorLimit struct {
	all, one *roofline.Meter
	readings int
}

func (l processorLimit) read() (limits, error) {
	var all, one measure.Series
	for range l.readings {
		all = append(all, l.all.Round(func() float64 { return 1 }).Products(false))
		one = append(one, l.one.Round(func() float64 { return 1 }).Products(false))
	}
	return limits{all.Median(), one.Median()}, nil
}

// deviceLimit is a plain product, and the ring multiply-adds that all devices do in its
// time at most.
type deviceLimit struct {
	peer    *cuda.Peer
	mulAdds float64
}

func (l deviceLimit) read() (limits, error) {
	took, err := l.peer.Time()
	if err != nil {
		return limits{}, err
	}
	return limits{all: l.mulAdds / float64(took.Nanoseconds())}, nil
}
