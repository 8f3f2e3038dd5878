package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/transform"
)

// sessionFlags say how sessions of sealed networks run.
type sessionFlags struct {
	on           clouds
	identity     *string
	onlyStock    *bool
	padMemory    *int64
	retries      *int
	timeout      *time.Duration
	spares       *[]string
	sharedMemory *string
	stock        stockFlags
}

// layerTimeout is the default of --timeout.
const layerTimeout = 30 * time.Second

// addSessionFlags gives cmd those flags, with a default of how much memory pads get.
func addSessionFlags(cmd *cobra.Command, endpoint string, padMemory int64) sessionFlags {
	return sessionFlags{
		on:           cloudsFlags(cmd, endpoint),
		identity:     identityFlag(cmd),
		onlyStock:    cmd.Flags().Bool("require-stock", false, "fail if the stock has fewer pads than a batch has samples, instead of making them on the way"),
		padMemory:    cmd.Flags().Int64("pad-memory", padMemory, "bytes of pads to keep in stock, made in the background; 0: none"),
		retries:      cmd.Flags().Int("retries", 0, "times to ask for a layer again if a cloud fails or lies: a spare at once, else the same cloud after 20ms, then 40ms and so on, up to 2s (default: none)"),
		timeout:      cmd.Flags().Duration("timeout", layerTimeout, "how long to wait for a cloud's answers for one layer of a batch, in each try"),
		spares:       cmd.Flags().StringArray("spare", nil, "`address` of another cloud with the sealed network, asked if the first fails; ROLE=ADDRESS if there are several roles"),
		sharedMemory: cmd.Flags().String("shared-memory", "auto", "auto: share memory with clouds on this machine that accept it; off: send everything through their sockets"),
		stock:        addStockFlags(cmd),
	}
}

// session is an open session and what it needs.
type session struct {
	*hostclient.Session
	secret *hostclient.Secret
	models []string               // digests of the sealed models, by role
	clouds [][]*hostclient.Client // by role, spares behind the first
}

// open opens a session of the network in a folder, which is to be closed. padError, which may be
// nil, and retrying are as in hostclient.Options.
func (f sessionFlags) open(cmd *cobra.Command, dir string, padError func(error), retrying func(error, time.Duration)) (_ *session, err error) {
	if err := cmp.Or(atLeast(cmd, "retries", *f.retries, 0), atLeast(cmd, "pad-memory", *f.padMemory, 0)); err != nil {
		return nil, err
	}
	if *f.timeout <= 0 {
		return nil, usagef("%s: --timeout is %v, want more than 0s", cmd.Name(), *f.timeout)
	}
	if len(*f.spares) > 0 && *f.retries == 0 {
		return nil, usagef("%s: --spare is only used when a layer is asked for again: give --retries, too", cmd.Name())
	}
	var local []hostclient.DialOption
	switch *f.sharedMemory {
	case "auto":
	case "off":
		local = append(local, unshared)
	default:
		return nil, usagef("%s: --shared-memory is %q, want auto or off", cmd.Name(), *f.sharedMemory)
	}
	stock, err := f.stock.stock()
	if err != nil {
		return nil, err
	}
	secret, err := readSecret(cmd.Context(), dir, *f.identity)
	if err != nil {
		return nil, err
	}
	if secret.PadBytes() > 0 { // they are made from when the session is open
		if err := f.stock.fits(cmd, physicalMemory(), "pad-memory", *f.padMemory, 1); err != nil {
			return nil, err
		}
	}
	s := &session{secret: secret, models: secret.Describe().Digests, clouds: make([][]*hostclient.Client, secret.Roles())}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if secret.Roles() > 0 {
		if err := f.on.tls.apply(slices.Concat(*f.on.endpoints, *f.spares)...); err != nil {
			return nil, err
		}
	}
	firsts, _, err := f.on.dial(secret.Roles(), local...)
	if err != nil {
		return nil, err
	}
	for role, c := range firsts {
		s.clouds[role] = []*hostclient.Client{c}
	}
	spares, _, err := f.on.dialSpares(*f.spares, secret.Roles(), local...)
	if err != nil {
		return nil, err
	}
	for role := range spares {
		s.clouds[role] = append(s.clouds[role], spares[role]...)
	}
	s.Session, err = hostclient.OpenDir(cmd.Context(), dir, secret, firsts, hostclient.Options{
		Multiplier: cpu.New(cpu.Options{}), RequireStock: *f.onlyStock, Stock: stock,
		Timeout: *f.timeout, Retries: *f.retries, Retrying: retrying, Spares: spares, PadMemory: *f.padMemory, PadError: padError,
	})
	return s, err
}

// padsIn refuses flags about pads where none of the networks has a scheme with pads.
func padsIn(cmd *cobra.Command, networks ...*session) error {
	scheme := ""
	for _, s := range networks {
		scheme = s.secret.Describe().Scheme
		if parsed, err := transform.ParseScheme(scheme); err != nil || parsed.Inputs == transform.InputPad {
			return err
		}
	}
	for _, name := range []string{"pads", "require-stock", "pad-memory", "stock", "journal"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && !slices.Contains([]string{"", "0", "false"}, f.Value.String()) {
			return usagef("%s: --%s is for schemes with pads, and %s has none", cmd.Name(), name, scheme)
		}
	}
	return nil
}

// Close ends the session and its connections.
func (s *session) Close() (err error) {
	if s.Session != nil {
		err = s.Session.Close()
	}
	for _, c := range slices.Concat(s.clouds...) {
		c.Close()
	}
	return err
}

// ready says why the network cannot be run now: of some role no cloud serves what is asked.
func (s *session) ready(ctx context.Context) error {
	for role, clouds := range s.clouds {
		var all error
		for _, c := range clouds {
			err := s.serves(ctx, c, role)
			if err == nil {
				all = nil
				break
			}
			all = errors.Join(all, err)
		}
		if all != nil {
			return all
		}
	}
	return nil
}

// errNotPushed: a cloud serves, but not this network.
var errNotPushed = errors.New("has no sealed model")

// serves says why a cloud cannot be asked for its role.
func (s *session) serves(ctx context.Context, c *hostclient.Client, role int) error {
	if c.Quarantined() {
		return fmt.Errorf("%s: %w", c.Addr(), hostclient.ErrQuarantined)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Serving {
		return fmt.Errorf("%s does not serve now", c.Addr())
	}
	held, err := c.Models(ctx)
	if err != nil {
		return err
	}
	if digest := s.models[role]; !slices.ContainsFunc(held, func(m hostclient.Model) bool { return m.Digest == digest }) {
		return fmt.Errorf("%s %w %.12s", c.Addr(), errNotPushed, digest)
	}
	return nil
}
