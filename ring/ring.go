// Package ring implements Z_M for M a product of distinct primes below 2^8. Elements are
// canonical uint32 in [0, M).
//
// Because the primes are small, a matrix product over Z_M can run as one 8-bit product
// per prime, accumulated exactly in 32 bits; the Chinese remainder theorem (CRT) combines
// the results. See docs/spec.md, section 2.
//
// The time of scalar and vector operations here does not depend on the values, except for
// IsUnit, Inv, LiftsToInt8 and the position of a word that is not canonical.
package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"slices"
)

// MaxPrimes is the largest number of primes in a ring.
const MaxPrimes = 4

// MaxTerms is the largest number of products in one sum, in any kernel: the sum of 65,536
// products of an unsigned residue (at most 250) and a signed one (at most 125) stays
// below 2^31, and a sum of products of two unsigned ones below 2^32.
const MaxTerms = 1 << 16

// ErrParameters reports primes that do not make a ring.
var ErrParameters = errors.New("ring: bad parameters")

// NonCanonicalError reports a word that is not in [0, M). It names the index, not the
// value, which may be secret.
type NonCanonicalError struct {
	Index int // of the word in the vector
}

func (e *NonCanonicalError) Error() string {
	return fmt.Sprintf("ring: word %d is not canonical", e.Index)
}

// Ring is Z_M. It is an immutable, comparable value, small enough for a compiler to keep
// in registers. The zero value is not a ring: use New.
type Ring struct {
	m      uint32
	primes uint32 // one per byte, the first lowest; 0 past the last
	crt    uint32 // in the same bytes, (M/p)^-1 mod p
	mu     uint64 // floor(2^64 / M), for Barrett reduction
}

// reciprocals[p] is ceil(2^64 / p). With it, for any a < 2^32, the product
// reciprocals[p]·a is a/p in units of 2^-64, too large by at most a < 2^32. The
// error is below 1/p, so the integer part is a's quotient and the fraction
// times p its remainder (Lemire, Kaser, Kurz, "Faster remainder by direct
// computation", 2019).
var reciprocals = func() (t [1 << 8]uint64) {
	for p := uint64(2); p < uint64(len(t)); p++ {
		t[p] = math.MaxUint64/p + 1
	}
	return
}()

// New returns the ring with the given distinct primes below 2^8, whose product
// must be odd and below 2^32.
func New(primes ...uint32) (Ring, error) {
	if len(primes) == 0 || len(primes) > MaxPrimes {
		return Ring{}, fmt.Errorf("%w: %d primes, want 1 to %d", ErrParameters, len(primes), MaxPrimes)
	}
	var r Ring
	m := uint64(1) // four primes below 2^8 stay below 2^32
	for i, p := range primes {
		if p < 3 || p >= 1<<8 || !big.NewInt(int64(p)).ProbablyPrime(0) {
			return Ring{}, fmt.Errorf("%w: %d is not an odd prime below 256", ErrParameters, p)
		}
		if slices.Contains(primes[:i], p) {
			return Ring{}, fmt.Errorf("%w: duplicate prime %d", ErrParameters, p)
		}
		r.primes |= p << (8 * i)
		m *= uint64(p)
	}
	r.m = uint32(m)
	r.mu, _ = bits.Div64(1, 0, m)
	for i, p := range primes {
		rest := big.NewInt(int64(r.m / p))
		inv := rest.ModInverse(rest, big.NewInt(int64(p)))
		r.crt |= uint32(inv.Uint64()) << (8 * i)
	}
	return r, nil
}

func mustNew(primes ...uint32) Ring {
	r, err := New(primes...)
	if err != nil {
		panic(err) // constants of this package
	}
	return r
}

var (
	q4 = mustNew(251, 241, 239, 233)
	q3 = mustNew(251, 241, 239)
)

// Q4 is the default ring, M = 251·241·239·233 = 3,368,562,317 (2^31.65): 4 bytes per word.
func Q4() Ring { return q4 }

// Q3 is the ring with M = 251·241·239 = 14,457,349 (2^23.8): 3 bytes per word.
func Q3() Ring { return q3 }

// Valid reports whether r came from New.
func (r Ring) Valid() bool { return r.m != 0 }

// Primes returns the primes in the order given to New.
func (r Ring) Primes() []uint32 {
	var primes []uint32
	for p := r.primes; p != 0; p >>= 8 {
		primes = append(primes, p&0xff)
	}
	return primes
}

// Modulus returns M.
func (r Ring) Modulus() uint32 { return r.m }

// Max returns (M-1)/2, the largest magnitude that Lift returns.
func (r Ring) Max() int32 { return int32((r.m - 1) / 2) }

// BitLen returns the number of bits of M.
func (r Ring) BitLen() int { return bits.Len32(r.m) }

// WordBytes returns the bytes of a word on the wire, ceil(BitLen/8).
func (r Ring) WordBytes() int { return (r.BitLen() + 7) / 8 }

func (r Ring) String() string { return fmt.Sprintf("Z_%d", r.m) }

// Add returns a+b mod M for canonical a, b.
func (r Ring) Add(a, b uint32) uint32 {
	s := uint64(a) + uint64(b) // < 2M < 2^33
	t := s - uint64(r.m)
	return uint32(min(s, t)) // t wraps to above s when s < M
}

// Sub returns a-b mod M for canonical a, b.
func (r Ring) Sub(a, b uint32) uint32 {
	d := uint64(a) - uint64(b)
	return uint32(min(d, d+uint64(r.m))) // d wraps to above 2^63 when a < b
}

// Neg returns -a mod M for canonical a.
func (r Ring) Neg(a uint32) uint32 { return r.Sub(0, a) }

// Mul returns a·b mod M for canonical a, b.
func (r Ring) Mul(a, b uint32) uint32 { return r.reduce(uint64(a) * uint64(b)) }

// reduce returns x mod M for any x (Barrett: the quotient is short by at most 1).
func (r Ring) reduce(x uint64) uint32 {
	q, _ := bits.Mul64(x, r.mu)
	t := x - q*uint64(r.m) // < 2M
	return uint32(min(t, t-uint64(r.m)))
}

// ReduceSums sets dst[i] = hi[i]·2^64 + lo[i] mod M, for hi[i] < 2^32: exact
// sums of products.
func (r Ring) ReduceSums(dst []uint32, hi, lo []uint64) {
	hi, lo = hi[:len(dst)], lo[:len(dst)]
	top := -r.mu * uint64(r.m) // 2^64 mod M
	for i := range dst {
		// (2^32-1)·(M-1) + M-1 < 2^64
		dst[i] = r.reduce(hi[i]*top + uint64(r.reduce(lo[i])))
	}
}

// IsUnit reports whether canonical a has an inverse, that is, whether no prime divides
// it.
func (r Ring) IsUnit(a uint32) bool {
	for p := r.primes; p != 0; p >>= 8 {
		if a%(p&0xff) == 0 {
			return false
		}
	}
	return true
}

// Inv returns a^-1 mod M, or false if a is not a unit. Its time depends on a.
func (r Ring) Inv(a uint32) (uint32, bool) {
	if !r.IsUnit(a) {
		return 0, false
	}
	inv := new(big.Int).ModInverse(big.NewInt(int64(a)), big.NewInt(int64(r.m)))
	return uint32(inv.Uint64()), true
}

// Reduce returns x mod M, canonical, for any x.
func (r Ring) Reduce(x int64) uint32 {
	neg := x >> 63 // 0 or -1
	abs := uint64((x ^ neg) - neg)
	a := r.reduce(abs)
	return uint32(uint64(a)&^uint64(neg)) | uint32(uint64(r.Neg(a))&uint64(neg))
}

// FromSigned returns x mod M for |x| <= Max.
func (r Ring) FromSigned(x int32) uint32 {
	return uint32(x) + r.m&uint32(x>>31)
}

// Lift returns the representative of canonical a in [-Max, Max].
func (r Ring) Lift(a uint32) int32 {
	over := uint32(int64(uint64(r.Max())-uint64(a)) >> 63) // all ones if a > Max
	return int32(a - r.m&over)
}

// LiftsToInt8 reports whether the signed lift of every word of v fits 8 bits. Its time
// depends on the words.
func (r Ring) LiftsToInt8(v []uint32) bool {
	for _, a := range v {
		if e := r.Lift(a); e != int32(int8(e)) {
			return false
		}
	}
	return true
}

// Residues writes a mod p_i to dst[i], for each prime and any a.
func (r Ring) Residues(dst []uint8, a uint32) {
	for i, p := 0, r.primes; p != 0; i, p = i+1, p>>8 {
		fraction := reciprocals[p&0xff] * uint64(a)
		residue, _ := bits.Mul64(fraction, uint64(p&0xff))
		dst[i] = uint8(residue)
	}
}

// Combine returns the a of [0, M) with a ≡ res[i] mod p_i (CRT), for res[i] < p_i.
func (r Ring) Combine(res []uint8) uint32 {
	var sum uint64 // < 4·2^8·2^8·2^32
	crt := r.crt
	for i, p := 0, r.primes; p != 0; i, p, crt = i+1, p>>8, crt>>8 {
		rest, _ := bits.Mul64(reciprocals[p&0xff], uint64(r.m)) // M/p
		sum += uint64(res[i]) * uint64(crt&0xff) * rest
	}
	return r.reduce(sum)
}

// CheckCanonical returns a *NonCanonicalError for the first word not in [0, M).
func (r Ring) CheckCanonical(v []uint32) error {
	if r.canonical(v) {
		return nil
	}
	return &NonCanonicalError{Index: slices.IndexFunc(v, func(a uint32) bool { return a >= r.m })}
}

// canonical reports whether all of v are in [0, M).
func (r Ring) canonical(v []uint32) bool {
	// A word plus up carries into bit 32 unless the word is below M. The two chains of ORs
	// run in parallel.
	up := 1<<32 - uint64(r.m)
	var a, b uint64
	for ; len(v) >= 8; v = v[8:] {
		a |= (uint64(v[0]) + up) | (uint64(v[1]) + up) | (uint64(v[2]) + up) | (uint64(v[3]) + up)
		b |= (uint64(v[4]) + up) | (uint64(v[5]) + up) | (uint64(v[6]) + up) | (uint64(v[7]) + up)
	}
	for _, e := range v {
		a |= uint64(e) + up
	}
	return (a|b)>>32 == 0
}

// AddVec sets dst = a + b, all canonical and of one length. dst may be a or b.
func (r Ring) AddVec(dst, a, b []uint32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = r.Add(a[i], b[i])
	}
}

// SubVec sets dst = a - b, all canonical and of one length. dst may be a or b.
func (r Ring) SubVec(dst, a, b []uint32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = r.Sub(a[i], b[i])
	}
}

// PutWords writes canonical v to dst as little-endian words of WordBytes bytes;
// len(dst) is len(v)·WordBytes, or it panics.
func (r Ring) PutWords(dst []byte, v []uint32) {
	w := r.WordBytes()
	if len(dst) != len(v)*w {
		panic("ring: PutWords: length mismatch")
	}
	if w == 4 {
		for i, a := range v {
			binary.LittleEndian.PutUint32(dst[4*i:], a)
		}
		return
	}
	if w == 3 {
		for ; len(v) >= 4; v, dst = v[4:], dst[12:] {
			binary.LittleEndian.PutUint64(dst, uint64(v[0])|uint64(v[1])<<24|uint64(v[2])<<48)
			binary.LittleEndian.PutUint32(dst[8:], v[2]>>16|v[3]<<8)
		}
	}
	for i, a := range v {
		for j := range w {
			dst[i*w+j] = byte(a >> (8 * j))
		}
	}
}

// Words reads dst from src as PutWords writes it, and panics as that does. It returns a
// *NonCanonicalError if a word is not in [0, M); dst must then not be used.
func (r Ring) Words(dst []uint32, src []byte) error {
	w := r.WordBytes()
	if len(src) != len(dst)*w {
		panic("ring: Words: length mismatch")
	}
	if w == 4 {
		for i := range dst {
			dst[i] = binary.LittleEndian.Uint32(src[4*i:])
		}
		return r.CheckCanonical(dst)
	}
	rest := dst
	if w == 3 {
		const low = 1<<24 - 1
		for ; len(rest) >= 4; rest, src = rest[4:], src[12:] {
			a, b := binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint32(src[8:])
			rest[0], rest[1] = uint32(a)&low, uint32(a>>24)&low
			rest[2], rest[3] = uint32(a>>48)|b<<16&low, b>>8
		}
	}
	for i := range rest {
		var a uint32
		for j := range w {
			a |= uint32(src[i*w+j]) << (8 * j)
		}
		rest[i] = a
	}
	return r.CheckCanonical(dst)
}
