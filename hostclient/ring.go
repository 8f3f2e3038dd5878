package hostclient

import (
	"errors"
	"fmt"

	"github.com/securenets/securenets/ring"
)

// Ring is the ring of integers modulo M in which products are computed. A smaller M means
// fewer bytes to send, fewer primes to multiply for, and coarser quantisation: weights
// and inputs share (M-1)/2 between them (see transform.ChooseXMax).
type Ring string

const (
	// RingQ4 has M = 251·241·239·233 and 4 bytes a word.
	RingQ4 Ring = "q4"
	// RingQ3 has M = 251·241·239 and 3 bytes a word: three quarters of the bytes and of
	// the clouds' work. Its quantisation errors are about 15 times those of RingQ4, the
	// root of 233. Emulator and "securenets check" show their effect on a network.
	RingQ3 Ring = "q3"
)

// ErrRing reports a Ring that does not exist.
var ErrRing = errors.New("hostclient: unknown ring")

// Rings lists every ring, the default first.
func Rings() []Ring { return []Ring{RingQ4, RingQ3} }

// ParseRing reads a Ring's text.
func ParseRing(s string) (Ring, error) {
	r := Ring(s)
	if _, err := r.ring(); err != nil {
		return "", err
	}
	return r, nil
}

// ring returns the ring itself; zero is RingQ4.
func (r Ring) ring() (ring.Ring, error) {
	switch r {
	case RingQ4, "":
		return ring.Q4(), nil
	case RingQ3:
		return ring.Q3(), nil
	}
	return ring.Ring{}, fmt.Errorf("%w %.32q, want one of %v", ErrRing, string(r), Rings())
}

// ringOf names a ring: by its modulus where it is none of Rings, as in secrets of others.
func ringOf(r ring.Ring) string {
	for _, name := range Rings() {
		if known, _ := name.ring(); known == r {
			return string(name)
		}
	}
	return r.String()
}
