package main

import (
	"fmt"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/securenets/securenets/hostclient"
)

func newRekey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rekey DIR",
		Short: "Draw the secret vectors of the check anew",
		Long: `Rekey draws the check vectors in DIR/secret.age anew. Use it when they, or an old copy of
that file, may have become known: whoever knows them can forge answers that pass. Nothing
else changes. The sealed models stay as they are, so nothing is pushed again, and pads in
stock stay usable.

It needs the sealed models of all roles in DIR. It checks them against their digests, and
the old vectors against the weights in them, before it writes anything.

Afterwards:
  - end processes that opened the old secret: they go on with the old vectors;
  - delete old copies of secret.age: whoever infers with one is open to forgeries again.

It repairs the check and nothing more. If masks, or the key of stocks of pads, became
known, they stay known: "seal" anew for these, into another folder. Biases, scales, weights
of layers that are kept, and weights that known vectors give away stay known, too. What was
inferred with known vectors may be wrong.

The secret stays encrypted with the same passphrase or to the same keys. If what opens it
may have become known as well, change that too: with -r, for other keys only, or with
--new-passphrase.`,
		Args: cobra.ExactArgs(1),
	}
	identity := identityFlag(cmd)
	keys := cmd.Flags().StringArrayP("recipient", "r", nil, "age public `key` to encrypt the secret to from now on, in place of the previous ones (repeatable)")
	renew := cmd.Flags().Bool("new-passphrase", false, "ask for a new passphrase to open the secret from now on, in place of the previous keys or passphrase")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *renew && len(*keys) > 0 {
			return usagef("rekey: --new-passphrase and -r are two ways to open the secret: give one")
		}
		others, err := parseRecipients(*keys)
		if err != nil {
			return err
		}
		with, to, err := reopen(cmd.Context(), args[0], *identity)
		if err != nil {
			return err
		}
		if *renew {
			r, err := newPassphrase(cmd.Context())
			if err != nil {
				return err
			}
			others = []age.Recipient{r}
		}
		if others != nil {
			to = others
		}
		bar := newProgress(cmd)
		defer bar.clear()
		layers := 0
		_, err = hostclient.RekeyDir(cmd.Context(), args[0], func(done, total int) {
			layers = total
			bar.step("rekeying layers", int64(done), int64(total))
		}, with, to...)
		if err != nil {
			return err
		}
		bar.clear()
		w := cmd.OutOrStdout()
		if layers == 0 {
			fmt.Fprintln(w, "Every layer is kept on this host, and none has check vectors.")
			return nil
		}
		fmt.Fprintf(w, "check vectors of %d layers drawn anew; end the processes that still use the old ones\n", layers)
		return nil
	}
	return cmd
}
