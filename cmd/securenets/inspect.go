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

// nothingSent is told of a network without sealed models.
const nothingSent = "Every layer is kept on this host: there is nothing to push, and no cloud is needed."

func newInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Show what a sealed network is, and what of it the cloud sees",
		Args:  cobra.ExactArgs(1),
	}
	identity := identityFlag(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		secret, err := readSecret(cmd.Context(), args[0], *identity)
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
	row := func(name string, shape [3]int) {
		fmt.Fprintf(t, "%s\t%dx%dx%d\t\t\t\t\t\t\n", name, shape[1], shape[2], shape[0])
	}
	for _, in := range d.Inputs {
		name := "input " + in.Name
		if v := in.Integers; v != nil {
			name += fmt.Sprintf(" (%d to %d)", v[0], v[1])
		}
		row(name, in.Shape)
	}
	if len(d.Inputs) == 0 {
		row("input", d.Input)
	}
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
	for _, out := range d.Outputs {
		fmt.Fprintf(t, "output %s\t%s\t\t\t\t\t\t\n", out.Name, dimensions(out.Shape))
	}
	fmt.Fprintf(t, "a sample\t\t\t\t%s\t%s\t%s\t\n", render.Count(sum.MulAdds), render.Count(sum.WordsUp*wordBytes), render.Count(sum.WordsDown*wordBytes))
	t.Flush()
}

// dimensions writes the extents of a tensor.
func dimensions(shape []int) string {
	if len(shape) == 0 {
		return "1"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(shape), " ", "x"), "[]")
}

// links says what each is.
var links = map[hostclient.Link]string{
	hostclient.LinkShared: "a unix socket and shared memory",
	hostclient.LinkSocket: "a unix socket without shared memory",
	hostclient.LinkTLS:    "TLS",
}

// printLinks writes by which link clouds were taken to be reached, and what it costs.
func printLinks(w io.Writer, costs []hostclient.LinkCost) {
	if len(costs) == 0 {
		fmt.Fprintf(w, "Clouds were assumed to be reached by %s.\n", links[hostclient.LinkSocket])
	}
	for i, c := range costs {
		begin := "Clouds were assumed to be reached by"
		if i > 0 {
			begin = "Not assumed:"
		}
		fmt.Fprintf(w, "%s %s: %.1f us per request, and %.2f ns per word.\n", begin, links[c.Link], c.Message/1000, c.Word)
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
Why: the host's CPU time per sample, in microseconds, as measured for sealing. A layer
is sent where that costs less online; pads made beforehand do not count.
`)
	printLinks(w, d.Placement.Links)
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "layer\toutput\twords up\twords down\tns per word\tsent, online\tits pads\tmultiply-adds\tGMAC/s\tkept\t   decision")
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
Expected for the linear layers, per sample: %s us online and %s beforehand; if all
were sent, %s and %s. Layers that are kept are not checked: they are this host's own.
`, micros(p.Online), micros(p.Offline), micros(p.AllOnline), micros(p.AllOffline))
}
