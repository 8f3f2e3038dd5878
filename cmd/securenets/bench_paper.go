package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/paper"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
)

// The files of bench paper --dir.
const (
	paperName  = "paper"
	figureName = "figure-2.png"
)

func newBenchPaper() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "paper",
		Short: "Measure the paper's tables, and show which of its claims hold",
		Long: `Paper runs the paper's networks on daemons of its own.

Table 1 compares local inference, by the reference and by onnxruntime, with outsourced
inference: under the paper's scheme, permute, and those that replace it (permute+pad,
permute+split, lagrange), with the paper's checks and the real one, with one thread and
with all (the same for host and daemons). Table 2 compares CryptoNets' network with
published figures and with TenSEAL, a library for homomorphic encryption. Each row says
whether it confirms the paper.

onnxruntime and TenSEAL run in Python: bench/peers/venv.sh installs them. If one is
missing, a row says so. If it is interrupted, it writes what was measured so far, marked
partial; if nothing was, earlier files stay as they are.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	var o paper.Options
	flags.StringArrayVar(&o.Networks, "network", paper.Networks, "`name` of a network: one of "+strings.Join(paper.Networks, ", ")+" (repeatable)")
	daemon := daemonFlag(cmd)
	flags.StringVar(&o.Python, "python", "", "`path` of a Python interpreter with onnxruntime and TenSEAL (default: what bench/peers/venv.sh made)")
	flags.BoolVar(&o.Quick, "quick", false, "measure less, in a minute or two")
	asJSON := flags.String("json", "", "also write the figures to `file`, as JSON")
	asCSV := flags.String("csv", "", "also write the rows to `file`, as CSV")
	dir := flags.String("dir", "", "also write all forms, and figure 2, to `folder`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, n := range o.Networks {
			if !slices.Contains(paper.Networks, n) {
				return usagef("bench paper: no network %q, there are %q", n, paper.Networks)
			}
		}
		var err error
		if o.Daemon, err = daemon(); err != nil {
			return err
		}
		if o.Python == "" {
			o.Python = paper.FindPython()
		}
		bar := newProgress(cmd)
		defer bar.clear()
		o.Progress = func(label string, done, total int) { bar.step(label, int64(done), int64(total)) }
		f := paperForms{json: *asJSON, csv: *asCSV, dir: *dir, command: paperCommand(o)}
		if f.dir != "" {
			if err := os.MkdirAll(f.dir, 0o755); err != nil {
				return err
			}
			if err := f.draw(cmd.Context(), o); err != nil {
				return err
			}
		}
		r, err := paper.Run(cmd.Context(), o)
		bar.clear()
		return errors.Join(err, f.write(cmd.OutOrStdout(), r)) // of what was measured
	}
	return cmd
}

// paperCommand is what was run, for the report.
func paperCommand(o paper.Options) string {
	command := "securenets bench paper"
	if !slices.Equal(o.Networks, paper.Networks) {
		for _, n := range o.Networks {
			command += " --network " + n
		}
	}
	if o.Quick {
		command += " --quick"
	}
	return command
}

// paperForms are the files that a report is written to.
type paperForms struct {
	json, csv, dir string // "" for none
	command        string
	picture        []byte // figure 2, PNG; nil for none
	caption        string // of it
}

// draw draws figure 2: what clouds see of images of 28 x 28, in a dense layer: a word a pixel.
func (f *paperForms) draw(ctx context.Context, o paper.Options) error {
	o.Progress("figure 2", 0, 1)
	options := demo.Options{Network: "mlp", Batch: 1, Daemon: o.Daemon, Out: io.Discard, Progress: func(string, int, int) {}}
	m, columns, err := demo.DrawFigure(ctx, options, paper.FigureSchemes())
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		return err
	}
	f.picture = b.Bytes()
	var names []string
	for _, c := range columns {
		name := c.Scheme.String()
		if c.Scheme.Roles() > 1 {
			name += fmt.Sprintf(" (role %d)", c.Role)
		}
		names = append(names, name)
	}
	f.caption = "From left to right: test images, and what the cloud gets for them in the first layer of mlp, a word a pixel, under " + strings.Join(names, ", ") +
		". Under permute the rows of a call come in another order than the images. A role that gets a seed is shown what it expands to."
	return nil
}

// write writes all forms. A result without figures does not take the place of an earlier one.
func (f *paperForms) write(out io.Writer, r *paper.Result) error {
	if !r.Measured() {
		return nil
	}
	asJSON := inJSON(r)
	forms := []form{{f.json, asJSON}, {f.csv, r.CSV}}
	if f.dir != "" {
		in := func(ext string) string { return filepath.Join(f.dir, paperName+ext) }
		forms = append(forms, form{in(".json"), asJSON}, form{in(".csv"), r.CSV},
			form{in(".md"), func(w io.Writer) error { return r.Markdown(w, f.command, figureName, f.caption) }},
			form{filepath.Join(f.dir, figureName), func(w io.Writer) error { _, err := w.Write(f.picture); return err }})
	}
	return errors.Join(r.Table(out), writeForms(forms...))
}
