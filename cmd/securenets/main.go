// Command securenets is the trusted host: it seals networks, gives their masked
// weights to untrusted clouds, and runs them there with every product checked.
//
// The exit status is 0 for success, 1 for failure, 2 for wrong usage, and 3 if a cloud's
// wrong answer ended the command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/internal/manual"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/verify"
)

const (
	exitFailure = 1
	exitUsage   = 2
	exitWrong   = 3
)

// defaultEndpoint is where a daemon with the default configuration serves.
const defaultEndpoint = "unix:/run/securenets/securenetsd.sock"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root, out := newRoot(), &output{w: os.Stdout}
	root.SetOut(out)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.err
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintln(os.Stderr, "securenets:", oneLine(err)+hint(cmd, err))
	return exitStatus(err)
}

// oneLine returns the text of an error, of several ones after the other.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// hint says what to look at first after an error that nearly always has the same cause.
func hint(cmd *cobra.Command, err error) string {
	var refused *hostclient.RefusedError
	var alert *hostclient.AlertError
	switch {
	case errors.As(err, &refused) && refused.Reason == wire.ReasonModelNotFound && cmd.Name() == "remove":
		return ` ("securenets models" lists those that it holds)`
	case errors.As(err, &refused) && refused.Reason == wire.ReasonModelNotFound, errors.Is(err, errNotPushed):
		return ` ("securenets push" gives a cloud the sealed model)`
	case errors.Is(err, hostclient.ErrNoPads):
		return ` (make more: with --pads, or with "securenets pads" for the stock of --stock; or leave out --require-stock)`
	case errors.As(err, &alert) && alert.Certificate():
		return " (see --tls-certificate, and at the cloud client_ca and allowed_names of [tls]; the daemon's log says why it turned this host away)"
	case errors.Is(err, hostclient.ErrUnavailable):
		return " (does securenetsd serve there, and admit this host? -e says where to ask; the daemon's log, whom it turned away)"
	default:
		return ""
	}
}

// output remembers the first failed write: code that prints line by line does not check
// each.
type output struct {
	w   io.Writer
	err error // the first
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// wrongUsage are what other packages say of a command line.
var wrongUsage = []error{models.ErrNoNetwork, hostclient.ErrOneProvider, hostclient.ErrStockDirs}

func exitStatus(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage), slices.ContainsFunc(wrongUsage, func(wrong error) bool { return errors.Is(err, wrong) }):
		return exitUsage
	case errors.Is(err, verify.ErrRejected):
		return exitWrong
	default:
		return exitFailure
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:     "securenets",
		Version: version.String(), // the flag --version
		Short:   "Run neural networks on untrusted clouds, with masked data and checked answers",
		Long: `securenets is the trusted side of SecureNets. It masks a network's weights once
("seal") and its inputs at every call. Untrusted clouds that run securenetsd multiply
the masked matrices. It checks every product before it uses it.`,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	endpoint := defaultEndpoint
	if e := os.Getenv("SECURENETS_ENDPOINT"); e != "" {
		endpoint = e
	}
	root.AddCommand(newCheck(), newSeal(), newPush(endpoint), newPads(), newInfer(endpoint), newGateway(endpoint), newInspect(), newRekey(),
		newModels(endpoint), newStatus(endpoint), newVersion(), newDemo(), newBench(), newSchemes(), newEcho(), newHold(), newFrames())
	manual.AddTo(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v (see %s --help)", err, cmd.CommandPath())
	})
	markUsage(root)
	return root
}

// markUsage makes a usageError of every command's wrong arguments.
func markUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%v (see %s --help)", wrongArguments(cmd, len(args), err), cmd.CommandPath())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		markUsage(c)
	}
}

// wrongArguments says what the arguments of a command are to be, in place of err. Where
// they are the name of a command, err says which one there is not.
func wrongArguments(cmd *cobra.Command, given int, err error) error {
	if cmd.HasSubCommands() || cmd.Name() == "help" {
		return err
	}
	return fmt.Errorf("usage: %s%s; arguments given: %d", cmd.CommandPath(), strings.TrimPrefix(cmd.Use, cmd.Name()), given)
}

// atLeast refuses a flag's value that is below the least one that makes sense.
func atLeast[N int | int64](cmd *cobra.Command, flag string, value, least N) error {
	if value >= least {
		return nil
	}
	command := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	return usagef("%s: --%s is %d, want %d or more", command, flag, value, least)
}
