package attack

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// linked is the number of images that are linked across calls. A network has at least as many.
const linked = 16

// The number of fractions that Recover may try for a layer, and for a share of one, where it
// finds nothing and would try all.
const (
	searched      = 1 << 28
	searchedShare = 1 << 20
)

// target is a linear layer of a trained network, quantised as for sealing.
type target struct {
	network string
	index   int
	op      plan.Op
	float   []float32
	w       []int32
	scale   []float32
	bias    []float32
	xmax    int32
}

func targets(r ring.Ring, n Network) ([]*target, error) {
	var all []*target
	for _, node := range n.Graph.Nodes {
		l, ok := node.Op.(graph.Linear)
		if !ok {
			continue
		}
		t := &target{network: n.Name, index: len(all), op: l.Plan(), float: l.Weights(), bias: l.Bias()}
		t.xmax = transform.ChooseXMax(r, t.op, t.float, 0)
		q, err := transform.QuantizeWeights(r, t.op, t.float, t.xmax)
		if err != nil {
			return nil, fmt.Errorf("attack: %s: %w", n.Name, err)
		}
		t.w, t.scale = q.W, q.Scale
		if t.bias == nil {
			t.bias = make([]float32, t.op.Rows())
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("attack: %s has no linear layer", n.Name)
	}
	return all, nil
}

// result completes a Result about t.
func (t *target) result(a Result, s score) Result {
	a.Network, a.Layer, a.Op = t.network, t.index, t.op.String()
	return a.scored(s)
}

func (a Result) scored(s score) Result {
	a.Right, a.Of, a.Chance, a.Game = s.right, s.of, s.chance, s.game
	a.Rate, a.Detectable, a.Verdict = s.rate(), s.detectable(), s.verdict()
	return a
}

// sealed returns a layer with new masks, and the masked weights w of one role's cloud.
func sealed(r ring.Ring, s transform.Scheme, op plan.Op, w []int32, role int) (*transform.Layer, ring.Matrix, error) {
	l, err := transform.NewLayer(r, s, op)
	if err != nil {
		return nil, ring.Matrix{}, err
	}
	whats, err := l.Seal(w)
	if err != nil {
		return nil, ring.Matrix{}, err
	}
	return l, whats[role], nil
}

// Run attacks the weights of every layer and the inputs of each network's first one, under
// each scheme. If ctx is done, it stops early with ctx's error.
func Run(ctx context.Context, o Options) (*Report, error) {
	report := &Report{}
	for i, n := range o.Networks {
		step := func(what string) error {
			o.Progress(n.Name+": "+what, i, len(o.Networks))
			return ctx.Err()
		}
		layers, err := targets(o.Ring, n)
		if err != nil {
			return nil, err
		}
		var zeros []divisible
		for _, p := range o.Ring.Primes() {
			zeros = append(zeros, divisible{p: p})
		}
		for _, t := range layers {
			if err := step("weights"); err != nil {
				return nil, err
			}
			if err := o.weights(ctx, report, t, zeros); err != nil {
				return nil, fmt.Errorf("attack: %s, layer %d: %w", n.Name, t.index, err)
			}
		}
		for _, z := range zeros {
			z.adds(func(a Result, s score) {
				a.Target, a.Network, a.Layer, a.Scheme = OnWeights, n.Name, -1, names(masked(o.Schemes))
				report.Results = append(report.Results, a.scored(s))
			})
		}
		for _, s := range o.Schemes {
			if err := step("inputs under " + s.String()); err != nil {
				return nil, err
			}
			if err := o.inputs(ctx, report, n, layers[0], s); err != nil {
				return nil, fmt.Errorf("attack: %s under %v: %w", n.Name, s, err)
			}
		}
	}
	return report, nil
}

// schemes returns the schemes with masked weights, in groups that mask t's weights in the
// same way: one group for a dense layer, and for a convolution one for schemes that let the
// cloud unroll it and one for the others.
func (o Options) schemes(t *target) (groups [][]transform.Scheme) {
	byOp := map[plan.Op]int{}
	for _, s := range masked(o.Schemes) {
		op := t.op
		if s.Inputs == transform.InputPermute {
			op = plan.Dense(t.op.Terms(), t.op.Rows())
		}
		i, ok := byOp[op]
		if !ok {
			i = len(groups)
			byOp[op], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

// masked returns the schemes whose weights are masked with units and permutations.
func masked(schemes []transform.Scheme) (all []transform.Scheme) {
	for _, s := range schemes {
		if s.Weights == transform.WeightPermute {
			all = append(all, s)
		}
	}
	return all
}

func names(schemes []transform.Scheme) string {
	var names []string
	for _, s := range schemes {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// add adds a result with its score to a report.
type add func(a Result, s score)

// weights attacks the weights of a layer, and adds its counts of weights divisible by primes to
// zeros.
func (o Options) weights(ctx context.Context, report *Report, t *target, zeros []divisible) error {
	r := o.Ring
	for _, group := range o.schemes(t) {
		s := group[0]
		add := t.adds(report, OnWeights, names(group), 0)
		l, what, err := sealed(r, s, t.op, t.w, 0)
		if err != nil {
			return err
		}
		truth, err := ordered(r, l, s, t.w)
		if err != nil {
			return err
		}
		weights, err := t.recover(ctx, r, l.CloudOp(), what, truth, searched, add)
		if err != nil {
			return err
		}
		for i := range zeros {
			zeros[i].add(what, truth)
		}
		if err := o.weightGames(t, s, 0, add); err != nil {
			return err
		}
		if err := o.match(ctx, t, s, add, l, weights); err != nil {
			return err
		}
	}
	for _, s := range o.Schemes {
		if s.Weights != transform.WeightLagrange {
			continue
		}
		for role := range s.Roles() {
			add := t.adds(report, OnWeights, s.String(), role)
			l, what, err := sealed(r, s, t.op, t.w, role)
			if err != nil {
				return err
			}
			if _, err := t.recover(ctx, r, l.CloudOp(), what, t.w, searchedShare, add); err != nil {
				return err
			}
			for _, p := range r.Primes() {
				d := divisible{p: p}
				d.add(what, t.w)
				d.adds(add)
			}
			if err := o.weightGames(t, s, role, add); err != nil {
				return err
			}
		}
	}
	return nil
}

// adds returns a function that adds results of one role to the report.
func (t *target) adds(report *Report, on Target, scheme string, role int) add {
	return func(a Result, s score) {
		a.Target, a.Scheme, a.Role = on, scheme, role
		report.Results = append(report.Results, t.result(a, s))
	}
}

// recover makes the attacks that need What alone. It returns the weights up to factors, or
// nil.
func (t *target) recover(ctx context.Context, r ring.Ring, op plan.Op, what ring.Matrix, truth []int32, search int, add add) (*Weights, error) {
	right, of := t.crossRatios(r, op, what, truth)
	add(Result{Attack: "one ratio", What: "cross ratios of four weights that are not zero, exactly"}, score{right: right, of: of, chance: 1 / float64(r.Modulus())})
	start := time.Now()
	weights, err := Recover(ctx, r, op, what, search)
	if err != nil {
		return nil, err
	}
	took := time.Since(start).Seconds()
	if right = 0; weights != nil {
		right = weights.scaled(truth)
	}
	add(Result{Attack: "ratios", What: "integers, up to a factor a row and an input", Seconds: took},
		score{right: right, of: len(truth), chance: shuffledScaled(op, truth)})
	if op.Kind == plan.KindConv2D {
		start := time.Now()
		guess := Kernels(r, op, what)
		took := time.Since(start).Seconds()
		right, of = kernelsRight(op, guess, truth)
		add(Result{Attack: "kernels", What: "kernels, up to sign and common factor", Seconds: took}, score{right: right, of: of})
	}
	return weights, nil
}

// weightGames plays games of telling two layers apart by their sealed weights.
func (o Options) weightGames(t *target, s transform.Scheme, role int, add add) error {
	rng := rand.New(rand.NewPCG(5, uint64(t.index)))
	tuned, err := transform.QuantizeWeights(o.Ring, t.op, noisy(rng, t.float, 0.01), t.xmax)
	if err != nil {
		return err
	}
	ones := make([]int32, len(t.w))
	for i := range ones {
		ones[i] = 1
	}
	for _, g := range []struct {
		name, what string
		candidates [2][]int32
		f          feature
	}{
		{"zero pattern", "games: the layer, or it with noise of 1 %", [2][]int32{t.w, tuned.W}, zeroPattern},
		{"rank", "games: the layer, or all ones", [2][]int32{t.w, ones}, ranks},
	} {
		sees := func(candidate int) ([]ring.Matrix, error) {
			_, what, err := sealed(o.Ring, s, t.op, g.candidates[candidate], role)
			if g.name == "rank" {
				what = block(what, 16)
			}
			return []ring.Matrix{what}, err
		}
		const trials = 64 // all right by chance with probability 2^-64
		right, err := Distinguish(o.Ring, rng, trials, sees, sees, g.f)
		if err != nil {
			return err
		}
		add(Result{Attack: g.name, What: g.what}, score{right: right, of: trials, chance: 0.5, game: true})
	}
	return nil
}

// block returns the upper left block of m, at most n x n.
func block(m ring.Matrix, n int) ring.Matrix {
	b := ring.NewMatrix(min(n, m.Rows), min(n, m.Cols))
	for i := range b.Rows {
		copy(b.Row(i), m.Row(i))
	}
	return b
}

// match attacks with base models: the network's weights plus increasing noise. The first try
// is on weights, as recovered from l's, or nil. Small layers are sealed and tried more often.
func (o Options) match(ctx context.Context, t *target, s transform.Scheme, add add, l *transform.Layer, weights *Weights) error {
	levels, tries := []float64{0, 0.01, 0.05, 0.1, 0.2}, max(1, 64/t.op.Rows())
	if o.Quick {
		levels, tries = []float64{0, 0.1}, 1
	}
	rng := rand.New(rand.NewPCG(7, uint64(t.index)))
	rows, inputs := make([]int, len(levels)), make([]int, len(levels))
	st := l.State()
	for try := range tries {
		if try > 0 {
			l, what, err := sealed(o.Ring, s, t.op, t.w, 0)
			if err != nil {
				return err
			}
			st = l.State()
			if weights, err = Recover(ctx, o.Ring, l.CloudOp(), what, searched); err != nil {
				return err
			}
		}
		if weights == nil {
			continue
		}
		for i, noise := range levels {
			e, u := weights.Match(noisy(rng, t.float, noise))
			rows[i] += agree(e, st.E)
			inputs[i] += agree(u, st.U)
		}
	}
	for i, noise := range levels {
		add(Result{Attack: "base model", Noise: noise, What: "rows"}, score{right: rows[i], of: tries * len(st.E), chance: 1 / float64(len(st.E))})
		if len(st.U) > 1 {
			add(Result{Attack: "base model", Noise: noise, What: "inputs"}, score{right: inputs[i], of: tries * len(st.U), chance: 1 / float64(len(st.U))})
		}
	}
	return nil
}

// noisy returns w plus normal noise with a deviation of noise times w's root mean square.
func noisy(rng *rand.Rand, w []float32, noise float64) []float32 {
	var sum float64
	for _, e := range w {
		sum += float64(e) * float64(e)
	}
	sigma := noise * math.Sqrt(sum/float64(len(w)))
	v := slices.Clone(w)
	for i := range v {
		v[i] += float32(sigma * rng.NormFloat64())
	}
	return v
}

// inputs attacks the inputs of the first layer, which are the images, for each role.
func (o Options) inputs(ctx context.Context, report *Report, n Network, t *target, s transform.Scheme) error {
	r := o.Ring
	x, err := quantized(n, t)
	if err != nil {
		return err
	}
	l, what, err := sealed(r, s, t.op, t.w, 0)
	if err != nil {
		return err
	}
	own, _, err := sealed(r, s, t.op, t.w, 0) // the attacker's, with masks of its own
	if err != nil {
		return err
	}
	column, places := []uint32{1}, []int{0}
	if s.Weights == transform.WeightPermute {
		weights, err := Recover(ctx, r, l.CloudOp(), what, searched)
		if err != nil {
			return err
		}
		if column, places = make([]uint32, len(l.State().U)), make([]int, len(l.State().U)); weights != nil {
			column = weights.Column
			_, places = weights.Match(noisy(rand.New(rand.NewPCG(13, 1)), t.float, 0.1))
		}
	}
	ownViews := views(r, s, own)
	for role, view := range views(r, s, l) {
		a := inputAttack{Options: o, target: t, layer: l, scheme: s, x: x, n: n.Count, column: column, places: places, own: ownViews[role], view: view}
		if err := a.run(ctx, func(attack, what string, got score) {
			report.Results = append(report.Results, t.result(Result{Target: OnInputs, Attack: attack, Scheme: s.String(), Role: role, What: what}, got))
		}); err != nil {
			return err
		}
	}
	if s.Inputs == transform.InputPermute && t.op.Kind == plan.KindDense {
		return o.folding(report, t, s, x, n.Count)
	}
	return nil
}

// quantized returns the integers of a network's images.
func quantized(n Network, t *target) ([]int32, error) {
	if n.Count < linked || len(n.Images) != n.Count*t.op.InLen() {
		return nil, fmt.Errorf("%d values of %d images, want %d each of %d or more", len(n.Images), n.Count, t.op.InLen(), linked)
	}
	x := make([]int32, len(n.Images))
	return x, transform.QuantizeInputs(x, make([]float32, n.Count), n.Images, n.Count, t.xmax)
}

// inputAttack attacks one role's view of a layer's inputs.
type inputAttack struct {
	Options
	*target
	layer  *transform.Layer
	scheme transform.Scheme
	x      []int32 // n images
	n      int
	column []uint32 // Weights.Column, zeros if no weights were recovered
	places []int    // the inputs by Weights.Match, for a base model with noise of 10 %
	own    View     // the attacker's, with masks of its own
	view   View
}

// images returns images [i, j).
func (a *inputAttack) images(i, j int) []int32 { return a.x[i*len(a.x)/a.n : j*len(a.x)/a.n] }

// fewImages is the number of images in attacks on whole calls.
const fewImages = 8

// run makes every attack and reports its score.
func (a *inputAttack) run(ctx context.Context, report func(attack, what string, s score)) error {
	rng := rand.New(rand.NewPCG(11, uint64(len(a.x))))
	trials := 256
	if a.Quick {
		trials = 64
	}
	if err := a.runPixels(report); err != nil {
		return err
	}
	if err := a.runGames(ctx, rng, trials, report); err != nil {
		return err
	}
	if err := a.runLinks(ctx, rng, trials, report); err != nil {
		return err
	}
	return a.runStatistics(report)
}

// runPixels looks for zeros, and for pixels with the recovered units of the weights.
func (a *inputAttack) runPixels(report func(attack, what string, s score)) error {
	few := a.images(0, fewImages)
	xhat, err := a.view(few, fewImages)
	if err != nil {
		return err
	}
	truth := received(a.layer, few, fewImages)
	seen, of := zerosSeen(xhat, truth)
	report("zeros", "inputs that are zero", score{right: seen, of: of, chance: 1 / float64(a.Ring.Modulus())})

	what := "whole images"
	if a.layer.CloudOp() != a.layer.Op() {
		what = "whole patches"
	}
	pixels := Pixels(a.Ring, xhat, a.column)
	right, of := pixelsRight(pixels, a.known(truth))
	report("pixels", what+" in another order, up to a factor each", score{right: right, of: of})
	right, of = pixelsRight(placed(pixels, a.places), vectors(a.layer, few, fewImages))
	report("pixels in place", what+", with a base model with noise of 10 %, up to a factor each", score{right: right, of: of})
	return nil
}

// runGames plays games of two candidates.
func (a *inputAttack) runGames(ctx context.Context, rng *rand.Rand, trials int, report func(attack, what string, s score)) error {
	for _, g := range []struct {
		name, what string
		candidates [2][]int32
		n          int
		f          feature
	}{
		{"zero pattern", "games: which of two images", [2][]int32{a.images(0, 1), a.images(1, 2)}, 1, zeroPattern},
		{"change", "games: which of two images follows a third", [2][]int32{a.images(0, 1), a.images(1, 2)}, 1, changes},
		{"rank", "games: is an image there twice", [2][]int32{a.images(0, 4), slices.Concat(a.images(0, 3), a.images(0, 1))}, 4, ranks},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.layer.CloudRows(g.n) > a.layer.CloudOp().InLen() && g.name == "rank" {
			continue // the patches of 3 images have full rank already
		}
		sees := func(view View) see {
			return func(candidate int) ([]ring.Matrix, error) {
				before, err := view(a.images(2, 2+g.n), g.n)
				if err != nil {
					return nil, err
				}
				call, err := view(g.candidates[candidate], g.n)
				return []ring.Matrix{before, call}, err
			}
		}
		right, err := Distinguish(a.Ring, rng, trials, sees(a.own), sees(a.view), g.f)
		if err != nil {
			return err
		}
		report(g.name, g.what, score{right: right, of: trials, chance: 0.5, game: true})
	}
	return nil
}

// runLinks looks for repeated images.
func (a *inputAttack) runLinks(ctx context.Context, rng *rand.Rand, trials int, report func(attack, what string, s score)) error {
	for _, g := range []struct {
		name string
		f    feature
		d    apart
	}{{"link by zeros", columnZeros, distance}, {"link by words", callWords, differing}} {
		if err := ctx.Err(); err != nil {
			return err
		}
		right, err := Link(a.Ring, rng, a.view, a.images(0, linked), linked, trials, g.f, g.d)
		if err != nil {
			return err
		}
		report(g.name, fmt.Sprintf("images seen again, of %d", linked), score{right: right, of: trials, chance: 1.0 / linked})
	}
	return nil
}

// runStatistics tests the words of several calls of the same images.
func (a *inputAttack) runStatistics(report func(attack, what string, s score)) error {
	few := a.images(0, fewImages)
	calls := make([]ring.Matrix, 8)
	for c := range calls {
		var err error
		if calls[c], err = a.view(few, fewImages); err != nil {
			return err
		}
	}
	// Under permute each call has its rows in another order: no word is marked as a zero.
	zero := make([]bool, len(calls[0].Data))
	if a.scheme.Inputs != transform.InputPermute {
		for i, row := range received(a.layer, few, fewImages) {
			for j, e := range row {
				zero[i*len(row)+j] = e == 0
			}
		}
	}
	alarms, least := 0, 1.0
	all := Statistics(a.Ring, calls, zero)
	for _, s := range all {
		least = min(least, s.P)
		if s.P < Alarm {
			alarms++
		}
	}
	report("statistics", fmt.Sprintf("tests of %d words that fail, least p %.1g", len(calls)*len(zero), least), score{right: alarms, of: len(all)})
	return nil
}

// folding attacks the inputs of a dense layer with the bias folded in as in the paper, and as
// they are sent.
func (o Options) folding(report *Report, t *target, s transform.Scheme, x []int32, n int) error {
	r, in := o.Ring, t.op.In
	n = min(n, linked)
	folded := plan.Dense(in+1, t.op.Out)
	var w, y []int32
	for k := range t.op.Out {
		bias := int32(math.Round(float64(t.bias[k]) / float64(t.scale[k])))
		w = append(append(w, t.w[k*in:(k+1)*in]...), max(-r.Max(), min(r.Max(), bias)))
	}
	for i := range n {
		y = append(append(y, x[i*in:(i+1)*in]...), t.xmax) // the 1 of the bias, in the scale of images
	}
	for _, c := range []struct {
		scheme string
		op     plan.Op
		w, x   []int32
	}{{s.String() + ", bias folded in", folded, w, y}, {s.String(), t.op, t.w, x[:n*in]}} {
		l, _, err := sealed(r, s, c.op, c.w, 0)
		if err != nil {
			return err
		}
		call, err := l.Mask(c.x, n, nil)
		if err != nil {
			return err
		}
		xhat, err := words(r, call.Masked()[0])
		if err != nil {
			return err
		}
		right, of := foldedRight(r, xhat, received(l, c.x, n))
		report.Results = append(report.Results, t.result(Result{Target: OnInputs, Attack: "folded bias", Scheme: c.scheme, What: "inputs in all samples, up to a factor each"},
			score{right: right, of: of}))
	}
	return nil
}
