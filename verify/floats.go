package verify

import (
	"fmt"
	"io"
	"slices"
)

// Scale converts the products of a layer to floats, with a scale and a bias for each row of the
// weight matrix. Rows are innermost in a product. It prints redacted. OpenFloats refuses the
// zero value.
type Scale struct {
	rows      int
	row, bias []float32 // repeated, so that loops over them are long
}

// Format prints s redacted, whatever the verb.
func (Scale) Format(f fmt.State, _ rune) { io.WriteString(f, "verify.Scale(redacted)") }

// NewScale returns the scales and biases of a layer's rows, at least one. bias is nil, or as
// long as row.
func NewScale(row, bias []float32) (Scale, error) {
	if bias == nil {
		bias = make([]float32, len(row))
	}
	if len(row) == 0 {
		return Scale{}, &LengthError{What: "scales of rows", Each: 1, N: 1}
	}
	if err := wantLen("bias", len(bias), 1, len(row)); err != nil {
		return Scale{}, err
	}
	const long = 1024
	times := max(1, long/len(row))
	return Scale{len(row), slices.Repeat(row, times), slices.Repeat(bias, times)}, nil
}

// Floats sets dst to y·row·sample + bias for products that need no check, with one scale
// per sample. dst is as long as y, which holds whole positions of each sample. s must not
// be the zero value.
func (s Scale) Floats(dst []float32, y []int32, sample []float32) {
	if len(sample) == 0 {
		return
	}
	each := len(y) / len(sample)
	for i, b := range sample {
		s.set(dst[i*each:(i+1)*each], y[i*each:(i+1)*each], 0, b)
	}
}

// set sets dst to the floats of elements of a sample from at on.
func (s Scale) set(dst []float32, y []int32, at int, sample float32) {
	for at %= s.rows; len(dst) > 0; at = 0 {
		n := min(len(dst), len(s.row)-at)
		tiers[0].floats(dst[:n], y[:n], s.row[at:], s.bias[at:], sample)
		dst, y = dst[n:], y[n:]
	}
}

// setPairs is set for two samples at once, with interleaved integers.
func (s Scale) setPairs(dst0, dst1 []float32, y []int32, at int, sample [2]float32) {
	for at %= s.rows; len(dst0) > 0; at = 0 {
		n := min(len(dst0), len(s.row)-at)
		tiers[0].floatsPairs(dst0[:n], dst1[:n], y[:2*n], s.row[at:], s.bias[at:], sample)
		dst0, dst1, y = dst0[n:], dst1[n:], y[2*n:]
	}
}

// floatsGeneric is the routine that others are compared with. The conversions keep the compiler
// from fusing multiply and add, so that every machine gives the same result.
func floatsGeneric(dst []float32, y []int32, row, bias []float32, sample float32) {
	y, row, bias = y[:len(dst)], row[:len(dst)], bias[:len(dst)]
	for i := range dst {
		dst[i] = float32(float32(y[i])*float32(row[i]*sample)) + bias[i]
	}
}

func floatsPairsGeneric(dst0, dst1 []float32, y []int32, row, bias []float32, sample [2]float32) {
	dst1, y, row, bias = dst1[:len(dst0)], y[:2*len(dst0)], row[:len(dst0)], bias[:len(dst0)]
	for i := range dst0 {
		dst0[i] = float32(float32(y[2*i])*float32(row[i]*sample[0])) + bias[i]
		dst1[i] = float32(float32(y[2*i+1])*float32(row[i]*sample[1])) + bias[i]
	}
}
