package main

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/plan"
)

// A peer is one way to multiply.
type peer struct {
	name, version string
	// load draws operands and prepares products of the shape.
	load func(*shape) (product, error)
}

// A product is what is measured. check runs it and compares some of its results
// with sums taken here, one by one.
type product interface {
	multiply() error
	check(rng *rand.Rand) error
	close() error
}

var peers []peer

func register(p peer) { peers = append(peers, p) }

// A shape is a product of m x k weights with k x n inputs: of a batch of op.
type shape struct {
	name    string
	op      plan.Op
	batch   int
	m, k, n int

	doubles *dense[float64, float64, float64] // shared by those that take float64
}

func newShape(name string, op plan.Op, batch int) *shape {
	return &shape{name: name, op: op, batch: batch, m: op.Rows(), k: op.Terms(), n: batch * op.OutLen() / op.Rows()}
}

// conv returns a convolution of 3x3 that keeps the size of a square map.
func conv(size, channels int) plan.Op {
	return plan.Conv(plan.Conv2D{
		H: size, W: size, C: channels, OutC: channels, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1,
		Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 1,
	})
}

// shapes are those of "securenets bench kernel" that are not small.
func shapes() []*shape {
	return []*shape{
		newShape("dense-1024-batch1024", plan.Dense(1024, 1024), 1024),
		newShape("dense-4096-batch512", plan.Dense(4096, 4096), 512),
		newShape("dense-4096-batch32", plan.Dense(4096, 4096), 32),
		newShape("dense-4096-batch8", plan.Dense(4096, 4096), 8),
		newShape("dense-4096-batch1", plan.Dense(4096, 4096), 1),
		newShape("conv-64-56x56-batch32", conv(56, 64), 32),
		newShape("conv-128-28x28-batch32", conv(28, 128), 32),
		newShape("conv-256-14x14-batch32", conv(14, 256), 32),
		newShape("conv-512-7x7-batch32", conv(7, 512), 32),
	}
}

type number interface {
	float64 | float32 | int64 | int32 | int8 | uint8
}

// dense is a product y = w·x of plain matrices, all by rows; modulo a prime, if
// modulus is set. With columns, x and y are transposed: a sample is a row.
type dense[W, X, Y number] struct {
	*shape
	w         []W
	x         []X
	y         []Y
	columns   bool
	modulus   int64
	tolerance float64 // of y, as a part of the sum of all terms' magnitudes

	run  func() error
	free func()
}

// newDense draws operands from what draw returns, of which rounding may put y off
// by the given part.
func newDense[W, X, Y number](s *shape, w func(*rand.Rand) W, x func(*rand.Rand) X, tolerance float64) *dense[W, X, Y] {
	rng := rand.New(rand.NewPCG(1, 2))
	d := &dense[W, X, Y]{shape: s, w: make([]W, s.m*s.k), x: make([]X, s.k*s.n), y: make([]Y, s.m*s.n), tolerance: tolerance}
	for i := range d.w {
		d.w[i] = w(rng)
	}
	for i := range d.x {
		d.x[i] = x(rng)
	}
	return d
}

func (d *dense[W, X, Y]) multiply() error { return d.run() }

func (d *dense[W, X, Y]) close() error {
	if d.free != nil {
		d.free()
	}
	return nil
}

func (d *dense[W, X, Y]) check(rng *rand.Rand) error {
	clear(d.y)
	if err := d.run(); err != nil {
		return err
	}
	for range 100 {
		i, j := rng.IntN(d.m), rng.IntN(d.n)
		y := d.y[i*d.n:][j:]
		if d.columns {
			y = d.y[j*d.m:][i:]
		}
		var sum, size float64
		var residue int64
		for k := range d.k {
			x := d.x[k*d.n:][j:]
			if d.columns {
				x = d.x[j*d.k:][k:]
			}
			w := d.w[i*d.k+k]
			sum += float64(w) * float64(x[0])
			size += math.Abs(float64(w) * float64(x[0]))
			if d.modulus > 0 { // both are below 2^30 in magnitude
				residue = (residue + int64(w)*int64(x[0])) % d.modulus
			}
		}
		got := y[0]
		if d.modulus > 0 {
			if off := (int64(got) - residue) % d.modulus; off != 0 {
				return fmt.Errorf("row %d, column %d is %v, off by %d modulo %d", i, j, got, off, d.modulus)
			}
		} else if math.Abs(float64(got)-sum) > d.tolerance*size {
			return fmt.Errorf("row %d, column %d is %v, want %v", i, j, got, sum)
		}
	}
	return nil
}

// Primes of the fields that are compared: the largest of 23 and of 31 bits.
const (
	prime23 = 1<<23 - 15
	prime31 = 1<<31 - 1
)

// centred draws an integer of magnitude up to (p-1)/2.
func centred(rng *rand.Rand, p uint32) int32 { return int32(rng.Uint32N(p)) - int32(p/2) }

// float64s returns integers modulo prime23, centred, as float64.
func (s *shape) float64s() *dense[float64, float64, float64] {
	draw := func(rng *rand.Rand) float64 { return float64(centred(rng, prime23)) }
	if s.doubles == nil {
		s.doubles = newDense[float64, float64, float64](s, draw, draw, 1e-12)
	}
	d := *s.doubles
	return &d
}

// float32s returns floats in [0, 1).
func (s *shape) float32s() *dense[float32, float32, float32] {
	return newDense[float32, float32, float32](s, (*rand.Rand).Float32, (*rand.Rand).Float32, 1e-4)
}

// int64s returns integers modulo prime31, centred.
func (s *shape) int64s() *dense[int64, int64, int64] {
	draw := func(rng *rand.Rand) int64 { return int64(centred(rng, prime31)) }
	return newDense[int64, int64, int64](s, draw, draw, 0)
}

// bytes returns signed weights and unsigned inputs, a sample a row.
func (s *shape) bytes() *dense[int8, uint8, int32] {
	d := newDense[int8, uint8, int32](s,
		func(rng *rand.Rand) int8 { return int8(rng.Uint32()) }, func(rng *rand.Rand) uint8 { return uint8(rng.Uint32()) }, 0)
	d.columns = true
	return d
}

// series are the figures of a row, one a round.
type series []float64

// quartile returns the lower (1) or upper (3) quartile, or the median (2), to four
// decimals.
func (s series) quartile(q int) float64 {
	v := slices.Sorted(slices.Values(s))
	at := (len(v) - 1) * q / 4
	if q == 3 {
		at = len(v) - 1 - (len(v)-1)/4
	}
	const decimals = 1e4
	return math.Round(v[at]*decimals) / decimals
}

func (s series) median() float64 { return s.quartile(2) }

func (s series) spread() [2]float64 { return [2]float64{s.quartile(1), s.quartile(3)} }

// processTime returns the time that all threads of this process have run: what
// would run on more than one pays for it.
func processTime() time.Duration { return cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID) }

func cpuTime(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		panic(err) // it fails for bad arguments alone
	}
	return time.Duration(t.Nano())
}

// rate returns what work does in a nanosecond of processor time.
func rate(work func() float64) float64 {
	start := processTime()
	done := work()
	return done / float64(max(1, processTime()-start))
}

// limit returns what work does in a nanosecond of its thread's processor time: others may still
// be ending what they did before.
func limit(work func() float64) float64 {
	start := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)
	done := work()
	return done / float64(max(1, cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)-start))
}

// limits are measured in every round.
type limits struct{ vnni, fma, read series }

func (l *limits) round(memory []byte) (vnni float64) {
	roofline.FMA(1000) // about 10 ms, in which what peers' threads do ends
	vnni = limit(func() float64 { return roofline.VNNI(300) })
	l.vnni = append(l.vnni, vnni)
	l.fma = append(l.fma, limit(func() float64 { return roofline.FMA(150) }))
	l.read = append(l.read, limit(func() float64 { return roofline.Read(memory) }))
	return vnni
}

// products measures all peers, shape by shape and round by round.
func products(r *Result, rounds int, only string) error {
	order := func(p peer) int {
		for i, k := range known {
			if k.peer == p.name {
				return i
			}
		}
		panic("peer " + p.name + " is not among those known")
	}
	slices.SortFunc(peers, func(a, b peer) int { return cmp.Compare(order(a), order(b)) })
	for _, p := range peers {
		r.Peers = append(r.Peers, Version{p.name, p.version})
	}
	memory := roofline.Memory(512 << 20) // more than a last cache has
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var l limits
	for _, s := range shapes() {
		if !strings.Contains(s.name, only) {
			continue
		}
		log.Printf("%s, %d rounds", s.name, rounds)
		rows, err := s.measure(&l, memory, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		r.Rows = append(r.Rows, rows...)
		debug.FreeOSMemory()
	}
	if roofline.Available() && len(l.vnni) > 0 {
		r.Roofline.VNNI, r.Roofline.FP64, r.Roofline.DRAM = l.vnni.median(), l.fma.median(), l.read.median()
	}
	return nil
}

func (s *shape) measure(l *limits, memory []byte, rounds int) (rows []Row, err error) {
	loaded := make([]product, len(peers))
	defer func() {
		for _, p := range loaded {
			if p != nil {
				err = errors.Join(err, p.close())
			}
		}
	}()
	for i, p := range peers {
		if loaded[i], err = p.load(s); err == nil {
			err = loaded[i].check(rand.New(rand.NewPCG(3, 4)))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	const (
		short = 1 << 25 // multiply-adds: some are measured together, after as many that warm caches
		long  = 1 << 31 // those that warm them are left out
	)
	work := int64(s.m) * int64(s.k) * int64(s.n)
	times := max(1, short/work)
	gmacs, q4, quarter := make([]series, len(peers)), make([]series, len(peers)), make([]series, len(peers))
	for range rounds {
		vnni := l.round(memory)
		for i, p := range loaded {
			repeat := func() float64 {
				for range times {
					err = errors.Join(err, p.multiply())
				}
				return float64(times * work)
			}
			if work < long {
				repeat()
			}
			gmacs[i] = append(gmacs[i], rate(repeat))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", peers[i].name, err)
			}
		}
		for i := range peers {
			done := gmacs[i][len(gmacs[i])-1]
			q4[i] = append(q4[i], gmacs[0][len(gmacs[0])-1]/done)
			if vnni > 0 {
				quarter[i] = append(quarter[i], 4*done/vnni)
			}
		}
	}
	for i, p := range peers {
		row := Row{
			Peer: p.name, Shape: s.name, M: s.m, K: s.k, N: s.n, Threads: 1,
			GMACs: gmacs[i].median(), Quartiles: gmacs[i].spread(), Q4: q4[i].median(),
		}
		if p.ours() && len(quarter[i]) > 0 {
			row.Limit = quarter[i].median()
		}
		rows = append(rows, row)
	}
	return rows, nil
}
