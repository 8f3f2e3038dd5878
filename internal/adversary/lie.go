package adversary

import (
	"math/rand/v2"
	"slices"

	"github.com/securenets/securenets/internal/ring"
)

// Lie is one way to answer wrongly.
type Lie struct {
	Name string // for people
	// tell returns the words to send, or nil where this answer cannot be lied
	// about in this way. It does not change what it is given.
	tell func(answer) []uint32
}

// answer is an honest answer that a lie is to replace.
type answer struct {
	ring  ring.Ring
	rows  int
	words []uint32 // rows of equal length, at least one
	older []uint32 // an earlier answer of the same layer, or nil
	other []uint32 // an answer of another layer, or nil
}

// cols returns the words of a row.
func (a answer) cols() int { return len(a.words) / a.rows }

// Lies returns every kind, for clouds of one role.
func Lies() []Lie {
	return []Lie{
		{"one word off by one", offByOne},
		{"two errors that cancel", cancelling},
		{"two samples swapped", swapped},
		{"all words zero", zeros},
		{"all signs flipped", negated},
		{"random words", noise},
		{"the low 8 bits dropped", rounded},
		{"the first sample's answer for all", lazy},
		{"an older answer replayed", replayed},
		{"another layer's answer", misrouted},
		{"one word y sent as y + M", alias},
	}
}

// offByOne adds 1 to a random word.
func offByOne(a answer) []uint32 {
	lie := slices.Clone(a.words)
	i := rand.IntN(len(lie))
	lie[i] = a.ring.Add(lie[i], 1)
	return lie
}

// cancelling adds 1 to one word of a sample and takes 1 from another: a plain
// sum over the sample does not see it.
func cancelling(a answer) []uint32 {
	if a.cols() < 2 {
		return nil
	}
	lie := slices.Clone(a.words)
	row := lie[rand.IntN(a.rows)*a.cols():][:a.cols()]
	i := rand.IntN(a.cols())
	j := (i + 1 + rand.IntN(a.cols()-1)) % a.cols()
	row[i] = a.ring.Add(row[i], 1)
	row[j] = a.ring.Sub(row[j], 1)
	return lie
}

// swapped exchanges the first sample and the last: every word is a right one,
// of another sample.
func swapped(a answer) []uint32 {
	lie := slices.Clone(a.words)
	last := len(lie) - a.cols()
	copy(lie, a.words[last:])
	copy(lie[last:], a.words[:a.cols()])
	return lie
}

func zeros(a answer) []uint32 { return make([]uint32, len(a.words)) }

func negated(a answer) []uint32 {
	lie := make([]uint32, len(a.words))
	for i, y := range a.words {
		lie[i] = a.ring.Neg(y)
	}
	return lie
}

// noise draws every word anew, uniform in the ring.
func noise(a answer) []uint32 {
	lie := make([]uint32, len(a.words))
	for i := range lie {
		lie[i] = rand.Uint32N(a.ring.Modulus())
	}
	return lie
}

// rounded is what a cloud might give that saves on precision.
func rounded(a answer) []uint32 {
	lie := make([]uint32, len(a.words))
	for i, y := range a.words {
		lie[i] = y &^ 0xff
	}
	return lie
}

// lazy is what a cloud might give that computes one sample of a batch.
func lazy(a answer) []uint32 {
	return slices.Repeat(a.words[:a.cols()], a.rows)
}

func replayed(a answer) []uint32 {
	if len(a.older) != len(a.words) {
		return nil
	}
	return a.older
}

// misrouted repeats or cuts another layer's answer to the length of this one.
func misrouted(a answer) []uint32 {
	if a.other == nil {
		return nil
	}
	return slices.Repeat(a.other, len(a.words)/len(a.other)+1)[:len(a.words)]
}

// alias writes one word as another integer of the same residue, where that fits
// a word of the wire.
func alias(a answer) []uint32 {
	top := uint64(1) << (8 * a.ring.WordBytes())
	for i, y := range a.words {
		if y := uint64(y) + uint64(a.ring.Modulus()); y < top {
			lie := slices.Clone(a.words)
			lie[i] = uint32(y)
			return lie
		}
	}
	return nil
}
