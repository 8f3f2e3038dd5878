package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/kernels/cuda"
)

// newDevices returns the command that lists CUDA devices.
func newDevices(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List CUDA devices, test each, and say why one is refused",
		Args:  noArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := o.load()
		if err != nil {
			return err
		}
		list, err := cuda.List(cudaOptions(cfg.CUDA, slog.New(slog.DiscardHandler)))
		if err != nil {
			return startError{err}
		}
		if *asJSON {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(list)
		}
		return printDevices(cmd.OutOrStdout(), list)
	}
	return cmd
}

func printDevices(w io.Writer, list []cuda.Device) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "device\tname\tcapability\tmemory\tstate\tpath\tutilisation\tused\tpower\tdriver")
	for _, d := range list {
		fmt.Fprintf(t, "%d\t%s\t%s\t%d MiB\t%s\t%s", d.Ordinal, d.Name, d.Capability, d.Memory>>20, d.State, orDash(d.Path))
		if f := d.Figures; f != nil {
			fmt.Fprintf(t, "\t%d %%\t%d MiB\t%.0f W\t%s\n", f.Utilisation, f.UsedBytes>>20, f.PowerWatts, f.Driver)
		} else {
			fmt.Fprintln(t, "\t-\t-\t-\t-")
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range list {
		if d.State != cuda.Ready {
			if _, err := fmt.Fprintf(w, "\ndevice %d is %s: %s\n", d.Ordinal, d.State, d.Reason); err != nil {
				return err
			}
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
