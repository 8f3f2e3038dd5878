package attack

import (
	"math/rand/v2"
	"slices"

	"github.com/securenets/securenets/ring"
)

// signature is a property of a transcript that the masks do not change, so that an attacker
// can compute it for a candidate with masks of its own.
type signature []int

type feature func(r ring.Ring, calls []ring.Matrix) signature

// zeroPattern counts the zeros modulo each prime of each row and each column of the last
// call, both sorted.
func zeroPattern(r ring.Ring, calls []ring.Matrix) (s signature) {
	m := calls[len(calls)-1]
	for _, p := range r.Primes() {
		rows, columns := make([]int, m.Rows), make([]int, m.Cols)
		for i, a := range m.Data {
			if a%p == 0 {
				rows[i/m.Cols]++
				columns[i%m.Cols]++
			}
		}
		slices.Sort(rows)
		slices.Sort(columns)
		s = append(append(s, rows...), columns...)
	}
	return s
}

// changes is zeroPattern of the difference between the last two calls, of one shape.
func changes(r ring.Ring, calls []ring.Matrix) signature {
	a, b := calls[len(calls)-2], calls[len(calls)-1]
	d := ring.NewMatrix(a.Rows, a.Cols)
	r.SubVec(d.Data, b.Data, a.Data)
	return zeroPattern(r, []ring.Matrix{d})
}

// ranks are the ranks of the last call modulo each prime.
func ranks(r ring.Ring, calls []ring.Matrix) (s signature) {
	for _, p := range r.Primes() {
		s = append(s, rank(calls[len(calls)-1], p))
	}
	return s
}

// rank returns the rank of m modulo the prime p, by elimination.
func rank(m ring.Matrix, p uint32) int {
	rows := make([][]uint32, m.Rows)
	for i := range rows {
		rows[i] = make([]uint32, m.Cols)
		for j, a := range m.Row(i) {
			rows[i][j] = a % p
		}
	}
	n := 0
	for j := 0; j < m.Cols && n < len(rows); j++ {
		pivot := slices.IndexFunc(rows[n:], func(row []uint32) bool { return row[j] != 0 })
		if pivot < 0 {
			continue
		}
		rows[n], rows[n+pivot] = rows[n+pivot], rows[n]
		inv := invert(p, rows[n][j])
		for _, row := range rows[n+1:] {
			if factor := row[j] * inv % p; factor != 0 {
				for i := j; i < m.Cols; i++ {
					row[i] = (row[i] + (p-factor)*rows[n][i]) % p
				}
			}
		}
		n++
	}
	return n
}

// see returns a transcript of one of two candidates, with fresh masks each time.
type see func(candidate int) ([]ring.Matrix, error)

// Distinguish plays a game the given number of times: one of two candidates, both known to
// the attacker, is drawn, and the attacker guesses from the transcript which one. It makes
// transcripts of both itself (own), and guesses the one whose feature is nearer. It returns
// the number of right guesses: half of them by chance.
func Distinguish(r ring.Ring, rng *rand.Rand, trials int, own, target see, f feature) (right int, err error) {
	var references [2]signature
	for c := range references {
		calls, err := own(c)
		if err != nil {
			return 0, err
		}
		references[c] = f(r, calls)
	}
	for range trials {
		c := rng.IntN(2)
		calls, err := target(c)
		if err != nil {
			return 0, err
		}
		s, guess := f(r, calls), 0
		if distance(s, references[1]) < distance(s, references[0]) {
			guess = 1
		}
		if guess == c {
			right++
		}
	}
	return right, nil
}

func distance(a, b signature) (d int) {
	for i := range a {
		d += max(a[i]-b[i], b[i]-a[i])
	}
	return d
}

// columnZeros counts the zeros modulo each prime of each column of the last call. All calls
// of one sealed model have their columns in the same order.
func columnZeros(r ring.Ring, calls []ring.Matrix) (s signature) {
	m := calls[len(calls)-1]
	for _, p := range r.Primes() {
		columns := make(signature, m.Cols)
		for i, a := range m.Data {
			if a%p == 0 {
				columns[i%m.Cols]++
			}
		}
		s = append(s, columns...)
	}
	return s
}

// apart returns the distance of two calls' signatures.
type apart func(a, b signature) int

// Link sees one call for each of n images, then one for each of queries images drawn from
// them, and guesses which of the first calls had the same image: the one whose feature is
// nearest. It returns the number of right guesses: one in n by chance.
func Link(r ring.Ring, rng *rand.Rand, view View, x []int32, n, queries int, f feature, d apart) (right int, err error) {
	see := func(i int) (signature, error) {
		call, err := view(x[i*len(x)/n:(i+1)*len(x)/n], 1)
		if err != nil {
			return nil, err
		}
		return f(r, []ring.Matrix{call}), nil
	}
	first := make([]signature, n)
	for i := range first {
		if first[i], err = see(i); err != nil {
			return 0, err
		}
	}
	for range queries {
		of := rng.IntN(n)
		again, err := see(of)
		if err != nil {
			return 0, err
		}
		guess, least := 0, d(first[0], again)
		for i := 1; i < n; i++ {
			if d := d(first[i], again); d < least {
				guess, least = i, d
			}
		}
		if guess == of {
			right++
		}
	}
	return right, nil
}

// callWords are the words of the last call.
func callWords(_ ring.Ring, calls []ring.Matrix) signature {
	m := calls[len(calls)-1]
	s := make(signature, len(m.Data))
	for i, a := range m.Data {
		s[i] = int(a)
	}
	return s
}

// differing counts the places at which two signatures differ.
func differing(a, b signature) (n int) {
	for i, e := range a {
		if e != b[i] {
			n++
		}
	}
	return n
}

// Pixels recovers the magnitudes of inputs, up to a common factor for each row that the
// cloud receives: an image, or a patch of one that the host unrolled. column holds the
// units of Weights.Column: What and xhat are masked by the same F, so that a row without
// them is its integers times one unit. Rows with fewer than 8 nonzero words are left out:
// their result is empty. The result is nil for rows that are not recovered, also because
// they have fewer than 8 nonzero words with known units.
func Pixels(r ring.Ring, xhat ring.Matrix, column []uint32) [][]int32 {
	const least = 8 // words
	rows := make([][]int32, xhat.Rows)
	f := make([]uint32, len(column))
	for c, a := range column {
		f[c] = invert(r.Modulus(), a) // 0 if the unit is not known
	}
	if xhat.Rows >= 64 {
		// Columns of few rows of W leave common factors, which many inputs reveal.
		x := &Weights{Rows: xhat.Rows, Terms: xhat.Cols, Row: make([]uint32, xhat.Rows), Column: f, ring: r, what: xhat}
		x.rows(mixed)
		x.columns(exact)
	}
	v := make([]uint32, xhat.Cols)
	for i := range rows {
		nonzero, known := 0, 0
		for j, a := range xhat.Row(i) {
			if a != 0 {
				nonzero++
			}
			if v[j] = r.Mul(a, f[j%len(f)]); v[j] != 0 {
				known++
			}
		}
		if nonzero < least {
			rows[i] = []int32{}
			continue
		}
		unit := shrink(r, v, exact)
		if known < least || unit == 0 {
			continue
		}
		rows[i] = make([]int32, len(v))
		for j, a := range v {
			e := r.Lift(r.Mul(unit, a))
			rows[i][j] = max(e, -e)
		}
	}
	return rows
}

// placed returns rows with their columns in the network's order, by the inputs that
// Weights.Match returned.
func placed(rows [][]int32, places []int) [][]int32 {
	moved := make([][]int32, len(rows))
	for i, row := range rows {
		if row == nil {
			continue
		}
		moved[i] = make([]int32, len(row))
		for j, e := range row {
			moved[i][j-j%len(places)+places[j%len(places)]] = e
		}
	}
	return moved
}
