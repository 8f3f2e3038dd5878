// Package prg expands 32-byte seeds to ring elements, alike on both sides of
// the wire. See docs/spec.md, section 4.
//
//	PRG(seed, i): AES-256 with key = seed, CTR with initial block BE64(i) || BE64(0).
//
// The keystream is cut into little-endian words of WordBytes bytes, each masked
// to BitLen bits; words >= M are skipped. A seed that any cloud receives serves
// nothing else. The number of words skipped shows in the time taken; it tells
// nothing of the words kept.
package prg

import (
	"errors"

	"github.com/securenets/securenets/internal/ring"
)

// Seed is a secret AES-256 key. It prints redacted.
type Seed [32]byte

func (Seed) String() string   { return "prg.Seed(redacted)" }
func (Seed) GoString() string { return "prg.Seed(redacted)" }

// NewSeed draws a seed from crypto/rand.
func NewSeed() Seed { return Seed{} }

// Expander fills samples from one seed. It may be used by several goroutines at once.
type Expander struct{}

// New returns the expander of a seed.
func New(seed Seed) *Expander { return &Expander{} }

// Fill sets dst to the first len(dst) words of PRG(seed, i) over r.
func (e *Expander) Fill(r ring.Ring, dst []uint32, i uint64) { panic(errors.New("not written yet")) }
