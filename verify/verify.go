// Package verify checks products that an untrusted cloud computed.
//
// At sealing, for every linear layer y = W x with integer W, the host draws a secret
// vector S, uniform in F_P, with one entry per output element (every channel and position
// of a convolution). It keeps V = S·W mod P (the adjoint, one entry per input element).
// For every sample it then tests
//
//	S·y = V·x  (mod P),   P = 2^52 - 47
//
// on the unmasked integers. |y| <= (M-1)/2 < P/2 for right and wrong y alike, so
// a wrong y differs from the right one by less than P somewhere, and passes with
// probability at most 1/P < 2^-51, however many elements are wrong. Right
// answers always pass. (Freivalds 1977; docs/spec.md, section 6.)
//
// A Candidate is an unmasked product that has not been checked. Only Key.Open and
// Key.OpenFloats give out its elements.
//
// What holds secrets prints redacted, but not as a value in a field of another type that is not
// exported: package fmt calls no methods there.
//
// The time of a check depends on shapes, not on values, with two exceptions: the processor's
// division instruction, once per sum, and subnormal floats, which may take longer. Drawing S
// skips words, which is independent of the words kept.
package verify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/securenets/securenets/internal/parallel"
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/plan"
)

// ErrRejected is wrapped by every rejection.
var ErrRejected = errors.New("verify: wrong answer rejected")

// RejectedError names the samples of a call whose product failed the check.
// Nothing of the call may be used. The samples must not be revealed to the cloud, which would
// then have one try per sample and not per call.
type RejectedError struct {
	Samples []int // indices in the batch, in order
}

func (e *RejectedError) Error() string {
	if len(e.Samples) == 0 {
		return ErrRejected.Error()
	}
	return fmt.Sprintf("%v: %d samples, the first is %d", ErrRejected, len(e.Samples), e.Samples[0])
}
func (e *RejectedError) Unwrap() error { return ErrRejected }

// ErrKey reports vectors that do not make a key.
var ErrKey = errors.New("verify: not a key")

// LengthError reports a slice whose length does not match the layer or the batch.
type LengthError struct {
	What string // which slice
	Got  int    // its length
	Each int    // the length wanted for each sample
	N    int    // number of samples; 1 for slices that are not per sample
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("verify: %s of length %d, want %d times %d", e.What, e.Got, e.N, e.Each)
}

// wantLen returns a *LengthError unless got is n·each, with each > 0.
func wantLen(what string, got, n, each int) error {
	if each > 0 && got%each == 0 && got/each == n { // n·each may overflow
		return nil
	}
	return &LengthError{What: what, Got: got, Each: each, N: n}
}

// Key is the secret of one layer's check. It prints redacted and never leaves the host.
// The zero value opens nothing.
type Key struct {
	op    plan.Op
	field Field
	s, v  []uint64 // op.OutLen() and op.InLen() elements of the field
	// sumS and sumV are the sums of their elements mod P.
	sumS, sumV uint64
}

// NewKey draws S from crypto/rand and computes V for the integer weights w,
// op.Rows() x op.Terms() row-major. It takes op.MulAdds() multiply-adds.
func NewKey(f Field, op plan.Op, w []int32) (*Key, error) {
	return newKey(f, op, w, rand.Reader)
}

// newKey is NewKey with a source of randomness for tests.
func newKey(f Field, op plan.Op, w []int32, source io.Reader) (*Key, error) {
	if f.p == 0 {
		return nil, ErrField
	}
	if err := op.Validate(); err != nil {
		return nil, err
	}
	if err := wantLen("weights", len(w), op.Rows(), op.Terms()); err != nil {
		return nil, err
	}
	s := make([]uint64, op.OutLen())
	if err := f.uniform(s, source); err != nil {
		return nil, err
	}
	return makeKey(f, op, s, f.adjoint(op, s, w)), nil
}

// RestoreKey restores a key from its vectors after checking their lengths and ranges. It keeps
// s and v.
func RestoreKey(f Field, op plan.Op, s, v []uint64) (*Key, error) {
	if f.p == 0 {
		return nil, ErrField
	}
	if err := op.Validate(); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name string
		v    []uint64
		want int
	}{{"S", s, op.OutLen()}, {"V", v, op.InLen()}} {
		if err := wantLen(c.name, len(c.v), 1, c.want); err != nil {
			return nil, err
		}
		for i, e := range c.v {
			if e >= f.p {
				return nil, fmt.Errorf("%w: %s[%d] is not in the field", ErrKey, c.name, i)
			}
		}
	}
	return makeKey(f, op, s, v), nil
}

func makeKey(f Field, op plan.Op, s, v []uint64) *Key {
	return &Key{op: op, field: f, s: s, v: v, sumS: f.sum(s), sumV: f.sum(v)}
}

// Rekey returns a new key of the same layer, with S drawn anew, after checking that w are
// the weights of k: V = S·W. For other weights its error wraps ErrKey; wrong weights
// chosen without knowing S would pass with probability 1/P. k is unchanged. It takes
// 2·op.MulAdds() multiply-adds.
func (k *Key) Rekey(w []int32) (*Key, error) {
	if err := wantLen("weights", len(w), k.op.Rows(), k.op.Terms()); err != nil {
		return nil, err
	}
	if !slices.Equal(k.field.adjoint(k.op, k.s, w), k.v) {
		return nil, fmt.Errorf("%w for these weights", ErrKey)
	}
	return NewKey(k.field, k.op, w)
}

// adjoint returns V = S·W mod P: the product with the transpose of op's linear
// map. For a dense layer V[i] = Σ_o S[o]·W[o, i]; for a convolution it is the
// transposed convolution of S: each output element adds its share to the input elements that
// it is a sum of.
//
// As in a check, the integers are biased when summed.
func (f Field) adjoint(op plan.Op, s []uint64, w []int32) []uint64 {
	c := op.AsConv()
	inG, outG := c.C/c.Groups, c.OutC/c.Groups // channels of a group
	v := newWide(op.InLen())                   // an element is a sum of at most op.OutLen() < 2^44 products
	share, block := v.byRows, 4096
	if c.Positions() >= 4 && outG >= 16 {
		share, block = v.byColumns, 64 // columns at one place of the kernel stay in the second-level cache
	}
	blocks := (inG + block - 1) / block
	parallel.Do(c.Groups*blocks, int(op.MulAdds()), func(first, end int) {
		for i := first; i < end; i++ {
			from := i % blocks * block
			share(c, s, w, i/blocks, from, min(inG, from+block))
		}
	})

	// The bias adds S summed over the same elements, equally for all channels of a group.
	sums, excess := make([]uint64, c.Positions()*c.Groups), make([]uint64, c.H*c.W*c.Groups)
	for i := range sums {
		sums[i] = f.sum(s[i*outG:][:outG])
	}
	for a := range c.KH {
		for b := range c.KW {
			reach(c, a, b, func(out, in int) {
				for g, e := range sums[out*c.Groups:][:c.Groups] {
					i := in*c.Groups + g
					excess[i] = f.add(excess[i], e)
				}
			})
		}
	}
	return v.reduce(f, func(i int) uint64 { return excess[i/inG] })
}

// byRows adds the shares of channels [from, to) of group g, one output element at a time: its
// element of S times its part of W's row.
func (v wide) byRows(c plan.Conv2D, s []uint64, w []int32, g, from, to int) {
	inG, outG := c.C/c.Groups, c.OutC/c.Groups
	for a := range c.KH {
		for b := range c.KW {
			reach(c, a, b, func(out, in int) {
				for o := g * outG; o < (g+1)*outG; o++ {
					row := w[((o*c.KH+a)*c.KW+b)*inG:][from:to]
					v.addScaled(in*c.C+g*inG+from, s[out*c.OutC+o], row)
				}
			})
		}
	}
}

// byColumns is byRows, one position of the output at a time: it sums S over that position's
// channels, which are contiguous, times a column of W, which is copied to be contiguous.
// It is faster if columns are long and serve many positions.
func (v wide) byColumns(c plan.Conv2D, s []uint64, w []int32, g, from, to int) {
	inG, outG := c.C/c.Groups, c.OutC/c.Groups
	stride := outG + 16 // strides of powers of two would share a few cache sets
	columns := make([]int32, (to-from)*stride)
	for a := range c.KH {
		for b := range c.KW {
			for o := range outG {
				row := w[(((g*outG+o)*c.KH+a)*c.KW+b)*inG:][from:to]
				for j, e := range row {
					columns[j*stride+o] = e
				}
			}
			reach(c, a, b, func(out, in int) {
				at, first := s[out*c.OutC+g*outG:][:outG], in*c.C+g*inG+from
				for j := range to - from {
					hi, lo := tiers[0].sum(at, columns[j*stride:][:outG])
					v.add(first+j, hi, lo)
				}
			})
		}
	}
}

// reach calls do for each position out of c's output that reads the map, not padding, with
// element (a, b) of the kernel; in is the position of the map that it reads.
func reach(c plan.Conv2D, a, b int, do func(out, in int)) {
	rows, cols := c.OutH(), c.OutW()
	for p := range rows {
		h := p*c.SH + a*c.DH - c.Top
		if h < 0 || h >= c.H {
			continue
		}
		for q := range cols {
			if x := q*c.SW + b*c.DW - c.Left; x >= 0 && x < c.W {
				do(p*cols+q, h*c.W+x)
			}
		}
	}
}

// Op returns the operator whose products k checks.
func (k *Key) Op() plan.Op { return k.op }

// Vectors returns S and V, for the host's secret file alone. They are not copies.
func (k *Key) Vectors() (s, v []uint64) { return k.s, k.v }

const redactedKey = "verify.Key(redacted)"

func (Key) String() string   { return redactedKey }
func (Key) GoString() string { return redactedKey }

// Format prints a key redacted, whatever the verb.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, redactedKey) }

// Candidate is the unmasked products of a batch, not yet checked. It prints redacted. No
// key opens the zero value.
type Candidate struct {
	n, each int // samples, elements of one
	tile    int
	read    func(dst, scratch []int32, i, at int)
	pairs   func(dst, scratch []int32, i, at int) // nil if samples are read one by one
}

// NewCandidate wraps y, n samples of signed integers with |y| <= (M-1)/2. It keeps y,
// which the caller must no longer use. If y is not n samples of one length, the result is
// the zero value.
func NewCandidate(y []int32, n int) Candidate {
	if n < 1 || len(y)%n != 0 {
		return Candidate{}
	}
	each := len(y) / n
	return LazyCandidate(n, each, max(each, 1), func(dst, _ []int32, i, at int) { copy(dst, y[i*each+at:]) })
}

// LazyCandidate is NewCandidate for products that are unmasked when they are checked, a tile
// of one or more elements at a time, and not kept. There are n samples of each elements. read
// sets dst to the elements of sample i from at on, where at is a multiple of tile and dst has
// tile elements, or fewer at the end. It may use scratch, which has the same length. Several
// goroutines call it at once. For a tile of no elements, or without read, the result is the zero
// value.
func LazyCandidate(n, each, tile int, read func(dst, scratch []int32, i, at int)) Candidate {
	if tile < 1 || read == nil {
		return Candidate{}
	}
	return Candidate{n: n, each: each, tile: tile, read: read}
}

// InPairs returns c with samples i and i+1 read at once where possible, by pairs. pairs
// is like read, with dst and scratch of twice the length: element at+k of sample i goes
// to dst[2k], that of sample i+1 to dst[2k+1].
func (c Candidate) InPairs(pairs func(dst, scratch []int32, i, at int)) Candidate {
	c.pairs = pairs
	return c
}

// Format prints a candidate redacted, whatever the verb.
func (Candidate) Format(f fmt.State, _ rune) { io.WriteString(f, "verify.Candidate(unchecked)") }

// want returns a *LengthError unless c has products of out elements each.
func (c Candidate) want(out int) error {
	if c.each == out && c.n > 0 {
		return nil
	}
	return &LengthError{What: "products", Got: c.n * c.each, Each: out, N: c.n}
}

// Expected is V·x for the samples of a batch, for checking their products. It prints
// redacted. Expect makes it; the zero value has no samples to add to.
type Expected struct {
	key  *Key
	sums []sum
}

// Format prints e redacted, whatever the verb.
func (Expected) Format(f fmt.State, _ rune) { io.WriteString(f, "verify.Expected(redacted)") }

// Expect returns the sums of n samples, with no terms added yet. Each input is to be added once:
// one that never is counts as -2^31.
func (k *Key) Expect(n int) Expected { return Expected{k, make([]sum, n)} }

// Add adds the terms of x, the elements of sample i from at on. Several goroutines may add to
// different samples at once.
func (e Expected) Add(i, at int, x []int32) {
	e.sums[i].add(tiers[0], e.key.v[at:at+len(x)], x)
}

// AddPairs is Add for samples i and i+1, whose elements are interleaved: x[2k] is element at+k
// of sample i, x[2k+1] that of sample i+1.
func (e Expected) AddPairs(i, at int, x []int32) {
	for k, s := range tiers[0].sumPairs(e.key.v[at:at+len(x)/2], x) {
		e.sums[i+k].addWide(s.hi, s.lo)
	}
}

// Open checks every sample of c against its input x (n samples of op.InLen()
// integers) and returns the products, n samples of op.OutLen() integers. If any
// sample fails it returns a *RejectedError naming all that do, and no value. Slices that do
// not fit the layer or the batch give a *LengthError. All sums are finished before the first
// comparison, so the time taken does not depend on where an answer is wrong.
func (k *Key) Open(c Candidate, x []int32) ([]int32, error) {
	in, out := len(k.v), len(k.s)
	if err := c.want(out); err != nil {
		return nil, err
	}
	if err := wantLen("inputs", len(x), c.n, in); err != nil {
		return nil, err
	}
	expected := k.Expect(c.n)
	for i := range c.n {
		expected.Add(i, 0, x[i*in:(i+1)*in])
	}
	y := make([]int32, c.n*out)
	c.pairs = nil // samples are copied one by one
	if err := k.check(c, expected, func(i, at int, tile []int32, _ bool) { copy(y[i*out+at:], tile) }); err != nil {
		return nil, err
	}
	return y, nil
}

// OpenFloats is Open for products whose inputs were added to expected. It sets dst to
// their floats, y·row·sample + bias, with one scale per sample. Sums of another key are
// refused with an error wrapping ErrKey. Until it returns, dst holds unchecked values; on
// an error, or a panic of c's read in the calling goroutine, it is zero.
func (k *Key) OpenFloats(dst []float32, c Candidate, expected Expected, sample []float32, to Scale) error {
	right := false
	defer func() {
		if !right {
			clear(dst)
		}
	}()
	out := len(k.s)
	if err := c.want(out); err != nil {
		return err
	}
	if expected.key != k {
		return fmt.Errorf("%w for these inputs", ErrKey)
	}
	for _, w := range []struct {
		what           string
		got, n, length int
	}{
		{"outputs", len(dst), c.n, out}, {"sums of inputs", len(expected.sums), c.n, 1},
		{"scales of samples", len(sample), c.n, 1}, {"scales of rows", to.rows, 1, k.op.Rows()},
	} {
		if err := wantLen(w.what, w.got, w.n, w.length); err != nil {
			return err
		}
	}
	err := k.check(c, expected, func(i, at int, tile []int32, paired bool) {
		if paired {
			n := len(tile) / 2
			to.setPairs(dst[i*out+at:][:n], dst[(i+1)*out+at:][:n], tile, at, [2]float32{sample[i], sample[i+1]})
			return
		}
		to.set(dst[i*out+at:][:len(tile)], tile, at, sample[i])
	})
	right = err == nil
	return err
}

// check reads every sample of c once, calls use for its tiles, and returns a *RejectedError
// naming the wrong samples. Several goroutines call use, for different samples. The tiles are
// not checked yet. If paired, a tile interleaves samples i and i+1.
func (k *Key) check(c Candidate, expected Expected, use func(i, at int, tile []int32, paired bool)) error {
	diff := make([]uint64, c.n)
	out := len(k.s)
	parallel.Do(c.n, c.n*(len(k.v)+out), func(from, to int) {
		length := min(c.tile, out)
		width := 1
		if c.pairs != nil {
			width = 2
		}
		both := tiles.Get(2 * width * length)
		defer tiles.Put(both)
		compare := func(i int, sy sum) {
			diff[i] = k.field.sub(sy.mod(k.field, k.sumS), expected.sums[i].mod(k.field, k.sumV))
		}
		i := from
		for ; c.pairs != nil && i+1 < to; i += 2 {
			var sy [2]sum
			for at := 0; at < out; at += length {
				n := min(length, out-at)
				y := both[:2*n]
				c.pairs(y, both[2*length:][:2*n], i, at)
				for part := 0; part < n; part += near {
					size := min(near, n-part)
					y, at := y[2*part:][:2*size], at+part
					for k, s := range tiers[0].sumPairs(k.s[at:at+size], y) {
						sy[k].addWide(s.hi, s.lo)
					}
					use(i, at, y, true)
				}
			}
			compare(i, sy[0])
			compare(i+1, sy[1])
		}
		for ; i < to; i++ {
			var sy sum
			for at := 0; at < out; at += length {
				y := both[:min(length, out-at)]
				c.read(y, both[length:][:len(y)], i, at)
				sy.add(tiers[0], k.s[at:at+len(y)], y)
				use(i, at, y, false)
			}
			compare(i, sy)
		}
	})
	var wrong []int
	for i, d := range diff {
		if d != 0 {
			wrong = append(wrong, i)
		}
	}
	if wrong != nil {
		return &RejectedError{Samples: wrong}
	}
	return nil
}

// near is the number of pairs that are summed before they are used: few enough to stay in the
// first-level cache.
const near = 1024

// tiles lends memory for unchecked products. None of it leaves check.
var tiles pool.Of[int32]
