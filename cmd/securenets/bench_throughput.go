package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/throughput"
)

func newBenchThroughput() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "throughput",
		Short: "Measure an instance: throughput, latency and cost over batch, callers, width and depth",
		Long: `Throughput starts daemons on the devices of this machine, or uses the daemon at --endpoint,
and runs sealed networks on them with every product checked. It varies the images in a
request, the concurrent callers, and the width and depth of dense layers, and adds one
network with convolutions. The scheme is permute+pad; on daemons of its own, permute+split
(two daemons) and lagrange (three) are measured over width and for the convolutions too. It
also measures the cloud alone, with raw frames, and, where it can, the limit of the device.

It writes report.json, report.csv, report.md and charts as PNG and SVG to the folder
of --dir. A row that varies too much is marked, and so is a report during which the
machine changed its speed. If it is interrupted, it ends with exit status 1 and leaves a
partial report of what was measured; if nothing was, an earlier report stays as it is.
Models that it pushed to --endpoint are removed in either case. "bench compare" compares
two reports.`,
		Args: cobra.NoArgs,
	}
	var o throughput.Options
	flags := cmd.Flags()
	flags.StringVarP(&o.Endpoint, "endpoint", "e", "", "`address` of a daemon to measure, unix:/path or tls:HOST:PORT (default: daemons of its own)")
	tls := tlsFlags(flags)
	daemon := daemonFlag(cmd)
	flags.StringVar(&o.Backend, "backend", "auto", "what its own daemons multiply with: auto, cuda or cpu")
	flags.Float64Var(&o.PerHour, "price-per-hour", 0, "price of this instance for an hour, in --currency, to compute the cost of a million inferences with one cloud")
	flags.StringVar(&o.Currency, "currency", "USD", "currency of --price-per-hour, for the report")
	flags.BoolVar(&o.Quick, "quick", false, "measure less, in under a minute")
	dir := flags.String("dir", "out/throughput", "`folder` to write the report to")
	asJSON := flags.String("json", "", "also write report.json to `file`")
	asCSV := flags.String("csv", "", "also write report.csv to `file`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		switch {
		case flags.Changed("price-per-hour") && !(o.PerHour > 0 && o.PerHour <= math.MaxFloat32):
			return usagef("bench throughput: --price-per-hour is %v, want more than 0", o.PerHour)
		case flags.Changed("currency") && o.PerHour == 0:
			return usagef("bench throughput: --currency is that of --price-per-hour: give both")
		case o.Backend != "auto" && o.Backend != "cuda" && o.Backend != "cpu":
			return usagef("bench throughput: --backend is %q, want auto, cuda or cpu", o.Backend)
		case o.Endpoint != "" && (flags.Changed("daemon") || flags.Changed("backend")):
			return usagef("bench throughput: --daemon and --backend are for daemons of its own, not for --endpoint")
		}
		if err := tls.apply(o.Endpoint); err != nil {
			return err
		}
		if o.Endpoint == "" {
			if o.Daemon, err = daemon(); err != nil {
				return err
			}
		} else if client, err := tls.dial(o.Endpoint, ""); err != nil { // it does not connect yet
			return err
		} else if err := client.Close(); err != nil {
			return err
		}
		if strings.HasPrefix(o.Endpoint, tlsScheme) {
			if o.TLS, err = tls.config(o.Endpoint); err != nil {
				return err
			}
		}
		if err = os.MkdirAll(*dir, 0o755); err != nil { // rather than fail after all is measured
			return err
		}
		o.Command = os.Args
		bar := newProgress(cmd)
		defer bar.clear()
		o.Progress = func(label string, done, total int) { bar.step(label, int64(done), int64(total)) }
		report, err := throughput.Run(cmd.Context(), o)
		bar.clear()
		forms := throughputForms{dir: *dir, json: *asJSON, csv: *asCSV}
		wrote := forms.write(cmd.OutOrStdout(), report)
		if wrote != nil && cmd.Context().Err() != nil { // that it was interrupted is no news
			return wrote
		}
		return errors.Join(err, wrote)
	}
	return cmd
}

// throughputForms are the files that a report is written to.
type throughputForms struct {
	dir, json, csv string // "" for none of the last two
}

// write writes all forms. A report without figures does not take the place of an earlier one.
func (f throughputForms) write(out io.Writer, report *throughput.Report) error {
	if len(report.Rows) == 0 {
		return nil
	}
	wrote := errors.Join(report.Write(f.dir), writeForms(form{f.json, inJSON(report)}, form{f.csv, report.CSV}))
	told := report.Table(out)
	if wrote == nil {
		fmt.Fprintf(out, "\nThe report is in %s: begin with report.md.\n", f.dir)
	}
	return errors.Join(wrote, told)
}
