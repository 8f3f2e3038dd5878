package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/hostclient"
)

// errNoTerminal: a passphrase is needed and there is nobody to ask.
var errNoTerminal = errors.New("no identity file (-i), and no terminal to ask for a passphrase")

// identityFlag gives cmd the flag -i.
func identityFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("identity", "i", "", "age identity `file`, as age-keygen writes; without it a passphrase is asked for")
}

// identities returns what opens the secret of a folder: the identities of a file, or a
// passphrase.
func identities(ctx context.Context, dir, file string) ([]age.Identity, error) {
	with, _, err := reopen(ctx, dir, file)
	return with, err
}

// reopen returns what opens a secret, as identities does, and whom to encrypt it to when it
// is written again: nil, which keeps its recipients, or the passphrase's recipient.
func reopen(ctx context.Context, dir, file string) (with []age.Identity, to []age.Recipient, err error) {
	if file != "" {
		with, err = readIdentities(file)
		return with, nil, err
	}
	if err := noNetwork(dir); err != nil {
		return nil, nil, err
	}
	phrase, err := askPassphrase(ctx, "Passphrase of "+dir+": ")
	if err != nil {
		return nil, nil, err
	}
	id, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return nil, nil, err
	}
	r, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return nil, nil, err
	}
	return []age.Identity{id}, []age.Recipient{r}, nil
}

// noNetwork refuses a folder without a secret.
func noNetwork(dir string) error {
	if hostclient.Vacant(dir) == nil {
		return fmt.Errorf("%s holds no sealed network: there is no secret.age in it", dir)
	}
	return nil
}

func readIdentities(file string) ([]age.Identity, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(io.LimitReader(f, 1<<20))
	if err != nil {
		// What age says of a bad line may quote it.
		return nil, fmt.Errorf("identity: %s is not a file of age identities", file)
	}
	return ids, nil
}

// recipients returns whom to encrypt a secret to: the public keys given and the owner of an
// identity file or, with neither, a new passphrase that it asks for.
func recipients(ctx context.Context, keys []string, file string) ([]age.Recipient, error) {
	to, err := parseRecipients(keys)
	if err != nil {
		return nil, err
	}
	if file != "" {
		ids, err := readIdentities(file)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			switch id := id.(type) {
			case *age.X25519Identity:
				to = append(to, id.Recipient())
			case *age.HybridIdentity:
				to = append(to, id.Recipient())
			default:
				return nil, fmt.Errorf("identity: %s has an identity of a kind (%T) to which nothing can be encrypted", file, id)
			}
		}
	}
	if len(to) > 0 {
		return to, nil
	}
	r, err := newPassphrase(ctx)
	if err != nil {
		return nil, err
	}
	return []age.Recipient{r}, nil
}

func parseRecipients(keys []string) (to []age.Recipient, err error) {
	for i, k := range keys {
		r, err := parseRecipient(k)
		if err != nil {
			// It may be a secret key, by mistake.
			return nil, usagef("recipient %d is not an age public key", i+1)
		}
		to = append(to, r)
	}
	return to, nil
}

func parseRecipient(key string) (age.Recipient, error) {
	if r, err := age.ParseHybridRecipient(key); err == nil {
		return r, nil
	}
	return age.ParseX25519Recipient(key)
}

func newPassphrase(ctx context.Context) (*age.ScryptRecipient, error) {
	phrase, err := askPassphrase(ctx, "New passphrase: ")
	if err != nil {
		return nil, err
	}
	again, err := askPassphrase(ctx, "The same again: ")
	if err != nil {
		return nil, err
	}
	if phrase != again {
		return nil, errors.New("the two passphrases differ")
	}
	return age.NewScryptRecipient(phrase)
}

// askPassphrase reads a line from the terminal at standard input, without echo.
func askPassphrase(ctx context.Context, prompt string) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return "", errNoTerminal
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ICANON | unix.ISIG
	quiet.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, setTermios, &quiet); err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	defer unix.IoctlSetTermios(fd, setTermios, before)
	io.WriteString(os.Stderr, prompt)
	defer io.WriteString(os.Stderr, "\n") // the one typed is not echoed
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text := make([]byte, 4096) // a terminal has no longer lines, and gives one at a time
		n, err := os.Stdin.Read(text)
		read <- line{bytes.TrimSuffix(text[:n], []byte("\n")), err}
	}()
	select {
	case l := <-read:
		if l.err != nil && l.err != io.EOF {
			return "", fmt.Errorf("passphrase: %w", l.err)
		}
		if len(l.text) == 0 {
			return "", errors.New("passphrase: empty")
		}
		return string(l.text), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
