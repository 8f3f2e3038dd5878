//go:build !purego

package cpu

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/securenets/securenets/internal/fence"
)

// units are the vector units that this machine has.
var units = vectorUnits()

// fenced returns n bytes of value b beside an inaccessible page: before it if atEnd, else
// after it.
func fenced(t testing.TB, n int, atEnd bool, b byte) []byte {
	data := fence.Slice[byte](t, n, atEnd)
	for i := range data {
		data[i] = b
	}
	return data
}

// as returns b as elements of type T.
func as[T any](b []byte) []T {
	var t T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(t)))
}

var fuzzRings = [][]uint32{{251, 241, 239, 233}, {251, 241, 239}, {3, 5}, {251}, {3, 251, 127, 131}}

// FuzzSplit compares split with the twin's, with words and bytes fenced on one side.
func FuzzSplit(f *testing.F) {
	for i := range fuzzRings {
		for n := range 35 {
			f.Add(bytes.Repeat([]byte{byte(255 - n), 17, byte(n), 255}, n), uint8(i), uint8(n), n%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, words []byte, which, gap uint8, atEnd bool) {
		r := mustRing(t, fuzzRings[int(which)%len(fuzzRings)]...)
		n := len(words) / 4
		if n == 0 {
			return
		}
		src := fenced(t, 4*n, atEnd, 0)
		copy(src, words)
		for i, a := range as[uint32](src) {
			as[uint32](src)[i] = a % r.Modulus()
		}
		for _, unit := range units {
			c := splittings(r, unit.width)
			plane := (n + int(gap)) * unit.width
			size := (len(c)-1)*plane + n*unit.width
			want := bytes.Repeat([]byte{0xa5}, size)
			twins[unit.width].split(want, plane, as[uint32](src), c)
			got := fenced(t, size, atEnd, 0xa5)
			unit.split(got, plane, as[uint32](src), c)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d words modulo %d moduli: differs from the twin", unit.name, n, len(c))
			}
		}
	})
}

// FuzzMultiply compares the sums and words of tiles with the twin's. All memory that is read or
// written is fenced on one side, and words between rows of y must not change.
func FuzzMultiply(f *testing.F) {
	for rows := range uint8(maxRows) {
		for _, lanes := range []uint8{1, 15, 16, 17, 31, 32} {
			for steps := range uint8(10) {
				if testing.Short() && steps%4 != 0 { // slow under the race detector, which does not check assembly
					continue
				}
				f.Add(uint64(rows), rows, lanes-1, steps, steps%3, rows%5, rows, steps%2 == 0, rows%2 == 0, rows%3 == 0)
			}
		}
		// Several parts, of several runs each.
		f.Add(uint64(rows), rows, uint8(31), uint8(69), uint8(4), rows%5, rows, true, rows%2 == 0, rows%3 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, rows, used, steps, runs, which, gap uint8, atEnd, shared, extreme bool) {
		for _, unit := range units {
			fuzzMultiply(t, unit, seed, rows, used, steps, runs, which, gap, atEnd, shared, extreme)
		}
	})
}

func fuzzMultiply(t *testing.T, unit vectorUnit, seed uint64, rows, used, steps, runs, which, gap uint8, atEnd, shared, extreme bool) {
	r := mustRing(t, fuzzRings[int(which)%len(fuzzRings)]...)
	rng := rand.New(rand.NewPCG(seed, 0))
	all := len(moduli(r, unit.width))
	tl := tile{
		sums: new(tileSums), primes: all, rows: 1 + int(rows)%maxRows,
		steps: 1 + int(steps)%70, stride: int(gap) * 3, weight: unit.width,
	}
	if rng.IntN(8) == 0 {
		tl.steps = rng.IntN(3*partSteps) + 1
	}
	if single := rng.IntN(2) == 0; single {
		tl.prime = rng.IntN(tl.primes)
		tl.primes = 1
	}
	tl.pitch, tl.words = maxRows*rowBytes, tl.rows
	crt := tl.prime+tl.primes == all
	if shared && tl.prime == 0 && rng.IntN(2) == 0 { // the residues of one row as rows of the tile
		tl.rows, tl.primes, tl.pitch, tl.words = all, 1, rowBytes, 1
		crt = true
	}
	if crt {
		tl.crt = newReconstruction(r, unit.width)
	}
	for i := range tl.sums {
		for j := range tl.sums[i] {
			for k := range tl.sums[i][j] {
				tl.sums[i][j][k] = rng.Uint32()
			}
		}
	}
	lanes := 1 + int(used)%maxLanes
	tl.lanes, tl.mask = panelLanes(lanes), 1<<lanes-1
	run := 4 * tl.steps
	last := 0
	for range 1 + int(runs)%5 {
		tl.runs = append(tl.runs, last)
		last += rng.IntN(2*run) + 1
	}
	last = tl.runs[len(tl.runs)-1]
	tl.plane = (tl.rows-1)*tl.stride + last + run
	images := tl.primes
	if shared {
		images, tl.weight = 1, 1
	}
	image := len(tl.runs) * run / unit.width * tl.weight * tl.lanes
	if !shared {
		tl.image = image
	}
	tl.yStride = 4 * (lanes + int(gap)%5)

	// fill draws bytes, or 16-bit words of at most maxWord in magnitude.
	fill := func(b []byte, width int) []byte {
		for i := range b {
			b[i] = byte(rng.Uint32())
			if extreme {
				b[i] = 0x80 | 0x7f*byte(rng.Uint32()&1) // -128 and -1, or 128 and 255
			}
		}
		if width == 2 {
			for i := 0; i+1 < len(b); i += 2 {
				word := rng.IntN(2*maxWord+1) - maxWord
				if extreme {
					word = []int{-maxWord, maxWord, 0, -1}[rng.IntN(4)]
				}
				binary.LittleEndian.PutUint16(b[i:], uint16(word))
			}
		}
		return b
	}
	if unit.width == 2 { // 16-bit words lie at even offsets
		tl.stride *= 2
		for i := range tl.runs {
			tl.runs[i] *= 2
		}
		tl.plane = (tl.rows-1)*tl.stride + tl.runs[len(tl.runs)-1] + run
	}
	tl.w = as[int8](fill(fenced(t, images*image, atEnd, 0), tl.weight))
	tl.x = fill(fenced(t, tl.primes*tl.plane, atEnd, 0), unit.width)
	size := (tl.rows-1)*tl.yStride + 4*lanes

	want, sums := tl, *tl.sums
	want.sums = &sums
	want.y = as[uint32](bytes.Repeat([]byte{0xa5}, size))
	twins[unit.width].multiply(&want)
	got, gotSums := tl, *tl.sums
	got.sums = &gotSums
	y := fenced(t, size, atEnd, 0xa5)
	got.y = as[uint32](y)
	unit.multiply(&got)
	if *got.sums != *want.sums {
		t.Errorf("%s: %d rows, %d lanes, %d runs of %d steps: sums differ from the twin's", unit.name, tl.rows, lanes, len(tl.runs), tl.steps)
	}
	if wantBytes, _ := binary.Append(nil, binary.LittleEndian, want.y); !bytes.Equal(y, wantBytes) {
		t.Errorf("%s: %d rows, %d lanes, %d runs of %d steps: words differ from the twin's", unit.name, tl.rows, lanes, len(tl.runs), tl.steps)
	}
}
