package hostclient

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// samples returns how many samples x holds. It refuses values that are not finite, and what is no
// integer that the network takes.
func (nw *network) samples(x []float32) (int, error) {
	in := nw.Input.Len()
	if len(x) == 0 || len(x)%in != 0 {
		return 0, fmt.Errorf("%w: %d values for samples of %d", ErrInput, len(x), in)
	}
	if i := notFinite(x); i >= 0 {
		return 0, &SampleError{i / in, fmt.Errorf("value %d is not finite", i%in)}
	}
	var wrong *graph.IntegerError
	if err := nw.CheckInput(x); errors.As(err, &wrong) {
		return 0, &SampleError{wrong.Sample, wrong}
	} else if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return len(x) / in, nil
}

// notFinite returns the index of the first NaN or infinity, or -1.
func notFinite(x []float32) int {
	return slices.IndexFunc(x, func(v float32) bool { return math.Float32bits(v)&0x7f800000 == 0x7f800000 })
}

// checkOutputs refuses outputs of n samples that are not finite.
func checkOutputs(y []float32, n int) error {
	if i := notFinite(y); i >= 0 {
		return &SampleError{i / (len(y) / n), errors.New("its outputs leave the range of float32")}
	}
	return nil
}

// Infer runs n samples through the network. x holds them one after the other, in the
// order of the model's ONNX input (C, H, W), and each sample's inputs one after the other where
// the model has several (Description.Inputs). The result has each sample's output in that order,
// or its outputs one after the other (Description.Outputs). On any error nothing of the batch is returned, and the pads that it took are
// gone. It takes the pads of the whole batch before anything is sent, and none if ctx has
// ended by then.
func (ss *Session) Infer(ctx context.Context, x []float32, n int) ([]float32, error) {
	if have, err := ss.secret.net.samples(x); err != nil {
		return nil, err
	} else if have != n {
		return nil, fmt.Errorf("%w: %d samples, want %d", ErrInput, have, n)
	}
	ctx, leave, err := ss.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if ctx.Err() != nil { // pads that are taken do not come back
		return nil, stopped(ctx)
	}
	padded := ss.secret.padded()
	var stocked []sheet
	if padded {
		stocked, err = ss.stock.take(n, ss.options.RequireStock)
		ss.filler.wake(err != nil)
		if why := ss.filler.why(); why != nil && errors.Is(err, ErrNoPads) {
			err = fmt.Errorf("%w: more could not be made: %w", err, why)
		}
		if err != nil {
			return nil, err
		}
	}
	in, each := ss.secret.net.Input.Len(), ss.secret.net.shapes[ss.secret.net.Output].Len()
	out := make([]float32, n*each)
	blocks, blocksCtx := errgroup.WithContext(ctx)
	blocks.SetLimit(ss.parts)
	part := ss.PartSize(n)
	for i, k := 0, 0; i < n && blocksCtx.Err() == nil; i += k {
		sh := sheet{n: min(n-i, part)}
		switch {
		case len(stocked) > 0 && stocked[0].n > part:
			if sh, err = stocked[0].cut(part); err != nil {
				return nil, errors.Join(err, blocks.Wait())
			}
		case len(stocked) > 0:
			sh, stocked = stocked[0], stocked[1:]
		}
		k = sh.n
		blocks.Go(func() error {
			y, err := ss.infer(blocksCtx, x[i*in:(i+k)*in], i, sh)
			copy(out[i*each:], y)
			return err
		})
	}
	if err := blocks.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, stopped(ctx)
	}
	if err := checkOutputs(out, n); err != nil {
		return nil, err
	}
	ss.samples.Add(int64(n))
	return out, nil
}

// infer runs one block of a batch, which begins with the batch's sample first, with
// the pads of sh or, where there are none, with new ones.
func (ss *Session) infer(ctx context.Context, x []float32, first int, sh sheet) ([]float32, error) {
	n := sh.n
	if ss.secret.padded() && sh.pads == nil {
		var err error
		if sh, err = ss.newPads(ctx, n); err != nil {
			return nil, err
		}
		ss.onTheSpot.Add(int64(n))
	}
	return ss.secret.net.run(x, n, func(l int, x []float32) ([]float32, error) {
		y, err := ss.layer(ctx, l, x, first, n, sh)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
		return y, nil
	})
}

// layer computes layer l of n samples where it is placed, with its pads of sh.
func (ss *Session) layer(ctx context.Context, l int, x []float32, first, n int, sh sheet) ([]float32, error) {
	layer := &ss.secret.layers[l]
	if layer.kept() {
		return ss.keep(ctx, l, x, first, n)
	}
	var pads *transform.Pads
	if ss.secret.padded() {
		pads = sh.pads[layer.at]
	}
	return ss.repeat(ctx, l, x, first, n, pads)
}

// keep computes layer l of n samples on the host. The first is the batch's sample first.
func (ss *Session) keep(ctx context.Context, l int, x []float32, first, n int) ([]float32, error) {
	layer := &ss.secret.layers[l]
	y, err := inClear(ctx, ss.secret.ring, ss.products[l], ss.secret.net.layers[l].Plan(), ss.scales[l], layer.xmax, x, first, n)
	if err != nil && ctx.Err() != nil {
		err = stopped(ctx)
	}
	if err != nil {
		return nil, err
	}
	ss.kept.Add(int64(n))
	return y, nil
}

// multiply computes layer l of n samples: W x + bias, by the clouds, checked, to
// memory of floats. The first is the batch's sample first. With one role it sends what
// it masked again, as long as there are tries.
func (ss *Session) multiply(ctx context.Context, l int, x []float32, first, n int, pads *transform.Pads, tries *attempts) ([]float32, error) {
	layer := &ss.secret.layers[l]
	call, err := layer.masks.MaskFloats(x, n, layer.xmax, layer.key, pads)
	if err != nil {
		return nil, badActivations(err, first)
	}
	defer call.Close()
	asked := ss.asked()
	answers, err := ss.evaluate(ctx, l, call.Masked(), asked)
	for err != nil && len(asked) == 1 {
		if err := tries.again(ctx, err); err != nil {
			return nil, err
		}
		ss.retried.Add(1)
		asked = ss.asked()
		answers, err = ss.evaluate(ctx, l, call.Masked(), asked)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, yhat := range answers {
			answered.Put(yhat.Data)
		}
	}()
	candidate, err := call.UnmaskDecoded(answers)
	if err != nil {
		return nil, err
	}
	y := floats.Get(n * layer.masks.Op().OutLen())
	err = layer.key.OpenFloats(y, candidate, call.Expected(), call.Scales(), ss.scales[l])
	ss.checked.Add(int64(n))
	if err != nil {
		floats.Put(y)
		return nil, ss.reject(ctx, err, l, first, call, answers, asked)
	}
	return y, nil
}

// What follows lends memory to calls, one kind to each, of all sessions: memory that
// is new to the process takes longer to write than what there is to compute.
var (
	// floats are values of networks. They never leave the host.
	floats pool.Of[float32]
	// answered are the words of answers. Those of a call that failed are left to the
	// garbage collector: answers may still be written there.
	answered pool.Of[uint32]
)

// errOther ends the wait for one role's answer when another one's failed.
var errOther = errors.New("hostclient: another role failed")

// evaluate has every role's cloud of those asked multiply its masked input with layer
// l's weights, all at once. The first that fails ends the call. That ctx ends is no cloud's fault.
func (ss *Session) evaluate(ctx context.Context, l int, masked []transform.Masked, asked []*Client) ([]ring.Matrix, error) {
	due := time.Now().Add(ss.options.Timeout)
	call, cancel := context.WithDeadlineCause(ctx, due, errHung)
	defer cancel()
	call, fail := context.WithCancelCause(call)
	defer fail(nil)
	layer := &ss.secret.layers[l]
	cols := layer.masks.CloudOp().OutLen()
	answers := make([]ring.Matrix, len(masked))
	errs := make([]error, len(masked))
	of := make([]traffic, len(masked))
	start := time.Now()
	var wg sync.WaitGroup
	for role, m := range masked {
		wg.Go(func() {
			answers[role] = ring.Matrix{Rows: m.Rows(), Cols: cols, Data: answered.Get(m.Rows() * cols)}
			moveOn := func() { ss.clients[role].next(asked[role]) }
			t, err := asked[role].evaluate(call, due, moveOn, ss.secret.ring, ss.secret.digests[role], layer.at, m, answers[role])
			of[role] = t
			if errors.Is(err, errHung) {
				err = ErrTimeout // other parts end because of it, and their streams do not hang
			}
			switch {
			case err == nil, errors.Is(err, errOther), errors.Is(err, context.Cause(ctx)): // no fault of this cloud
			default:
				errs[role] = blame(asked, role, err)
				fail(errOther)
			}
		})
	}
	wg.Wait()
	ss.waited.Add(int64(time.Since(start)))
	var longest traffic
	for _, t := range of {
		ss.up.Add(t.up)
		ss.down.Add(t.down)
		if t.compute > longest.compute {
			longest = t
		}
	}
	ss.queued.Add(int64(longest.queue))
	ss.computed.Add(int64(longest.compute))
	err := errors.Join(errs...)
	if err == nil && ctx.Err() != nil {
		err = stopped(ctx)
	}
	return answers, err
}
