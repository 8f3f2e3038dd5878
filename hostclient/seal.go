package hostclient

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
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
	Multiplier plan.Multiplier
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

// costs measures what a layer costs here, given what sealLayer made of it.
type costs func(ctx context.Context, l layer, op plan.Op, w ring.Matrix, whats []ring.Matrix) (LayerCost, error)

// SealedModel is the file for one role's cloud, and public to that cloud. Under lagrange
// no other cloud may see it: any two roles' files give away the weights.
type SealedModel struct {
	Role   int
	Digest sealed.Digest
	Bytes  []byte
}

// ReadModel returns the bytes of an ONNX model's file for Seal, Preview and NewEmulator,
// with the weights in them that the model keeps in files beside it.
func ReadModel(path string) ([]byte, error) {
	b, err := onnx.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	return b, nil
}

// Seal reads an ONNX model, quantises and masks its linear layers, and returns one sealed
// model for each role and the secret that belongs to them. If PlaceAuto keeps every
// layer, there is no sealed model.
func Seal(ctx context.Context, model []byte, o SealOptions) ([]SealedModel, *Secret, error) {
	g, err := onnx.Parse(model)
	if err != nil {
		return nil, nil, fmt.Errorf("hostclient: seal: %w", err)
	}
	models, secret, err := seal(ctx, g, o)
	if err != nil {
		return nil, nil, fmt.Errorf("hostclient: seal: %w", err)
	}
	return models, secret, nil
}

func seal(ctx context.Context, g *graph.Graph, o SealOptions) ([]SealedModel, *Secret, error) {
	r, err := o.Ring.ring()
	if err != nil {
		return nil, nil, err
	}
	if o.Scheme == (transform.Scheme{}) {
		o.Scheme = transform.DefaultScheme()
	}
	if o.Place == "" {
		o.Place = PlaceAll
	}
	if _, err := ParsePlace(string(o.Place)); err != nil {
		return nil, nil, err
	}
	if o.Link == "" {
		o.Link = LinkShared
	}
	if _, err := ParseLink(string(o.Link)); err != nil {
		return nil, nil, err
	}
	nw, rho, err := prepare(ctx, r, g, o)
	if err != nil {
		return nil, nil, err
	}
	var links []LinkCost
	if o.Place == PlaceAuto && o.measure == nil {
		m, err := newMeter(ctx, r, o, nw.layers)
		if err != nil {
			return nil, nil, err
		}
		o.measure, links = m.cost, m.links
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}

	structure, err := graph.EncodeStructure(g)
	if err != nil {
		return nil, nil, err
	}
	bare, err := graph.DecodeStructure(structure) // without weights
	if err != nil {
		return nil, nil, err
	}
	secret := &Secret{&content{scheme: o.Scheme, ring: r, links: links}}
	if o.Scheme.Inputs == transform.InputPad {
		rand.Read(secret.stock[:]) // never fails: the process would end
	}
	if secret.net, err = newNetwork(bare); err != nil {
		return nil, nil, err
	}
	roles := make([]sealed.Model, o.Scheme.Roles())
	for i := range roles {
		roles[i].Plan.Ring = r
	}
	for l, op := range nw.layers {
		layer, w, whats, err := sealLayer(r, o.Scheme, op, rho[l])
		if err != nil {
			return nil, nil, fmt.Errorf("layer %d: %w", l, err)
		}
		if o.Place == PlaceAuto {
			weights := words(r, op.Plan().Rows(), op.Plan().Terms(), w)
			c, err := o.measure(ctx, layer, op.Plan(), weights, whats)
			if err != nil {
				return nil, nil, fmt.Errorf("layer %d: what it costs: %w", l, err)
			}
			layer.cost = &c
			if c.Saving() > 0 {
				layer.masks, layer.key, layer.weights = nil, nil, &weights
			}
		}
		secret.add(layer)
		for i := range roles {
			if !layer.kept() {
				roles[i].Plan.Ops = append(roles[i].Plan.Ops, layer.masks.CloudOp())
				roles[i].Weights = append(roles[i].Weights, whats[i])
			}
		}
		o.Progress(l+1, len(nw.layers))
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
	models := make([]SealedModel, secret.Roles())
	for i := range models {
		b, err := roles[i].Marshal()
		if err != nil {
			return nil, nil, fmt.Errorf("role %d: %w", i, err)
		}
		models[i] = SealedModel{Role: i, Digest: sealed.Sum(b), Bytes: b}
		secret.digests = append(secret.digests, models[i].Digest)
	}
	return models, secret, nil
}

// prepare checks a graph, and returns for each layer the rms/peak of its inputs
// by o's samples: 0 without any.
func prepare(ctx context.Context, r ring.Ring, g *graph.Graph, o SealOptions) (*network, []float64, error) {
	if err := g.Validate(); err != nil {
		return nil, nil, err
	}
	nw, err := newNetwork(g)
	if err != nil {
		return nil, nil, err
	}
	rho := make([]float64, len(nw.layers))
	if len(o.Calibration) > 0 {
		if rho, err = calibrate(ctx, r, nw, o.Calibration, o.Multiplier); err != nil {
			return nil, nil, fmt.Errorf("calibration: %w", err)
		}
	}
	return nw, rho, nil
}

// sealLayer returns what the host keeps of one layer that is sent, its integer
// weights, and one masked weight matrix a role.
func sealLayer(r ring.Ring, s transform.Scheme, linear graph.Linear, rho float64) (_ layer, w []int32, whats []ring.Matrix, err error) {
	op := linear.Plan()
	masks, err := transform.NewLayer(r, s, op)
	if err != nil {
		return layer{}, nil, nil, err
	}
	if err := checkSize(r, masks.CloudOp()); err != nil {
		return layer{}, nil, nil, err
	}
	xmax := transform.ChooseXMax(r, op, linear.Weights(), rho)
	q, err := transform.QuantizeWeights(r, op, linear.Weights(), xmax)
	if err != nil {
		return layer{}, nil, nil, err
	}
	key, err := verify.NewKey(verify.DefaultField(), op, q.W)
	if err != nil {
		return layer{}, nil, nil, err
	}
	if whats, err = masks.Seal(q.W); err != nil {
		return layer{}, nil, nil, err
	}
	return layer{masks: masks, key: key, scale: q.Scale, xmax: xmax}, q.W, whats, nil
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
