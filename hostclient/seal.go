package hostclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// SealOptions are the choices made at sealing. The zero value is the default
// scheme, calibrated without data.
type SealOptions struct {
	Scheme transform.Scheme // zero: transform.DefaultScheme
	// Ring is what products are computed in. Zero: RingQ4.
	Ring Ring
	// Calibration holds samples as Infer takes them, from which the bits of each layer's
	// activations are chosen. Without samples, the bits are chosen for normally
	// distributed activations after a ReLU.
	Calibration []float32
	// Place says which layers are sent. Zero: PlaceAll.
	Place Place
	// Multiplier computes the calibration's products, and those that PlaceAuto measures;
	// it is needed with either. PlaceAuto assumes that sessions will use the same one.
	Multiplier Multiplier
	// Link is how sessions will reach their clouds, so that PlaceAuto measures what
	// sending costs that way. Zero: LinkShared, which is LinkSocket if no memory can be
	// shared.
	Link Link
	// Echo is the address of an echo (ServeEcho) in another process, with which PlaceAuto
	// measures what sending costs: "tls:HOST:PORT" for LinkTLS, else "unix:/path".
	// Without it the echo runs in this process, where a connection costs about half of
	// what it costs between two.
	Echo string
	// Progress is called after each linear layer. May be nil.
	Progress func(done, total int)

	measure costs // for tests; nil: what is measured here
}

// costs measures what a layer costs here, given its integer weights and masked ones.
type costs func(ctx context.Context, l layer, op plan.Op, w ring.Matrix, whats []ring.Matrix) (LayerCost, error)

// SealedModel is the file for one role's cloud, and public to that cloud. Under lagrange
// no other cloud may see it: any two roles' files give away the weights.
type SealedModel struct {
	Role   int
	Digest Digest
	Bytes  []byte
}

// ReadModel returns the bytes of an ONNX model's file for Seal, Preview and NewEmulator,
// with the weights in them that the model keeps in files beside it. OpenModel holds less
// memory.
func ReadModel(path string) ([]byte, error) {
	b, err := onnx.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	return b, nil
}

// Seal reads an ONNX model, quantises and masks its linear layers, and returns one sealed
// model for each role and the secret that belongs to them. If PlaceAuto keeps every
// layer, there is no sealed model. For a large model see ModelFile.SealDir.
func Seal(ctx context.Context, model []byte, o SealOptions) ([]SealedModel, *Secret, error) {
	g, err := onnx.ParseStored(model)
	if err != nil {
		return nil, nil, fmt.Errorf("hostclient: seal: %w", err)
	}
	models, secret, err := seal(ctx, g, o)
	if err != nil {
		return nil, nil, fmt.Errorf("hostclient: seal: %w", err)
	}
	return models, secret, nil
}

// seal is Seal of a graph.
func seal(ctx context.Context, g *graph.Graph, o SealOptions) ([]SealedModel, *Secret, error) {
	var files []*bytes.Buffer // one a role
	secret, err := sealTo(ctx, g, o, func(_, _ int, size int64) (io.Writer, error) {
		b := new(bytes.Buffer)
		b.Grow(int(size))
		files = append(files, b)
		return b, nil
	})
	if err != nil {
		return nil, nil, err
	}
	models := make([]SealedModel, len(files))
	for i, b := range files {
		models[i] = SealedModel{Role: i, Digest: secret.digests[i], Bytes: b.Bytes()}
	}
	return models, secret, nil
}

// sealTo seals a graph layer by layer. It writes each role's sealed model, as it comes, to
// what create returns for it, the number of roles and its size.
func sealTo(ctx context.Context, g *graph.Graph, o SealOptions, create func(role, roles int, size int64) (io.Writer, error)) (*Secret, error) {
	s, err := newSealing(ctx, g, o)
	if err != nil {
		return nil, err
	}
	if err := s.place(ctx); err != nil {
		return nil, err
	}
	if err := s.seal(ctx, create); err != nil {
		return nil, err
	}
	return s.secret, nil
}

// sealing is a network that is being sealed. It holds the weights of one layer at a time.
type sealing struct {
	SealOptions
	ring    ring.Ring
	net     *network
	rho     []float64 // one a layer
	weights oneLayer
	secret  *Secret
}

// newSealing checks a graph and options, and calibrates. It draws all masks: they say
// what clouds will evaluate, and are small.
func newSealing(ctx context.Context, g *graph.Graph, o SealOptions) (*sealing, error) {
	r, err := o.Ring.ring()
	if err != nil {
		return nil, err
	}
	if o.Scheme == (transform.Scheme{}) {
		o.Scheme = transform.DefaultScheme()
	}
	if o.Place == "" {
		o.Place = PlaceAll
	}
	if _, err := ParsePlace(string(o.Place)); err != nil {
		return nil, err
	}
	if o.Link == "" {
		o.Link = LinkShared
	}
	if _, err := ParseLink(string(o.Link)); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	nw, rho, err := prepare(ctx, r, g, o)
	if err != nil {
		return nil, err
	}
	var links []LinkCost
	if o.Place == PlaceAuto && o.measure == nil {
		m, err := newMeter(ctx, r, o, nw.layers)
		if err != nil {
			return nil, err
		}
		o.measure, links = m.cost, m.links
	}
	secret := &Secret{&content{scheme: o.Scheme, ring: r, links: links, layers: make([]layer, len(nw.layers))}}
	if secret.net, err = nw.bare(); err != nil {
		return nil, err
	}
	for l, op := range nw.layers {
		masks, err := transform.NewLayer(r, o.Scheme, op.Plan())
		if err == nil {
			err = checkSize(r, masks.CloudOp())
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
		secret.layers[l].masks = masks
	}
	weights := nw.oneLayer()
	for l, op := range nw.layers { // that they are finite, before there is work
		if _, err := weights.read(op); err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
	}
	if o.Scheme.Inputs == transform.InputPad {
		rand.Read(secret.stock[:]) // never fails: the process would end
	}
	return &sealing{SealOptions: o, ring: r, net: nw, rho: rho, weights: weights, secret: secret}, nil
}

// place decides which layers are kept, by what each costs, sealed in memory.
func (s *sealing) place(ctx context.Context) error {
	for l := range s.secret.layers {
		if s.Place == PlaceAll {
			break
		}
		if err := s.placeLayer(ctx, l); err != nil {
			return fmt.Errorf("layer %d: %w", l, err)
		}
		s.Progress(l+1, len(s.secret.layers))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	s.secret.number()
	return nil
}

func (s *sealing) placeLayer(ctx context.Context, l int) error {
	layer, op := &s.secret.layers[l], s.net.layers[l].Plan()
	w, err := s.quantise(l)
	if err != nil {
		return err
	}
	whats, err := layer.masks.Seal(w)
	if err != nil {
		return err
	}
	weights := words(s.ring, op.Rows(), op.Terms(), w)
	c, err := s.measure(ctx, *layer, op, weights, whats)
	if err != nil {
		return fmt.Errorf("what it costs: %w", err)
	}
	layer.cost = &c
	if c.Saving() > 0 {
		layer.masks, layer.key, layer.weights = nil, nil, &weights
	}
	return nil
}

// quantise returns the integer weights of layer l, until it is called again. It completes
// what the host keeps of the layer, unless an earlier call has.
func (s *sealing) quantise(l int) ([]int32, error) {
	layer, linear := &s.secret.layers[l], s.net.layers[l]
	op := linear.Plan()
	weights, err := s.weights.read(linear)
	if err != nil {
		return nil, err
	}
	first := layer.key == nil
	if first {
		layer.xmax = transform.ChooseXMax(s.ring, op, weights, s.rho[l])
	}
	q, err := transform.QuantizeInPlace(s.ring, op, weights, layer.xmax)
	if err != nil {
		return nil, err
	}
	if first {
		layer.scale = q.Scale
		layer.key, err = verify.NewKey(verify.DefaultField(), op, q.W)
	}
	return q.W, err
}

// seal writes the sealed models of the layers that are sent.
func (s *sealing) seal(ctx context.Context, create func(role, roles int, size int64) (io.Writer, error)) error {
	sent := plan.Plan{Ring: s.ring}
	for _, l := range s.secret.sent {
		sent.Ops = append(sent.Ops, s.secret.layers[l].masks.CloudOp())
	}
	files := make([]*sealed.Writer, s.secret.Roles())
	for role := range files {
		f, err := sealed.NewWriter(sent)
		if err != nil {
			return fmt.Errorf("role %d: %w", role, err)
		}
		to, err := create(role, len(files), f.Size())
		if err == nil {
			err = f.Begin(to)
		}
		if err != nil {
			return fmt.Errorf("role %d: %w", role, err)
		}
		files[role] = f
	}
	for _, l := range s.secret.sent {
		w, err := s.quantise(l)
		if err == nil {
			err = s.secret.layers[l].masks.SealRows(w, func(rows []ring.Matrix) error {
				for role, m := range rows {
					if err := files[role].Write(m); err != nil {
						return fmt.Errorf("role %d: %w", role, err)
					}
				}
				return ctx.Err()
			})
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", l, err)
		}
		if s.Place == PlaceAll { // else it was told as the layer was placed
			s.Progress(l+1, len(s.secret.layers))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for role, f := range files {
		digest, err := f.Close()
		if err != nil {
			return fmt.Errorf("role %d: %w", role, err)
		}
		s.secret.digests = append(s.secret.digests, digest)
	}
	return nil
}

// prepare checks a graph, loads the tables of its embeddings, and returns for each layer the rms/peak of its inputs
// by o's samples: 0 without any.
func prepare(ctx context.Context, r ring.Ring, g *graph.Graph, o SealOptions) (*network, []float64, error) {
	if err := g.Validate(); err != nil {
		return nil, nil, err
	}
	nw, err := newNetwork(g)
	if err != nil {
		return nil, nil, err
	}
	for i, e := range nw.Embeddings() {
		if err := e.Load(); err != nil {
			return nil, nil, fmt.Errorf("embedding %d: %w", i, err)
		}
	}
	rho := make([]float64, len(nw.layers))
	if len(o.Calibration) > 0 {
		if rho, err = calibrate(ctx, r, nw, o.Calibration, o.Multiplier); err != nil {
			return nil, nil, fmt.Errorf("calibration: %w", err)
		}
	}
	return nw, rho, nil
}

// calibrate runs samples through the quantised network in the clear and returns,
// for each layer, the mean over the samples of rms/peak of its input: 0 where
// nothing but zeros came.
func calibrate(ctx context.Context, r ring.Ring, nw *network, x []float32, m plan.Multiplier) ([]float64, error) {
	n, err := nw.samples(x)
	if err != nil {
		return nil, err
	}
	rho := make([]float64, len(nw.layers))
	e, err := newEmulator(ctx, r, nw, rho, m)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	counted := make([]int, len(nw.layers))
	_, err = e.run(ctx, x, n, func(l, n int, x []float32) {
		for sample := range slices.Chunk(x, len(x)/n) {
			if ratio := rmsOverPeak(sample); ratio > 0 {
				rho[l] += ratio
				counted[l]++
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for l := range rho {
		rho[l] /= float64(max(1, counted[l]))
	}
	return rho, nil
}

// rmsOverPeak returns sqrt(Σ x²/n) / max|x|, in (0, 1], or 0 where x is zero.
func rmsOverPeak(x []float32) float64 {
	var sum, peak float64
	for _, v := range x {
		sum += float64(v) * float64(v)
		peak = max(peak, math.Abs(float64(v)))
	}
	if peak == 0 {
		return 0
	}
	return min(1, math.Sqrt(sum/float64(len(x)))/peak)
}
