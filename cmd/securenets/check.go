package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/reference"
	"github.com/securenets/securenets/kernels/cpu"
)

// checked is what check finds.
type checked struct {
	Model       string   `json:"model"`
	Unsupported []string `json:"unsupported,omitempty"` // then there is nothing else
	*hostclient.Description
	*comparison
}

// comparison is of the quantised network with float32.
type comparison struct {
	Samples   int     `json:"samples"`
	Agreement float64 `json:"agreement"` // fraction that both put in one class
	// Error is the largest difference of two scores, as a fraction of the largest score.
	Error float64 `json:"error"`
	// With labels.
	AccuracyFloat   *float64 `json:"accuracy_float,omitempty"`
	AccuracyPrivate *float64 `json:"accuracy_private,omitempty"`
}

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check MODEL.onnx",
		Short: "Show what would run where, before anything is sealed",
		Long: `Check reads an ONNX model and shows which operators the cloud would evaluate and which
the host, with their shapes, multiply-adds and bytes; or else everything in the model that
is not supported.

With --data it also runs samples through the quantised network, on this machine and
in the clear; sealing and masking would not change a bit of the results. It compares
them with those of float32, and with --labels the accuracy of both.

With --place auto it measures what "seal" would with that flag, for a cloud reached by
--link, and shows which layers would be kept here.`,
		Args: cobra.ExactArgs(1),
	}
	choose := sealFlags(cmd)
	read := modelFlags(cmd)
	data := cmd.Flags().String("data", "", "`file` of samples (npy, npz, IDX, CIFAR-10, PNG)")
	labels := cmd.Flags().String("labels", "", "`file` of their labels (IDX, CIFAR-10)")
	samples := cmd.Flags().Int("samples", 256, "the most samples to run")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := choose.options()
		if err != nil {
			return err
		}
		o.Multiplier = cpu.New(cpu.Options{})
		if *labels != "" && *data == "" {
			return usagef("check: --labels needs --data")
		}
		if err := atLeast(cmd, "samples", *samples, 1); err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		result := checked{Model: args[0]}
		model, err := openModel(args[0], read)
		var unsupported *onnx.UnsupportedError
		if errors.As(err, &unsupported) && *asJSON {
			result.Unsupported = unsupported.Ops
			if err := render.JSON(w, result); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		defer model.Close()
		d, err := model.Preview(o.Scheme, o.Ring)
		if err == nil && o.Place == hostclient.PlaceAuto {
			err = peer.WithEcho(cmd.Context(), o, func(o hostclient.SealOptions) error {
				d, err = model.Place(cmd.Context(), o)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		result.Description = &d
		if *data != "" {
			if len(d.Outputs) > 0 {
				return usagef("check: --data compares one output, and %s has %s: choose by --output", args[0], outputNames(d))
			}
			bar := newProgress(cmd)
			defer bar.clear()
			bar.step("samples", 0, 0)
			if result.comparison, err = compare(cmd.Context(), model, args[0], onnx.Options{Sizes: read.Sizes, Outputs: read.Outputs}, o, takenBy(d), *data, *labels, *samples); err != nil {
				return err
			}
			bar.clear()
		}
		if *asJSON {
			return render.JSON(w, result)
		}
		fmt.Fprintf(w, "%s with %s in %s\n\n", args[0], d.Scheme, d.Ring)
		printLayers(w, d)
		printPlacement(w, d)
		if result.comparison != nil {
			fmt.Fprintln(w)
			result.comparison.print(w)
		}
		return nil
	}
	return cmd
}

func (c *comparison) print(w io.Writer) {
	percent := func(f float64) string { return fmt.Sprintf("%.2f %%", 100*f) }
	t := render.Table(w)
	fmt.Fprintf(t, "samples\t%s\nsame class as float32\t%s\n", render.Count(c.Samples), percent(c.Agreement))
	fmt.Fprintf(t, "largest difference of a score\t%.2g of the largest score\n", c.Error)
	if c.AccuracyFloat != nil {
		fmt.Fprintf(t, "accuracy in float32\t%s\naccuracy quantised\t%s (%+.2f points)\n",
			percent(*c.AccuracyFloat), percent(*c.AccuracyPrivate), 100*(*c.AccuracyPrivate-*c.AccuracyFloat))
	}
	t.Flush()
}

// compare runs the first samples of a file, at most n, in float32 and quantised.
func compare(ctx context.Context, model *hostclient.ModelFile, path string, read onnx.Options, o hostclient.SealOptions, takes taken, data, labels string, n int) (*comparison, error) {
	images, err := readSamples(data, takes)
	if err != nil {
		return nil, err
	}
	n = min(n, images.N)
	var want []uint8
	if labels != "" {
		if want, err = readLabels(labels); err != nil {
			return nil, err
		}
		if len(want) != images.N {
			return nil, fmt.Errorf("%s has %d labels, and %s %d samples", labels, len(want), data, images.N)
		}
	}
	x := images.Range(0, n)
	e, err := model.NewEmulator(ctx, o)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	private, err := e.Infer(ctx, x, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", data, err)
	}
	held, err := hostclient.ReadModel(path)
	if err != nil {
		return nil, err
	}
	float, err := inFloat(ctx, held, read, x, n)
	if err != nil {
		return nil, err
	}
	c := &comparison{Samples: n}
	var difference, largest float64
	for i, y := range float {
		difference = max(difference, math.Abs(float64(y)-float64(private[i])))
		largest = max(largest, math.Abs(float64(y)))
	}
	if largest > 0 {
		c.Error = difference / largest
	}
	p, f := classes(private, n), classes(float, n)
	c.Agreement = same(p, f)
	if want != nil {
		truth := make([]int, n)
		for i := range truth {
			truth[i] = int(want[i])
		}
		a, b := same(f, truth), same(p, truth)
		c.AccuracyFloat, c.AccuracyPrivate = &a, &b
	}
	return c, nil
}

// inFloat runs n samples in C, H, W order in float32. The order of the results
// counts where they are no vector: they come in C, H, W order, too.
func inFloat(ctx context.Context, model []byte, read onnx.Options, x []float32, n int) ([]float32, error) {
	g, err := onnx.ParseWith(model, read)
	if err != nil {
		return nil, err
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	const batch = 64
	in, out := g.Input, shapes[g.Output]
	y := make([]float32, n*out.Len())
	for i := 0; i < n; i += batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		k := min(batch, n-i)
		m, err := reference.New(g, k)
		if err != nil {
			return nil, err
		}
		maps := make([]float32, k*in.Len())
		graph.CHWToHWC(maps, x[i*in.Len():(i+k)*in.Len()], k, in)
		scores, err := m.Forward(maps)
		if err == nil {
			graph.HWCToCHW(y[i*out.Len():(i+k)*out.Len()], scores, k, out)
		}
		if err := errors.Join(err, m.Close()); err != nil {
			return nil, err
		}
	}
	return y, nil
}

// classes returns, for each of n samples, which score is the highest.
func classes(y []float32, n int) []int {
	c := make([]int, 0, n)
	for scores := range slices.Chunk(y, len(y)/n) {
		c = append(c, slices.Index(scores, slices.Max(scores)))
	}
	return c
}

// same returns the fraction of elements that are equal.
func same(a, b []int) float64 {
	n := 0
	for i := range a {
		if a[i] == b[i] {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

func readLabels(file string) ([]uint8, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	labels, err := dataset.ReadIDXLabels(f)
	if errors.Is(err, dataset.ErrFormat) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		if _, cifar, err := dataset.ReadCIFAR10(f); err == nil {
			return cifar, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return labels, nil
}
