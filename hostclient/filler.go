package hostclient

import (
	"context"
	"errors"
	"sync"
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
	used chan struct{} // holds a token after pads were taken
	done sync.WaitGroup
	err  error // set before done
}

// fill starts the filler that the options ask for.
func (ss *Session) fill() {
	each := ss.secret.PadBytes()
	if each == 0 || ss.options.PadMemory < each {
		return
	}
	samples := int(ss.options.PadMemory / each)
	f := &filler{used: make(chan struct{}, 1)}
	ss.filler = f
	f.done.Go(func() {
		for {
			for lack := samples - ss.stock.size(); lack > 0; lack = samples - ss.stock.size() {
				if f.err = ss.Precompute(context.Background(), min(lack, ss.block)); f.err != nil {
					if errors.Is(f.err, ErrClosed) {
						f.err = nil
					}
					return
				}
			}
			select {
			case <-f.used:
			case <-ss.closing.Done():
				return
			}
		}
	})
}

// wake tells the filler that pads were taken.
func (f *filler) wake() {
	if f == nil {
		return
	}
	select {
	case f.used <- struct{}{}:
	default:
	}
}

// wait waits for the filler to end and returns why it ended early.
func (f *filler) wait() error {
	if f == nil {
		return nil
	}
	f.done.Wait()
	return f.err
}
