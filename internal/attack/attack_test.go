package attack

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

var permutePad = transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputPad}

// network returns a trained network with test images.
func network(t *testing.T, name string, images int) Network {
	t.Helper()
	b, err := models.ONNX(name)
	if err != nil {
		t.Fatal(err)
	}
	g, err := onnx.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := models.TestSet()
	if err != nil {
		t.Fatal(err)
	}
	if set, err = set.Fit(g.Input.C, g.Input.H, g.Input.W); err != nil {
		t.Fatal(err)
	}
	x := make([]float32, images*g.Input.Len())
	graph.CHWToHWC(x, set.Range(0, images), images, g.Input)
	return Network{Name: name, Graph: g, Images: x, Count: images}
}

// cut returns a network whose dense layers have at most the given number of rows. Each layer
// is attacked on its own, so layers need not fit together.
func cut(n Network, rows int) Network {
	g := *n.Graph
	g.Nodes = slices.Clone(g.Nodes)
	for i, node := range g.Nodes {
		if d, ok := node.Op.(*graph.Dense); ok && d.Out > rows {
			cut := &graph.Dense{In: d.In, Out: rows, W: d.W[:rows*d.In]}
			if d.B != nil {
				cut.B = d.B[:rows]
			}
			g.Nodes[i].Op = cut
		}
	}
	n.Graph = &g
	return n
}

// Every attack succeeds on masked weights and on inputs under permute, and none does
// better than chance on what any cloud receives of inputs under pad, split and lagrange,
// and of weights under lagrange.
func TestTrainedNetworks(t *testing.T) {
	names := models.Names()
	if testing.Short() {
		names = []string{"mnist-cnn"}
	}
	var networks []Network
	for _, name := range names {
		networks = append(networks, cut(network(t, name, 16), 128))
	}
	steps := 0
	report, err := Run(context.Background(), Options{
		Ring: ring.Q4(), Networks: networks, Schemes: transform.Schemes(), Quick: true,
		Progress: func(string, int, int) { steps++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if steps == 0 {
		t.Error("no progress")
	}
	seen, layers := map[string]int{}, 0
	for _, r := range report.Results {
		about := fmt.Sprintf("%s, layer %d, %s, role %d: %s: %d of %d %s by %s", r.Network, r.Layer, r.Scheme, r.Role, r.Verdict, r.Right, r.Of, r.What, r.Attack)
		least, ok := 0.9, r.Verdict == Broken
		scheme, err := transform.ParseScheme(r.Scheme)
		switch {
		case scheme.Weights == transform.WeightLagrange && r.Target == OnWeights:
			ok, least = r.Verdict == AtChance || r.Verdict == Few && (r.Of < 100 || r.Chance > 0.5), 0
		case r.Target == OnWeights && r.Attack == "base model":
			if strings.Contains(r.Op, "dense") && r.Of < 100 || strings.HasPrefix(r.Op, "conv2d 28x28") {
				least = 0 // few rows leave more common factors
			}
			ok = r.Verdict != AtChance
		case r.Attack == "one ratio":
			ok, least = true, 0 // one word is too short for most fractions
			if r.Of < 300 {
				t.Error(about)
			}
		case r.Target == OnWeights:
			ok = ok || r.Verdict == Few
		case r.Attack == "folded bias":
			folded := err != nil
			ok = ok && folded || r.Verdict == AtChance && !folded
			if !folded {
				least = 0
			}
		case scheme.Inputs != transform.InputPermute:
			ok, least = r.Verdict == AtChance, 0
		case r.Attack == "link by words":
			ok, least = true, 0 // each call has other units of rows
		case r.Attack == "statistics":
			least = 0.5
			ok = r.Verdict != AtChance
		case r.Attack == "pixels in place":
			ok, least = r.Right > 0, 0
		}
		if !ok || r.Rate < least {
			t.Error(about)
		}
		if r.Of == 0 && !strings.Contains(r.What, "divides") {
			t.Errorf("of nothing: %s", about)
		}
		seen[fmt.Sprintf("%s %s", r.Target, r.Attack)]++
		if r.Scheme == "lagrange" && r.Role == 2 && r.Attack == "ratios" {
			layers++
		}
	}
	clouds := 1 + 1 + 1 + 2 + 2 + 3
	for attack, want := range map[string]int{
		"inputs zeros": clouds, "inputs pixels": clouds, "inputs pixels in place": clouds, "inputs zero pattern": clouds, "inputs change": clouds,
		"inputs link by zeros": clouds, "inputs link by words": clouds, "inputs statistics": clouds,
	} {
		if seen[attack] != want*len(names) {
			t.Errorf("%d results of %s, want %d", seen[attack], attack, want*len(names))
		}
	}
	if want := len(ring.Q4().Primes()) * (len(names) + 3*layers); seen["weights zeros"] != want {
		t.Errorf("%d results of weights zeros, want %d", seen["weights zeros"], want)
	}
	for _, attack := range []string{"weights ratios", "weights one ratio", "weights kernels", "weights zero pattern", "weights rank", "weights base model", "inputs rank"} {
		if seen[attack] < len(names) {
			t.Errorf("%d results of %s", seen[attack], attack)
		}
	}
	if seen["inputs folded bias"] != 2 && !testing.Short() {
		t.Errorf("%d results of folded biases", seen["inputs folded bias"])
	}
}

// A first layer that is not recovered counts as such, and the others are attacked all the same.
func TestUnrecovered(t *testing.T) {
	other := cut(network(t, "mlp", 16), 64)
	one := other
	w := make([]float32, one.Graph.Input.Len()) // of one row: there are no ratios
	for i := range w {
		w[i] = float32(i%13) - 5.5
	}
	one.Name, one.Graph = "one row", &graph.Graph{Input: one.Graph.Input, Nodes: []graph.Node{{Op: &graph.Dense{In: len(w), Out: 1, W: w}}}, Output: 1}
	report, err := Run(context.Background(), Options{
		Ring: ring.Q4(), Networks: []Network{one, other}, Schemes: []transform.Scheme{{Weights: transform.WeightPermute, Inputs: transform.InputPermute}},
		Quick: true, Progress: func(string, int, int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, r := range report.Results {
		about := fmt.Sprintf("%s: %s: %s, %d of %d by chance %g", r.Network, r.Attack, r.Verdict, r.Right, r.Of, r.Chance)
		lost := r.Network == one.Name
		switch r.Attack {
		case "ratios": // any row equals any other up to a factor for each column
			if seen++; lost && (r.Right != 0 || r.Of != len(w) || r.Verdict != Few || r.Chance != 1) {
				t.Error(about)
			}
		case "pixels", "pixels in place":
			if seen++; r.Of != 8 || lost != (r.Right == 0) || lost != (r.Verdict == AtChance) {
				t.Error(about)
			}
		case "zeros", "zero pattern", "change", "link by zeros":
			if seen++; r.Target == OnInputs && r.Verdict != Broken {
				t.Error(about)
			}
		}
	}
	if layers := 1 + 3; seen != layers+2*2+2*(len(ring.Q4().Primes())+1)+layers+2*3 {
		t.Errorf("%d results", seen)
	}
}

// A network with too few images or layers is refused, and a cancelled run ends.
func TestRunRefuses(t *testing.T) {
	n := network(t, "mnist-cnn", 16)
	o := Options{Ring: ring.Q4(), Schemes: []transform.Scheme{{Weights: transform.WeightNone, Inputs: transform.InputPad}}, Progress: func(string, int, int) {}}
	for name, change := range map[string]func(*Network){
		"too few images": func(n *Network) { n.Count, n.Images = 15, n.Images[:15*784] },
		"part of one":    func(n *Network) { n.Images = n.Images[1:] },
		"no layers":      func(n *Network) { n.Graph = &graph.Graph{Input: n.Graph.Input} },
	} {
		bad := n
		change(&bad)
		o.Networks = []Network{bad}
		if _, err := Run(context.Background(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.Networks = []Network{n}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// unpadded returns x' of samples: the masked inputs without the pad.
func unpadded(t *testing.T, r ring.Ring, l *transform.Layer, x []int32, n int) ring.Matrix {
	t.Helper()
	seed := prg.NewSeed()
	u := make([][]uint32, n)
	for i := range u {
		u[i] = make([]uint32, l.CloudOp().OutLen())
	}
	pads, err := l.RestorePads(transform.PadsState{Seed: seed, U: u})
	if err != nil {
		t.Fatal(err)
	}
	call, err := l.Mask(x, n, pads)
	if err != nil {
		t.Fatal(err)
	}
	xhat, err := words(r, call.Masked()[0])
	if err != nil {
		t.Fatal(err)
	}
	row, expander := make([]uint32, xhat.Cols), prg.New(seed)
	for i := range xhat.Rows {
		expander.Fill(r, row, uint64(i))
		r.SubVec(xhat.Row(i), xhat.Row(i), row)
	}
	return xhat
}

// Attacks that score at chance on correct pads detect faulty ones.
func TestFaultyPadsAreFoundOut(t *testing.T) {
	r := ring.Q4()
	fresh := func() func(i int, row []uint32) {
		e := prg.New(prg.NewSeed())
		return func(i int, row []uint32) { e.Fill(r, row, uint64(i)) }
	}
	// times multiplies pads by a word.
	times := func(pad func(int, []uint32), by uint32) func(int, []uint32) {
		return func(i int, row []uint32) {
			pad(i, row)
			for j, a := range row {
				row[j] = r.Mul(a, by)
			}
		}
	}
	reused := fresh()
	calls := uint32(0)
	for _, c := range []struct {
		name string
		pad  func() func(i int, row []uint32) // for one call: sets row to the pad of sample i
		by   []string                         // attacks that must detect the fault
	}{
		{"none", func() func(int, []uint32) { return func(_ int, row []uint32) { clear(row) } },
			[]string{"zeros", "pixels", "pixels in place", "zero pattern", "change", "rank", "link by zeros", "link by words", "statistics"}},
		{"reused by every call", func() func(int, []uint32) { return reused }, []string{"change", "link by words", "statistics"}},
		{"reused by every sample", func() func(int, []uint32) {
			pad := fresh()
			return func(_ int, row []uint32) { pad(0, row) }
		}, []string{"statistics"}},
		{"one word a sample", func() func(int, []uint32) {
			pad := fresh()
			return func(i int, row []uint32) {
				pad(i, row[:1])
				for j := range row {
					row[j] = row[0]
				}
			}
		}, []string{"statistics"}},
		{"the call before's plus 1", func() func(int, []uint32) {
			calls++
			return func(i int, row []uint32) {
				reused(i, row)
				for j, a := range row {
					row[j] = r.Add(a, calls)
				}
			}
		}, []string{"statistics"}},
		{"modulo one prime only", func() func(int, []uint32) { return times(fresh(), r.Combine([]uint8{1, 0, 0, 0})) },
			[]string{"zero pattern", "rank", "link by zeros", "statistics"}},
		{"modulo all primes but one", func() func(int, []uint32) { return times(fresh(), r.Combine([]uint8{1, 1, 1, 0})) },
			[]string{"zero pattern", "rank", "link by zeros", "statistics"}},
		{"31 bits", func() func(int, []uint32) {
			pad := fresh()
			return func(i int, row []uint32) {
				pad(i, row)
				for j := range row {
					row[j] &= 1<<31 - 1
				}
			}
		}, []string{"statistics"}},
		{"correct", fresh, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := network(t, "mlp", 16)
			layers, err := targets(r, n)
			if err != nil {
				t.Fatal(err)
			}
			x, err := quantized(n, layers[0])
			if err != nil {
				t.Fatal(err)
			}
			l, _, err := sealed(r, permutePad, layers[0].op, layers[0].w, 0)
			if err != nil {
				t.Fatal(err)
			}
			view := func(x []int32, n int) (ring.Matrix, error) {
				xhat, pad := unpadded(t, r, l, x, n), c.pad()
				row := make([]uint32, xhat.Cols)
				for i := range xhat.Rows {
					pad(i, row)
					r.AddVec(xhat.Row(i), xhat.Row(i), row)
				}
				return xhat, nil
			}
			a := inputAttack{
				Options: Options{Ring: r}, target: layers[0], layer: l, scheme: permutePad, x: x, n: n.Count,
				column: make([]uint32, layers[0].op.In), places: make([]int, layers[0].op.In), own: view, view: view,
			}
			// TestTrainedNetworks shows that these units and places are recovered.
			st := l.State()
			for j, i := range st.U {
				a.column[j], a.places[j] = invert(r.Modulus(), st.F[i]), int(i)
			}
			found := map[string]bool{}
			if err := a.run(context.Background(), func(attack, what string, s score) {
				found[attack] = s.verdict() != AtChance
				t.Logf("%s: %d of %d %s", attack, s.right, s.of, what)
			}); err != nil {
				t.Fatal(err)
			}
			if len(found) != 9 {
				t.Errorf("%d attacks", len(found))
			}
			for attack, yes := range found {
				if want := slices.Contains(c.by, attack); want && !yes || c.by == nil && yes {
					t.Errorf("%s: detected is %t", attack, yes)
				}
			}
		})
	}
}

// Uniform words, which have no structure E D W F U, give nothing.
func TestUniformWordsAreNotRecovered(t *testing.T) {
	r := ring.Q4()
	for _, op := range []plan.Op{
		plan.Dense(100, 20),
		plan.Conv(plan.Conv2D{H: 8, W: 8, C: 4, OutC: 8, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
	} {
		what := ring.NewMatrix(op.Rows(), op.Terms())
		prg.New(prg.NewSeed()).Fill(r, what.Data, 0)
		g, err := Recover(context.Background(), r, op, what, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if g != nil {
			known := 0
			for _, k := range g.Known {
				if k {
					known++
				}
			}
			if known > len(what.Data)/100 {
				t.Errorf("%v: %d of %d uniform words are short", op, known, len(what.Data))
			}
		}
		if op.Kind == plan.KindConv2D {
			want := make([]int32, len(what.Data))
			for i, a := range what.Data {
				want[i] = r.Lift(a)
			}
			if right, of := kernelsRight(op, Kernels(r, op, what), want); right > 0 || of != 32 {
				t.Errorf("%d of %d uniform kernels", right, of)
			}
		}
	}
}

// A search ends when its caller cancels it or its tries are used up.
func TestRecoverEnds(t *testing.T) {
	r, op := ring.Q4(), plan.Dense(100, 2)
	what := ring.NewMatrix(2, 100)
	prg.New(prg.NewSeed()).Fill(r, what.Data, 0)
	if g, err := Recover(context.Background(), r, op, what, 0); g != nil || err != nil {
		t.Errorf("without a try: %v, %v", g, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Recover(ctx, r, op, what, 1<<30); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	grouped := plan.Conv(plan.Conv2D{H: 8, W: 8, C: 4, OutC: 8, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2})
	if _, err := Recover(context.Background(), r, grouped, ring.NewMatrix(8, 50), 1); err == nil {
		t.Error("a grouped convolution is accepted")
	}
}

// scaled allows one factor per row and one per column, and no more.
func TestScaled(t *testing.T) {
	want := []int32{3, -5, 7, 11, 13, 17, 0, 19, 23, -29, 31, 37}
	got := []int32{6, -5, -7, 22, 39, 17, 0, 57, 46, -29, 0, 74} // rows by 1, 3, 1 and columns by 2, 1, -1, 2
	got[4], got[5], got[6], got[7] = 3*2*13, 3*17, 0, 3*2*19
	got[10] = -31
	g := &Weights{Rows: 3, Terms: 4, W: got, Known: slices.Repeat([]bool{true}, 12), Column: make([]uint32, 4)}
	if n := g.scaled(want); n != 12 {
		t.Errorf("%d of 12", n)
	}
	got[7]++
	if n := g.scaled(want); n != 11 {
		t.Errorf("%d of 11", n)
	}
	got[7]--
	got[6]++ // where want is zero
	if n := g.scaled(want); n != 11 {
		t.Errorf("%d of 11 beside a zero", n)
	}
	got[6]--
	g.Known[0] = false
	if n := g.scaled(want); n != 11 {
		t.Errorf("%d of 11 known", n)
	}
}

func TestFraction(t *testing.T) {
	for _, m := range []uint32{1009, 241 * 251} {
		const most = 22 // 2·22² < 1009
		fractions := map[uint32][2]int64{}
		for y := int64(1); y <= most; y++ {
			inv := invert(m, uint32(y))
			if uint64(inv)*uint64(y)%uint64(m) != 1 {
				t.Fatalf("%d·%d mod %d", inv, y, m)
			}
			for x := int64(-most); x <= most; x++ {
				if gcd(x, y) == 1 {
					fractions[uint32((x+int64(m))%int64(m)*int64(inv)%int64(m))] = [2]int64{x, y}
				}
			}
		}
		for a := range m {
			f, is := fractions[a]
			if isFraction(m, a, most) != is {
				t.Errorf("%d mod %d: a fraction is %v", a, m, is)
			}
			x, y := fraction(m, a)
			if is && [2]int64{x, y} != f {
				t.Errorf("%d mod %d = %d/%d, want %d", a, m, x, y, f)
			}
			if y <= 0 || ((x-int64(a)*y)%int64(m)+int64(m))%int64(m) != 0 {
				t.Errorf("%d mod %d is not %d/%d", a, m, x, y)
			}
		}
	}
	m := ring.Q4().Modulus()
	for _, a := range []uint32{0, 1, 2, 251, 233 * 241, 1 << 30, m - 1} {
		want := new(big.Int).ModInverse(big.NewInt(int64(a)), big.NewInt(int64(m)))
		if got := invert(m, a); want == nil && got != 0 || want != nil && got != uint32(want.Uint64()) {
			t.Errorf("inverse of %d is %d, want %v", a, got, want)
		}
	}
}

// The unit of a vector is found although a third of its words are uniform.
func TestShrink(t *testing.T) {
	r, rng := ring.Q4(), mathrand.New(mathrand.NewPCG(3, 4))
	for range 50 {
		v, want := make([]uint32, 60), make([]int32, 60)
		unit := uint32(0)
		for !r.IsUnit(unit) {
			unit = rng.Uint32N(r.Modulus())
		}
		for i := range v {
			want[i] = 1 + rng.Int32N(4000)
			v[i] = r.Mul(unit, r.FromSigned(want[i]))
			if i%3 == 0 {
				v[i] = rng.Uint32N(r.Modulus())
			}
		}
		inv := shrink(r, v, exact)
		sign := int32(1)
		if r.Lift(r.Mul(inv, v[1])) < 0 {
			sign = -1
		}
		for i := range v {
			if e := sign * r.Lift(r.Mul(inv, v[i])); i%3 != 0 && e != want[i] {
				t.Fatalf("word %d is %d, want %d", i, e, want[i])
			}
		}
	}
	if shrink(r, []uint32{1, 2}, exact) != 0 || shrink(r, make([]uint32, 50), exact) != 0 {
		t.Error("a unit is found for too few words")
	}
}

func TestRank(t *testing.T) {
	const p = 251
	rng := mathrand.New(mathrand.NewPCG(5, 6))
	for want := range 9 {
		// A product of a 12 x want and a want x 9 matrix, both triangular with nonzero diagonals.
		m := ring.NewMatrix(12, 9)
		for k := range want {
			a, b := make([]uint32, 12), make([]uint32, 9)
			for i := k; i < 12; i++ {
				a[i] = 1 + rng.Uint32N(p-1)
			}
			for j := k; j < 9; j++ {
				b[j] = 1 + rng.Uint32N(p-1)
			}
			for i := range m.Rows {
				for j := range m.Cols {
					m.Data[i*9+j] = (m.At(i, j) + a[i]*b[j]) % p
				}
			}
		}
		rng.Shuffle(12, func(i, j int) {
			for c := range 9 {
				m.Row(i)[c], m.Row(j)[c] = m.Row(j)[c], m.Row(i)[c]
			}
		})
		if got := rank(m, p); got != want {
			t.Errorf("rank %d, want %d", got, want)
		}
	}
}

// Integers in a random order score at chance, at least one per column; the layer's integers
// times any factors of rows and columns score above it.
func TestShuffledScaled(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(21, 22))
	for _, op := range []plan.Op{
		plan.Dense(25, 5), plan.Dense(500, 10), plan.Dense(100, 64),
		plan.Conv(plan.Conv2D{H: 8, W: 8, C: 4, OutC: 8, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
	} {
		columns, n := op.AsConv().C, op.Rows()*op.Terms()
		want := make([]int32, n)
		for i := range want {
			want[i] = int32(math.Round(300 * rng.NormFloat64()))
		}
		chance := shuffledScaled(op, want)
		if least := float64(columns) / float64(n); chance < 0.9*least || chance > 4*least+0.02 {
			t.Errorf("%v: chance %g, one integer per column is %g", op, chance, least)
		}
		guess := &Weights{Rows: op.Rows(), Terms: op.Terms(), Column: make([]uint32, columns), W: slices.Clone(want), Known: slices.Repeat([]bool{true}, n)}
		var guessed [2]int
		for range 8 {
			rng.Shuffle(n, func(i, j int) { guess.W[i], guess.W[j] = guess.W[j], guess.W[i] })
			guessed[0] += guess.scaled(want)
			for i := range guess.W {
				guess.W[i] = 1 + rng.Int32N(500)
			}
			guessed[1] += guess.scaled(want)
			copy(guess.W, want)
		}
		for _, right := range guessed {
			if s := (score{right: right, of: 8 * n, chance: chance}); s.verdict() != AtChance {
				t.Errorf("%v: a guess is right %g of times, by chance %g: %s", op, s.rate(), chance, s.verdict())
			}
		}
		for i := range guess.W {
			guess.W[i] *= int32(1+i/op.Terms()%3) * int32(2-i%columns%5)
		}
		if s := (score{right: guess.scaled(want), of: n, chance: chance}); s.verdict() == AtChance {
			t.Errorf("%v: %d of %d by chance %g", op, s.right, n, chance)
		}
	}
}

// p is compared with sums of the binomial distribution, and verdicts with given ones.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		right, of int
		chance    float64
	}{{0, 10, 0.5}, {5, 10, 0.5}, {9, 10, 0.5}, {64, 64, 0.5}, {3, 200, 0.0625}, {40, 200, 0.0625}, {1, 100000, 1.0 / 3368562317}} {
		below, above := 0.0, 0.0
		for k := range c.of + 1 {
			a, _ := math.Lgamma(float64(c.of + 1))
			b, _ := math.Lgamma(float64(k + 1))
			d, _ := math.Lgamma(float64(c.of - k + 1))
			p := math.Exp(a - b - d + float64(k)*math.Log(c.chance) + float64(c.of-k)*math.Log1p(-c.chance))
			if k <= c.right {
				below += p
			}
			if k >= c.right {
				above += p
			}
		}
		near := func(got, want float64) bool { return math.Abs(got-want) <= 1e-300+1e-6*want }
		if s := (score{right: c.right, of: c.of, chance: c.chance}); !near(s.p(), above) {
			t.Errorf("%+v: %g, want %g", c, s.p(), above)
		}
		if s := (score{right: c.right, of: c.of, chance: c.chance, game: true}); !near(s.p(), min(1, 2*min(below, above))) {
			t.Errorf("game, %+v: %g, want twice %g or %g", c, s.p(), below, above)
		}
	}
	for _, c := range []struct {
		score
		want       Verdict
		detectable int // as a count of right guesses, 0 for none
	}{
		// The counts are from exact sums of binomial coefficients.
		{score{64, 64, 0.5, true}, Broken, 60}, {score{0, 64, 0.5, true}, Leaks, 60}, {score{40, 64, 0.5, true}, AtChance, 60},
		{score{60, 64, 0.5, true}, Broken, 60}, {score{59, 64, 0.5, true}, AtChance, 60}, {score{4, 64, 0.5, true}, Leaks, 60}, {score{5, 64, 0.5, true}, AtChance, 60},
		{score{187, 256, 0.5, true}, Leaks, 187}, {score{186, 256, 0.5, true}, AtChance, 187},
		{score{0, 64, 0.5, false}, AtChance, 60}, {score{0, 100000, 0.2, false}, AtChance, 20936},
		{score{10, 10, 0.5, true}, Few, 0}, {score{0, 0, 0.5, true}, Few, 0}, {score{3, 3, 1, false}, Few, 0}, {score{0, 0, 0, false}, Few, 0},
		{score{0, 100, 0, false}, AtChance, 1}, {score{1, 100, 0, false}, Leaks, 1}, {score{95, 100, 0, false}, Broken, 1}, {score{1, 1000, 1e-9, false}, AtChance, 3},
	} {
		if got := c.verdict(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.score, got, c.want)
		}
		if got, want := c.score.detectable(), float64(c.detectable)/float64(max(1, c.of)); got != want {
			t.Errorf("%+v: %g is detectable, want %g", c.score, got, want)
		}
	}
}

// Cross ratios with a weight of zero do not count.
func TestCrossRatios(t *testing.T) {
	r, op := ring.Q4(), plan.Dense(40, 8)
	w, rng := make([]int32, 320), mathrand.New(mathrand.NewPCG(23, 24))
	for i := range w {
		if w[i] = 1 + rng.Int32N(99); rng.IntN(2) == 0 {
			w[i] = 0
		}
	}
	what := ring.NewMatrix(8, 40)
	for i := range what.Data {
		what.Data[i] = r.Mul(r.FromSigned(w[i]), uint32(1+i%40)) // few units, and small ones: all ratios are short
	}
	if right, of := (&target{}).crossRatios(r, op, what, w); right != of || of < 20 || of > 120 {
		t.Errorf("%d of %d, want about a sixteenth of 850", right, of)
	}
	clear(w)
	if right, of := (&target{}).crossRatios(r, op, ring.NewMatrix(8, 40), w); right != 0 || of != 0 {
		t.Errorf("%d of %d of zeros", right, of)
	}
}

// Uniform words pass all tests, and the quantiles of chi-squared agree with tables.
func TestStatistics(t *testing.T) {
	r := ring.Q4()
	calls := make([]ring.Matrix, 4)
	for c := range calls {
		calls[c] = ring.NewMatrix(8, 784)
		prg.New(prg.NewSeed()).Fill(r, calls[c].Data, 0)
	}
	if n := len(Statistics(r, calls, make([]bool, 8*784))); n != 27 {
		t.Errorf("%d tests without an input of zero, want 5 fewer", n)
	}
	zero := make([]bool, 8*784)
	for i := range zero {
		zero[i] = i%3 == 0
	}
	all := Statistics(r, calls, zero)
	names := map[string]bool{}
	for _, s := range all {
		names[s.Name] = true
		if s.P < Alarm || s.P > 1 {
			t.Errorf("%+v", s)
		}
	}
	if len(names) != 32 {
		t.Errorf("%d tests", len(names))
	}
	// Chi-squared of 1 and of 10 degrees exceeds 3.841 and 18.307 with probability 5 %.
	for cells, value := range map[int]float64{2: 3.841, 11: 18.307} {
		share, counts := make([]float64, cells), make([]int, cells)
		const n = 1_000_000
		for i := range share {
			share[i], counts[i] = 1/float64(cells), n
		}
		// Moving d from one cell to another gives 2 d²/n.
		d := int(math.Round(math.Sqrt(value * n / 2)))
		counts[0] += d
		counts[1] -= d
		if s := chiSquared("", counts, share); math.Abs(s.Value-value) > 0.01 || math.Abs(s.P-2*0.05) > 0.002 {
			t.Errorf("%d cells: %+v", cells, s)
		}
	}
	// Chi-squared of 10 degrees is below 3.940 with probability 5 %.
	counts, d := slices.Repeat([]int{1_000_000}, 11), int(math.Round(math.Sqrt(3.940*1_000_000/2)))
	counts[0] += d
	counts[1] -= d
	if s := chiSquared("", counts, slices.Repeat([]float64{1.0 / 11}, 11)); math.Abs(s.P-2*0.05) > 0.002 {
		t.Errorf("below: %+v", s)
	}
	for n, tested := range map[int]bool{0: false, 31: false, 32: true} {
		if s := chiSquared("", []int{n, 0}, []float64{0.5, 0.5}); math.IsNaN(s.P) == tested {
			t.Errorf("%d words: %+v", n, s)
		}
	}
}

// Evenly spaced words over the whole ring, in random order, are too even and fail.
func TestEvenWordsFail(t *testing.T) {
	r := ring.Q4()
	calls := make([]ring.Matrix, 4)
	const each = 8 * 784
	step := r.Modulus() / uint32(each*len(calls)) // a unit
	if !r.IsUnit(step) {
		t.Fatalf("a step of %d", step)
	}
	order := mathrand.New(mathrand.NewPCG(25, 26)).Perm(each * len(calls))
	for c := range calls {
		calls[c] = ring.NewMatrix(8, 784)
		for i := range calls[c].Data {
			calls[c].Data[i] = step * uint32(order[c*each+i])
		}
	}
	failed := 0
	for _, s := range Statistics(r, calls, make([]bool, each)) {
		if s.Name == "high bits" || strings.HasPrefix(s.Name, "words mod") {
			if failed++; s.P >= Alarm || s.Value > 10 {
				t.Errorf("%+v", s)
			}
		}
	}
	if failed != 5 {
		t.Errorf("%d tests of single words", failed)
	}
}

// Too few words equal to those of the call before fail, as do too many.
func TestEqualWords(t *testing.T) {
	r, err := ring.New(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	at := func(n, equal int) Statistic {
		calls := []ring.Matrix{ring.NewMatrix(1, n), ring.NewMatrix(1, n)}
		for i := equal; i < n; i++ {
			calls[1].Data[i] = 1
		}
		return equalWords(r, calls)
	}
	for _, c := range []struct{ n, equal int }{{15, 0}, {15, 1}, {15, 4}, {60, 1}, {60, 9}, {600, 40}, {600, 12}} {
		lambda, below, above := float64(c.n)/15, 0.0, 0.0
		for k := range 400 {
			g, _ := math.Lgamma(float64(k + 1))
			p := math.Exp(float64(k)*math.Log(lambda) - lambda - g)
			if k <= c.equal {
				below += p
			}
			if k >= c.equal {
				above += p
			}
		}
		want := min(1, 2*min(below, above))
		if s := at(c.n, c.equal); s.Value != float64(c.equal) || math.Abs(s.P-want) > 1e-9*want {
			t.Errorf("%d of %d: %+v, want p %g", c.equal, c.n, s, want)
		}
	}
	for equal, fails := range map[int]bool{0: true, 100: false, 300: true} {
		if s := at(1500, equal); s.P < Alarm != fails {
			t.Errorf("%d of 1500: %+v", equal, s)
		}
	}
}
