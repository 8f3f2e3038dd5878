package adversary

import (
	"math/rand/v2"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
)

// Kind is what is wrong with a lie, and so what a host may call it.
type Kind int

const (
	Wrong     Kind = iota // an answer like any other, but for its value
	Malformed             // no answer to what was asked
	Late                  // the right answer, when the host waits no more
)

// Lie is one way to answer wrongly.
type Lie struct {
	Name string // for people
	Kind Kind
	// tell changes an answer in place. It reports whether it could: some lies
	// need what is not there. Changes do not count where it could not.
	tell func(*answer) bool
}

// answer is what the host will be sent: at first the honest answer.
type answer struct {
	id    uint64
	words []uint32 // rows of equal length, at least one
	late  bool

	// What else is known; not to be changed.
	ring     ring.Ring
	op       plan.Op // zero where that is not known
	rows     int
	previous uint64   // id of the call answered before on the stream, or 0
	older    []uint32 // an earlier answer of the same layer, or nil
	layers   []uint32 // an answer of another layer, or nil
	models   []uint32 // an answer of another model, or nil
	peers    []uint32 // an answer of another role to the same layer, or nil
}

// cols returns the words of a row.
func (a *answer) cols() int { return len(a.words) / a.rows }

// row returns the words of a sample, or of a row of it.
func (a *answer) row(i int) []uint32 { return a.words[i*a.cols() : (i+1)*a.cols()] }

// Lies returns every kind.
func Lies() []Lie {
	return []Lie{
		{"one word off by one", Wrong, offByOne},
		{"two errors that cancel", Wrong, cancelling},
		{"two samples swapped", Wrong, swapped},
		{"all words zero", Wrong, zeros},
		{"all signs flipped", Wrong, negated},
		{"random words", Wrong, noise},
		{"the low 8 bits dropped", Wrong, rounded},
		{"one word wrong modulo one prime", Wrong, oneResidue},
		{"one channel wrong everywhere", Wrong, oneChannel},
		{"one position wrong in all channels", Wrong, onePosition},
		{"the first sample's answer for all", Wrong, lazy},
		{"an older answer replayed", Wrong, replayed},
		{"another layer's answer", Wrong, func(a *answer) bool { return a.replace(a.layers) }},
		{"another model's answer", Wrong, func(a *answer) bool { return a.replace(a.models) }},
		{"another role's answer", Wrong, func(a *answer) bool { return a.replace(a.peers) }},
		{"one word y sent as y + M", Malformed, alias},
		{"half an answer", Malformed, half},
		{"a frame of another call", Malformed, foreign},
		{"the right answer, late", Late, late},
	}
}

// offByOne adds 1 to a random word.
func offByOne(a *answer) bool {
	i := rand.IntN(len(a.words))
	a.words[i] = a.ring.Add(a.words[i], 1)
	return true
}

// cancelling adds 1 to one word of a row and takes 1 from another: a plain sum
// over the sample does not see it.
func cancelling(a *answer) bool {
	if a.cols() < 2 {
		return false
	}
	row := a.row(rand.IntN(a.rows))
	i := rand.IntN(a.cols())
	j := (i + 1 + rand.IntN(a.cols()-1)) % a.cols()
	row[i] = a.ring.Add(row[i], 1)
	row[j] = a.ring.Sub(row[j], 1)
	return true
}

// swapped exchanges the first row and the last: every word is a right one, of
// another sample.
func swapped(a *answer) bool {
	first, last := a.row(0), a.row(a.rows-1)
	for i := range first {
		first[i], last[i] = last[i], first[i]
	}
	return true
}

func zeros(a *answer) bool {
	clear(a.words)
	return true
}

func negated(a *answer) bool {
	for i, y := range a.words {
		a.words[i] = a.ring.Neg(y)
	}
	return true
}

// noise draws every word anew, uniform in the ring.
func noise(a *answer) bool {
	for i := range a.words {
		a.words[i] = rand.Uint32N(a.ring.Modulus())
	}
	return true
}

// rounded is what a cloud might give that saves on precision.
func rounded(a *answer) bool {
	for i := range a.words {
		a.words[i] &^= 0xff
	}
	return true
}

// oneResidue changes a random word modulo one of the ring's primes alone, as if
// one of the products that a word is put together from were wrong.
func oneResidue(a *answer) bool {
	primes := a.ring.Primes()
	p := primes[rand.IntN(len(primes))]
	i := rand.IntN(len(a.words))
	k := 1 + rand.Uint32N(p-1)
	a.words[i] = a.ring.Add(a.words[i], a.ring.Modulus()/p*k)
	return true
}

// oneChannel adds 1 to an output (channel) at every position of every sample.
func oneChannel(a *answer) bool {
	if a.op.Kind == "" {
		return false
	}
	for i := rand.IntN(a.op.Rows()); i < len(a.words); i += a.op.Rows() {
		a.words[i] = a.ring.Add(a.words[i], 1)
	}
	return true
}

// onePosition adds 1 to every output (channel) at one position of one sample.
func onePosition(a *answer) bool {
	if a.op.Kind == "" {
		return false
	}
	at := rand.IntN(len(a.words)/a.op.Rows()) * a.op.Rows()
	for i := at; i < at+a.op.Rows(); i++ {
		a.words[i] = a.ring.Add(a.words[i], 1)
	}
	return true
}

// lazy is what a cloud might give that computes one sample of a batch.
func lazy(a *answer) bool { return a.replace(a.row(0)) }

func replayed(a *answer) bool {
	return len(a.older) == len(a.words) && a.replace(a.older)
}

// replace repeats or cuts other words to the length of these.
func (a *answer) replace(other []uint32) bool {
	for n := 0; len(other) > 0 && n < len(a.words); {
		n += copy(a.words[n:], other)
	}
	return other != nil
}

// alias writes one word as another integer of the same residue, where that fits
// a word of the wire.
func alias(a *answer) bool {
	top := uint64(1) << (8 * a.ring.WordBytes())
	for i, y := range a.words {
		if y := uint64(y) + uint64(a.ring.Modulus()); y < top {
			a.words[i] = uint32(y)
			return true
		}
	}
	return false
}

func half(a *answer) bool {
	a.words = a.words[:len(a.words)/2]
	return true
}

// foreign sends an earlier call's answer again, or names a call that was not made.
func foreign(a *answer) bool {
	if a.previous == 0 {
		a.id += 1 << 32
		return true
	}
	a.id = a.previous
	replayed(a)
	return true
}

func late(a *answer) bool {
	a.late = true
	return true
}
