package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/kernels/cpu"
)

// stockFlags say where a durable stock of pads is.
type stockFlags struct {
	dir, journal, machine *string
	flags                 *pflag.FlagSet
}

// addStockFlags gives cmd the flags of a durable stock.
func addStockFlags(cmd *cobra.Command) stockFlags {
	f := cmd.Flags()
	return stockFlags{
		f.String("stock", "", "`folder` of a stock of pads that outlives the process (see \"securenets help pads\")"),
		f.String("journal", "", "`folder` that records which of these pads are used up; needed with --stock"),
		f.String("machine-id", "/etc/machine-id", "`file` with the machine's id, which a stock is bound to"),
		f,
	}
}

// stock returns what the flags ask for, or nil.
func (f stockFlags) stock() (*hostclient.DurableStock, error) {
	if *f.dir == "" && *f.journal == "" {
		if f.flags.Changed("machine-id") {
			return nil, usagef("--machine-id is for the stock of --stock and --journal: give these, too")
		}
		return nil, nil
	}
	if *f.dir == "" || *f.journal == "" {
		return nil, usagef("--stock and --journal go together")
	}
	id, err := os.ReadFile(*f.machine)
	if err != nil {
		return nil, fmt.Errorf("machine id: %w", err)
	}
	return &hostclient.DurableStock{Dir: *f.dir, JournalDir: *f.journal, MachineID: strings.TrimSpace(string(id))}, nil
}

// fits refuses a flag that asks for n times each bytes of pads, if they are to be in memory, of
// which this machine has less (0: not known how much).
func (f stockFlags) fits(cmd *cobra.Command, have int64, flag string, n, each int64) error {
	if *f.dir != "" || have == 0 || each == 0 || n <= have/each {
		return nil
	}
	const gb = 1e9
	return usagef("%s: --%s is %d: such pads take %.1f GB, and this machine has %.1f GB of memory", cmd.Name(), flag, n, float64(n)*float64(each)/gb, float64(have)/gb)
}

// warnDiscarded says on standard error where a stock that was there could not be used:
// at once, or when what it returns is called, as a block is read when it is needed.
func warnDiscarded(cmd *cobra.Command, s *hostclient.Session) (again func()) {
	warned := false
	again = func() {
		if why := s.StockDiscarded(); why != nil && !warned {
			warned = true
			fmt.Fprintln(cmd.ErrOrStderr(), "securenets: the stock of pads was discarded:", why)
		}
	}
	again()
	return again
}

func newPads() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pads DIR",
		Short: "Make pads beforehand, for a stock on disk",
		Long: `Pads adds pads for --samples samples to a stock on disk, for "infer" with the same
--stock and --journal. It contacts no cloud.

The stock is encrypted under a key in the secret, and bound to this machine and to
its two folders. A stock that was moved, copied or restored from a backup is
discarded. It is not noticed if the whole machine goes back to a snapshot, or if one
snapshot is resumed twice. Do neither while pads are left: a pad that is used twice
shows the difference of two inputs.`,
		Args: cobra.ExactArgs(1),
	}
	identity := identityFlag(cmd)
	flags := addStockFlags(cmd)
	samples := cmd.Flags().IntP("samples", "n", 1000, "samples to make pads for")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		stock, err := flags.stock()
		if err != nil {
			return err
		}
		if stock == nil {
			return usagef("pads: give --stock and --journal, the folders for the stock and for its record of use")
		}
		if err := atLeast(cmd, "samples", *samples, 0); err != nil {
			return err
		}
		secret, err := readSecret(cmd.Context(), args[0], *identity)
		if err != nil {
			return err
		}
		if secret.Roles() == 0 {
			return usagef("pads: every layer of %s is kept on the host, and none needs pads", args[0])
		}
		if secret.Roles() > 1 {
			return usagef("pads: only schemes with one role have pads, and this one has %d roles", secret.Roles())
		}
		if secret.PadBytes() == 0 {
			return usagef("pads: scheme %s has no pads", secret.Describe().Scheme)
		}
		client, err := hostclient.Dial(defaultEndpoint) // it is not used, and so does not connect
		if err != nil {
			return err
		}
		defer client.Close()
		session, err := hostclient.OpenDir(cmd.Context(), args[0], secret, []*hostclient.Client{client},
			hostclient.Options{Multiplier: cpu.New(cpu.Options{}), Stock: stock})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		defer warnDiscarded(cmd, session)()
		bar := newProgress(cmd)
		defer bar.clear()
		const batch = 256
		if err := precompute(cmd.Context(), session, *samples, batch, bar); err != nil {
			return err
		}
		bar.clear()
		fmt.Fprintf(cmd.OutOrStdout(), "pads for %s samples in stock\n", render.Count(session.Stats().Stock))
		return nil
	}
	return cmd
}

// precompute makes pads of n samples, some at a time.
func precompute(ctx context.Context, s *hostclient.Session, n, batch int, bar *progress) error {
	for done := 0; done < n; {
		bar.step("making pads", int64(done), int64(n))
		k := min(n-done, batch)
		if err := s.Precompute(ctx, k); err != nil {
			return err
		}
		done += k
	}
	return nil
}
