package measure

import (
	"math"
	"slices"
)

// Series are the figures of a row, one a round.
type Series []float64

// Quartile returns the lower (1) or upper (3) quartile, or the median (2), between two
// figures in proportion, to five digits.
func (s Series) Quartile(q int) float64 {
	v := slices.Sorted(slices.Values(s))
	i, part := (len(v)-1)*q/4, float64((len(v)-1)*q%4)/4
	if part == 0 {
		return Round(v[i])
	}
	return Round(v[i] + part*(v[i+1]-v[i]))
}

// Round keeps five significant digits.
func Round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(v))))
	if scale >= 1 {
		return math.Round(v*scale) / scale
	}
	return math.Round(v/(1/scale)) * (1 / scale)
}

// Median returns the median.
func (s Series) Median() float64 { return s.Quartile(2) }

// Spread are the quartiles beside the median.
func (s Series) Spread() [2]float64 { return [2]float64{s.Quartile(1), s.Quartile(3)} }

// Mean returns the arithmetic mean.
func (s Series) Mean() float64 {
	sum := 0.0
	for _, v := range s {
		sum += v
	}
	return sum / float64(len(s))
}
