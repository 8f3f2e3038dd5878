package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
)

// nothingSent is told of a network without sealed models.
const nothingSent = "Every layer is kept on this host: there is nothing to push, and no cloud is needed."

// newEcho returns the command that peer.Seal runs.
func newEcho() *cobra.Command {
	return &cobra.Command{
		Use: peer.Command + " SOCKET", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return peer.Serve(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// printPlacement writes why each linear layer is where it is, and what that saves;
// nothing where it was not measured.
func printPlacement(w io.Writer, d hostclient.Description) {
	if d.Placement == nil {
		return
	}
	micros := func(ns int64) string { return fmt.Sprintf("%.1f", float64(ns)/1000) }
	fmt.Fprint(w, `
Why: processor time of this host for a sample, in microseconds, measured when it was
sealed. A layer is sent where that costs less online; pads made beforehand do not count.

`)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "layer\toutput\twords up\twords down\tns a word\tsent, online\tits pads\tmultiply-adds\tGMAC/s\tkept\t   so it is")
	for _, l := range d.Layers {
		c := l.Cost
		if c == nil {
			continue
		}
		where, saving := "sent", -c.Saving()
		if l.Kept {
			where, saving = "kept", -saving
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t%.1f\t%s\t   %s, which saves %s\n", l.Name, l.Shape,
			render.Count(c.WordsUp), render.Count(c.WordsDown), float64(c.Send())/float64(max(1, c.WordsUp+c.WordsDown)),
			micros(c.Send()), micros(c.Pads), render.Count(l.MulAdds), float64(l.MulAdds)/float64(max(1, c.Product)), micros(c.Keep),
			where, micros(saving))
	}
	t.Flush()
	p := d.Placement
	fmt.Fprintf(w, `
Expected of the linear layers, a sample: %s us online and %s beforehand; were all
sent, %s and %s. Layers that are kept are not checked: they are this host's own.
`, micros(p.Online), micros(p.Offline), micros(p.AllOnline), micros(p.AllOffline))
}
