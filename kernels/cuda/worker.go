//go:build gpu && cgo && linux && amd64

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"gorgonia.org/cu"
	cublas "gorgonia.org/cu/blas"

	"github.com/securenets/securenets/kernels/cuda/internal/driver"
)

// worker is a stream of a device with the thread that uses it. A caller that takes a worker
// from its device has exclusive use of it.
type worker struct {
	dev    *device
	tasks  chan task
	stream cu.Stream
	events []*cu.Event // those that were made
	// uploaded is recorded behind each upload, computed before each download.
	uploaded, computed cu.Event
	blas               *cublas.Standard // nil until openBLAS

	x, y, maps, images, sums memory // buffers on the device, which grow as needed
	in, out                  staging
}

type task struct {
	f    func() error
	done chan error
}

// newWorker starts a worker.
func (d *device) newWorker() (*worker, error) {
	w := &worker{dev: d, tasks: make(chan task)}
	go w.run()
	err := w.do(func() (err error) {
		if err = cu.SetCurrentContext(d.ctx); err != nil {
			return err
		}
		if w.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
			return err
		}
		for _, e := range []*cu.Event{&w.uploaded, &w.computed} {
			if *e, err = cu.MakeEvent(cu.BlockingSyncEvent | cu.DisableTiming); err != nil {
				return err
			}
			w.events = append(w.events, e)
		}
		return w.openBLAS()
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// openBLAS opens a handle for the stream, if none is open.
func (w *worker) openBLAS() error {
	if w.blas != nil {
		return nil
	}
	blas := new(cublas.Standard) // cublas.New panics on an error
	if err := blas.Init(); err != nil {
		return err
	}
	if err := errors.Join(driver.Pedantic(blas), driver.SetStream(blas, w.stream)); err != nil {
		return errors.Join(err, blas.Close())
	}
	w.blas = blas
	return nil
}

// closeBLAS closes the handle: after an error cublas.Standard does nothing.
func (w *worker) closeBLAS() error {
	if w.blas == nil {
		return nil
	}
	blas := w.blas
	w.blas = nil
	return blas.Close()
}

func (w *worker) run() {
	runtime.LockOSThread() // the context is current on this thread, which ends with the goroutine
	for t := range w.tasks {
		t.done <- w.guard(t.f)
	}
}

// errPanicked reports a panic on a worker's thread: a bug in this program.
var errPanicked = errors.New("cuda: panic")

// guard runs f on the worker's thread. A panic of f, which would end the process, fails f
// alone, as with the cpu backend: a caller that causes one must not take the device from all
// others. guard first waits for the work that f has queued, as it uses memory that others get
// next; a device that fails even then is lost. The error omits the panic's value, which may
// hold a caller's words.
func (w *worker) guard(f func() error) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		w.dev.log.Error("panic", "device", w.dev.info.String(), "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
		_ = w.dev.check(w.stream.Synchronize())
		err = fmt.Errorf("%w: %T", errPanicked, v)
	}()
	return f()
}

// do runs f on the worker's thread.
func (w *worker) do(f func() error) error {
	done := make(chan error, 1)
	w.tasks <- task{f, done}
	return <-done
}

// close frees what the worker holds and ends its thread.
func (w *worker) close() error {
	err := w.do(func() error {
		err := errors.Join(w.release(), w.closeBLAS())
		for _, e := range w.events {
			err = errors.Join(err, cu.DestroyEvent(e))
		}
		if w.stream != cu.NoStream {
			err = errors.Join(err, w.stream.Destroy())
		}
		return err
	})
	close(w.tasks)
	return err
}

// buffers returns the worker's memory on the device.
func (w *worker) buffers() []*memory {
	return []*memory{&w.x, &w.y, &w.maps, &w.images, &w.sums}
}

// holds reports whether the worker has memory on the device.
func (w *worker) holds() bool {
	return slices.ContainsFunc(w.buffers(), func(m *memory) bool { return m.bytes > 0 })
}

// release frees the worker's buffers.
func (w *worker) release() error {
	var err error
	for _, m := range w.buffers() {
		err = errors.Join(err, w.dev.free(m))
	}
	for _, s := range []*staging{&w.in, &w.out} {
		err = errors.Join(err, s.free())
	}
	return err
}

// makeRoom frees w's buffers, which must not be in use, and something of others: weights that are
// not in use or, when there are none, the buffers of idle workers. It reports whether there was
// anything of others. It runs on w's thread.
func (w *worker) makeRoom() (bool, error) {
	if err := w.release(); err != nil {
		return false, w.dev.check(err)
	}
	if more, err := w.dev.evict(); more || err != nil {
		return more, w.dev.check(err)
	}
	var idle []*worker
	for range cap(w.dev.idle) {
		select {
		case o := <-w.dev.idle:
			idle = append(idle, o)
		default:
		}
	}
	more := false
	var err error
	for _, o := range idle {
		more = more || o.holds()
		err = errors.Join(err, o.release())
		w.dev.give(o)
	}
	return more, w.dev.check(err)
}

// grow makes a buffer at least the given number of bytes large.
func (w *worker) grow(m *memory, bytes int64) error {
	if bytes <= m.bytes {
		return nil
	}
	if err := w.dev.free(m); err != nil {
		return err
	}
	var err error
	*m, err = w.dev.alloc(forWork, bytes)
	return err
}

// staging is pinned memory for copies to a device or from it.
type staging struct{ words []uint32 }

// grow returns n words of it, and allocates more if needed.
func (s *staging) grow(n int) ([]uint32, error) {
	if n > len(s.words) {
		if err := s.free(); err != nil {
			return nil, err
		}
		p, err := driver.HostAlloc(int64(n) * wordBytes)
		if err != nil {
			return nil, err
		}
		s.words = unsafe.Slice((*uint32)(p), n)
	}
	return s.words[:n], nil
}

func (s *staging) free() error {
	if s.words == nil {
		return nil
	}
	p := unsafe.Pointer(&s.words[0])
	s.words = nil
	return cu.MemFreeHost(p)
}

const wordBytes = 4

// upload queues the copy of words to the device, behind the uploads of all other workers: side by
// side they would all end late, and the first part of a batch could not be multiplied while
// others are copied. They share a stream, so that no copy waits for an event of another stream. The
// worker's stream waits for the copy; it must have nothing queued. Words that are not
// pinned are staged in w.in.
func (w *worker) upload(to cu.DevicePtr, words []uint32, pinned bool) error {
	if !pinned {
		staged, err := w.in.grow(len(words))
		if err != nil {
			return err
		}
		copy(staged, words)
		words = staged
	}
	d := w.dev
	d.uploading.Lock()
	defer d.uploading.Unlock()
	if err := cu.MemcpyHtoDAsync(to, unsafe.Pointer(&words[0]), int64(len(words))*wordBytes, d.uploads); err != nil {
		return err
	}
	err := w.uploaded.Record(d.uploads)
	if err == nil {
		err = w.stream.Wait(w.uploaded, 0)
	}
	if err != nil {
		return errors.Join(err, d.uploads.Synchronize()) // who waits for the worker's stream does not wait for the copy
	}
	return nil
}

// download copies words from the device, and waits for all queued work.
func (w *worker) download(words []uint32, from cu.DevicePtr, pinned bool) error {
	to := words
	if !pinned {
		var err error
		if to, err = w.out.grow(len(words)); err != nil {
			return err
		}
	}
	if err := w.computed.Record(w.stream); err != nil {
		return err
	}
	if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&to[0]), from, int64(len(to))*wordBytes, w.stream); err != nil {
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	if !pinned {
		copy(words, to)
	}
	return nil
}

// eager is how long a worker polls its stream before it sleeps: waking up takes about as long
// as a small product.
const eager = 100 * time.Microsecond

// wait waits for all queued work, the last of which is a download. It sleeps at most until that
// begins, so that waking up takes place during the copy.
func (w *worker) wait() error {
	done, err := w.poll()
	if done || err != nil {
		return err
	}
	if err := w.computed.Synchronize(); err != nil {
		return err
	}
	if done, err := w.poll(); done || err != nil {
		return err
	}
	return w.stream.Synchronize()
}

// poll reports whether all queued work ends within a short time.
func (w *worker) poll() (done bool, err error) {
	for start := time.Now(); time.Since(start) < eager; {
		if err := w.stream.Query(); err != error(cu.NotReady) {
			return true, err
		}
	}
	return false, nil
}
