package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/cmd/securenets/internal/reports"
)

func newBenchCompare() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two reports of bench, figure by figure",
		Long: `Compare reads two files that a bench wrote as JSON, or the folders of two reports of
"bench throughput", and prints B over A for each figure that both have. "bench serve"
writes none of these with --echo, --idle or --soak. Where the reports have quartiles it
prints the interval that they allow. A figure that differs by more than --threshold, and
by more than this interval, is marked. Reports of different kinds are refused; that the
machines differ is said.`,
		Args: cobra.ExactArgs(2),
	}
	threshold := cmd.Flags().Float64("threshold", 0.05, "part of 1 by which a ratio differs at least to be marked")
	asJSON := cmd.Flags().String("json", "", "also write the ratios to `file`, as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !(*threshold >= 0 && *threshold <= 1e6) {
			return usagef("bench compare: --threshold is %v", *threshold)
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
		err = c.Table(cmd.OutOrStdout())
		if *asJSON != "" {
			err = errors.Join(err, render.File(*asJSON, func(w io.Writer) error { return render.JSON(w, c) }))
		}
		return err
	}
	return cmd
}
