// Package prg expands 32-byte seeds to ring elements, identically on both sides of the
// wire. See docs/spec.md, section 4.
//
//	PRG(seed, i): AES-256 with key = seed, CTR with initial block BE64(i) || BE64(0).
//
// The keystream is cut into little-endian words of WordBytes bytes, each masked to BitLen
// bits; words >= M are skipped. A seed that any cloud receives serves no other purpose.
// The time taken shows how many words were skipped, which is independent of the words
// kept. Without the processor's instructions for AES it also depends on the seed: see
// crypto/aes.
package prg

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/securenets/securenets/ring"
)

// Seed is a secret AES-256 key. It prints redacted.
type Seed [32]byte

const redacted = "prg.Seed(redacted)"

func (Seed) String() string   { return redacted }
func (Seed) GoString() string { return redacted }

// Format prints s redacted, whatever the verb.
func (Seed) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText keeps s out of JSON and structured logs: it returns a redacted text.
func (Seed) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NewSeed draws a seed from crypto/rand.
func NewSeed() Seed {
	var s Seed
	rand.Read(s[:]) // never fails: the process would end
	return s
}

// Expander fills samples from one seed. It may be used by several goroutines at once.
type Expander struct{ fill fill }

// New returns an expander for a seed.
func New(seed Seed) *Expander { return &Expander{tiers[0].expand(seed)} }

// Fill sets dst to the first len(dst) words of PRG(seed, i) over r.
func (e *Expander) Fill(r ring.Ring, dst []uint32, i uint64) { e.fill(dst, i, wordsOf(r)) }
