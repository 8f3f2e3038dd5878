//go:build gpu && cgo && linux && amd64

package cuda

import (
	"github.com/securenets/securenets/ring"
)

// magic is the bit pattern of 1.5·2^23 in float32, which holds an integer in its low bits: see
// kernels.cu.
const magic = 0x4B400000

// constants is struct Ring of kernels.cu.
type constants struct {
	primes, modulus, half, lift uint32
	powers                      [ring.MaxPrimes]uint32
	p, inverse                  [ring.MaxPrimes]float32
	unitPowers, unitBias        [ring.MaxPrimes]uint32
	rest                        [ring.MaxPrimes]uint32
	correction                  uint32
	modulus64                   [2]uint32
	_                           uint32
	idempotent                  [2]uint64
}

func newConstants(r ring.Ring) (c constants) {
	primes := r.Primes()
	c.primes, c.modulus, c.half = uint32(len(primes)), r.Modulus(), uint32(r.Max())
	for i, p := range primes {
		unit := make([]uint8, len(primes))
		unit[i] = 1
		c.rest[i] = r.Modulus() / p
		e := r.Combine(unit) / c.rest[i] // (M/p)^-1 mod p: the word that is 1 mod p and 0 mod the others is e·M/p
		c.powers[i], c.unitPowers[i] = powersOf(1, p), powersOf(e, p)
		c.p[i], c.inverse[i] = float32(p), 1/float32(p)
		c.unitBias[i] = magic + (p-uint32(uint64(e)<<31%uint64(p)))%p
		c.correction -= magic * c.rest[i]
	}
	for i := 0; i < len(primes); i += 2 {
		m, unit := uint32(1), make([]uint8, len(primes))
		for j := i; j < min(i+2, len(primes)); j++ {
			m *= primes[j]
			unit[j] = 1
		}
		c.modulus64[i/2], c.idempotent[i/2] = m, uint64(r.Combine(unit))
	}
	return c
}

// powersOf returns the bytes (first·256^j mod p, centred), j = 0 to 3.
func powersOf(first, p uint32) (powers uint32) {
	for j := range 4 {
		a := first % p
		if a > p/2 {
			a -= p
		}
		powers |= a & 0xff << (8 * j)
		first = first % p * 256
	}
	return powers
}
