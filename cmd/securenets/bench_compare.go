package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/reports"
)

func newBenchCompare() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two reports of bench, figure by figure",
		Long: `Compare reads two JSON files that a bench wrote, or the folders of two reports of "bench
throughput", and prints the ratio B/A for each figure that both have. (With --echo, --idle
or --soak, "bench serve" writes no such file.) If the reports have quartiles, it prints
the interval that they allow. A figure is marked if it differs by more than --threshold
and by more than this interval. Reports of different kinds are refused; if the machines
differ, it warns.`,
		Args: cobra.ExactArgs(2),
	}
	threshold := cmd.Flags().Float64("threshold", 0.05, "mark ratios that differ from 1 by more than this fraction")
	asJSON := cmd.Flags().String("json", "", "also write the ratios to `file`, as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !(*threshold >= 0 && *threshold <= 1e6) {
			return usagef("bench compare: --threshold is %v, want 0 to 1e6", *threshold)
		}
		a, err := reports.Open(args[0])
		if err != nil {
			return err
		}
		b, err := reports.Open(args[1])
		if err != nil {
			return err
		}
		c, err := reports.Compare(a, b, *threshold)
		if err != nil {
			return err
		}
		return errors.Join(c.Table(cmd.OutOrStdout()), writeForms(form{*asJSON, inJSON(c)}))
	}
	return cmd
}
