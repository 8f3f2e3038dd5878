//go:build gpu && cgo && linux && amd64

package cuda

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cuda/internal/driver"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Backend implements kernels.Backend and kernels.Lender.
type Backend struct {
	kernels.Base
	devices  []*device
	refused  []Device
	fallback plan.Multiplier
	pinned   pinned
}

var (
	_ kernels.Backend = (*Backend)(nil)
	_ kernels.Lender  = (*Backend)(nil)
)

var (
	systemDriver = []string{"libcuda.so.1"}
	systemBLAS   = []string{"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"}
)

// Open opens the devices and tests each. Devices that fail are refused: Devices tells why. If
// none is left, the error wraps ErrUnavailable.
func Open(o Options) (*Backend, error) {
	b, err := open(o)
	if err != nil {
		return nil, err
	}
	if len(b.devices) == 0 {
		failed := ErrUnavailable
		for _, d := range b.refused {
			failed = fmt.Errorf("%w: %v: %s", failed, d, d.Reason)
		}
		return nil, failed
	}
	if err := b.pinned.open(b.devices[0], o.Pinned); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// List opens the devices, tests each, and describes all.
func List(o Options) ([]Device, error) {
	b, err := open(o)
	if err != nil {
		return nil, err
	}
	list := b.Devices()
	return list, b.Close()
}

func open(o Options) (*Backend, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Driver == nil {
		o.Driver = systemDriver
	}
	if o.BLAS == nil {
		o.BLAS = systemBLAS
	}
	paths, err := parsePath(o.Path)
	if err != nil {
		return nil, err
	}
	if err := driver.Open(o.Driver, o.BLAS); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	count, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if count == 0 {
		return nil, fmt.Errorf("%w: the driver has none", ErrUnavailable)
	}
	b := &Backend{fallback: o.Fallback}
	b.Init("cuda", b.load)
	for i := range count {
		if o.Devices != nil && !slices.Contains(o.Devices, i) {
			continue
		}
		d, err := openDevice(i, o)
		if err == nil {
			if err = d.choose(paths); err == nil {
				b.devices = append(b.devices, d)
				continue
			}
			err = errors.Join(err, d.close())
		}
		d.info.State, d.info.Reason = Refused, err.Error()
		o.Log.Warn("device refused", "device", d.info.String(), "reason", err)
		b.refused = append(b.refused, d.info)
	}
	for _, i := range o.Devices {
		if i < 0 || i >= count {
			return nil, errors.Join(fmt.Errorf("%w: there is no device %d, the driver has %d", ErrUnavailable, i, count), b.Close())
		}
	}
	return b, nil
}

// parsePath returns the paths to try.
func parsePath(name string) ([]path, error) {
	all := []path{pathFused, pathInt8, pathFloat64}
	if name == "" || name == PathAuto {
		return all, nil
	}
	for _, p := range all {
		if p.String() == name {
			return []path{p}, nil
		}
	}
	return nil, fmt.Errorf("cuda: no path %.32q", name)
}

// choose sets the device's path to the first that it has and that is exact.
func (d *device) choose(paths []path) error {
	best := d.path // the first that the device supports
	var failed error
	for _, p := range paths {
		if p < best {
			failed = errors.Join(failed, fmt.Errorf("%v: %w: compute capability %s", p, errRefused, d.info.Capability))
			continue
		}
		d.path = p
		err := d.test()
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("%v: %w", p, err))
		if !d.usable() {
			break
		}
		d.log.Warn("path refused", "device", d.info.String(), "path", p.String(), "error", err)
	}
	return failed
}

// test checks products of the device alone for exactness, on the path fused by each variant.
func (d *device) test() error {
	alone := &Backend{devices: []*device{d}}
	alone.Init("cuda", alone.load)
	if d.path != pathFused {
		return kernels.SelfTest(context.Background(), alone)
	}
	defer func() { d.forced = nil }()
	for i := range variants {
		d.forced = &i
		if err := kernels.SelfTest(context.Background(), alone); err != nil {
			return fmt.Errorf("%s: %w", variants[i].name, err)
		}
	}
	return nil
}

// Devices describes the devices, the refused ones last.
func (b *Backend) Devices() []Device {
	var list []Device
	for _, d := range b.devices {
		list = append(list, d.describe())
	}
	list = append(list, b.refused...)
	figures(list)
	return list
}

// Close implements kernels.Backend. It frees the memory that Lend returned.
func (b *Backend) Close() error {
	if err := b.Base.Close(); err != nil {
		return err
	}
	err := b.pinned.close()
	for _, d := range b.devices {
		err = errors.Join(err, d.close())
	}
	b.devices = nil
	return err
}

// matrix is a loaded weight matrix, wherever it is.
type matrix struct {
	b     *Backend
	ring  ring.Ring
	op    plan.Op
	words []uint32 // the weights, for loading them again
	small bool

	mu   sync.Mutex
	home *resident
	last plan.Product // of the fallback, when no device is left
}

func (b *Backend) load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
	m := &matrix{b: b, ring: r, op: op, words: slices.Clone(w.Data), small: r.LiftsToInt8(w.Data)}
	// Load them on a device now, so that weights that do not fit are refused here.
	use, err := m.acquire(ctx)
	if err != nil {
		return kernels.Loaded{}, errors.Join(err, m.free())
	}
	bytes := int64(len(m.words)) * wordBytes
	if use != nil {
		bytes += use.bytes()
		use.release()
	}
	return kernels.Loaded{Bytes: bytes, Evaluate: m.evaluate, Free: m.free}, nil
}

// acquire returns the weights on a device, loading them if they are on none. They stay there
// until release. If no device is left, it returns nil and m.last is set.
func (m *matrix) acquire(ctx context.Context) (*resident, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.home != nil && m.home.acquire() {
		return m.home, nil
	}
	m.home = nil
	var failed error
	for _, d := range m.b.roomiest() {
		r, err := m.place(ctx, d)
		if err == nil {
			m.home = r
			return r, nil
		}
		failed = errors.Join(failed, err)
		if !errors.Is(err, kernels.ErrDeviceLost) && !errors.Is(err, kernels.ErrOutOfMemory) {
			return nil, err
		}
	}
	if errors.Is(failed, kernels.ErrOutOfMemory) {
		return nil, failed
	}
	if m.b.fallback == nil {
		return nil, errors.Join(fmt.Errorf("%w: none is left", kernels.ErrDeviceLost), failed)
	}
	if m.last == nil {
		var err error
		m.last, err = m.b.fallback.Load(ctx, m.ring, m.op, ring.Matrix{Rows: m.op.Rows(), Cols: m.op.Terms(), Data: m.words})
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// roomiest returns the ready devices, the one with the most room first.
func (b *Backend) roomiest() []*device {
	var list []*device
	room := map[*device]int64{}
	for _, d := range b.devices {
		d.mu.Lock()
		if d.state == Ready {
			list = append(list, d)
			room[d] = d.budget - d.held[forWeights]
		}
		d.mu.Unlock()
	}
	slices.SortStableFunc(list, func(a, b *device) int { return int(min(1, max(-1, room[b]-room[a]))) })
	return list
}

// place loads the weights on a device, and acquires them.
func (m *matrix) place(ctx context.Context, d *device) (*resident, error) {
	w, err := d.take(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer d.give(w)
	r := d.newResident(m.ring, m.op, m.small)
	if err := w.do(func() error { return r.load(w, m.words) }); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != Ready {
		return nil, fmt.Errorf("%w: %v", kernels.ErrDeviceLost, d.info)
	}
	r.users, r.used = 1, d.tick()
	d.residents = append(d.residents, r)
	return r, nil
}

// tick advances the clock of uses and returns its time. The caller holds d.mu.
func (d *device) tick() int64 {
	d.clock++
	return d.clock
}

// acquire keeps the weights from being evicted until release. It returns false if they are
// gone already.
func (r *resident) acquire() bool {
	r.dev.mu.Lock()
	defer r.dev.mu.Unlock()
	if r.gone || r.dev.state != Ready {
		return false
	}
	r.users++
	r.used = r.dev.tick()
	return true
}

func (r *resident) release() {
	r.dev.mu.Lock()
	r.users--
	r.dev.mu.Unlock()
}

// evaluate is plan.Product.Evaluate. If a device is lost meanwhile, it starts again elsewhere.
func (m *matrix) evaluate(ctx context.Context, y, x ring.Matrix) error {
	for {
		r, err := m.acquire(ctx)
		if err != nil {
			return err
		}
		if r == nil {
			return m.last.Evaluate(ctx, y, x)
		}
		err = m.b.run(ctx, r, y, x)
		r.release()
		if !errors.Is(err, kernels.ErrDeviceLost) {
			return err
		}
	}
}

// run computes y on r's device, parts of it on several streams.
func (b *Backend) run(ctx context.Context, r *resident, y, x ring.Matrix) error {
	pinnedX, pinnedY := b.pinned.holds(x.Data), b.pinned.holds(y.Data)
	ends := r.cut(x.Rows)
	parts := len(ends)
	var next atomic.Int64         // part that nobody has taken
	over := make(chan struct{})   // closed when all are taken
	end := sync.OnceFunc(func() { // also after an error, to stop the other streams
		next.Store(int64(parts))
		close(over)
	})
	// some computes parts on a worker until none is left, or somebody else waits for a worker.
	some := func(w *worker) (done bool, err error) {
		for {
			part := int(next.Add(1) - 1)
			if part >= parts-1 {
				end()
			}
			if part >= parts {
				return true, nil
			}
			if err := ctx.Err(); err != nil {
				return true, err
			}
			i, j := 0, ends[part]
			if part > 0 {
				i = ends[part-1]
			}
			if err := w.evaluate(r, y.RowRange(i, j), x.RowRange(i, j), pinnedY, pinnedX); err != nil {
				return true, err
			}
			if r.dev.waiting.Load() > 0 {
				return false, nil
			}
		}
	}
	work := func() error {
		for {
			w, err := r.dev.take(ctx, over)
			if w == nil {
				return err
			}
			done := false
			err = w.do(func() (err error) {
				done, err = some(w)
				return err
			})
			r.dev.give(w)
			if err != nil {
				end()
			}
			if done || err != nil {
				return err
			}
		}
	}
	var wg sync.WaitGroup
	streams := min(parts, cap(r.dev.idle))
	errs := make([]error, streams)
	for i := 1; i < streams; i++ {
		wg.Go(func() { errs[i] = work() })
	}
	errs[0] = work()
	wg.Wait()
	return errors.Join(errs...)
}

// free frees the weights, which are not in use.
func (m *matrix) free() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.last != nil {
		err = m.last.Close()
	}
	r := m.home
	m.home = nil
	if r == nil {
		return err
	}
	d := r.dev
	d.mu.Lock()
	at := slices.Index(d.residents, r)
	if at >= 0 {
		d.residents = slices.Delete(d.residents, at, at+1)
	}
	d.mu.Unlock()
	if at < 0 {
		return err // evicted, or lost with its device
	}
	w, e := d.take(context.Background(), nil)
	if e != nil {
		return errors.Join(err, e)
	}
	defer d.give(w)
	return errors.Join(err, w.do(r.free))
}

// pinned lends words of one piece of pinned memory: a buddy allocator.
type pinned struct {
	dev  *device
	all  []uint32
	mu   sync.Mutex
	free [64][]int   // offsets of free blocks of 2^i words
	lent map[int]int // offset to i
}

const leastLent = 10 // 2^leastLent words are the smallest block

func (p *pinned) open(d *device, bytes int64) error {
	words := bytes / wordBytes &^ (1<<leastLent - 1)
	if words <= 0 {
		return nil
	}
	w, err := d.take(context.Background(), nil)
	if err != nil {
		return err
	}
	defer d.give(w)
	var at unsafe.Pointer
	if err := w.do(func() (err error) {
		at, err = driver.HostAlloc(words * wordBytes)
		return err
	}); err != nil {
		return d.check(err)
	}
	p.dev, p.all, p.lent = d, unsafe.Slice((*uint32)(at), words), map[int]int{}
	for from := 0; from < len(p.all); { // cut into the largest aligned blocks
		i := leastLent
		for from&(1<<i) == 0 && from+1<<(i+1) <= len(p.all) {
			i++
		}
		p.free[i] = append(p.free[i], from)
		from += 1 << i
	}
	return nil
}

func (p *pinned) close() error {
	if p.all == nil {
		return nil
	}
	at := unsafe.Pointer(&p.all[0])
	p.all = nil
	err := p.dev.workers[0].do(func() error { return cu.MemFreeHost(at) })
	if !p.dev.usable() {
		return nil // the error of a lost device does not matter
	}
	return err
}

// offset returns where v lies in p.all, or -1.
func (p *pinned) offset(v []uint32) int {
	if len(p.all) == 0 || cap(v) == 0 {
		return -1
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(v))) - uintptr(unsafe.Pointer(&p.all[0]))
	if at >= uintptr(len(p.all))*wordBytes {
		return -1 // also for v before p.all, where at wraps around
	}
	return int(at / wordBytes)
}

// holds reports whether devices may copy v directly: it is pinned, and the device whose
// context owns the memory is not lost.
func (p *pinned) holds(v []uint32) bool { return p.offset(v) >= 0 && p.dev.usable() }

// Lend implements kernels.Lender.
func (b *Backend) Lend(n int) []uint32 { return b.pinned.lend(n) }

// Reclaim implements kernels.Lender.
func (b *Backend) Reclaim(words []uint32) bool { return b.pinned.reclaim(words) }

func (p *pinned) lend(n int) []uint32 {
	want := leastLent
	for want < len(p.free)-1 && 1<<want < n {
		want++
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := want
	for i < len(p.free) && len(p.free[i]) == 0 {
		i++
	}
	if i == len(p.free) {
		return nil
	}
	at := p.free[i][len(p.free[i])-1]
	p.free[i] = p.free[i][:len(p.free[i])-1]
	for ; i > want; i-- {
		p.free[i-1] = append(p.free[i-1], at+1<<(i-1))
	}
	p.lent[at] = want
	return p.all[at : at+n : at+1<<want]
}

func (p *pinned) reclaim(v []uint32) bool {
	at := p.offset(v)
	if at < 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.lent[at]
	if !ok {
		return false
	}
	delete(p.lent, at)
	for ; i < len(p.free)-1; i++ { // merge with its buddy to a larger block
		buddy := slices.Index(p.free[i], at^1<<i)
		if buddy < 0 {
			break
		}
		p.free[i] = slices.Delete(p.free[i], buddy, buddy+1)
		at &^= 1 << i
	}
	p.free[i] = append(p.free[i], at)
	return true
}
