package verify

import (
	"crypto/rand"
	"fmt"
	"io"
	"math/big"

	"github.com/securenets/securenets/plan"
)

// SpotCheck is the paper's check, for comparison alone: it recomputes c distinct entries
// of a candidate's products, chosen uniformly by crypto/rand, and reports whether all are
// right. If the candidate has fewer than c entries, it recomputes all. The paper has c =
// 10 and 100, for a whole call.
//
// It is no substitute for Key.Open, and returns no values. It detects one wrong entry of N
// with probability c/N only, not 1 - 2^-c as the paper states, and k wrong ones with
// 1 - C(N-k, c)/C(N, c).
//
// w is op.Rows() x op.Terms() row-major and x holds the candidate's inputs, as for
// NewKey and Open. It takes c·op.Terms() multiply-adds. The integers must be
// quantised: below 2^63 in every sum of |w|·|x|.
func SpotCheck(op plan.Op, w, x []int32, candidate Candidate, c int) (passed bool, err error) {
	return spotCheck(op, w, x, candidate, c, rand.Reader)
}

// spotCheck is SpotCheck with a source of randomness for tests.
func spotCheck(op plan.Op, w, x []int32, candidate Candidate, c int, source io.Reader) (passed bool, err error) {
	if err := op.Validate(); err != nil {
		return false, err
	}
	n, out := candidate.n, op.OutLen()
	if err := wantLen("weights", len(w), op.Rows(), op.Terms()); err != nil {
		return false, err
	}
	if err := candidate.want(out); err != nil {
		return false, err
	}
	if err := wantLen("inputs", len(x), n, op.InLen()); err != nil {
		return false, err
	}
	if c < 1 {
		return false, fmt.Errorf("verify: spot check of %d entries", c)
	}
	entries, err := choose(n*out, c, source)
	if err != nil {
		return false, err
	}
	tile, scratch := make([]int32, min(candidate.tile, out)), make([]int32, min(candidate.tile, out))
	passed = true
	for _, e := range entries {
		i, e := e/out, e%out
		at := e / len(tile) * len(tile)
		part := tile[:min(len(tile), out-at)]
		candidate.read(part, scratch[:len(part)], i, at)
		passed = entry(op, w, x[i*op.InLen():][:op.InLen()], e) == int64(part[e-at]) && passed
	}
	return passed, nil
}

// choose returns min(c, n) distinct integers of [0, n). All sets of that size are equally
// likely (Floyd's algorithm).
func choose(n, c int, source io.Reader) ([]int, error) {
	c = min(c, n)
	chosen, taken := make([]int, 0, c), make(map[int]bool, c)
	for i := n - c; i < n; i++ {
		k, err := rand.Int(source, big.NewInt(int64(i+1)))
		if err != nil {
			return nil, err
		}
		e := int(k.Int64())
		if taken[e] {
			e = i
		}
		taken[e] = true
		chosen = append(chosen, e)
	}
	return chosen, nil
}

// entry returns output element e of op's product of w and one sample x.
func entry(op plan.Op, w, x []int32, e int) (sum int64) {
	c := op.AsConv()
	position, o := e/c.OutC, e%c.OutC
	p, q := position/c.OutW(), position%c.OutW()
	inG, outG := c.C/c.Groups, c.OutC/c.Groups // channels of a group
	for a := range c.KH {
		h := p*c.SH + a*c.DH - c.Top
		for b := range c.KW {
			v := q*c.SW + b*c.DW - c.Left
			if h < 0 || h >= c.H || v < 0 || v >= c.W {
				continue // padding
			}
			pixel := x[(h*c.W+v)*c.C+o/outG*inG:][:inG]
			for i, a := range w[o*op.Terms()+(a*c.KW+b)*inG:][:inG] {
				sum += int64(a) * int64(pixel[i])
			}
		}
	}
	return sum
}
