package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

const endpointUsage = "a cloud's `address`, unix:/path or tls:HOST:PORT; $SECURENETS_ENDPOINT sets another default"

// tlsScheme begins endpoints that are reached by TLS.
const tlsScheme = "tls:"

// tlsFiles are those that endpoints tls:HOST:PORT need.
type tlsFiles struct{ certificate, key, ca *string }

func tlsFlags(f *pflag.FlagSet) tlsFiles {
	return tlsFiles{
		f.String("tls-certificate", "", "`file` with this host's certificate, PEM, for endpoints tls:HOST:PORT"),
		f.String("tls-key", "", "`file` with its key, PEM"),
		f.String("tls-ca", "", "`file` with the CA certificates that clouds are checked against, PEM; without one, the system's"),
	}
}

// apply refuses the flags where none of the addresses, or spares' ROLE=ADDRESS, asks for
// what they name.
func (t tlsFiles) apply(addrs ...string) error {
	if *t.certificate+*t.key+*t.ca == "" || slices.ContainsFunc(addrs, func(a string) bool { return strings.Contains(a, tlsScheme) }) {
		return nil
	}
	return usagef("--tls-certificate, --tls-key and --tls-ca are for endpoints tls:HOST:PORT: give one with -e")
}

// dial returns a client of the daemon at an address, with options for one on this machine.
func (t tlsFiles) dial(addr, provider string, options ...hostclient.DialOption) (_ *hostclient.Client, err error) {
	defer func() {
		if errors.Is(err, wire.ErrAddress) {
			err = usageError{err}
		}
	}()
	switch scheme, _, _ := strings.Cut(addr, ":"); scheme {
	case "tls":
	case "unix":
		return hostclient.DialProvider(addr, provider, options...)
	default:
		return nil, usagef("endpoint %q: want unix:/path or tls:HOST:PORT", addr)
	}
	config, err := t.config(addr)
	if err != nil {
		return nil, err
	}
	return hostclient.DialTLS(addr, provider, config)
}

// config reads the files, which the address asks for.
func (t tlsFiles) config(addr string) (*tls.Config, error) {
	if *t.certificate == "" || *t.key == "" {
		return nil, usagef("%s asks for a certificate: give --tls-certificate and --tls-key", addr)
	}
	return hostclient.LoadTLS(*t.certificate, *t.key, *t.ca)
}

// cloud says where one cloud is.
type cloud struct {
	addr *string
	tls  tlsFiles
}

// endpointFlag gives cmd the flag -e for one cloud, and those of its certificates.
func endpointFlag(cmd *cobra.Command, endpoint string) cloud {
	f := cmd.PersistentFlags()
	return cloud{f.StringP("endpoint", "e", endpoint, endpointUsage), tlsFlags(f)}
}

// clouds says where the roles' clouds are, and who runs them.
type clouds struct {
	endpoints, providers *[]string
	tls                  tlsFiles
}

// cloudsFlags gives cmd the flags -e and --provider for one cloud a role, and those
// of certificates.
func cloudsFlags(cmd *cobra.Command, endpoint string) clouds {
	return clouds{
		tls:       tlsFlags(cmd.Flags()),
		endpoints: cmd.Flags().StringArrayP("endpoint", "e", []string{endpoint}, endpointUsage+"; repeat it for each role in order"),
		providers: cmd.Flags().StringArray("provider", nil, "`name` of whoever runs that cloud (default: its address); repeat it for each role in order"),
	}
}

// unshared is for what sends no words.
var unshared = hostclient.SharedMemory(0)

// use calls f with a client of the cloud.
func (c cloud) use(f func(*hostclient.Client) error) error {
	if err := c.tls.apply(*c.addr); err != nil {
		return err
	}
	client, err := c.tls.dial(*c.addr, "", unshared)
	if err != nil {
		return err
	}
	return errors.Join(f(client), client.Close())
}

// dial returns a client for every role of a sealed network, and what closes them.
// Where there is none, it does not matter what the flags say.
func (c clouds) dial(roles int, options ...hostclient.DialOption) (clients []*hostclient.Client, closeAll func(), err error) {
	if roles == 0 {
		return nil, func() {}, nil
	}
	addrs, providers := *c.endpoints, *c.providers
	if len(addrs) != roles {
		return nil, nil, usagef("give -e once for each role of the scheme: roles: %d, endpoints given: %d", roles, len(addrs))
	}
	if len(providers) == 0 {
		providers = make([]string, roles)
	}
	if len(providers) != roles {
		return nil, nil, usagef("give --provider once for each role of the scheme, or not at all: roles: %d, providers given: %d", roles, len(providers))
	}
	closeAll = func() {
		for _, c := range clients {
			c.Close()
		}
	}
	for role, addr := range addrs {
		client, err := c.tls.dial(addr, providers[role], options...)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients = append(clients, client)
	}
	return clients, closeAll, nil
}

// dialSpares returns clients of more clouds for some roles, given as ADDRESS or
// ROLE=ADDRESS, and what closes them.
func (c clouds) dialSpares(spares []string, roles int, options ...hostclient.DialOption) (clients [][]*hostclient.Client, closeAll func(), err error) {
	clients = make([][]*hostclient.Client, roles)
	closeAll = func() {
		for _, client := range slices.Concat(clients...) {
			client.Close()
		}
	}
	for _, s := range spares {
		role, addr := 0, s
		if before, after, ok := strings.Cut(s, "="); ok {
			if n, err := strconv.Atoi(before); err == nil {
				role, addr = n, after
			}
		}
		if role < 0 || role >= roles {
			closeAll()
			return nil, nil, usagef("--spare %s: want a role from 0 to %d", s, roles-1)
		}
		client, err := c.tls.dial(addr, "", options...)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients[role] = append(clients[role], client)
	}
	return clients, closeAll, nil
}

func newPush(endpoint string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push DIR",
		Short: "Give a sealed network's masked weights to its clouds",
		Long: `Push uploads the masked weights of DIR. Run it again after an interruption, and it
resumes where it stopped.

With -i it first opens the secret and checks that the masked weights in DIR are those that
were sealed with it. Without, it sends what is there: a cloud refuses what is no sealed
model, but that one is damaged, or another network's, shows only when "infer" opens DIR.

Under a scheme with several roles no provider may ever have two of them. So push first
records in the secret which provider has which role, for good. It opens the secret for that,
with -i or a passphrase that it asks for, and checks the weights, too.`,
		Args: cobra.ExactArgs(1),
	}
	to := cloudsFlags(cmd, endpoint)
	identity := cmd.Flags().StringP("identity", "i", "", "age identity `file`, as age-keygen writes; without it a passphrase is asked for, but only where there are several roles")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		models, err := hostclient.SealedFiles(args[0])
		if errors.Is(err, fs.ErrNotExist) {
			return cmp.Or(noNetwork(args[0]), fmt.Errorf("%w (there is none where \"seal\" kept every layer)", err))
		}
		if err != nil {
			return err
		}
		if err := to.tls.apply(*to.endpoints...); err != nil {
			return err
		}
		clients, closeAll, err := to.dial(len(models), unshared)
		if err != nil {
			return err
		}
		defer closeAll()
		if len(models) > 1 || *identity != "" {
			if err := admit(cmd.Context(), args[0], models, clients, *identity); err != nil {
				return err
			}
		}
		bar := newProgress(cmd)
		defer bar.clear()
		var roles []sealedRole
		for i, m := range models {
			label := fmt.Sprintf("role %d, bytes", m.Role)
			if err := clients[i].PushFile(cmd.Context(), m, func(done, total int64) { bar.step(label, done, total) }); err != nil {
				return err
			}
			roles = append(roles, sealedRole{m.Role, m.Digest.String(), m.Size})
		}
		bar.clear()
		w := cmd.OutOrStdout()
		if *asJSON {
			return render.JSON(w, roles)
		}
		for i, r := range roles {
			fmt.Fprintf(w, "role %d: %s bytes, %s at %s\n", r.Role, render.Count(r.Bytes), r.Digest, clients[i].Addr())
		}
		return nil
	}
	return cmd
}

// admit refuses sealed models of a folder that do not belong to its secret. If there are several
// roles, it writes to the secret who has which, once all are there: a mistyped address is to have
// none for good.
func admit(ctx context.Context, dir string, models []hostclient.SealedFile, clients []*hostclient.Client, identity string) error {
	if len(models) > 1 {
		for _, c := range clients {
			if _, err := c.Info(ctx); err != nil {
				return err
			}
		}
	}
	with, to, err := reopen(ctx, dir, identity)
	if err != nil {
		return err
	}
	secret, err := hostclient.ReadSecret(dir, with...)
	if err != nil {
		return err
	}
	if err := secret.CheckFiles(models); err != nil {
		return err
	}
	if len(models) > 1 {
		_, err = hostclient.BindDir(dir, clients, with, to...)
	}
	return err
}

func newModels(endpoint string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "models",
		Short: "List the sealed models that a cloud holds",
		Args:  cobra.NoArgs,
	}
	at := endpointFlag(cmd, endpoint)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return at.use(func(c *hostclient.Client) error {
			models, err := c.Models(cmd.Context())
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if *asJSON {
				return render.JSON(w, models)
			}
			t := render.Table(w)
			fmt.Fprintln(t, "digest\tbytes\tlayers")
			for _, m := range models {
				fmt.Fprintf(t, "%s\t%s\t%d\n", m.Digest, render.Count(m.Bytes), m.Layers)
			}
			return t.Flush()
		})
	}
	cmd.AddCommand(newRemove(at))
	return cmd
}

func newRemove(at cloud) *cobra.Command {
	return &cobra.Command{
		Use:   "remove DIGEST",
		Short: "Remove a sealed model from a cloud",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var digest sealed.Digest
			b, err := hex.DecodeString(args[0])
			if err != nil || len(b) != len(digest) {
				return usagef("digest %q: want %d hexadecimal digits", args[0], 2*len(digest))
			}
			copy(digest[:], b)
			return at.use(func(c *hostclient.Client) error { return c.Remove(cmd.Context(), digest) })
		},
	}
}

func newStatus(endpoint string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask a cloud what it is and whether it serves",
		Args:  cobra.NoArgs,
	}
	at := endpointFlag(cmd, endpoint)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return at.use(func(c *hostclient.Client) error {
			info, err := c.Info(cmd.Context())
			if err != nil {
				return err
			}
			if *asJSON {
				err = render.JSON(cmd.OutOrStdout(), info)
			} else {
				t := render.Table(cmd.OutOrStdout())
				fmt.Fprintf(t, "endpoint\t%s\nversion\t%s\nbackend\t%s\nserving\t%t\n", *at.addr, info.Version, info.Backend, info.Serving)
				err = t.Flush()
			}
			if err == nil && !info.Serving {
				err = fmt.Errorf("%s does not serve now", *at.addr)
			}
			return err
		})
	}
	return cmd
}
