// Package bench measures what outsourcing rests on, on the machine it runs on:
// the cloud's products, and the host's passes over what it sends and receives.
package bench

import (
	"bufio"
	"encoding/csv"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/securenets/securenets/internal/plan"
)

// A shape is a product of a linear operator with a batch of n samples.
type shape struct {
	name string
	op   plan.Op
	n    int
}

// conv returns a convolution of a square map of so many channels, to keep its size
// by padding or not.
func conv(size, in, out, kernel, pad int) plan.Op {
	return plan.Conv(plan.Conv2D{
		H: size, W: size, C: in, OutC: out, KH: kernel, KW: kernel, SH: 1, SW: 1, DH: 1, DW: 1,
		Top: pad, Left: pad, Bot: pad, Right: pad, Groups: 1,
	})
}

// Options say what to measure.
type Options struct {
	// Quick measures each shape for a second and not for five, and of kernels only
	// the products below 2^31 multiply-adds.
	Quick    bool
	Progress func(label string, done, total int)
	// Daemon is the path of securenetsd, for what is measured through one; "" for not.
	Daemon string
}

// scope is what tests make smaller.
type scope struct {
	shapes []shape
	budget time.Duration // that a shape is measured for
	memory int           // bytes that are read to measure memory
	served []shape       // through a daemon, all of one operator
}

func (o Options) scope(shapes []shape) scope {
	const memory = 512 << 20 // more than a last cache has
	s := scope{shapes: shapes, budget: 5 * time.Second, memory: memory}
	if o.Quick {
		s.budget = time.Second
	}
	return s
}

// rounds calls round until the budget is spent, and often enough for a median.
func rounds(budget time.Duration, round func() error) error {
	const least = 5
	start := time.Now()
	for i := 1; i <= least || time.Since(start) < budget; i++ {
		if err := round(); err != nil {
			return err
		}
	}
	return nil
}

// series are the figures of a row, one a round.
type series []float64

// quartile returns the lower (1) or upper (3) quartile, or the median (2), between two
// figures in proportion, to five digits.
func (s series) quartile(q int) float64 {
	v := slices.Sorted(slices.Values(s))
	i, part := (len(v)-1)*q/4, float64((len(v)-1)*q%4)/4
	if part == 0 {
		return round(v[i])
	}
	return round(v[i] + part*(v[i+1]-v[i]))
}

// round keeps five significant digits.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(v))))
	if scale >= 1 {
		return math.Round(v*scale) / scale
	}
	return math.Round(v/(1/scale)) * (1 / scale)
}

func (s series) median() float64 { return s.quartile(2) }

// spread are the quartiles beside the median.
func (s series) spread() [2]float64 { return [2]float64{s.quartile(1), s.quartile(3)} }

// processor returns the name of this machine's processor, as far as it is known.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// writeCSV writes a line of names, and one for each row.
func writeCSV[R interface{ record() []string }](w io.Writer, names []string, rows []R) error {
	c := csv.NewWriter(w)
	c.Write(names)
	for _, r := range rows {
		c.Write(r.record())
	}
	c.Flush()
	return c.Error()
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
