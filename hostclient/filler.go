package hostclient

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// PadBytes returns the bytes that the pads of one sample take in stock.
func (s *Secret) PadBytes() int64 {
	if !s.padded() {
		return 0
	}
	words := 0
	for _, l := range s.sent {
		words += s.layers[l].masks.CloudOp().OutLen()
	}
	return 4 * int64(words)
}

// filler makes pads in the background. A nil one does nothing.
type filler struct {
	used  chan struct{} // holds a token after pads were taken
	short atomic.Bool   // a batch found too few: fill up
	done  sync.WaitGroup

	mu  sync.Mutex
	err error // why the last try failed
}

// longestPause is the most that the filler waits after an error.
const longestPause = time.Minute

// fill starts the filler that the options ask for.
func (ss *Session) fill() {
	each := ss.secret.PadBytes()
	if each == 0 || ss.options.PadMemory < each {
		return
	}
	samples := int(ss.options.PadMemory / each)
	// A part of a batch has its pads from one sheet, so sheets must not be as small as what a
	// call takes.
	quantum := max(1, min(samples/4, ss.block))
	f := &filler{used: make(chan struct{}, 1)}
	ss.filler = f
	f.done.Go(func() {
		for pause := firstPause; ; {
			least := quantum
			if f.short.Swap(false) || f.why() != nil { // what failed is tried again
				least = 1
			}
			err := ss.refill(samples, least)
			if errors.Is(err, ErrClosed) {
				return
			}
			f.failed(err)
			if err != nil && ss.options.PadError != nil {
				ss.options.PadError(err)
			}
			if errors.Is(err, ErrStockFailed) {
				return
			}
			used, again := f.used, (<-chan time.Time)(nil)
			if err == nil {
				pause = firstPause
			} else {
				used, again = nil, time.After(pause)
				pause = min(2*pause, longestPause)
			}
			select {
			case <-used:
			case <-again:
			case <-ss.closing.Done():
				return
			}
		}
	})
}

// refill adds pads to the stock, a sheet at a time, until less than least are lacking.
func (ss *Session) refill(samples, least int) error {
	ctx, leave, err := ss.enter(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	for lack := samples - ss.stock.size(); lack >= least && ctx.Err() == nil; lack = samples - ss.stock.size() {
		if err := ss.addSheet(ctx, min(lack, ss.block)); err != nil {
			return err
		}
	}
	return nil
}

// wake tells the filler that pads were taken, or that there were too few.
func (f *filler) wake(short bool) {
	if f == nil {
		return
	}
	if short {
		f.short.Store(true)
	}
	select {
	case f.used <- struct{}{}:
	default:
	}
}

// failed keeps why the last try failed; nil if it did not.
func (f *filler) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// why returns why the last try failed.
func (f *filler) why() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// wait waits for the filler to end and returns why its last try failed.
func (f *filler) wait() error {
	if f != nil {
		f.done.Wait()
	}
	return f.why()
}
