package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// KernelResult are the figures of a backend's products.
type KernelResult struct {
	CPU      string      `json:"cpu"`
	Roofline Roofline    `json:"roofline"`
	Rows     []KernelRow `json:"rows"`
}

// Roofline is the most that as many threads do here, by measure: 10^9 a second. What
// package roofline cannot measure is left out, and one of vpdpbusd and vpmaddwd.
type Roofline struct {
	VNNI  float64 `json:"vpdpbusd,omitzero"`      // multiply-adds of bytes
	Words float64 `json:"vpmaddwd,omitzero"`      // multiply-adds of words of 16 bits
	Wide  float64 `json:"vpmaddwd_wide,omitzero"` // the same with sums of more than 32 bits
	FP64  float64 `json:"fp64,omitzero"`          // multiply-adds of float64
	DRAM  float64 `json:"dram_gbs,omitzero"`      // bytes read
}

// KernelRow is the product of m x k weights with n columns, over the ring. A
// convolution has m channels, k elements a patch and n positions in its batch.
type KernelRow struct {
	Kernel  string `json:"kernel"` // q4: weights of any word; small: of signed bytes
	Shape   string `json:"shape"`
	M       int    `json:"m"`
	K       int    `json:"k"`
	N       int    `json:"n"`
	Threads int    `json:"threads"`
	// GMACs are 10^9 ring multiply-adds a second, padding counted.
	GMACs float64 `json:"gmacs"`
	// Limit is the lower one of what multiply-adds allow and of what reading all
	// weights once from memory does, at 4 bytes a weight or 1. The former is a quarter
	// of vpdpbusd, or half of vpmaddwd_wide (small: vpmaddwd). Ratio is GMACs' part
	// of it in the same round. They are left out where there is no roofline.
	Limit float64 `json:"limit,omitzero"`
	Ratio float64 `json:"ratio,omitzero"`

	spread [2]float64 // of GMACs
}

var kernelShapes = []shape{
	{"dense-1024-batch1024", plan.Dense(1024, 1024), 1024},
	{"dense-4096-batch512", plan.Dense(4096, 4096), 512},
	{"dense-4096-batch32", plan.Dense(4096, 4096), 32},
	{"dense-4096-batch8", plan.Dense(4096, 4096), 8},
	{"dense-4096-batch1", plan.Dense(4096, 4096), 1},
	{"conv-64-56x56-batch32", conv(56, 64, 64, 3, 1), 32},
	{"conv-128-28x28-batch32", conv(28, 128, 128, 3, 1), 32},
	{"conv-256-14x14-batch32", conv(14, 256, 256, 3, 1), 32},
	{"conv-512-7x7-batch32", conv(7, 512, 512, 3, 1), 32},
	{"mnist-cnn-conv1-batch256", conv(28, 1, 16, 5, 0), 256},
	{"mnist-cnn-conv2-batch256", conv(12, 16, 32, 5, 0), 256},
	{"mnist-cnn-dense-batch256", plan.Dense(512, 10), 256},
}

// Kernel measures a backend of so many threads, its products and the machine's
// limits in turn. Figures are medians over rounds.
func Kernel(ctx context.Context, b kernels.Backend, threads int, o measure.Options) (*KernelResult, error) {
	sc := newScope(o, kernelShapes)
	if o.Quick {
		sc.shapes = nil
		for _, s := range kernelShapes {
			if int64(s.n)*s.op.MulAdds() < 1<<31 {
				sc.shapes = append(sc.shapes, s)
			}
		}
	}
	return sc.kernel(ctx, b, threads, o.Progress)
}

func (sc scope) kernel(ctx context.Context, b kernels.Backend, threads int, progress func(string, int, int)) (*KernelResult, error) {
	result := &KernelResult{CPU: measure.Processor()}
	meter := roofline.NewMeter(threads, sc.memory)
	if t, ok := b.(interface{ Tier() string }); ok && t.Tier() == "avx2" {
		meter.AVX2 = true
	}
	var vnni, words, wide, fma, read measure.Series
	for i, s := range sc.shapes {
		progress(s.name, i, len(sc.shapes))
		q4, small := &product{kernel: "q4", weightBytes: 4}, &product{kernel: "small", weightBytes: 1}
		err := errors.Join(q4.load(ctx, b, s), small.load(ctx, b, s))
		if err == nil {
			err = measure.Rounds(sc.budget, func() error {
				for _, p := range []*product{q4, small} {
					r, err := p.round(ctx, meter)
					if err != nil {
						return err
					}
					vnni, words, wide = append(vnni, r.VNNI), append(words, r.Words), append(wide, r.Wide)
					fma, read = append(fma, r.FMA), append(read, r.Read)
				}
				return nil
			})
		}
		if err := errors.Join(err, q4.close(), small.close()); err != nil {
			return nil, err
		}
		result.Rows = append(result.Rows, q4.row(threads), small.row(threads))
	}
	if roofline.Available() {
		result.Roofline = Roofline{
			VNNI: vnni.Median(), Words: words.Median(), Wide: wide.Median(),
			FP64: fma.Median(), DRAM: read.Median(),
		}
	}
	return result, nil
}

// product is one that is measured.
type product struct {
	shape
	kernel      string
	weightBytes int // a weight
	loaded      plan.Product
	x, y        ring.Matrix

	gmacs, limit, ratio measure.Series
}

// load draws weights and inputs.
func (p *product) load(ctx context.Context, b kernels.Backend, s shape) (err error) {
	p.shape = s
	r, rng := ring.Q4(), rand.New(rand.NewPCG(0, 0))
	w := ring.NewMatrix(s.op.Rows(), s.op.Terms())
	p.x, p.y = ring.NewMatrix(s.n, s.op.InLen()), ring.NewMatrix(s.n, s.op.OutLen())
	for i := range w.Data {
		w.Data[i] = rng.Uint32N(r.Modulus())
		if p.kernel == "small" {
			w.Data[i] = r.FromSigned(int32(int8(w.Data[i])))
		}
	}
	for i := range p.x.Data {
		p.x.Data[i] = rng.Uint32N(r.Modulus())
	}
	p.loaded, err = b.Load(ctx, r, s.op, w)
	return err
}

func (p *product) close() error {
	if p.loaded == nil {
		return nil
	}
	return p.loaded.Close()
}

// round measures the product once, a short one several times over.
func (p *product) round(ctx context.Context, meter *roofline.Meter) (roofline.Rates, error) {
	const long = 1 << 24 // multiply-adds: 0.2 ms at the machine's limit
	work := int64(p.n) * p.op.MulAdds()
	times := max(1, long/work)
	var err error
	rates := meter.Round(func() float64 {
		for range times {
			err = errors.Join(err, p.loaded.Evaluate(ctx, p.y, p.x))
		}
		return float64(times * work)
	})
	weights := float64(p.weightBytes * p.op.Rows() * p.op.Terms())
	limit := min(rates.Products(p.kernel == "small"), rates.Read*float64(work)/weights)
	p.gmacs, p.limit = append(p.gmacs, rates.Work), append(p.limit, limit)
	if limit > 0 {
		p.ratio = append(p.ratio, rates.Work/limit)
	}
	return rates, err
}

func (p *product) row(threads int) KernelRow {
	row := KernelRow{
		Kernel: p.kernel, Shape: p.name, Threads: threads,
		M: p.op.Rows(), K: p.op.Terms(), N: p.n * p.op.OutLen() / p.op.Rows(),
		GMACs: p.gmacs.Median(), spread: p.gmacs.Spread(),
	}
	if len(p.ratio) > 0 {
		row.Limit, row.Ratio = p.limit.Median(), p.ratio.Median()
	}
	return row
}

// Table writes the figures for people.
func (k *KernelResult) Table(w io.Writer) error {
	there := k.Roofline != Roofline{}
	if there {
		t := render.Table(w)
		if k.Roofline.VNNI > 0 {
			fmt.Fprintf(t, "vpdpbusd\t%.1f\t10^9 multiply-adds of bytes per second\n", k.Roofline.VNNI)
		} else {
			fmt.Fprintf(t, "vpmaddwd\t%.1f\t10^9 multiply-adds of 16-bit words per second\n", k.Roofline.Words)
			fmt.Fprintf(t, "vpmaddwd, wide\t%.1f\t10^9 of these per second, with sums of more than 32 bits\n", k.Roofline.Wide)
		}
		fmt.Fprintf(t, "fp64 FMA\t%.1f\t10^9 multiply-adds per second\n", k.Roofline.FP64)
		fmt.Fprintf(t, "memory, read\t%.1f\tGB per second\n", k.Roofline.DRAM)
		t.Flush()
	} else {
		fmt.Fprintln(w, "No limits: they are measured where the processor has AVX2.")
	}
	fmt.Fprintln(w)
	t := render.Table(w)
	fmt.Fprint(t, "kernel\tshape\tm\tk\tn\tthreads\tGMAC/s\tquartiles")
	if there {
		fmt.Fprint(t, "\tlimit\tratio")
	}
	fmt.Fprintln(t)
	for _, r := range k.Rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%.2f\t%.2f-%.2f", r.Kernel, r.Shape, r.M, r.K, r.N, r.Threads, r.GMACs, r.spread[0], r.spread[1])
		if there {
			fmt.Fprintf(t, "\t%.2f\t%.2f", r.Limit, r.Ratio)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, `
GMAC/s is 10^9 multiply-adds of words modulo M per second, of m x k weights by n
columns, padding counted; medians over rounds. q4 takes weights of any word, small
those of signed bytes. The limit is a quarter of vpdpbusd, or with AVX2 half of
vpmaddwd (small) or of its wide sums (q4). Where reading the weights once from memory
(4 bytes a weight, small 1) allows less, that is the limit; a product whose weights
stay in a cache can exceed it. One thread is measured in its own CPU time, several in
elapsed time.
`)
	return err
}

// CSV writes the rows.
func (k *KernelResult) CSV(w io.Writer) error {
	return render.CSV(w, []string{"kernel", "shape", "m", "k", "n", "threads", "gmacs", "limit", "ratio"}, k.Rows)
}

// Record is the row in CSV.
func (r KernelRow) Record() []string {
	f := []string{r.Kernel, r.Shape, strconv.Itoa(r.M), strconv.Itoa(r.K), strconv.Itoa(r.N), strconv.Itoa(r.Threads), render.Decimal(r.GMACs), "", ""}
	if r.Limit > 0 {
		f[7], f[8] = render.Decimal(r.Limit), render.Decimal(r.Ratio)
	}
	return f
}
