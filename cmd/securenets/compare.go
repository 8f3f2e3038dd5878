package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/dataset"
)

// comparison is of quantised results with those of float32.
type comparison struct {
	Samples   int `json:"samples"`
	Positions int `json:"positions"`         // of a sample, each of which has its own scores
	Classes   int `json:"classes,omitempty"` // scores of a position; left out where there is but one
	// Agreement is the fraction of positions, of all samples, where both have the same largest score.
	Agreement *float64 `json:"agreement,omitempty"`
	// Error is the largest difference of two outputs, as a fraction of the largest output, and
	// MeanError the mean difference, as a fraction of the mean output, by magnitude.
	Error     *float64 `json:"error,omitempty"`
	MeanError *float64 `json:"mean_error,omitempty"`
	// Difference and MeanDifference are these differences as they are. They stand in the place of
	// fractions where float32 gives zeros only, and the quantised network does not.
	Difference     *float64 `json:"difference,omitempty"`
	MeanDifference *float64 `json:"mean_difference,omitempty"`
	// With labels.
	AccuracyFloat   *float64 `json:"accuracy_float,omitempty"`
	AccuracyPrivate *float64 `json:"accuracy_private,omitempty"`
	LabelsLeftOut   int      `json:"labels_left_out,omitempty"` // as they are of no class
}

// compared is a comparison of one of several outputs.
type compared struct {
	Name string `json:"name"`
	*comparison
}

// printComparison writes a comparison, or those of several outputs.
func printComparison(w io.Writer, d hostclient.Description, one *comparison, several []compared) {
	fmt.Fprintf(w, "Quantised in %s, as \"infer\" computes it bit for bit, compared with float32:\n", d.Ring)
	if one != nil {
		fmt.Fprintln(w)
		one.print(w, "output")
	}
	for _, c := range several {
		fmt.Fprintf(w, "\noutput %s\n", c.Name)
		c.print(w, "element")
	}
}

// print writes the table of an output, whose numbers have a name.
func (c *comparison) print(w io.Writer, number string) {
	percent := func(f float64) string { return fmt.Sprintf("%.2f %%", 100*f) }
	t := render.Table(w)
	fmt.Fprintf(t, "samples\t%s\n", render.Count(c.Samples))
	if c.Agreement != nil {
		of := fmt.Sprintf("same largest of %s %ss", render.Count(c.Classes), number)
		if c.Positions > 1 {
			of += fmt.Sprintf(", by position (%s a sample)", render.Count(c.Positions))
		}
		fmt.Fprintf(t, "%s\t%s\n", of, percent(*c.Agreement))
	}
	if c.Error != nil {
		fmt.Fprintf(t, "largest difference\t%.2g of the largest %s\n", *c.Error, number)
		fmt.Fprintf(t, "mean difference\t%.2g of the mean %s, by magnitude\n", *c.MeanError, number)
	} else {
		fmt.Fprintf(t, "largest difference\t%.2g, where every %s in float32 is 0\n", *c.Difference, number)
		fmt.Fprintf(t, "mean difference\t%.2g, by magnitude\n", *c.MeanDifference)
	}
	if c.AccuracyFloat != nil {
		fmt.Fprintf(t, "accuracy in float32\t%s\naccuracy quantised\t%s (%+.2f points)\n",
			percent(*c.AccuracyFloat), percent(*c.AccuracyPrivate), 100*(*c.AccuracyPrivate-*c.AccuracyFloat))
	}
	if c.LabelsLeftOut > 0 {
		fmt.Fprintf(t, "labels left out\t%s, which stand for no class\n", render.Count(c.LabelsLeftOut))
	}
	t.Flush()
}

// scores says where in an output, in C, H, W order, the scores are of which one may be the largest.
type scores struct {
	positions, classes int
	position, class    int // strides
}

// scoresOf returns the scores of an output of C, H, W: along the one axis that it has; along the last
// of a sequence, whose H is 1; along the channels of a map.
func scoresOf(out [3]int) scores {
	c, h, w := out[0], out[1], out[2]
	switch n := c * h * w; {
	case n == max(c, h, w):
		return scores{1, n, n, 1}
	case h == 1:
		return scores{c, w, w, 1}
	default:
		return scores{h * w, c, 1, h * w}
	}
}

// sizes returns the C, H, W of an output with the dimensions of a model, with one channel axis
// and one last axis, as of a single output.
func sizes(dims []int) [3]int {
	switch n := len(dims); n {
	case 0:
		return [3]int{1, 1, 1}
	case 1:
		return [3]int{dims[0], 1, 1}
	default:
		between := 1
		for _, d := range dims[1 : n-1] {
			between *= d
		}
		return [3]int{dims[0], between, dims[n-1]}
	}
}

// largest returns the class of a sample's largest score at a position, the first of equal ones.
func (s scores) largest(y []float32, position int) int {
	y = y[position*s.position:]
	class := 0
	for i := range s.classes {
		if y[i*s.class] > y[class*s.class] {
			class = i
		}
	}
	return class
}

// ignores reports whether a label is one of those by which data sets mark what is not to count: -1
// and other negative ones, and 255, which is a byte's -1, where that is no class.
func (s scores) ignores(label float32) bool {
	return label < 0 || label == math.MaxUint8 && s.classes <= math.MaxUint8
}

// comparing is what compares results.
type comparing struct {
	model        *hostclient.ModelFile
	options      hostclient.SealOptions
	takes        taken
	data, labels string // files
	most         int    // samples
	bar          *progress
}

// chunkOutputs bounds the outputs, of several samples, that are held of either kind.
const chunkOutputs = 1 << 20

// run compares the first samples, by output where there are several. It sets the linear layers'
// largest inputs to what calibration makes of them.
func (c *comparing) run(ctx context.Context, d hostclient.Description) (one *comparison, several []compared, err error) {
	tallies, err := c.tallies(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	for i, out := range d.Outputs {
		several = append(several, compared{out.Name, tallies[i].comparison()})
	}
	if several == nil {
		one = tallies[0].comparison()
	}
	return one, several, nil
}

// tallies returns one for each output.
func (c *comparing) tallies(ctx context.Context, d hostclient.Description) ([]tally, error) {
	images, err := readSamples(c.data, c.takes)
	if err != nil {
		return nil, err
	}
	float, err := c.model.NewUnquantised(ctx)
	if err != nil {
		return nil, err
	}
	var tallies []tally
	for _, out := range d.Outputs {
		tallies = append(tallies, tally{name: out.Name, scores: scoresOf(sizes(out.Shape))})
	}
	if tallies == nil {
		tallies = []tally{{scores: scoresOf(float.Output())}}
	}
	if c.labels != "" {
		if err := giveLabels(tallies, c.labels, images.N, c.data); err != nil {
			return nil, err
		}
	}
	private, err := c.model.NewEmulator(ctx, c.options)
	if err != nil {
		return nil, err
	}
	defer private.Close()
	xmax := private.XMax()
	for i := range d.Layers {
		if d.Layers[i].XMax > 0 { // it is linear
			d.Layers[i].XMax, xmax = xmax[0], xmax[1:]
		}
	}
	n := min(c.most, images.N)
	each := d.Output
	for i, k := 0, 0; i < n; i += k {
		c.bar.step("samples", int64(i), int64(n))
		k = min(n-i, max(1, chunkOutputs/each))
		x := images.Range(i, i+k)
		at := func(j int) sample { return sample{i + j, c.data} }
		p, err := private.Infer(ctx, x, k)
		if err != nil {
			return nil, placed(fmt.Errorf("%s: samples from %d on: %w", c.data, i, err), at)
		}
		f, err := float.Infer(ctx, x, k)
		if err != nil {
			return nil, fmt.Errorf("in float32: %w", placed(fmt.Errorf("%s: samples from %d on: %w", c.data, i, err), at))
		}
		for j := range k {
			p, f := p[j*each:], f[j*each:]
			for t := range tallies {
				own := tallies[t].positions * tallies[t].classes
				tallies[t].add(p[:own], f[:own])
				p, f = p[own:], f[own:]
			}
		}
	}
	return tallies, nil
}

// tally adds up what a comparison is made of.
type tally struct {
	name string // of one of several outputs
	scores
	labels []float32 // of all positions of all samples

	samples                    int
	same                       int     // largest scores
	difference, largest        float64 // the largest ones
	differences, outputs       float64 // sums
	counted, right, rightFloat int     // labels
	leftOut                    int     // labels
}

// add adds a sample's outputs, quantised and in float32.
func (t *tally) add(private, float []float32) {
	for i, f := range float {
		d, f := math.Abs(float64(f)-float64(private[i])), math.Abs(float64(f))
		t.difference, t.largest = max(t.difference, d), max(t.largest, f)
		t.differences += d
		t.outputs += f
	}
	for i := range t.positions {
		p, f := t.scores.largest(private, i), t.scores.largest(float, i)
		t.same += count(p == f)
		if t.labels != nil {
			label := t.labels[t.samples*t.positions+i]
			if t.ignores(label) {
				t.leftOut++
				continue
			}
			t.counted++
			t.right += count(float32(p) == label)
			t.rightFloat += count(float32(f) == label)
		}
	}
	t.samples++
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (t *tally) comparison() *comparison {
	fraction := func(a, b int) *float64 { return new(float64(a) / float64(b)) }
	c := &comparison{Samples: t.samples, Positions: t.positions, LabelsLeftOut: t.leftOut}
	if t.classes > 1 {
		c.Classes, c.Agreement = t.classes, fraction(t.same, t.samples*t.positions)
	}
	switch {
	case t.largest > 0:
		c.Error, c.MeanError = new(t.difference/t.largest), new(t.differences/t.outputs)
	case t.difference > 0:
		c.Difference, c.MeanDifference = new(t.difference), new(t.differences/float64(t.samples*t.positions*t.classes))
	default:
		c.Error, c.MeanError = new(float64), new(float64)
	}
	if t.counted > 0 {
		c.AccuracyFloat, c.AccuracyPrivate = fraction(t.rightFloat, t.counted), fraction(t.right, t.counted)
	}
	return c
}

// giveLabels reads the labels of n samples, one for each position, and gives them to the output
// that they fit: with so many positions, and scores of several classes.
func giveLabels(tallies []tally, file string, n int, data string) error {
	var scored []*tally
	for i := range tallies {
		if tallies[i].classes > 1 {
			scored = append(scored, &tallies[i])
		}
	}
	if scored == nil {
		return usagef("check: --labels: the network gives no scores of several classes")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	labels, err := labelsIn(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if labels.N != n {
		return fmt.Errorf("%s has %d labels, and %s %d samples", file, labels.N, data, n)
	}
	each := len(labels.Data) / n
	var fit *tally
	for _, t := range scored {
		switch {
		case t.positions != each:
		case fit != nil:
			return usagef("check: --labels are of one output, and %s and %s have %d positions each: choose by --output", fit.name, t.name, each)
		default:
			fit = t
		}
	}
	switch {
	case fit == nil && len(tallies) == 1:
		return fmt.Errorf("%s has %d labels a sample, and the network %d positions", file, each, scored[0].positions)
	case fit == nil:
		return fmt.Errorf("%s has %d labels a sample, and no output so many positions with scores of several classes", file, each)
	}
	// All are looked at, also those of samples that are not run: a few may all be in range by chance.
	for i, l := range labels.Data {
		if int(l) >= fit.classes && !fit.ignores(l) {
			return fmt.Errorf("%s: label %d of sample %d is outside of the network's %d classes, which are numbered from 0", file, int(l), i/each, fit.classes)
		}
	}
	fit.labels = labels.Data
	return nil
}

// labelsIn reads labels in any format.
func labelsIn(f io.ReadSeeker) (*dataset.Images, error) {
	labels, err := dataset.ReadNPYLabels(f)
	if !errors.Is(err, dataset.ErrFormat) || isNPY(f) {
		return labels, err
	}
	read := func(from func(io.Reader) ([]uint8, error)) ([]uint8, error) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		return from(f)
	}
	bytes, err := read(dataset.ReadIDXLabels)
	if errors.Is(err, dataset.ErrFormat) {
		cifar, bad := read(func(r io.Reader) ([]uint8, error) {
			_, labels, err := dataset.ReadCIFAR10(r)
			return labels, err
		})
		if bad == nil {
			bytes, err = cifar, nil
		}
	}
	if err != nil {
		return nil, err
	}
	labels = &dataset.Images{N: len(bytes), C: 1, H: 1, W: 1}
	for _, l := range bytes {
		labels.Data = append(labels.Data, float32(l))
	}
	return labels, nil
}

// isNPY reports whether a file begins as one of NumPy's does.
func isNPY(f io.ReadSeeker) bool {
	const magic = "\x93NUMPY"
	var head [len(magic)]byte
	_, err := f.Seek(0, io.SeekStart)
	if err == nil {
		_, err = io.ReadFull(f, head[:])
	}
	return err == nil && string(head[:]) == magic
}
