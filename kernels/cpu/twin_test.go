package cpu

import (
	"encoding/binary"
	"math"
)

// twins are vectorUnits in Go, by the bytes of a residue. The assembly must give the same
// bytes.
var twins = map[int]vectorUnit{
	1: {name: "twin", width: 1, split: splitTwin, multiply: multiplyTwin},
	2: {name: "twin of pairs", width: 2, split: splitPairsTwin, multiply: multiplyPairsTwin},
}

func splitTwin(dst []uint8, plane int, src []uint32, c []splitting) {
	for i, c := range c {
		for j, a := range src {
			dst[i*plane+j] = splitOne(int32(c.bias)+dotBytes(a, c.powers), c)
		}
	}
}

// splitOne reduces v = 510·p + Σ_j (byte j)·(256^j mod p, centred).
func splitOne(v int32, c splitting) uint8 {
	q := int32(float32(v) * c.inverse)
	return uint8(v + q*int32(int16(c.minus)))
}

// dotBytes returns Σ_j (byte j of a)·(byte j of b), those of b signed.
func dotBytes(a, b uint32) (sum int32) {
	for range 4 {
		sum += int32(uint8(a)) * int32(int8(b))
		a, b = a>>8, b>>8
	}
	return sum
}

func multiplyTwin(t *tile) {
	for prime := range t.primes {
		for i := range t.rows {
			for j := range t.lanes {
				sum := uint32(1 << 31)
				for r, run := range t.runs {
					x := t.x[prime*t.plane+i*t.stride+run:][:4*t.steps]
					w := t.w[prime*t.image+r*t.steps*t.lanes*4+4*j:]
					for k, a := range x {
						sum += uint32(int32(w[k/4*t.lanes*4+k%4]) * int32(a))
					}
				}
				*t.sum(prime, i, j) = sum
			}
		}
	}
	if t.crt == nil {
		return
	}
	m := int64(t.crt.modulus)
	for i := range t.words {
		for j := range t.lanes {
			if t.mask>>j&1 == 0 {
				continue
			}
			var y int64 // |c_i| <= 511·p_i, so |y| < 4·511·M < 2^43
			for prime, powers := range t.crt.powers {
				c := t.crt.bias[prime] + dotBytes(*t.sum(prime-t.prime, i, j), powers)
				y += int64(c) * int64(t.crt.rest[prime])
			}
			t.y[i*t.yStride/4+j] = uint32((y%m + m) % m)
		}
	}
}

func splitPairsTwin(dst []uint8, plane int, src []uint32, c []splitting) {
	for i, c := range c {
		for j, a := range src {
			binary.LittleEndian.PutUint16(dst[i*plane+2*j:], uint16(splitPair(a, c)))
		}
	}
}

// splitPair reduces a modulo the product of two primes.
func splitPair(a uint32, c splitting) int32 {
	q := float32(float32(int32(a^1<<31))*c.inverse) + c.half
	return int32(a + uint32(int32(math.RoundToEven(float64(q))))*c.minus)
}

// high returns the place of the high half of a sum of 16-bit residues.
func (t *tile) high(prime, row, lane int) *uint32 {
	at := (t.prime+prime)*t.pitch/rowBytes + row
	return &t.sums[maxPairs+at/maxRows][at%maxRows][lane]
}

func multiplyPairsTwin(t *tile) {
	together := max(1, partSteps/t.steps) // runs of a part
	for prime := range t.primes {
		for i := range t.rows {
			for j := range t.lanes {
				low, high := uint32(0), uint32(1<<31)
				sum := int32(0) // of the part so far
				for r, run := range t.runs {
					x := t.x[prime*t.plane+i*t.stride+run:][:4*t.steps]
					w := t.w[prime*t.image+(r*t.steps*t.lanes+j)*2*t.weight:]
					for step := range t.steps {
						for k := range 2 {
							b := w[(step*t.lanes*2+k)*t.weight:]
							weight := int32(b[0])
							if t.weight == 2 {
								weight = int32(uint8(b[0])) | int32(b[1])<<8
							}
							sum += weight * int32(int16(binary.LittleEndian.Uint16(x[4*step+2*k:])))
						}
						ends := step == t.steps-1 && (r == len(t.runs)-1 || r%together == together-1)
						if t.weight == 2 || ends || step%partSteps == partSteps-1 {
							low, high = low+uint32(sum), high+uint32(sum>>16)
							sum = 0
						}
					}
				}
				*t.sum(prime, i, j), *t.high(prime, i, j) = low, high
			}
		}
	}
	if t.crt == nil {
		return
	}
	m := int64(t.crt.modulus)
	for i := range t.words {
		for j := range t.lanes {
			if t.mask>>j&1 == 0 {
				continue
			}
			var y int64 // |c_i| <= 1021·m_i, so |y| < 2·1021·M < 2^43
			for prime, f := range t.crt.pairs {
				low, high := *t.sum(prime-t.prime, i, j), *t.high(prime-t.prime, i, j)
				low -= high << 16
				c := t.crt.bias[prime]
				for k := range 4 {
					c += int32(uint8(low>>(8*k))) * int32(int16(f[k%2]>>(k/2*16)))
					c += int32(uint8(high>>(8*k))) * int32(int16(f[2+k%2]>>(k/2*16)))
				}
				y += int64(c) * int64(t.crt.rest[prime])
			}
			t.y[i*t.yStride/4+j] = uint32((y%m + m) % m)
		}
	}
}
