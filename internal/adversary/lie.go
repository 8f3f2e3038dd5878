package adversary

import (
	"math/rand/v2"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Kind is the way in which an answer is wrong, and so the error that a host may report.
type Kind int

const (
	Wrong     Kind = iota // a well-formed answer with wrong words
	Malformed             // not an answer to the request
	Late                  // the right answer, after the host has stopped waiting
)

// Lie is one way to answer wrongly.
type Lie struct {
	Name string // for people
	Kind Kind
	// tell changes an answer in place and reports whether it could: some lies need more
	// than there is. If it could not, its changes are dropped.
	tell func(*answer) bool
}

// answer is the answer that will be sent to the host: at first the honest one.
type answer struct {
	id    uint64
	words []uint32 // rows of equal length, at least one
	late  bool

	// Further knowledge, read-only.
	ring     ring.Ring
	op       plan.Op // zero if unknown
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

// cancelling adds 1 to one word of a row and subtracts 1 from another: a plain sum over the
// sample does not detect it.
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

// swapped exchanges the first row and the last: every word is right for another sample.
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

// rounded imitates a cloud that saves on precision.
func rounded(a *answer) bool {
	for i := range a.words {
		a.words[i] &^= 0xff
	}
	return true
}

// oneResidue changes a random word modulo one of the ring's primes alone, as if the product
// modulo that prime were wrong.
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

// lazy imitates a cloud that computes only one sample of a batch.
func lazy(a *answer) bool { return a.replace(a.row(0)) }

func replayed(a *answer) bool {
	return len(a.older) == len(a.words) && a.replace(a.older)
}

// replace sets the words to other, repeated or cut to their length.
func (a *answer) replace(other []uint32) bool {
	for n := 0; len(other) > 0 && n < len(a.words); {
		n += copy(a.words[n:], other)
	}
	return other != nil
}

// alias adds M to one word, if the sum fits a word on the wire.
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
