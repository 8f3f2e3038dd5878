package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/dataset"
)

func newInfer(endpoint string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "infer DIR INPUT...",
		Short: "Run samples through a sealed network, every product checked",
		Long: `Infer reads samples from files (npy, npz, IDX, CIFAR-10, PNG) and writes one line of JSON for
each sample: the file, the sample's index in it, the class with the highest score, and
all scores. Of a network with several outputs it writes the elements of each, by name.

A network of text takes integers: ids of tokens, as an npy file, or, if it has several
inputs, an npz file with an array for each by its name, as numpy.savez(FILE, **tokens)
writes what a tokeniser returns. "inspect" shows inputs and outputs.

A file is read whole, whatever --batch says. That takes 4 bytes of memory for each element,
and some 9 while it is read. It has at most ` + render.Count(dataset.MaxElements) + ` elements: give more in several files.

If a cloud answers wrongly, infer ends with exit status 3 and writes nothing of that batch.
With --retries it asks again first, and if that succeeds only reports the wrong answer on
standard error, where each retry writes a line. If "seal --place auto" kept every layer, no cloud is asked.`,
		Args: cobra.MinimumNArgs(2),
	}
	batch := cmd.Flags().Int("batch", 256, "samples in a batch")
	pads := cmd.Flags().Int("pads", 0, "samples to make pads for beforehand; pads for further samples are made on the way (default: none)")
	flags := addSessionFlags(cmd, endpoint, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := cmp.Or(atLeast(cmd, "batch", *batch, 1), atLeast(cmd, "pads", *pads, 0)); err != nil {
			return err
		}
		bar := newProgress(cmd)
		session, err := flags.open(cmd, args[0], nil, retrying(clearing{bar, cmd.ErrOrStderr()}))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		if err := cmp.Or(padsIn(cmd, session), flags.stock.fits(cmd, physicalMemory(), "pads", int64(*pads), session.secret.PadBytes())); err != nil {
			return err
		}
		defer warnDiscarded(cmd, session.Session)()
		defer bar.clear()
		d := session.secret.Describe()
		in := inference{
			ctx:     cmd.Context(),
			session: session.Session,
			out:     json.NewEncoder(cmd.OutOrStdout()),
			takes:   takenBy(d),
			gives:   d.Outputs,
			size:    *batch,
			bar:     bar,
		}
		if *pads > 0 { // which take long
			if err := session.ready(in.ctx); err != nil {
				return err
			}
		}
		if err := precompute(in.ctx, session.Session, *pads, in.size, bar); err != nil {
			return err
		}
		for _, f := range args[1:] {
			if err := in.add(f); err != nil {
				return err
			}
		}
		if err := in.flush(); err != nil {
			return err
		}
		bar.clear()
		s := session.Stats()
		if s.Rejected > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "securenets: a cloud answered wrongly; products rejected, and asked for again: %s\n", render.Count(s.Rejected))
		}
		if bar.w != nil {
			fmt.Fprintln(bar.w, summary(s))
		}
		return nil
	}
	return cmd
}

// retrying returns what writes a line for each time that a cloud is asked again.
func retrying(w io.Writer) func(error, time.Duration) {
	var mu sync.Mutex // parts of a batch may fail at once
	return func(err error, pause time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		what := "asking a spare"
		if pause > 0 {
			what = fmt.Sprintf("asking again in %v", pause)
		}
		fmt.Fprintf(w, "securenets: %s: %s\n", what, oneLine(err))
	}
}

// summary says how much was inferred and checked.
func summary(s hostclient.Stats) string {
	text := fmt.Sprintf("samples: %s, products checked: %s, rejected: %s", render.Count(s.Samples), render.Count(s.Checked), render.Count(s.Rejected))
	if s.Kept > 0 {
		text += ", computed here: " + render.Count(s.Kept)
	}
	return text
}

// readSecret reads the secret of a folder.
func readSecret(ctx context.Context, dir, identity string) (*hostclient.Secret, error) {
	ids, err := identities(ctx, dir, identity)
	if err != nil {
		return nil, err
	}
	return hostclient.ReadSecret(dir, ids...)
}

// inference runs the samples of several files in batches.
type inference struct {
	ctx     context.Context
	session *hostclient.Session
	out     *json.Encoder
	takes   taken
	gives   []hostclient.OutputDescription // if there are several
	size    int                            // samples a batch
	bar     *progress

	batch []sample
	x     []float32 // of the batch
	done  int64     // samples
}

// sample is what is written of any.
type sample struct {
	Index int    `json:"index"` // in the file
	File  string `json:"file"`
}

// prediction is what is written of a sample of a network with one output.
type prediction struct {
	sample
	Class  int       `json:"class"` // of the highest score
	Scores []float32 `json:"scores"`
}

// outputs is what is written of a sample of a network with several.
type outputs struct {
	sample
	Outputs map[string][]float32 `json:"outputs"` // by name, each in the model's order
}

// add reads a file, and runs what fills a batch.
func (in *inference) add(file string) error {
	images, err := readSamples(file, in.takes)
	if err != nil {
		return err
	}
	for i := range images.N {
		in.batch = append(in.batch, sample{Index: i, File: file})
		in.x = append(in.x, images.Range(i, i+1)...)
		if len(in.batch) == in.size {
			if err := in.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush runs and writes the samples that wait.
func (in *inference) flush() error {
	n := len(in.batch)
	if n == 0 {
		return nil
	}
	y, err := in.session.Infer(in.ctx, in.x, n)
	if err != nil {
		return placed(err, func(i int) sample { return in.batch[i] })
	}
	in.bar.clear()
	for i, s := range in.batch {
		if err := in.write(s, y[i*len(y)/n:(i+1)*len(y)/n]); err != nil {
			return err
		}
	}
	in.done += int64(n)
	in.bar.step("samples", in.done, 0)
	in.batch, in.x = in.batch[:0], in.x[:0]
	return nil
}

// placed returns err, if it is of one sample of a batch, as of that sample in its file, which at
// finds.
func placed(err error, at func(i int) sample) error {
	var wrong *hostclient.SampleError
	if !errors.As(err, &wrong) {
		return err
	}
	s := at(wrong.Sample)
	return fmt.Errorf("%s: sample %d: %w", s.File, s.Index, wrong.Err)
}

// write writes what the network gives of a sample.
func (in *inference) write(s sample, y []float32) error {
	if len(in.gives) == 0 {
		return in.out.Encode(prediction{s, slices.Index(y, slices.Max(y)), y})
	}
	all := outputs{s, map[string][]float32{}}
	for _, out := range in.gives {
		n := out.Elements()
		all.Outputs[out.Name], y = y[:n], y[n:]
	}
	return in.out.Encode(all)
}

// taken is what a network takes.
type taken struct {
	input  [3]int // C, H, W
	inputs []hostclient.InputDescription
}

func takenBy(d hostclient.Description) taken { return taken{d.Input, d.Inputs} }

// readSamples reads a file of samples for a network. A vector may stand for a map, a map for a
// vector, and rows of one channel for channels of one row: their order is one.
func readSamples(file string, takes taken) (*dataset.Images, error) {
	open := dataset.Open
	if len(takes.inputs) == 1 && takes.inputs[0].Type == "uint8" { // an image that the network scales
		open = dataset.OpenBytes
	} else if len(takes.inputs) > 0 {
		var inputs []dataset.Input
		for _, in := range takes.inputs {
			inputs = append(inputs, dataset.Input{Name: in.Name, Elements: in.Shape[0] * in.Shape[1] * in.Shape[2], Integers: in.Integers != nil})
		}
		return dataset.OpenInputs(file, inputs)
	}
	input := takes.input
	channels, elements := input[0], input[0]*input[1]*input[2]
	if input[1]*input[2] == 1 {
		channels = 1 // of a PNG, or three where it has as many elements then
	}
	images, err := open(file, channels)
	if err == nil && channels != input[0] && 3*len(images.Data) == elements {
		images, err = open(file, 3)
	}
	if err != nil {
		return nil, err
	}
	have := [3]int{images.C, images.H, images.W}
	vector := have[1]*have[2] == 1 || input[1]*input[2] == 1
	sequence := input[1] == 1 && have == [3]int{1, input[0], input[2]}
	if have != input && !sequence && !(vector && have[0]*have[1]*have[2] == elements) {
		return nil, fmt.Errorf("%s: samples of %dx%dx%d (channels, rows, columns), the network takes %dx%dx%d",
			file, have[0], have[1], have[2], input[0], input[1], input[2])
	}
	return images, nil
}
