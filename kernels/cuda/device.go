//go:build gpu && cgo && linux && amd64

package cuda

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"gorgonia.org/cu"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cuda/internal/driver"
)

//go:embed kernels.ptx
var kernelsPTX string

//go:embed hopper.ptx
var hopperPTX string

// device is an opened CUDA device.
type device struct {
	info Device // as opened; see describe
	log  *slog.Logger
	cu   cu.Device
	ctx  cu.CUContext
	path path
	fns  functions
	// forced makes products on the path fused take one variant, for its test.
	forced *int

	workers []*worker
	idle    chan *worker // workers that nobody has taken
	waiting atomic.Int32 // those who wait for one

	uploading sync.Mutex // one upload is queued at a time, with what is recorded behind it
	uploads   cu.Stream  // the stream of all uploads

	mu        sync.Mutex
	state     State
	reason    string
	budget    int64
	tileBytes int64           // residues and sums of a stream at a time
	partBytes int             // bytes of words that a stream copies at a time, unless rows are longer
	held      [purposes]int64 // bytes, by purpose
	residents []*resident
	clock     int64 // counts uses of weights
	evicted   int64
}

// purpose says what memory is for.
type purpose int

const (
	forWeights purpose = iota
	forWork
	purposes
)

// functions are the kernels of the loaded modules.
type functions struct {
	split8, split64, patch8, patch64, gather8, combine8, combine64 cu.Function

	hopper hopperKernels
}

// errRefused reports a device that the backend does not use.
var errRefused = errors.New("refused")

const (
	defaultStreams = 8
	maxStreams     = 64
)

// openDevice opens a device and its streams. Its products are not tested yet.
func openDevice(ordinal int, o Options) (*device, error) {
	d := &device{info: Device{Ordinal: ordinal}, log: o.Log, state: Ready}
	var err error
	if d.cu, err = cu.GetDevice(ordinal); err != nil {
		return d, err
	}
	if d.info.Name, err = d.cu.Name(); err != nil {
		return d, err
	}
	id, err := d.cu.UUID()
	if err != nil {
		return d, err
	}
	d.info.UUID = "GPU-" + id.String()
	if d.info.Memory, err = d.cu.TotalMem(); err != nil {
		return d, err
	}
	var major, minor int
	for _, a := range []struct {
		attribute cu.DeviceAttribute
		to        *int
	}{
		{cu.ComputeCapabilityMajor, &major}, {cu.ComputeCapabilityMinor, &minor}, {cu.MultiprocessorCount, &d.info.Processors},
	} {
		if *a.to, err = d.cu.Attribute(a.attribute); err != nil {
			return d, err
		}
	}
	d.info.Capability = fmt.Sprintf("%d.%d", major, minor)
	d.info.CUDA = fmt.Sprintf("%d.%d", cu.Version()/1000, cu.Version()%1000/10)
	if major < 7 {
		return d, fmt.Errorf("%w: compute capability %s, want 7.0 or more", errRefused, d.info.Capability)
	}
	// Let waiting threads sleep. The call fails if the context is active already.
	_ = d.cu.SetPrimaryCtxFlags(cu.SchedBlockingSync)
	if d.ctx, err = d.cu.RetainPrimaryCtx(); err != nil {
		return d, err
	}
	streams := min(o.Streams, maxStreams)
	if streams <= 0 {
		streams = defaultStreams
	}
	d.idle = make(chan *worker, streams)
	for range streams {
		w, err := d.newWorker()
		if err != nil {
			return d, errors.Join(err, d.close())
		}
		d.workers = append(d.workers, w)
	}
	if err := d.workers[0].do(func() error { return d.load(o, major == 9 && minor == 0) }); err != nil {
		return d, errors.Join(err, d.close())
	}
	for _, w := range d.workers {
		d.idle <- w
	}
	return d, nil
}

// load makes the stream of uploads, loads the kernels and sets the budget. It runs on a worker.
func (d *device) load(o Options, hopper bool) (err error) {
	if d.uploads, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return err
	}
	module, err := cu.LoadData(kernelsPTX)
	if err != nil {
		return fmt.Errorf("load kernels: %w", err)
	}
	for name, to := range map[string]*cu.Function{
		"split8": &d.fns.split8, "split64": &d.fns.split64, "patch8": &d.fns.patch8, "patch64": &d.fns.patch64, "gather8": &d.fns.gather8,
		"combine8": &d.fns.combine8, "combine64": &d.fns.combine64,
	} {
		if *to, err = module.Function(name); err != nil {
			return fmt.Errorf("kernel %s: %w", name, err)
		}
	}
	d.path = pathInt8
	if hopper {
		if d.fns.hopper, err = loadHopper(); err != nil {
			d.log.Warn("fused products are off", "device", d.info.String(), "error", err)
		} else {
			d.path = pathFused
		}
	}
	if d.info.BLAS, err = driver.BLASVersion(d.workers[0].blas); err != nil {
		return err
	}
	free, _, err := cu.MemInfo()
	if err != nil {
		return err
	}
	if d.budget = o.Memory; d.budget <= 0 {
		d.budget = free / 10 * 9
	}
	d.partBytes = partBytes
	d.tileBytes = min(tileBytes, d.budget/int64(4*cap(d.idle)))
	return nil
}

// close ends the workers and releases the context. No worker may be in use.
func (d *device) close() error {
	var err error
	if d.uploads != cu.NoStream {
		err = d.workers[0].do(d.uploads.Destroy)
	}
	for _, w := range d.workers {
		err = errors.Join(err, w.close())
	}
	d.workers = nil
	if err != nil && d.usable() {
		d.lose(err)
	}
	if e := d.cu.ReleasePrimaryCtx(); e != nil && d.usable() {
		err = errors.Join(err, e)
	}
	if !d.usable() {
		return nil // a lost device's memory is freed with its context
	}
	return err
}

// take waits for a worker that nobody uses. It returns nil if over is closed first.
func (d *device) take(ctx context.Context, over <-chan struct{}) (*worker, error) {
	select {
	case w := <-d.idle:
		return w, nil
	default:
	}
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	select {
	case w := <-d.idle:
		return w, nil
	case <-over:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *device) give(w *worker) { d.idle <- w }

func (d *device) usable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state == Ready
}

// lose marks the device as lost.
func (d *device) lose(why error) {
	d.mu.Lock()
	first := d.state == Ready
	d.state = Lost
	if first {
		d.reason = why.Error()
		d.residents = nil
	}
	d.mu.Unlock()
	if first {
		d.log.Error("device lost", "device", d.info.String(), "error", why)
	}
}

// check wraps an error of the device in the sentinel that tells its kind. It gives up a
// device that is lost.
func (d *device) check(err error) error {
	if err == nil {
		return nil
	}
	var said bool
	for _, known := range []error{kernels.ErrOutOfMemory, kernels.ErrDeviceLost, context.Canceled, context.DeadlineExceeded} {
		said = said || errors.Is(err, known)
	}
	switch {
	case said:
		return err
	case driver.KindOf(err) == driver.OutOfMemory:
		return fmt.Errorf("%w: %v: %w", kernels.ErrOutOfMemory, d.info, err)
	case driver.KindOf(err) == driver.Lost:
		d.lose(err)
		return fmt.Errorf("%w: %v: %w", kernels.ErrDeviceLost, d.info, err)
	}
	return fmt.Errorf("cuda: %v: %w", d.info, err)
}

// memory is an allocation on a device. The zero value is empty.
type memory struct {
	at    cu.DevicePtr
	bytes int64
	of    purpose
}

// alloc allocates memory within the budget. It runs on a worker.
func (d *device) alloc(of purpose, bytes int64) (memory, error) {
	d.mu.Lock()
	held := int64(0)
	for _, n := range d.held {
		held += n
	}
	if bytes > d.budget-held {
		budget := d.budget
		d.mu.Unlock()
		return memory{}, fmt.Errorf("%w: %v: %d bytes wanted, %d of %d are in use", kernels.ErrOutOfMemory, d.info, bytes, held, budget)
	}
	d.held[of] += bytes
	d.mu.Unlock()
	at, err := cu.MemAlloc(bytes)
	if err != nil {
		d.mu.Lock()
		d.held[of] -= bytes
		d.mu.Unlock()
		return memory{}, d.check(err)
	}
	return memory{at, bytes, of}, nil
}

// free frees memory. It runs on a worker.
func (d *device) free(m *memory) error {
	if m.bytes == 0 {
		return nil
	}
	err := cu.MemFree(m.at)
	d.mu.Lock()
	d.held[m.of] -= m.bytes
	d.mu.Unlock()
	*m = memory{}
	return d.check(err)
}

// evict frees the least recently used weights that are not in use. It reports whether there
// were any. It runs on a worker.
func (d *device) evict() (bool, error) {
	d.mu.Lock()
	var oldest *resident
	at := 0
	for i, r := range d.residents {
		if r.users == 0 && (oldest == nil || r.used < oldest.used) {
			oldest, at = r, i
		}
	}
	if oldest == nil {
		d.mu.Unlock()
		return false, nil
	}
	d.residents = append(d.residents[:at], d.residents[at+1:]...)
	oldest.gone = true
	d.evicted++
	d.mu.Unlock()
	return true, oldest.free()
}

// describe returns the device with its current state.
func (d *device) describe() Device {
	info := d.info
	d.mu.Lock()
	defer d.mu.Unlock()
	info.State, info.Reason, info.Budget = d.state, d.reason, d.budget
	info.Weights, info.Work, info.Evicted = d.held[forWeights], d.held[forWork], d.evicted
	if d.state == Ready {
		info.Path = d.path.String()
	}
	return info
}
