//go:build gpu && cgo && linux && amd64

package cuda

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/cuda/internal/fake"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// layer is an operator with operands and the right product.
type layer struct {
	op         plan.Op
	w, x, want ring.Matrix
}

func newLayer(op plan.Op, rows int) layer {
	r, rng := ring.Q4(), rand.New(rand.NewPCG(uint64(op.InLen()), 0))
	l := layer{op: op, w: ring.NewMatrix(op.Rows(), op.Terms()), x: ring.NewMatrix(rows, op.InLen())}
	for _, m := range []ring.Matrix{l.w, l.x} {
		for i := range m.Data {
			m.Data[i] = rng.Uint32N(r.Modulus())
		}
	}
	l.want = kernels.Direct(r, op, l.w, l.x)
	return l
}

var layers = []layer{
	newLayer(plan.Dense(37, 21), 5),
	newLayer(plan.Conv(plan.Conv2D{H: 5, W: 6, C: 4, OutC: 6, KH: 3, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Groups: 2}), 3),
	newLayer(plan.Conv(plan.Conv2D{H: 4, W: 5, C: 32, OutC: 6, KH: 3, KW: 2, SH: 2, SW: 1, DH: 1, DW: 2, Top: 1, Right: 1, Groups: 2}), 3),
}

// typed reports whether an error wraps a sentinel for callers.
func typed(err error) bool {
	for _, known := range []error{ErrUnavailable, kernels.ErrOutOfMemory, kernels.ErrDeviceLost} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// evaluate loads a layer, evaluates it on pinned and on other memory, and returns an error if
// a call fails or words are wrong.
func (l layer) evaluate(b *Backend) error {
	ctx := context.Background()
	p, err := b.Load(ctx, ring.Q4(), l.op, l.w)
	if err != nil {
		return err
	}
	for _, lent := range []bool{false, true} {
		x, y := slices.Clone(l.x.Data), make([]uint32, len(l.want.Data))
		if lent {
			if x, y = b.Lend(len(l.x.Data)), b.Lend(len(l.want.Data)); x == nil || y == nil {
				return errors.Join(errors.New("no memory is lent"), p.Close())
			}
			copy(x, l.x.Data)
		}
		e := p.Evaluate(ctx, ring.Matrix{Rows: l.x.Rows, Cols: l.op.OutLen(), Data: y}, ring.Matrix{Rows: l.x.Rows, Cols: l.op.InLen(), Data: x})
		if e == nil && !slices.Equal(y, l.want.Data) {
			e = fmt.Errorf("%v: wrong words", l.op)
		}
		if lent && !(b.Reclaim(x) && b.Reclaim(y)) {
			e = errors.Join(e, errors.New("lent words are not reclaimed"))
		}
		err = errors.Join(err, e)
	}
	return errors.Join(err, p.Close())
}

// TestFaults: whichever call fails, and however, products are right or end with a typed error,
// and all resources are freed.
func TestFaults(t *testing.T) {
	machine(t, fake.Hopper(1))
	for _, path := range []string{PathFused, PathInt8, PathFloat64} {
		for _, code := range []int{fake.OutOfMemory, fake.LaunchLost} {
			for _, devices := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s/%d/devices=%d", path, code, devices), func(t *testing.T) {
					fake.Set(fake.Hopper(devices))
					sites := map[string]int{}
					for n := 1; ; n++ {
						if testing.Short() && n > 40 && n%7 != 0 {
							continue
						}
						name := faulty(t, path, n, code, devices)
						if name == "" {
							break
						}
						sites[name]++
					}
					for _, want := range []string{"cuMemAlloc_v2", "cuMemFree_v2", "cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuEventRecord", "cuStreamWaitEvent", "cuStreamSynchronize", "cuStreamQuery"} {
						if sites[want] == 0 {
							t.Errorf("%s never failed", want)
						}
					}
				})
			}
		}
	}
}

// faulty makes call n after the opening of the backend fail. It returns the call's name, "" if
// there were fewer calls.
func faulty(t *testing.T, path string, n, code, devices int) string {
	o := options(path)
	o.Streams = 1
	processor := cpu.New(cpu.Options{Threads: 1})
	if devices == 2 {
		o.Fallback = processor
	}
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	fake.Fail("", n, code, fake.Any)
	for _, l := range layers {
		if err := l.evaluate(b); err != nil && (!typed(err) || o.Fallback != nil && code == fake.LaunchLost) {
			t.Errorf("call %d, %s: %v", n, fake.Failed(), err)
		}
	}
	// Afterwards words are right, or the only device is lost and the error says so.
	after := layers
	if fake.Failed() == "" {
		after = nil
	}
	for _, l := range after {
		if err := l.evaluate(b); err != nil && !(errors.Is(err, kernels.ErrDeviceLost) && code == fake.LaunchLost && o.Fallback == nil) {
			t.Errorf("after call %d, %s: %v", n, fake.Failed(), err)
		}
	}
	if err := b.Close(); err != nil && fake.Failed() == "" {
		t.Errorf("close: %v", err)
	}
	name := fake.Failed()
	fake.Fail("", 0, 0, fake.Any)
	if left := fake.Alive().Left(); left != (fake.Counts{}) {
		t.Errorf("call %d, %s: left %+v", n, name, left)
	}
	if err := processor.Close(); err != nil {
		t.Errorf("call %d, %s: %v", n, name, err)
	}
	return name
}

// TestFaultsAtOpen: whichever call fails while devices are opened and tested, the backend
// opens without the device and says why, or Open returns ErrUnavailable.
func TestFaultsAtOpen(t *testing.T) {
	machine(t, fake.Hopper(2))
	for _, code := range []int{fake.OutOfMemory, fake.LaunchLost} {
		for n := 1; ; n++ {
			if n > 60 && n%9 != 0 && n < 100_000 {
				continue
			}
			fake.Fail("", n, code, fake.Any)
			b, err := Open(options(PathAuto))
			name := fake.Failed()
			fake.Fail("", 0, 0, fake.Any)
			if err != nil && !typed(err) {
				t.Errorf("call %d, %s: %v", n, name, err)
			}
			if err == nil {
				for _, l := range layers {
					if err := l.evaluate(b); err != nil {
						t.Errorf("after call %d, %s: %v", n, name, err)
					}
				}
				for _, d := range b.Devices() {
					if (d.State == Ready) != (d.Reason == "") {
						t.Errorf("call %d, %s: %+v", n, name, d)
					}
				}
				if err := b.Close(); err != nil {
					t.Errorf("call %d, %s: close: %v", n, name, err)
				}
			}
			if left := fake.Alive().Left(); left != (fake.Counts{}) {
				t.Fatalf("call %d, %s: left %+v", n, name, left)
			}
			if name == "" {
				break
			}
		}
	}
}

// TestLostUnderLoad: devices are lost one after the other during concurrent calls. All answers
// are right, first from the remaining devices and in the end from the fallback.
func TestLostUnderLoad(t *testing.T) {
	machine(t, fake.Hopper(3))
	o := options(PathInt8)
	processor := cpu.New(cpu.Options{Threads: 2})
	defer processor.Close()
	o.Fallback = processor
	b := mustOpen(t, o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for {
				if err := layers[i%len(layers)].evaluate(b); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for d := range 3 {
		fake.Fail("cuLaunchKernel", 5, fake.LaunchLost, d)
		for fake.Failed() == "" {
			if t.Failed() {
				break
			}
			// A device fails only when it is used.
			if err := layers[0].evaluate(b); err != nil {
				t.Error(err)
				break
			}
		}
	}
	for range 3 {
		if err := layers[1].evaluate(b); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	for _, d := range b.Devices() {
		if d.State != Lost || d.Reason == "" {
			t.Errorf("%+v", d)
		}
	}
}

// TestPanics: a panic on a device's thread fails the call that caused it, and is logged without
// its value. The device stays in use if it finishes the queued work, and is lost otherwise.
func TestPanics(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		t.Run(fmt.Sprintf("stuck=%v", stuck), func(t *testing.T) {
			machine(t, fake.Hopper(1))
			var log bytes.Buffer
			o := options(PathInt8)
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			b := mustOpen(t, o)
			l := layers[0]
			good, err := b.load(t.Context(), ring.Q4(), l.op, l.w)
			if err != nil {
				t.Fatal(err)
			}
			// Base would refuse weights and batches of these sizes: call load without it.
			few := ring.Matrix{Rows: l.w.Rows, Cols: l.w.Cols, Data: l.w.Data[:l.w.Cols]}
			if _, err := b.load(t.Context(), ring.Q4(), l.op, few); !errors.Is(err, errPanicked) {
				t.Errorf("too few weights: %v", err)
			}
			if d := b.Devices()[0]; d.State != Ready || d.Weights != b.devices[0].residents[0].bytes() {
				t.Errorf("%+v: want the weights of one layer", d)
			}
			y := ring.NewMatrix(len(l.want.Data)/l.op.OutLen(), l.op.OutLen())
			y.Data = slices.Clip(y.Data[:y.Cols])
			if stuck {
				fake.Fail("cuStreamSynchronize", 1, fake.LaunchLost, fake.Any)
			}
			if err := good.Evaluate(t.Context(), y, l.x); !errors.Is(err, errPanicked) {
				t.Errorf("too few words of an answer: %v", err)
			}
			if d := b.Devices()[0]; (d.State == Lost) != stuck {
				t.Errorf("%+v", d)
			}
			if n := strings.Count(log.String(), "guard"); n < 2 || strings.Contains(log.String(), "out of range") {
				t.Errorf("%d stacks logged, want two, without values: %s", n, log.String())
			}
			if err := good.Free(); err != nil {
				t.Error(err)
			}
			for _, l := range layers {
				if err := l.evaluate(b); (err != nil) != stuck || stuck && !errors.Is(err, kernels.ErrDeviceLost) {
					t.Errorf("after the panic: %v", err)
				}
			}
		})
	}
}

// TestEviction: without room for all five products, each is loaded again when it is used, and
// products in use are not evicted.
func TestEviction(t *testing.T) {
	machine(t, fake.Hopper(1))
	o := options(PathInt8)
	o.Streams = 1
	l := newLayer(plan.Dense(600, 500), 4)
	o.Memory = 5 << 20 // weights of 1.2 MB each, and about as much for the work
	b := mustOpen(t, o)
	var products []plan.Product
	for range 5 {
		p, err := b.Load(t.Context(), ring.Q4(), l.op, l.w)
		if err != nil {
			t.Fatal(err)
		}
		products = append(products, p)
	}
	for i := range 15 {
		y := ring.NewMatrix(4, 500)
		if err := products[i%5].Evaluate(t.Context(), y, l.x); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(y.Data, l.want.Data) {
			t.Fatal("wrong words")
		}
	}
	d := b.Devices()[0]
	if d.Evicted < 10 || d.Weights+d.Work > o.Memory {
		t.Errorf("%d evicted, %d and %d bytes held of %d", d.Evicted, d.Weights, d.Work, o.Memory)
	}
	for _, p := range products {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if d := b.Devices()[0]; d.Weights != 0 {
		t.Errorf("%d bytes of weights are left", d.Weights)
	}
}

// TestTooLarge: weights that fit on no device are refused with ErrOutOfMemory, and a batch whose
// work does not fit is cut until it does.
func TestTooLarge(t *testing.T) {
	machine(t, fake.Hopper(2))
	o := options(PathInt8)
	o.Streams, o.Memory = 1, 1<<20
	b := mustOpen(t, o)
	if p, err := b.Load(t.Context(), ring.Q4(), plan.Dense(1000, 1000), ring.NewMatrix(1000, 1000)); p != nil || !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("weights: %v, %v", p, err)
	}
	for _, op := range []plan.Op{
		plan.Dense(40, 50),
		plan.Conv(plan.Conv2D{H: 30, W: 30, C: 3, OutC: 4, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
	} {
		l := newLayer(op, 3000/op.InLen()*20+20)
		before := fake.Alive().Launches
		if err := l.evaluate(b); err != nil {
			t.Error(err)
		}
		if fake.Alive().Launches-before < 4 {
			t.Errorf("%v: the batch is not cut", op)
		}
	}
	if d := b.Devices()[0]; d.Weights+d.Work > o.Memory {
		t.Errorf("%d and %d bytes held", d.Weights, d.Work)
	}
}

// TestIdleBuffers: weights that need the room of idle streams' buffers get it.
func TestIdleBuffers(t *testing.T) {
	machine(t, fake.Hopper(1))
	o := options(PathInt8)
	o.Streams, o.Memory, o.Pinned = 3, 17<<20, 8<<20
	b := mustOpen(t, o)
	small := newLayer(plan.Dense(8, 6), 1) // to be evicted first
	q, err := b.Load(t.Context(), ring.Q4(), small.op, small.w)
	if err != nil {
		t.Fatal(err)
	}
	b.devices[0].partBytes = 1
	if err := newLayer(plan.Dense(8, 600), 4*partRows).evaluate(b); err != nil {
		t.Fatal(err)
	}
	l := newLayer(plan.Dense(1200, 1100), 1) // 5 MB, and twice that to load them
	if d := b.Devices()[0]; d.Work+3*int64(len(l.w.Data)*wordBytes) < o.Memory {
		t.Fatalf("%d bytes of buffers leave room", d.Work)
	}
	p, err := b.Load(t.Context(), ring.Q4(), l.op, l.w)
	if err != nil {
		t.Fatal(err)
	}
	if evicted := b.Devices()[0].Evicted; evicted != 1 {
		t.Errorf("%d evicted", evicted)
	}
	if err := errors.Join(p.Close(), q.Close()); err != nil {
		t.Error(err)
	}
}

// TestBLAS: a stream whose handle of cuBLAS could not be opened again opens one when it is used.
func TestBLAS(t *testing.T) {
	for _, path := range []string{PathInt8, PathFloat64} {
		t.Run(path, func(t *testing.T) {
			machine(t, fake.Hopper(1))
			o := options(path)
			o.Streams = 1
			b := mustOpen(t, o)
			w := b.devices[0].workers[0]
			if err := w.do(w.closeBLAS); err != nil {
				t.Fatal(err)
			}
			if err := layers[0].evaluate(b); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStreamsShared: a batch gives its stream to who waits for one, and waits for none when no
// part of it is left.
func TestStreamsShared(t *testing.T) {
	machine(t, fake.Hopper(1))
	for _, parts := range []int{2, 4} {
		synctest.Test(t, func(t *testing.T) {
			o := options(PathInt8)
			o.Streams = 2
			b := mustOpen(t, o)
			d := b.devices[0]
			d.partBytes = 1
			l := newLayer(plan.Dense(9, 7), parts*fewRows)
			p, err := b.Load(t.Context(), ring.Q4(), l.op, l.w)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var held []*worker
			for range 2 {
				w, err := d.take(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, w)
			}
			y := ring.NewMatrix(l.x.Rows, l.op.OutLen())
			ended, taken := make(chan error, 1), make(chan *worker, 1)
			go func() { ended <- p.Evaluate(t.Context(), y, l.x) }()
			synctest.Wait() // until it waits twice
			go func() {
				w, err := d.take(t.Context(), nil)
				if err != nil {
					t.Error(err)
				}
				taken <- w
			}()
			synctest.Wait()
			d.give(held[0]) // with which two parts are computed before the other has it
			synctest.Wait()
			if (len(ended) == 1) != (parts == 2) || len(taken) != 1 {
				t.Fatalf("%d parts: %d ended, %d taken", parts, len(ended), len(taken))
			}
			d.give(<-taken)
			d.give(held[1])
			if err := <-ended; err != nil || !slices.Equal(y.Data, l.want.Data) {
				t.Errorf("%d parts: %v, or wrong words", parts, err)
			}
		})
	}
}

// TestParts: batches of any number of rows are cut into parts, on several streams at once.
func TestParts(t *testing.T) {
	machine(t, fake.Hopper(1))
	o := options(PathInt8)
	o.Pinned = 4 << 20
	b := mustOpen(t, o)
	b.devices[0].partBytes = 1
	for _, rows := range []int{2*partRows - 1, 2 * partRows, 2*partRows + 1, 3 * partRows, 3*partRows + 1, 4*partRows - partRows/2, 1100} {
		if err := newLayer(plan.Dense(9, 7), rows).evaluate(b); err != nil {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
	l := newLayer(plan.Conv(plan.Conv2D{H: 5, W: 4, C: 16, OutC: 3, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 100)
	if err := l.evaluate(b); err != nil {
		t.Error(err)
	}
}

// TestDevices: the descriptions of devices, and the reasons for refusing them.
func TestDevices(t *testing.T) {
	for name, test := range map[string]struct {
		machine fake.Machine
		path    string
		want    string // path, or "" for refused
		opens   bool
	}{
		"hopper":     {fake.Hopper(1), PathAuto, PathFused, true},
		"ampere":     {fake.Machine{Devices: 1, Major: 8, Memory: 1 << 32}, PathAuto, PathInt8, true},
		"no int8":    {fake.Machine{Devices: 1, Major: 7, Memory: 1 << 32, NoInt8: true}, PathAuto, PathFloat64, true},
		"too old":    {fake.Machine{Devices: 1, Major: 6, Memory: 1 << 32}, PathAuto, "", false},
		"forced":     {fake.Machine{Devices: 1, Major: 8, Memory: 1 << 32}, PathFused, "", false},
		"none":       {fake.Machine{}, PathAuto, "", false},
		"two, NVML":  {fake.Machine{Devices: 2, Major: 9, Memory: 1 << 32, NoNVML: true}, PathAuto, PathFused, true},
		"no room":    {fake.Machine{Devices: 1, Major: 9, Memory: 1 << 10}, PathAuto, "", false},
		"unknown":    {fake.Hopper(1), "fast", "", false},
		"other card": {fake.Machine{Devices: 1, Major: 10, Memory: 1 << 32}, PathAuto, PathInt8, true},
	} {
		t.Run(name, func(t *testing.T) {
			machine(t, test.machine)
			list, err := List(options(test.path))
			if err == nil {
				for _, d := range list {
					if d.Path != test.want || (d.State == Ready) != (test.want != "") || (d.State == Refused) != (d.Reason != "") {
						t.Errorf("%+v", d)
					}
				}
				if len(list) != test.machine.Devices {
					t.Errorf("%d devices", len(list))
				}
			}
			b, err := Open(options(test.path))
			if (err == nil) != test.opens {
				t.Fatalf("%v", err)
			}
			if err == nil {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			} else if test.path != "fast" && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if left := fake.Alive().Left(); left != (fake.Counts{}) {
				t.Errorf("left %+v", left)
			}
		})
	}
}

// TestChosen: only the requested devices are opened.
func TestChosen(t *testing.T) {
	machine(t, fake.Hopper(3))
	o := options(PathInt8)
	o.Devices = []int{2, 0}
	b := mustOpen(t, o)
	var got []int
	for _, d := range b.Devices() {
		got = append(got, d.Ordinal)
	}
	if !slices.Equal(got, []int{0, 2}) {
		t.Errorf("devices %v", got)
	}
	o.Devices = []int{3}
	if b, err := Open(o); b != nil || !errors.Is(err, ErrUnavailable) {
		t.Errorf("device 3: %v", err)
	}
}

// TestLend: lent words do not overlap, and all of the memory can be lent again.
func TestLend(t *testing.T) {
	machine(t, fake.Hopper(1))
	o := options(PathInt8)
	o.Pinned = 5 << 20
	b := mustOpen(t, o)
	for round := range 3 {
		rng := rand.New(rand.NewPCG(uint64(round), 0))
		var lent [][]uint32
		for {
			v := b.Lend(1 + rng.IntN(1<<16))
			if v == nil {
				break
			}
			for i := range v {
				v[i] = uint32(len(lent))
			}
			lent = append(lent, v)
		}
		if len(lent) < 10 {
			t.Fatalf("%d lent", len(lent))
		}
		for i, v := range lent {
			for _, w := range v {
				if w != uint32(i) {
					t.Fatal("words are lent twice")
				}
			}
		}
		rng.Shuffle(len(lent), func(i, j int) { lent[i], lent[j] = lent[j], lent[i] })
		for _, v := range lent {
			if !b.Reclaim(v) || b.Reclaim(v) {
				t.Fatal("not taken back, or twice")
			}
		}
		whole := b.Lend(1 << 20) // the largest power of two, merged again
		if whole == nil || !b.Reclaim(whole) {
			t.Fatal("free blocks are not put together")
		}
	}
	if b.Reclaim(make([]uint32, 10)) || b.Reclaim(nil) {
		t.Error("words of others are taken")
	}
}
