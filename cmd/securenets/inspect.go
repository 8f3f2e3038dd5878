package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
)

func newInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Show what a sealed network is, and what of it the cloud sees",
		Args:  cobra.ExactArgs(1),
	}
	identity := identityFlag(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids, err := identities(cmd.Context(), *identity)
		if err != nil {
			return err
		}
		secret, err := hostclient.ReadSecret(args[0], ids...)
		if err != nil {
			return err
		}
		d := secret.Describe()
		w := cmd.OutOrStdout()
		if *asJSON {
			return render.JSON(w, d)
		}
		fmt.Fprintf(w, "%s, sealed with %s in %s\n\n", args[0], d.Scheme, d.Ring)
		render.Guarantee(w, d.Guarantee)
		fmt.Fprintln(w)
		printLayers(w, d)
		printPlacement(w, d)
		fmt.Fprintln(w)
		if len(d.Digests) == 0 {
			fmt.Fprintln(w, nothingSent)
		}
		for role, digest := range d.Digests {
			fmt.Fprintf(w, "role %d: %s", role, digest)
			if d.Providers != nil {
				fmt.Fprintf(w, " for %s", strings.Join(d.Providers[role], ", "))
			}
			fmt.Fprintln(w)
		}
		return nil
	}
	return cmd
}

// printLayers writes one line an operator, with what the cloud does for a sample.
func printLayers(w io.Writer, d hostclient.Description) {
	wordBytes := int64(d.WordBytes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "layer\toutput\truns on\tlargest input\tmultiply-adds\tbytes up\tbytes down\t   the cloud sees")
	fmt.Fprintf(t, "input\t%dx%dx%d\t\t\t\t\t\t\n", d.Input[1], d.Input[2], d.Input[0])
	var sum hostclient.LayerDescription
	for _, l := range d.Layers {
		sum.MulAdds += l.MulAdds
		if l.Kept {
			fmt.Fprintf(t, "%s\t%s\thost\t%d\t%s\t\t\t\n", l.Name, l.Shape, l.XMax, render.Count(l.MulAdds))
			continue
		}
		if l.Cloud == "" {
			fmt.Fprintf(t, "%s\t%s\thost\t\t\t\t\t\n", l.Name, l.Shape)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\tcloud\t%d\t%s\t%s\t%s\t   %s\n", l.Name, l.Shape, l.XMax,
			render.Count(l.MulAdds), render.Count(l.WordsUp*wordBytes), render.Count(l.WordsDown*wordBytes), l.Cloud)
		sum.WordsUp += l.WordsUp
		sum.WordsDown += l.WordsDown
	}
	fmt.Fprintf(t, "a sample\t\t\t\t%s\t%s\t%s\t\n", render.Count(sum.MulAdds), render.Count(sum.WordsUp*wordBytes), render.Count(sum.WordsDown*wordBytes))
	t.Flush()
}
