//go:build !purego

package verify

import "github.com/securenets/securenets/internal/cpuid"

// tiers are the tiers that this machine can run, the fastest first.
var tiers = func() (t []tier) {
	if cpuid.AVX512() {
		t = append(t, tier{"avx512", sumAVX512, floatsBy(16, floatsAVX512), sumPairsAVX512, floatsPairsBy(16, floatsPairsAVX512)})
	}
	if cpuid.AVX2() {
		t = append(t, tier{"avx2", sumAVX2, floatsBy(8, floatsAVX2), sumPairsAVX2, floatsPairsBy(8, floatsPairsAVX2)})
	}
	return append(t, generic)
}()

// sumAVX512 takes 32 terms at a time and leaves the rest to generic.
func sumAVX512(a []uint64, y []int32) (hi, lo uint64) {
	n := len(a) &^ 31
	hi, lo = generic.sum(a[n:], y[n:])
	a, y = a[:n], y[:n]
	s := sum{hi, lo}
	for len(a) > 0 {
		n := min(len(a), most512)
		var low, high [8]uint64
		dotAVX512(&a[0], &y[0], n, &low, &high)
		a, y = a[n:], y[n:]
		s.addLanes(&low, &high)
	}
	return s.hi, s.lo
}

// most512 is the maximum number of terms that are summed in lanes: their halves are below 2^52
// and 2^32, and a lane takes one term in 8, so that 2^12 of them stay below 2^64.
const most512 = 1 << 15

// addLanes adds low + high·2^52 of all lanes.
func (s *sum) addLanes(low, high *[8]uint64) {
	var top uint64 // < 2^15·2^32
	for i, l := range low {
		top += high[i]
		s.addWide(0, l)
	}
	s.addWide(top>>12, top<<52)
}

// sumPairsAVX512 takes 16 terms of each sample at a time and leaves the rest to generic.
func sumPairsAVX512(a []uint64, y []int32) [2]sum {
	n := len(a) &^ 15
	s := generic.sumPairs(a[n:], y[2*n:])
	a, y = a[:n], y[:2*n]
	for len(a) > 0 {
		n := min(len(a), most512)
		var lanes [4][8]uint64
		dotPairsAVX512(&a[0], &y[0], n, &lanes)
		a, y = a[n:], y[2*n:]
		s[0].addLanes(&lanes[0], &lanes[1])
		s[1].addLanes(&lanes[2], &lanes[3])
	}
	return s
}

// sumAVX2 takes 16 terms at a time and leaves the rest to generic.
func sumAVX2(a []uint64, y []int32) (hi, lo uint64) {
	n := len(a) &^ 15
	hi, lo = generic.sum(a[n:], y[n:])
	a, y = a[:n], y[:n]
	s := sum{hi, lo}
	for len(a) > 0 {
		n := min(len(a), mostAVX2)
		var parts [4][4]uint64
		dotAVX2(&a[0], &y[0], n, &parts)
		a, y = a[n:], y[n:]
		s.addParts(&parts)
	}
	return s.hi, s.lo
}

// mostAVX2 is the maximum number of terms that are summed in lanes: each 256 of them add a part
// below 2^32 to a lane, which stays below 2^45.
const mostAVX2 = 1 << 20

// addParts adds the sums of all lanes, weighted by 1, 2^32, 2^26 and 2^58.
func (s *sum) addParts(parts *[4][4]uint64) {
	for i, shift := range [4]uint{0, 32, 26, 58} {
		var part uint64
		for _, lane := range parts[i] {
			part += lane
		}
		s.addWide(part>>(64-shift), part<<shift) // for shift 0 the high part is 0
	}
}

// sumPairsAVX2 takes 8 terms of each sample at a time and leaves the rest to generic.
func sumPairsAVX2(a []uint64, y []int32) [2]sum {
	n := len(a) &^ 7
	s := generic.sumPairs(a[n:], y[2*n:])
	a, y = a[:n], y[:2*n]
	for len(a) > 0 {
		n := min(len(a), mostAVX2)
		var parts [2][4][4]uint64
		dotPairsAVX2(&a[0], &y[0], n, &parts)
		a, y = a[n:], y[2*n:]
		s[0].addParts(&parts[0])
		s[1].addParts(&parts[1])
	}
	return s
}

// floatsBy returns floats by a routine that takes a multiple of lanes.
func floatsBy(lanes int, do func(dst *float32, y *int32, row, bias *float32, n int, sample float32)) func([]float32, []int32, []float32, []float32, float32) {
	return func(dst []float32, y []int32, row, bias []float32, sample float32) {
		n := len(dst) &^ (lanes - 1)
		if n > 0 {
			do(&dst[0], &y[:n][0], &row[:n][0], &bias[:n][0], n, sample)
		}
		floatsGeneric(dst[n:], y[n:], row[n:], bias[n:], sample)
	}
}

// floatsPairsBy returns floatsPairs by a routine that takes a multiple of lanes.
func floatsPairsBy(lanes int, do func(dst0, dst1 *float32, y *int32, row, bias *float32, n int, sample0, sample1 float32)) func(dst0, dst1 []float32, y []int32, row, bias []float32, sample [2]float32) {
	return func(dst0, dst1 []float32, y []int32, row, bias []float32, sample [2]float32) {
		n := len(dst0) &^ (lanes - 1)
		if n > 0 {
			do(&dst0[0], &dst1[:n][0], &y[:2*n][0], &row[:n][0], &bias[:n][0], n, sample[0], sample[1])
		}
		floatsPairsGeneric(dst0[n:], dst1[n:], y[2*n:], row[n:], bias[n:], sample)
	}
}

// dotAVX512 sets lo and hi to the sums, by lane, of the low 52 bits of a·(y + 2^31) and of the
// bits above. n is a positive multiple of 32.
//
//go:noescape
func dotAVX512(a *uint64, y *int32, n int, lo, hi *[8]uint64)

// dotPairsAVX512 is dotAVX512 for pairs: its lanes are low and high of the first sample, then
// of the second. n is a positive multiple of 16.
//
//go:noescape
func dotPairsAVX512(a *uint64, y *int32, n int, lanes *[4][8]uint64)

// floatsPairsAVX512 and floatsPairsAVX2 take n pairs, a positive multiple of 16 or 8.
//
//go:noescape
func floatsPairsAVX512(dst0, dst1 *float32, y *int32, row, bias *float32, n int, sample0, sample1 float32)

//go:noescape
func floatsPairsAVX2(dst0, dst1 *float32, y *int32, row, bias *float32, n int, sample0, sample1 float32)

// dotAVX2 sets parts to sums by lane, with the weights 1, 2^32, 2^26 and 2^58. n is a positive
// multiple of 16.
//
//go:noescape
func dotAVX2(a *uint64, y *int32, n int, parts *[4][4]uint64)

// dotPairsAVX2 adds the sums of dotAVX2 to parts, of the first sample, then of the second. n is
// a positive multiple of 8.
//
//go:noescape
func dotPairsAVX2(a *uint64, y *int32, n int, parts *[2][4][4]uint64)

// floatsAVX512 and floatsAVX2 take n elements, a positive multiple of 16 or 8.
//
//go:noescape
func floatsAVX512(dst *float32, y *int32, row, bias *float32, n int, sample float32)

//go:noescape
func floatsAVX2(dst *float32, y *int32, row, bias *float32, n int, sample float32)
