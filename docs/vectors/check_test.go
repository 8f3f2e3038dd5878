package vectors_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/verify"
)

type checkCase struct {
	Name  string          `json:"name"`
	P     uint64          `json:"p"`
	Layer json.RawMessage `json:"layer"`
	W     []int32         `json:"w"`
	S     []uint64        `json:"s"`
	V     []uint64        `json:"v"`
	N     int             `json:"n"` // samples
	X     []int32         `json:"x"`
	Y     []int32         `json:"y"`
	// "accept", or "reject" for the samples named.
	Expect  string `json:"expect"`
	Samples []int  `json:"samples,omitempty"`
}

func checkCases(t *testing.T) (cases []any) {
	const n = 3
	field := verify.DefaultField()
	for i, l := range layers {
		rng := random(uint64(400 + i))
		in, out := l.op.InLen(), l.op.OutLen()
		w, x := signed(rng, l.op.Rows()*l.op.Terms(), 1000), signed(rng, n*in, 1000)
		s := make([]uint64, out)
		var drawn []byte
		for j := range s {
			s[j] = rng.Uint64N(field.P())
			drawn = binary.LittleEndian.AppendUint64(drawn, s[j])
		}
		var key *verify.Key
		var err error
		dealing(drawn, func() { key, err = verify.NewKey(field, l.op, w) })
		if err != nil {
			t.Fatal(err)
		}
		again, v := key.Vectors()
		if !slices.Equal(again, s) {
			t.Fatal("the key has another S than was drawn")
		}
		y := product(l.op, w, x, n)
		for _, c := range []struct {
			name    string
			lie     func(y []int32)
			samples []int
		}{
			{"right", func([]int32) {}, nil},
			{"one element off by one", func(y []int32) { y[out+1]++ }, []int{1}},
			{"two errors that cancel in the sum", func(y []int32) { y[0]++; y[1]-- }, []int{0}},
			{"two samples swapped", func(y []int32) {
				for j := range out {
					y[j], y[2*out+j] = y[2*out+j], y[j]
				}
			}, []int{0, 2}},
			{"all zeros", func(y []int32) { clear(y) }, []int{0, 1, 2}},
			{"the last element's sign", func(y []int32) { y[n*out-1] = -y[n*out-1] - 1 }, []int{2}},
		} {
			forged := slices.Clone(y)
			c.lie(forged)
			cases = append(cases, judged(t, key, checkCase{Name: l.name + ", " + c.name, P: field.P(), Layer: opJSON(t, l.op),
				W: w, S: s, V: v, N: n, X: x, Y: forged}, c.samples))
		}
	}

	// Over F_17 a wrong answer passes where S·(y - y*) happens to be 0.
	small := must[verify.Field](t)(verify.NewField(17))
	op := plan.Dense(2, 2)
	key := must[*verify.Key](t)(verify.RestoreKey(small, op, []uint64{3, 5}, []uint64{1, 9}))
	for _, c := range []struct {
		name    string
		y       []int32
		samples []int
	}{
		{"right", []int32{1, 3}, nil},
		{"wrong, and seen", []int32{2, 3}, []int{0}},
		{"wrong, and not seen", []int32{6, 0}, nil},
	} {
		// V = (3·1 + 5·3, 3·2 + 5·4) mod 17
		cases = append(cases, judged(t, key, checkCase{Name: "a field of 17, " + c.name, P: 17, Layer: opJSON(t, op),
			W: []int32{1, 2, 3, 4}, S: []uint64{3, 5}, V: []uint64{1, 9}, N: 1, X: []int32{1, 0}, Y: c.y}, c.samples))
	}
	return cases
}

// judged completes a case with the verdict on it, which must name the samples.
func judged(t *testing.T, key *verify.Key, c checkCase, samples []int) checkCase {
	t.Helper()
	var rejected *verify.RejectedError
	_, err := key.Open(verify.NewCandidate(slices.Clone(c.Y), c.N), c.X)
	if errors.As(err, &rejected) {
		c.Expect, c.Samples = "reject", rejected.Samples
	} else if err != nil {
		t.Fatal(err)
	} else {
		c.Expect = "accept"
	}
	if !slices.Equal(c.Samples, samples) {
		t.Fatalf("%s: samples %v are rejected, want %v", c.Name, c.Samples, samples)
	}
	return c
}

// product returns the integer products of n samples, by the definition.
func product(op plan.Op, w, x []int32, n int) []int32 {
	y := make([]int32, n*op.OutLen())
	for s := range n {
		x, y := x[s*op.InLen():], y[s*op.OutLen():]
		if op.Kind == plan.KindDense {
			for o := range op.Out {
				for i := range op.In {
					y[o] += w[o*op.In+i] * x[i]
				}
			}
			continue
		}
		c := op.Conv
		inG, outG := c.C/c.Groups, c.OutC/c.Groups
		for e := range op.OutLen() {
			p, q, o := e/c.OutC/c.OutW(), e/c.OutC%c.OutW(), e%c.OutC
			for term := range op.Terms() {
				a, b, i := term/inG/c.KW, term/inG%c.KW, term%inG
				h, v := p*c.SH+a*c.DH-c.Top, q*c.SW+b*c.DW-c.Left
				if h >= 0 && h < c.H && v >= 0 && v < c.W {
					y[e] += w[o*op.Terms()+term] * x[(h*c.W+v)*c.C+o/outG*inG+i]
				}
			}
		}
	}
	return y
}
