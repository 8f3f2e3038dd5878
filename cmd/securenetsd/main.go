// Command securenetsd is the cloud's daemon: it stores sealed models and multiplies
// masked inputs by them. It exits with status 0 after a signal, 1 if it cannot start or
// its socket fails, and 2 if its flags or configuration are wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/internal/manual"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/version"
)

func main() {
	// The first signal drains. From before that begins the second one has its usual effect and
	// ends the process at once.
	ctx, drain := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		signal.Stop(signals)
		drain()
	}()
	os.Exit(run(ctx, os.Args[1:]))
}

// startError is a failure that is not the user's: of the machine, or of what is
// on it.
type startError struct{ error }

func (e startError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string) int {
	err := newCommand(args).ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "securenetsd:", err)
	var start startError
	if errors.As(err, &start) || errors.Is(err, manual.ErrPages) {
		return 1
	}
	return 2
}

func newCommand(args []string) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "securenetsd",
		Short: "Multiply masked matrices for SecureNets hosts",
		Long: `securenetsd is the cloud's side of SecureNets: it stores sealed models and
multiplies masked inputs with them, for hosts that it cannot look into.`,
		Args:          noArgs,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.SetArgs(args)
	f := root.PersistentFlags()
	f.StringVar(&o.path, "config", "", "configuration `file`; without one, the defaults")
	f.StringVar(&o.listen, "listen", "", "`address` that overrides the configured one, unix:/path; the TLS address is set in the configuration only")
	f.StringVar(&o.stateDir, "state-dir", "", "state `folder` that overrides the configured one")

	serve := &cobra.Command{
		Use:   "serve",
		Short: "Serve until SIGTERM or SIGINT (also without a command)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg)
		},
	}
	root.RunE = serve.RunE
	root.AddCommand(serve, &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration and do nothing else",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := o.load(); err != nil {
				return err
			}
			what := "the defaults are valid; --config names a file to check"
			if o.path != "" {
				what = o.path + ": the configuration is valid"
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), what)
			return err
		},
	}, newDevices(&o), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "securenetsd", version.String())
			return err
		},
	})
	manual.AddTo(root)
	return root
}

// noArgs refuses arguments: below a command that has commands, an unknown one.
func noArgs(cmd *cobra.Command, args []string) error {
	err := cobra.NoArgs(cmd, args)
	if err == nil {
		return nil
	}
	if !cmd.HasSubCommands() {
		err = fmt.Errorf("usage: %s; arguments given: %d", cmd.CommandPath(), len(args))
	}
	return fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())
}

// options are the flags that say what the configuration is.
type options struct{ path, listen, stateDir string }

func (o *options) load() (config.Config, error) {
	cfg := config.Default()
	if o.path != "" {
		var err error
		if cfg, err = config.Load(o.path); err != nil {
			return config.Config{}, err
		}
	}
	if o.listen != "" {
		cfg.Listen = o.listen
	}
	if o.stateDir != "" {
		cfg.StateDir = o.stateDir
	}
	return cfg, cfg.Validate()
}

func serve(ctx context.Context, cfg config.Config) error {
	log := newLog(cfg.Log)
	backend, err := openBackend(cfg, log)
	if err != nil {
		return startError{err}
	}
	err = daemon.Run(ctx, cfg, log, backend)
	if err = errors.Join(err, backend.Close()); err != nil {
		return startError{err}
	}
	return nil
}

func newLog(l config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.Least()}
	if l.Format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
