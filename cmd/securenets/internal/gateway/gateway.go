// Package gateway serves sealed networks to applications on this machine by the Open
// Inference Protocol, version 2: over REST, with the extension for binary tensors, and
// over gRPC. Clients made for inference servers work unchanged, and know nothing of masks
// and clouds. It is part of the trusted host: inputs and results pass through it in the
// clear.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/verify"
)

// What all models have in common.
const (
	inputName, outputName = "input", "output"
	modelVersion          = "1"
	datatype              = "FP32" // of the output, and of inputs that are not of integers
	platform              = "securenets"
	serverName            = "securenets"
)

// Datatypes of inputs of integers.
const (
	int64s = "INT64"
	int32s = "INT32"
	uint8s = "UINT8"
	bools  = "BOOL"
)

// Model is a sealed network as applications see it.
type Model struct {
	Name    string
	Inputs  []Input  // at least one
	Outputs []Output // at least one
	// Infer runs n samples, which lie one after the other, each with its inputs one after the
	// other, as hostclient.Session.Infer does. Of its result that is true of outputs.
	Infer func(ctx context.Context, x []float32, n int) ([]float32, error)
	// Ready says why the network cannot be run now.
	Ready func(context.Context) error

	line *line
}

// elements returns how many a sample has, of all its inputs.
func (m *Model) elements() (n int) {
	for i := range m.Inputs {
		n += m.Inputs[i].elements()
	}
	return n
}

// results returns how many elements a sample has of all outputs.
func (m *Model) results() (n int) {
	for i := range m.Outputs {
		n += m.Outputs[i].elements()
	}
	return n
}

// maxElements is more than any request may hold.
const maxElements = 1 << 40

// Options of a Gateway.
type Options struct {
	Version    string // of the program
	Batch      int    // samples that are run together, at most
	Concurrent int    // requests in work; others wait, and are not read
	MaxBytes   int64  // of a request's body, and of its answer's elements
	Log        *slog.Logger
}

// Gateway serves models. See Handler and Register.
type Gateway struct {
	o      Options
	models []Model
	slots  chan struct{} // one a request in work
	times  times         // tests set them
}

// New returns a gateway to models, whose names differ.
func New(o Options, models ...Model) *Gateway {
	for i := range models {
		models[i].line = &line{infer: models[i].Infer, most: o.Batch}
	}
	return &Gateway{o: o, models: models, slots: make(chan struct{}, o.Concurrent), times: usual}
}

func (g *Gateway) find(name, version string) (*Model, error) {
	i := slices.IndexFunc(g.models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return nil, refusal(codes.NotFound, "no model %.64q", name)
	}
	if version != "" && version != modelVersion {
		return nil, refusal(codes.NotFound, "no version %.64q of model %s: its version is %s", version, name, modelVersion)
	}
	return &g.models[i], nil
}

// ready says why not all models can be run.
func (g *Gateway) ready(ctx context.Context) error {
	for i := range g.models {
		if err := g.models[i].Ready(ctx); err != nil {
			return fmt.Errorf("model %s: %w", g.models[i].Name, err)
		}
	}
	return nil
}

// Check logs which models cannot be run now, and why. It ends with ctx.
func (g *Gateway) Check(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := range g.models {
		all.Go(func() {
			if err := g.models[i].Ready(ctx); err != nil && ctx.Err() == nil {
				g.o.Log.WarnContext(ctx, "model cannot be run now", "model", g.models[i].Name, "error", err)
			}
		})
	}
}

// enter waits until a request may be worked on, which calls leave when it has been.
func (g *Gateway) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Gateway) leave() { <-g.slots }

// infer runs n samples, and logs what is not the caller's doing. Which samples a cloud was
// wrong about is in the log alone: they may be another application's, and the cloud is not to know.
// So is what else went wrong on this machine, as it may name files.
func (g *Gateway) infer(ctx context.Context, m *Model, x []float32, n int) ([]float32, error) {
	each := m.results()
	if most := max(1, int(g.o.MaxBytes)/4/each); n > most {
		return nil, refusal(codes.InvalidArgument, "%d samples with %d results each, want %d samples at most", n, each, most)
	}
	y := make([]float32, 0, n*each)
	for i := 0; i < n; i += g.o.Batch {
		k := min(g.o.Batch, n-i)
		part, err := m.line.run(ctx, x[i*m.elements():(i+k)*m.elements()], k)
		if err != nil {
			g.report(ctx, m, err)
			var wrong *hostclient.SampleError
			switch {
			case errors.As(err, &wrong):
				err = &hostclient.SampleError{Sample: i + wrong.Sample, Err: wrong.Err}
			case errors.Is(err, verify.ErrRejected):
				err = refusal(codes.DataLoss, "a cloud answered wrongly, and nothing of it was used")
			case errors.Is(err, hostclient.ErrNoPads):
				err = refusal(codes.ResourceExhausted, "%v", hostclient.ErrNoPads)
			case codeOf(err) == codes.Internal:
				err = refusal(codes.Internal, "internal error: the gateway's log says which")
			}
			return nil, err
		}
		y = append(y, part...)
	}
	return y, nil
}

func (g *Gateway) report(ctx context.Context, m *Model, err error) {
	switch codeOf(err) {
	case codes.InvalidArgument, codes.Canceled:
	case codes.DataLoss:
		g.o.Log.ErrorContext(ctx, "a cloud answered wrongly", "model", m.Name, "error", err)
	default:
		g.o.Log.WarnContext(ctx, "inference failed", "model", m.Name, "error", err)
	}
}

// refusedError is a request that makes no sense, or asks for what there is not.
type refusedError struct {
	code codes.Code
	text string
}

func (e *refusedError) Error() string { return e.text }

func refusal(code codes.Code, format string, a ...any) error {
	return &refusedError{code, fmt.Sprintf(format, a...)}
}

// codeOf returns the gRPC code of an error. What a cloud refuses is not the caller's doing,
// whatever the cloud calls it.
func codeOf(err error) codes.Code {
	var refused *refusedError
	var cloud *hostclient.RefusedError
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case errors.As(err, &refused):
		return refused.code
	case is(verify.ErrRejected):
		return codes.DataLoss
	case is(hostclient.ErrInput):
		return codes.InvalidArgument
	case is(hostclient.ErrNoPads):
		return codes.ResourceExhausted
	case is(hostclient.ErrTimeout, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case is(context.Canceled):
		return codes.Canceled
	case errors.As(err, &cloud) && cloud.Code == codes.ResourceExhausted:
		return codes.ResourceExhausted
	case cloud != nil, is(hostclient.ErrUnavailable, hostclient.ErrBadAnswer, hostclient.ErrQuarantined, hostclient.ErrClosed):
		return codes.Unavailable
	}
	return codes.Internal
}
