package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/transform"
)

// choices are the flags that say how to seal; link is nil for commands without --link.
type choices struct {
	scheme, ring, place, link *string
	flags                     *pflag.FlagSet
}

// choice gives cmd a flag that is one of some texts, the first unless it is set.
func choice(cmd *cobra.Command, name, usage string, of []string) *string {
	v := cmd.Flags().String(name, of[0], usage)
	cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp))
	return v
}

// choiceFlags gives cmd --scheme, --ring and --place.
func choiceFlags(cmd *cobra.Command) choices {
	var schemes, rings []string
	for _, s := range transform.Schemes() {
		schemes = append(schemes, s.String())
	}
	for _, r := range hostclient.Rings() {
		rings = append(rings, string(r))
	}
	places := []string{string(hostclient.PlaceAll), string(hostclient.PlaceAuto)}
	return choices{
		flags:  cmd.Flags(),
		scheme: choice(cmd, "scheme", "how to mask: "+strings.Join(schemes, ", ")+` (see "securenets help schemes")`, schemes),
		ring: choice(cmd, "ring", "integers to compute in: q4, or q3 with three quarters of the bytes and of the cloud's work, and coarser quantisation "+
			`(see "check --data")`, rings),
		place: choice(cmd, "place", "layers to send: all, or auto: those that cost this host more CPU time online to compute than to send", places),
	}
}

// sealFlags is choiceFlags with --link.
func sealFlags(cmd *cobra.Command) choices {
	c := choiceFlags(cmd)
	var links []string
	for _, l := range hostclient.Links() {
		links = append(links, string(l))
	}
	c.link = choice(cmd, "link", `how "infer" will reach the cloud, for --place auto: shared (unix:/path, by shared memory), `+
		"socket (unix:/path without it) or tls (tls:HOST:PORT)", links)
	return c
}

// options returns what the flags say, in the order of their names.
func (c choices) options() (o hostclient.SealOptions, err error) {
	var bad [4]error
	o.Scheme, bad[0] = transform.ParseScheme(*c.scheme)
	o.Ring, bad[1] = hostclient.ParseRing(*c.ring)
	o.Place, bad[2] = hostclient.ParsePlace(*c.place)
	if c.link != nil {
		o.Link, bad[3] = hostclient.ParseLink(*c.link)
		if bad[3] == nil && c.flags.Changed("link") && o.Place != hostclient.PlaceAuto {
			bad[3] = errors.New("--link is used only with --place auto")
		}
	}
	if err := errors.Join(bad[:]...); err != nil {
		return o, usageError{err}
	}
	return o, nil
}
