package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// DeviceResult are the figures of products on a CUDA device.
type DeviceResult struct {
	Device  cuda.Device `json:"device"`
	CPU     string      `json:"cpu"`
	Version string      `json:"version"` // of this program, with its commit
	Rows    []DeviceRow `json:"rows"`
}

// DeviceRow is the product of m x k weights with n columns, over the ring or, for
// comparison, of plain numbers.
type DeviceRow struct {
	Kernel string `json:"kernel"` // q4, small, or the element of cuBLAS' product
	Where  string `json:"where"`  // device, pinned, daemon or shared: where operands and results lie
	Shape  string `json:"shape"`
	M      int    `json:"m"`
	K      int    `json:"k"`
	N      int    `json:"n"`
	// GMACs are 10^9 multiply-adds a second, those of the ring counted as one each.
	GMACs        float64 `json:"gmacs"`
	Microseconds float64 `json:"us"`
	// Ratio is GMACs over those of bf16 on the device in the same rounds; for pinned,
	// over what the slower of copies and product allows; for daemon and shared, over pinned.
	Ratio float64 `json:"ratio,omitzero"`
	// Socket is the part of a request's time that is not the product's, for daemon and shared.
	Socket float64 `json:"socket_share,omitzero"`

	spread [2]float64 // of GMACs
}

// Where operands lie.
const (
	onDevice = "device"
	pinned   = "pinned"
	inDaemon = "daemon"
	inShared = "shared"
)

var deviceShapes = func() []shape {
	var all []shape
	for _, n := range []int{1024, 2048, 4096, 8192, 16384} {
		all = append(all, shape{fmt.Sprintf("dense-%d-batch%d", n, n), plan.Dense(n, n), n})
	}
	for _, n := range []int{1, 8, 32, 64, 128, 256, 512, 1024, 2048} {
		all = append(all, shape{fmt.Sprintf("dense-4096-batch%d", n), plan.Dense(4096, 4096), n})
	}
	return append(all,
		shape{"conv-64-56x56-batch32", conv(56, 64, 64, 3, 1), 32},
		shape{"conv-128-28x28-batch32", conv(28, 128, 128, 3, 1), 32},
		shape{"conv-256-14x14-batch32", conv(14, 256, 256, 3, 1), 32},
		shape{"conv-512-7x7-batch32", conv(7, 512, 512, 3, 1), 32},
	)
}()

// hostMost are the most words each way of a shape that is also measured from pinned
// memory; DevicePinned bytes hold them.
const (
	hostMost     = 1 << 25
	DevicePinned = 2 * 4 * hostMost
)

// Device measures products on the backend's first device: with operands on it, beside
// plain products of cuBLAS, then through the backend, from pinned memory to pinned
// memory, and, where o.Daemon is set, through a daemon. Figures are medians over rounds.
func Device(ctx context.Context, b *cuda.Backend, o measure.Options) (*DeviceResult, error) {
	sc := scope{shapes: deviceShapes, budget: time.Second}
	for _, s := range deviceShapes {
		switch s.name {
		case "dense-4096-batch1", "dense-4096-batch64", "dense-4096-batch512":
			sc.served = append(sc.served, s)
		}
	}
	if o.Quick {
		sc.budget = 0
	}
	return sc.device(ctx, b, o)
}

func (sc scope) device(ctx context.Context, b *cuda.Backend, o measure.Options) (*DeviceResult, error) {
	result := &DeviceResult{CPU: measure.Processor(), Version: version.String()}
	for i, s := range sc.shapes {
		o.Progress(s.name, i, len(sc.shapes))
		rows, err := sc.onDevice(ctx, b, s)
		if err != nil {
			return nil, err
		}
		result.Rows = append(result.Rows, rows...)
		if s.n*max(s.op.InLen(), s.op.OutLen()) <= hostMost {
			row, err := sc.pinned(ctx, b, s, rows[0])
			if err != nil {
				return nil, err
			}
			result.Rows = append(result.Rows, row)
		}
	}
	result.Device = b.Devices()[0]
	if o.Daemon != "" {
		rows, err := sc.throughDaemon(ctx, o.Daemon, result.Rows)
		if err != nil {
			return nil, err
		}
		result.Rows = append(result.Rows, rows...)
	}
	return result, nil
}

// columns returns n of the rows of a shape.
func (s shape) columns() int { return s.n * s.op.OutLen() / s.op.Rows() }

func (s shape) row(kernel, where string) DeviceRow {
	return DeviceRow{Kernel: kernel, Where: where, Shape: s.name, M: s.op.Rows(), K: s.op.Terms(), N: s.columns()}
}

// set sets the rates from the times of a series.
func (r *DeviceRow) set(times measure.Series) {
	macs := float64(r.M) * float64(r.K) * float64(r.N)
	rates := make(measure.Series, len(times))
	for i, seconds := range times {
		rates[i] = macs / seconds / 1e9
	}
	r.GMACs, r.spread = rates.Median(), rates.Spread()
	r.Microseconds = macs / 1e3 / r.GMACs
}

// timer is something that measures itself once.
type timer interface {
	Time() (time.Duration, error)
	Close() error
}

// onDevice measures a shape's ring products and plain ones in turn. The first row is q4's.
func (sc scope) onDevice(ctx context.Context, b *cuda.Backend, s shape) (rows []DeviceRow, err error) {
	m, err := b.Meter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	kernels := []string{"q4", "small", string(cuda.BF16), string(cuda.FP32), string(cuda.FP64), string(cuda.Int8)}
	timers := make([]timer, len(kernels))
	defer func() {
		for _, t := range timers {
			if t != nil {
				err = errors.Join(err, t.Close())
			}
		}
	}()
	for i, k := range kernels {
		var t timer
		if i < 2 {
			t, err = m.NewProduct(ring.Q4(), s.op, s.n, k == "small")
		} else {
			t, err = m.NewPeer(cuda.Kind(k), s.op.Rows(), s.op.Terms(), s.columns())
		}
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", k, s.name, err)
		}
		timers[i] = t
	}
	times := make([]measure.Series, len(kernels))
	missing := make([]error, len(kernels))
	err = measure.Rounds(sc.budget, func() error {
		for i, t := range timers {
			if missing[i] != nil {
				continue
			}
			took, err := t.Time()
			if err != nil {
				if i < 2 {
					return err
				}
				missing[i] = err // cuBLAS takes no such shape, or has no such product
				continue
			}
			times[i] = append(times[i], took.Seconds())
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for i, k := range kernels {
		if missing[i] != nil {
			continue
		}
		row := s.row(k, onDevice)
		row.set(times[i])
		if missing[2] == nil && i != 2 {
			row.Ratio = ratios(times[2], times[i]).Median()
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// ratios returns a/b, round by round.
func ratios(a, b measure.Series) measure.Series {
	r := make(measure.Series, min(len(a), len(b)))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	return r
}

// pinned measures a shape through the backend, from pinned memory to pinned memory,
// and in the same rounds the copies that it takes.
func (sc scope) pinned(ctx context.Context, b *cuda.Backend, s shape, device DeviceRow) (row DeviceRow, err error) {
	r, rng := ring.Q4(), rand.New(rand.NewPCG(3, 0))
	draw := func(words []uint32) {
		for i := range words {
			words[i] = rng.Uint32N(r.Modulus())
		}
	}
	w := ring.NewMatrix(s.op.Rows(), s.op.Terms())
	draw(w.Data)
	p, err := b.Load(ctx, r, s.op, w)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	lend := func(cols int) (ring.Matrix, error) {
		m := ring.Matrix{Rows: s.n, Cols: cols, Data: b.Lend(s.n * cols)}
		if m.Data == nil {
			return m, fmt.Errorf("no pinned memory for %s", s.name)
		}
		return m, nil
	}
	x, err := lend(s.op.InLen())
	if err != nil {
		return row, err
	}
	defer b.Reclaim(x.Data)
	y, err := lend(s.op.OutLen())
	if err != nil {
		return row, err
	}
	defer b.Reclaim(y.Data)
	draw(x.Data)
	var times, limits measure.Series
	if err := p.Evaluate(ctx, y, x); err != nil { // the first makes buffers
		return row, err
	}
	err = measure.Rounds(sc.budget, func() error {
		m, err := b.Meter(ctx)
		if err != nil {
			return err
		}
		copies, err := m.Copies(int64(4*len(x.Data)), int64(4*len(y.Data)))
		m.Close()
		if err != nil {
			return err
		}
		start := time.Now()
		if err := p.Evaluate(ctx, y, x); err != nil {
			return err
		}
		times = append(times, time.Since(start).Seconds())
		limits = append(limits, max(copies.Seconds(), device.Microseconds/1e6))
		return ctx.Err()
	})
	if err != nil {
		return row, err
	}
	row = s.row("q4", pinned)
	row.set(times)
	row.Ratio = ratios(limits, times).Median()
	return row, nil
}

// Table writes the figures for people.
func (d *DeviceResult) Table(w io.Writer) error {
	fmt.Fprintf(w, "%v, compute capability %s, %d MiB, path %s, CUDA %s, cuBLAS %s",
		d.Device, d.Device.Capability, d.Device.Memory>>20, d.Device.Path, d.Device.CUDA, d.Device.BLAS)
	if f := d.Device.Figures; f != nil {
		fmt.Fprintf(w, ", driver %s", f.Driver)
	}
	fmt.Fprintf(w, "; %s; securenets %s\n\n", d.CPU, d.Version)
	t := render.Table(w)
	fmt.Fprintln(t, "kernel\twhere\tshape\tm\tk\tn\tTMAC/s\tquartiles\tus\tratio\tsocket")
	for _, r := range d.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%.2f\t%.2f-%.2f\t%.1f\t%s\t%s\n",
			r.Kernel, r.Where, r.Shape, r.M, r.K, r.N, r.GMACs/1e3, r.spread[0]/1e3, r.spread[1]/1e3, r.Microseconds, fraction(r.Ratio), fraction(r.Socket))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, `
TMAC/s is 10^12 multiply-adds per second, of m x k weights by n columns, padding counted;
medians over rounds, in which all products of a shape take turns. q4 and small take and
give words modulo M, with weights of any word or of signed bytes. The others are cuBLAS'
plain products of the same size (fp32 without TF32; int8 sums in int32).
device: the ratio is to bf16 in the same rounds. pinned: through the backend, from and to
the host's pinned memory; the ratio is to the slower of its copies, both ways at once, and
the product. daemon: through securenetsd on a unix socket, with several requests in flight;
shared: the same with words in shared memory; for both, the ratio is to pinned, and socket
is the fraction of a request's time in which its product was not computed.
`)
	return err
}

func fraction(f float64) string {
	if f == 0 {
		return ""
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

// CSV writes the rows.
func (d *DeviceResult) CSV(w io.Writer) error {
	return render.CSV(w, []string{"kernel", "where", "shape", "m", "k", "n", "gmacs", "us", "ratio", "socket_share"}, d.Rows)
}

// Record is the row in CSV.
func (r DeviceRow) Record() []string {
	f := []string{r.Kernel, r.Where, r.Shape, strconv.Itoa(r.M), strconv.Itoa(r.K), strconv.Itoa(r.N), render.Decimal(r.GMACs), render.Decimal(r.Microseconds), "", ""}
	if r.Ratio > 0 {
		f[8] = render.Decimal(r.Ratio)
	}
	if r.Socket > 0 {
		f[9] = render.Decimal(r.Socket)
	}
	return f
}
