package vectors_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/kernels/gonum"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

type maskCase struct {
	Name   string          `json:"name"`
	Scheme string          `json:"scheme"`
	Ring   []uint32        `json:"ring"`
	Layer  json.RawMessage `json:"layer"` // the host's operator

	// The masks of the weights; absent for none.
	D []uint32 `json:"d,omitempty"`
	F []uint32 `json:"f,omitempty"`
	E []uint32 `json:"e,omitempty"`
	U []uint32 `json:"u,omitempty"`

	W    []int32  `json:"w"`
	What []uint32 `json:"what,omitempty"` // where all roles hold the same

	N int     `json:"n,omitempty"` // samples
	X []int32 `json:"x,omitempty"`
	// One of these, by the scheme.
	Pad      *padJSON      `json:"pad,omitempty"`
	Split    *splitJSON    `json:"split,omitempty"`
	Permute  *permuteJSON  `json:"permute,omitempty"`
	Lagrange *lagrangeJSON `json:"lagrange,omitempty"`

	Roles []roleJSON `json:"roles,omitempty"`
	Y     []int32    `json:"y,omitempty"`

	Error string `json:"error,omitempty"`
}

type padJSON struct {
	Seed  string   `json:"seed"`
	First uint64   `json:"first,string"` // index of the first sample's r
	U     []uint32 `json:"u"`            // What·r
}

type splitJSON struct {
	Seed string `json:"seed"`
}

type permuteJSON struct {
	FY []uint32 `json:"fy"` // a unit a row of the batch
	UY []uint32 `json:"uy"` // row i of the batch is row uy[i] of X
}

type lagrangeJSON struct {
	Weights string `json:"weights"` // the seed of R
	Seed    string `json:"seed"`    // of s
}

type roleJSON struct {
	What []uint32 `json:"what,omitempty"` // where roles hold different ones
	Seed string   `json:"seed,omitempty"` // what is sent in the place of xhat
	Xhat []uint32 `json:"xhat"`
	Yhat []uint32 `json:"yhat"`
}

var layers = []struct {
	name string
	op   plan.Op
}{
	{"dense", plan.Dense(7, 4)},
	{"conv", plan.Conv(plan.Conv2D{H: 5, W: 4, C: 3, OutC: 4, KH: 3, KW: 2, SH: 2, SW: 1, DH: 1, DW: 2, Top: 1, Left: 2, Bot: 0, Right: 1, Groups: 1})},
	{"conv of groups", plan.Conv(plan.Conv2D{H: 4, W: 3, C: 4, OutC: 6, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 0, Bot: 1, Right: 1, Groups: 2})},
	{"depthwise conv", plan.Conv(plan.Conv2D{H: 3, W: 3, C: 3, OutC: 3, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 3})},
}

func maskCases(t *testing.T) (cases []any) {
	for i, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for j, s := range transform.Schemes() {
			for k, l := range layers {
				if s.Inputs == transform.InputPermute && l.op.Kind == plan.KindConv2D && l.op.Conv.Groups > 1 {
					continue
				}
				name := fmt.Sprintf("%v, %v, %s", r, s, l.name)
				cases = append(cases, maskCaseOf(t, name, r, s, l.op, uint64(100+100*i+10*j+k)))
			}
		}
	}
	return append(cases, badMasks(t)...)
}

// maskCaseOf runs a layer from sealing to the checked product.
func maskCaseOf(t *testing.T, name string, r ring.Ring, s transform.Scheme, op plan.Op, stream uint64) maskCase {
	rng := random(stream)
	st := transform.LayerState{Op: op}
	if s.Weights == transform.WeightPermute {
		groups, rows, inputs := 1, op.Rows(), op.Terms()
		if op.Kind == plan.KindConv2D && s.Inputs != transform.InputPermute { // by channels
			groups, rows, inputs = op.Conv.Groups, op.Rows()/op.Conv.Groups, op.Conv.C/op.Conv.Groups
		}
		outer := rng.Perm(groups)
		st.D, st.F = units(rng, r, groups*rows), units(rng, r, groups*inputs)
		st.E, st.U = within(rng, outer, rows), within(rng, outer, inputs)
	}
	layer := must[*transform.Layer](t)(transform.RestoreLayer(r, s, st))
	const xmax = 1000
	c := maskCase{Name: name, Scheme: s.String(), Ring: r.Primes(), Layer: opJSON(t, op),
		D: st.D, F: st.F, E: st.E, U: st.U, N: 2,
		W: signed(rng, op.Rows()*op.Terms(), min(r.Max()/xmax/int32(op.Terms()), 2000)),
		X: signed(rng, 2*op.InLen(), xmax)}
	var (
		whats []ring.Matrix
		pads  *transform.Pads
		call  *transform.Call
		err   error
	)
	if s.Weights == transform.WeightLagrange {
		seed := seedBytes(rng)
		c.Lagrange = &lagrangeJSON{Weights: hexOf(seed)}
		dealing(seed, func() { whats, err = layer.Seal(c.W) })
	} else {
		whats, err = layer.Seal(c.W)
		c.What = whats[0].Data
	}
	if err != nil {
		t.Fatal(err)
	}

	backend := gonum.New()
	defer backend.Close()
	var products []*noting
	for _, what := range whats {
		p := &noting{Product: must[plan.Product](t)(backend.Load(t.Context(), r, layer.CloudOp(), what))}
		defer p.Close()
		products = append(products, p)
	}
	seed := seedBytes(rng)
	drawn := seed
	switch s.Inputs {
	case transform.InputPad:
		const first = 3
		dealing(seed, func() { pads, err = layer.NewPads(t.Context(), products[0], first+c.N) })
		if err != nil {
			t.Fatal(err)
		}
		must[*transform.Pads](t)(pads.Take(first))
		c.Pad = &padJSON{Seed: hexOf(seed), First: first, U: products[0].y[first*layer.CloudOp().OutLen():]}
	case transform.InputSplit:
		c.Split = &splitJSON{Seed: hexOf(seed)}
	case transform.InputLagrange:
		c.Lagrange.Seed = hexOf(seed)
	case transform.InputPermute:
		rows := layer.CloudRows(c.N)
		c.Permute = &permuteJSON{FY: units(rng, r, rows), UY: within(rng, []int{0}, rows)}
		drawn = draws(c.Permute)
	}
	dealing(drawn, func() { call, err = layer.Mask(c.X, c.N, pads) })
	if err != nil {
		t.Fatal(err)
	}

	var answers []ring.Matrix
	for i, m := range call.Masked() {
		x, ok := m.Words()
		var role roleJSON
		if c.Lagrange != nil {
			role.What = whats[i].Data
		}
		if !ok {
			seed, _ := m.Seed()
			role.Seed = hexOf(seed[:])
			x = ring.NewMatrix(m.Rows(), m.Cols())
			for i := range x.Rows {
				prg.New(seed).Fill(r, x.Row(i), uint64(i))
			}
		}
		y := ring.NewMatrix(x.Rows, layer.CloudOp().OutLen())
		if err := products[i].Evaluate(t.Context(), y, x); err != nil {
			t.Fatal(err)
		}
		role.Xhat, role.Yhat = x.Data, y.Data
		c.Roles, answers = append(c.Roles, role), append(answers, y)
	}
	candidate := must[verify.Candidate](t)(call.Unmask(answers))
	key := must[*verify.Key](t)(verify.NewKey(verify.DefaultField(), op, c.W))
	c.Y = must[[]int32](t)(key.Open(candidate, c.X))
	return c
}

// noting notes the words that a product gave.
type noting struct {
	plan.Product
	y []uint32
}

func (n *noting) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	err := n.Product.Evaluate(ctx, y, x)
	n.y = append(n.y, y.Data...)
	return err
}

// units returns n units.
func units(rng *mathrand.Rand, r ring.Ring, n int) (v []uint32) {
	for len(v) < n {
		if a := rng.Uint32N(r.Modulus()); r.IsUnit(a) {
			v = append(v, a)
		}
	}
	return v
}

// within returns a permutation of blocks of size elements, which go where outer
// says, and of the elements of each.
func within(rng *mathrand.Rand, outer []int, size int) (v []uint32) {
	for _, g := range outer {
		for _, i := range rng.Perm(size) {
			v = append(v, uint32(g*size+i))
		}
	}
	return v
}

// draws returns the random bytes from which Mask draws fy, then uy: little-endian
// words, those of uy the choices of Fisher and Yates from the last place down.
func draws(p *permuteJSON) (b []byte) {
	for _, f := range p.FY {
		b = binary.LittleEndian.AppendUint32(b, f)
	}
	v := make([]uint32, len(p.UY))
	for i := range v {
		v[i] = uint32(i)
	}
	for i := len(v) - 1; i > 0; i-- {
		j := slices.Index(v, p.UY[i])
		b = binary.LittleEndian.AppendUint32(b, uint32(j))
		v[i], v[j] = v[j], v[i]
	}
	return b
}

// badMasks are masks that no layer has.
func badMasks(t *testing.T) (cases []any) {
	r, s := ring.Q4(), transform.DefaultScheme()
	op := plan.Conv(plan.Conv2D{H: 2, W: 2, C: 4, OutC: 4, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2})
	for _, b := range []struct {
		name string
		harm func(st *transform.LayerState)
	}{
		{"zero in d", func(st *transform.LayerState) { st.D[1] = 0 }},
		{"a zero divisor in f", func(st *transform.LayerState) { st.F[2] = 241 * 1000 }},
		{"d not canonical", func(st *transform.LayerState) { st.D[0] = r.Modulus() + 1 }},
		{"a unit too few", func(st *transform.LayerState) { st.D = st.D[1:] }},
		{"e no permutation", func(st *transform.LayerState) { st.E[1] = st.E[0] }},
		{"u past the end", func(st *transform.LayerState) { st.U[3] = 4 }},
		{"a torn group of rows", func(st *transform.LayerState) { st.E = []uint32{0, 2, 1, 3} }},
		{"groups moved on one side alone", func(st *transform.LayerState) { st.E = []uint32{2, 3, 0, 1} }},
	} {
		st := transform.LayerState{Op: op, D: []uint32{1, 2, 3, 4}, F: []uint32{5, 6, 7, 8}, E: []uint32{0, 1, 2, 3}, U: []uint32{1, 0, 2, 3}}
		b.harm(&st)
		if _, err := transform.RestoreLayer(r, s, st); !errors.Is(err, transform.ErrMasks) {
			t.Fatalf("%s: %v", b.name, err)
		}
		cases = append(cases, maskCase{Name: b.name, Scheme: s.String(), Ring: r.Primes(), Layer: opJSON(t, op),
			D: st.D, F: st.F, E: st.E, U: st.U, W: []int32{}, Error: "not the masks of the layer"})
	}
	return cases
}
