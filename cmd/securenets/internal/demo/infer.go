package demo

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/reference"
)

// padBatches is for how many batches pads are made at a time: the stock holds
// one word an output of every layer and image.
const padBatches = 4

// tally is what phases of one kind took together, of this process.
type tally struct{ host, elapsed time.Duration }

// measure adds what f takes. Nothing else may run beside it.
func (t *tally) measure(f func() error) error {
	runtime.GC() // a phase does not pay for another's garbage
	took, err := spend(f)
	t.host += took.Host
	t.elapsed += took.Elapsed
	return err
}

// class returns the index of the highest score.
func class(scores []float32) int { return slices.Index(scores, slices.Max(scores)) }

// classes appends the class of each of n samples.
func classes(dst []int, y []float32, n int) []int {
	for scores := range slices.Chunk(y, len(y)/n) {
		dst = append(dst, class(scores))
	}
	return dst
}

// accuracy returns the fraction of classes that are the labels.
func (r *run) accuracy(classes []int) float64 {
	right := 0
	for i, c := range classes {
		if c == int(r.labels[i]) {
			right++
		}
	}
	return float64(right) / float64(len(classes))
}

// inferPrivately runs the images on the clouds. Pads are made for a few batches
// and then used up, one after the other, so that the two are measured apart.
func (r *run) inferPrivately(ctx context.Context) error {
	s, err := r.openSession(ctx, r.addrs(), hostclient.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	var offline, online tally
	for from := 0; from < r.Samples; from += padBatches * r.Batch {
		to := min(from+padBatches*r.Batch, r.Samples)
		r.Progress("private inference", from, r.Samples)
		if r.padded() { // others have no offline part
			if err := offline.measure(func() error { return s.Precompute(ctx, to-from) }); err != nil {
				return err
			}
		}
		err := online.measure(func() error {
			return batches(from, to, r.Batch, func(i, j int) error {
				r.Progress("private inference", i, r.Samples)
				y, err := s.Infer(ctx, r.images.Range(i, j), j-i)
				if err != nil {
					return err
				}
				r.classes = classes(r.classes, y, j-i)
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	n, stats := int64(r.Samples), s.Stats()
	r.result.AccuracyPrivate = r.accuracy(r.classes)
	r.result.Checked, r.result.Rejected = stats.Checked, stats.Rejected
	r.result.BytesUp, r.result.BytesDown = stats.BytesUp/n, stats.BytesDown/n
	r.result.HostOnlineNS, r.result.HostOfflineNS = online.host.Nanoseconds()/n, offline.host.Nanoseconds()/n
	r.result.ImagesPerS = float64(n) / online.elapsed.Seconds()
	return nil
}

// inferLocally runs the images in float32, as one would without a cloud.
func (r *run) inferLocally(ctx context.Context) error {
	var model *reference.Model
	defer func() {
		if model != nil {
			model.Close()
		}
	}()
	x := make([]float32, r.Batch*r.graph.Input.Len())
	var local []int
	var took tally
	compiled := 0 // the batch size that model is for
	err := batches(0, r.Samples, r.Batch, func(i, j int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.Progress("local inference", i, r.Samples)
		x := x[:(j-i)*r.graph.Input.Len()]
		graph.CHWToHWC(x, r.images.Range(i, j), j-i, r.graph.Input)
		if compiled != j-i { // the first batch, and the last where it is shorter
			if model != nil {
				model.Close()
			}
			var err error
			if model, err = reference.New(r.graph, j-i); err != nil {
				return err
			}
			compiled = j - i
			if _, err := model.Forward(x); err != nil { // its first pass takes memory
				return err
			}
		}
		var y []float32
		err := took.measure(func() (err error) { y, err = model.Forward(x); return err })
		if err != nil {
			return err
		}
		local = classes(local, y, j-i)
		return nil
	})
	if err != nil {
		return fmt.Errorf("demo: local inference: %w", err)
	}
	same := 0
	for i := range local {
		if local[i] == r.classes[i] {
			same++
		}
	}
	r.result.AccuracyFloat = r.accuracy(local)
	r.result.Agreement = float64(same) / float64(r.Samples)
	r.result.LocalNS = took.host.Nanoseconds() / int64(r.Samples)
	return nil
}
