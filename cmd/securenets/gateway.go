package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/gateway"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/version"
)

const (
	gatewayMaxBytes  = 32 << 20         // of a request
	gatewayPadMemory = 64 << 20         // of each network
	gatewayStop      = 10 * time.Second // for requests in work, once it is to end
)

func newGateway(endpoint string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateway [NAME=]DIR...",
		Short: "Serve sealed networks to applications on this machine",
		Long: `Gateway runs sealed networks for applications that know nothing of masks and clouds.
It speaks the Open Inference Protocol, version 2, as Triton and KServe do, so their
clients work unchanged. A network has the name of its folder, unless you give NAME.

The gateway is part of the trusted host: inputs and results pass through it in the clear.
It serves only this machine: on a unix socket only this user and root, on a port every
user of the machine. A wrong answer from a cloud is an error, which the application gets
and the log records.

At the start the log says which networks cannot be run yet, because no cloud that has them
can be reached. They are served all the same, and run once one can.`,
		Args: cobra.MinimumNArgs(1),
	}
	flags := addSessionFlags(cmd, endpoint, gatewayPadMemory)
	rest := cmd.Flags().String("http", "", "`address` to serve REST at: unix:/path, or a port of this machine such as 127.0.0.1:8000")
	grpcAt := cmd.Flags().String("grpc", "", "`address` to serve gRPC at, of the same kinds")
	batch := cmd.Flags().Int("batch", 256, "the most samples to run together, from requests that arrived while others ran")
	concurrent := cmd.Flags().Int("concurrent", 64, "requests in progress at a time; others wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := cmp.Or(atLeast(cmd, "batch", *batch, 1), atLeast(cmd, "concurrent", *concurrent, 1)); err != nil {
			return err
		}
		switch {
		case *rest == "" && *grpcAt == "":
			return usagef("gateway: give --http or --grpc, or both")
		case len(args) > 1 && *flags.stock.dir != "":
			return usagef("gateway: a stock on disk is of one network only, and %d networks are given", len(args))
		}
		if err := gateway.CheckAddresses(*rest, *grpcAt); err != nil { // before anything is opened
			return usageError{err}
		}
		log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		var models []gateway.Model
		var sessions []*session
		padded := int64(0) // networks
		t := render.Table(cmd.OutOrStdout())
		for _, arg := range args {
			name, dir, err := nameOf(arg)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(models, func(m gateway.Model) bool { return m.Name == name }) {
				return usagef("gateway: two networks have the name %s: give one of them another, as NAME=DIR", name)
			}
			s, err := flags.open(cmd, dir, func(err error) {
				log.Warn("pads cannot be made in the background", "model", name, "error", err)
			}, func(err error, pause time.Duration) {
				log.Warn("asking a cloud again", "model", name, "pause", pause, "error", err)
			})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			defer warnDiscarded(cmd, s.Session)()
			sessions = append(sessions, s)
			if s.secret.PadBytes() > 0 {
				padded++
			}
			d := s.secret.Describe()
			models = append(models, gateway.Model{Name: name, Inputs: gateway.InputsOf(d), Outputs: gateway.OutputsOf(d), Infer: s.Infer, Ready: s.ready})
			fmt.Fprintf(t, "model\t%s\n", name)
		}
		if err := cmp.Or(padsIn(cmd, sessions...), flags.stock.fits(cmd, physicalMemory(), "pad-memory", *flags.padMemory, padded)); err != nil {
			return err
		}
		g := gateway.New(gateway.Options{
			Version: version.String(), Batch: *batch, Concurrent: *concurrent, MaxBytes: gatewayMaxBytes, Log: log,
		}, models...)
		var at [2]net.Listener
		for i, addr := range []string{*rest, *grpcAt} {
			if addr == "" {
				continue
			}
			l, err := g.Listen(addr)
			if err != nil {
				return err
			}
			defer l.Close()
			at[i] = l
			fmt.Fprintf(t, "%s\t%s\n", [...]string{"http", "grpc"}[i], l.Addr())
		}
		if err := t.Flush(); err != nil {
			return err
		}
		checking, stop := context.WithCancel(cmd.Context())
		var checked sync.WaitGroup
		checked.Go(func() { g.Check(checking) })
		defer checked.Wait()
		defer stop()
		return g.Serve(cmd.Context(), at[0], at[1], gatewayStop)
	}
	return cmd
}

// nameOf returns the name of a network and its folder.
func nameOf(arg string) (name, dir string, err error) {
	name, dir, ok := strings.Cut(arg, "=")
	if !ok {
		dir = arg
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", "", err
		}
		name = filepath.Base(abs)
	}
	if name == "" || dir == "" || strings.ContainsAny(name, "/\\ ") {
		return "", "", usagef("gateway: %q: want DIR or NAME=DIR, of a name without slashes and spaces", arg)
	}
	return name, dir, nil
}
