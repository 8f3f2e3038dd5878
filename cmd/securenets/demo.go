package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/transform"
)

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Classify real images on a daemon of its own, and catch it cheating",
		Long: `Demo starts securenetsd on a private socket, seals a network and pushes it. It runs
images of Fashion-MNIST's test set privately and locally, then tampers with the
daemon's answers in every known way. It writes demo.json, and cloud-view.png with what
the cloud saw of the images, to the folder of --out.

With --clouds 2 it runs two daemons, as if their owners never met; with --clouds 3
three, which hides the weights as well. With --place auto it keeps the layers that
cost less here, even if that leaves no layer for a daemon.`,
		Args: cobra.NoArgs,
	}
	o := demo.Options{}
	flags := cmd.Flags()
	flags.StringVar(&o.Network, "network", "mnist-cnn", "`name` of a network: one of "+strings.Join(models.Names(), ", "))
	cmd.RegisterFlagCompletionFunc("network", cobra.FixedCompletions(models.Names(), cobra.ShellCompDirectiveNoFileComp))
	choose := choiceFlags(cmd)
	clouds := flags.Int("clouds", 1, "number of clouds, 1 to 3; without --scheme, this selects the first scheme for that number")
	samples := flags.String("samples", "1000", `images to classify, or "all"`)
	flags.IntVar(&o.Batch, "batch", 256, "images in a batch")
	flags.StringVar(&o.OutDir, "out", "out", "`folder` to write to")
	daemon := daemonFlag(cmd)
	asJSON := flags.Bool("json", false, "print the figures as JSON, and everything else to standard error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		chosen, err := choose.options()
		if err != nil {
			return err
		}
		o.Scheme, o.Ring, o.Place = chosen.Scheme, chosen.Ring, chosen.Place
		if flags.Changed("clouds") {
			if o.Scheme, err = schemeFor(*clouds, o.Scheme, flags.Changed("scheme")); err != nil {
				return err
			}
		}
		if *samples != "all" {
			if o.Samples, err = strconv.Atoi(*samples); err != nil || o.Samples < 1 {
				return usagef("demo: --samples is %q, want \"all\", or 1 or more", *samples)
			}
		}
		if err := atLeast(cmd, "batch", o.Batch, 1); err != nil {
			return err
		}
		if o.Daemon, err = daemon(); err != nil {
			return err
		}
		bar := newProgress(cmd)
		defer bar.clear()
		o.Progress = func(label string, done, total int) { bar.step(label, int64(done), int64(total)) }
		o.Out = clearing{bar, cmd.OutOrStdout()}
		if *asJSON {
			o.Out = clearing{bar, cmd.ErrOrStderr()}
		}
		o.Log = clearing{bar, cmd.ErrOrStderr()}
		result, err := demo.Run(cmd.Context(), o)
		if err != nil {
			return err
		}
		if *asJSON {
			return render.JSON(cmd.OutOrStdout(), result)
		}
		return nil
	}
	return cmd
}

// schemeFor returns a scheme for a number of clouds: the one that was chosen, if
// it was, which then must be for as many.
func schemeFor(clouds int, s transform.Scheme, chosen bool) (transform.Scheme, error) {
	if chosen && s.Roles() != clouds {
		return s, usagef("demo: scheme %v is for %d cloud(s), and --clouds is %d", s, s.Roles(), clouds)
	}
	if !chosen {
		all := transform.Schemes()
		i := slices.IndexFunc(all, func(s transform.Scheme) bool { return s.Roles() == clouds })
		if i < 0 {
			return s, usagef("demo: --clouds is %d, and schemes are for 1, 2 or 3", clouds)
		}
		s = all[i]
	}
	return s, nil
}

// daemonFlag gives cmd --daemon, and returns what says which securenetsd to run: without
// the flag the one in the folder of this program.
func daemonFlag(cmd *cobra.Command) func() (string, error) {
	given := cmd.Flags().String("daemon", "", "`path` of securenetsd (default: beside this program)")
	return func() (string, error) {
		if *given != "" {
			return *given, nil
		}
		self, err := os.Executable()
		if err == nil {
			self, err = filepath.EvalSymlinks(self)
		}
		if err != nil {
			return "", err
		}
		path := filepath.Join(filepath.Dir(self), "securenetsd")
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w (--daemon names another)", err)
		}
		return path, nil
	}
}
