package hostclient

import (
	"context"
	"fmt"
	"slices"

	"filippo.io/age"

	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/verify"
)

// Rekey returns the secret with check vectors S and V drawn anew, for all layers that are
// sent. Everything else stays the same: masks, bounds, digests, providers, placement and
// the key of durable stocks. So clouds need nothing new, and pads remain usable. s is
// left as it is, and its sessions keep the old vectors.
//
// V comes from the integer weights, which are unmasked from the sealed models of all
// roles. These must be the models of s (else the error wraps ErrMismatch), and their
// weights must be within the bounds of s and have its old V (else ErrInconsistent).
// Progress is called after each layer that is sent, and may be nil.
//
// It repairs that S or V became known: whoever knows them can forge answers that pass. It
// repairs nothing else: see docs/threat-model.md.
func (s *Secret) Rekey(ctx context.Context, models []SealedModel, progress func(done, total int)) (*Secret, error) {
	if len(models) != s.Roles() {
		return nil, fmt.Errorf("%w: %d models for %d roles", ErrMismatch, len(models), s.Roles())
	}
	roles := make([]*sealed.Model, len(models))
	for i, m := range models {
		var err error
		if roles[i], err = s.match(i, m); err != nil {
			return nil, err
		}
	}
	own := *s.content
	again := Secret{&own}
	again.layers, again.providers = slices.Clone(s.layers), nil
	for _, p := range s.providers {
		again.providers = append(again.providers, slices.Clone(p))
	}
	for at, l := range s.sent {
		key, err := s.layers[l].rekey(s.ring, roles)
		if err != nil {
			return nil, fmt.Errorf("%w: layer %d: %w", ErrInconsistent, l, err)
		}
		again.layers[l].key = key
		if progress != nil {
			progress(at+1, len(s.sent))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return &again, nil
}

// rekey returns another key of a layer that is sent, given the sealed models of all roles.
func (l *layer) rekey(r ring.Ring, roles []*sealed.Model) (*verify.Key, error) {
	whats := make([]ring.Matrix, len(roles))
	for role, m := range roles {
		whats[role] = m.Weights[l.at]
	}
	w, err := l.masks.Unseal(whats)
	if err != nil {
		return nil, err
	}
	if err := checkBound(r, l.key.Op(), w, l.xmax); err != nil {
		return nil, err
	}
	return l.key.Rekey(w)
}

// RekeyDir rekeys the secret of a folder, with the sealed models that are there, and
// returns it: see Secret.Rekey. The secret is written anew and renamed. It is encrypted
// to the recipients given; without any, to its earlier ones, or with an error wrapping
// ErrRecipients if that is not possible, as with a passphrase. Nothing is touched before
// that. An error wrapping fs.ErrNotExist says that a sealed model is missing. One call at
// a time works on a folder; others wait.
func RekeyDir(ctx context.Context, dir string, progress func(done, total int), with []age.Identity, to ...age.Recipient) (*Secret, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := ReadSecret(dir, with...)
	if err != nil {
		return nil, err
	}
	if to, err = s.recipientsOr(to); err != nil {
		return nil, err
	}
	models := make([]SealedModel, s.Roles())
	for role := range models {
		if models[role], err = readModel(dir, role); err != nil {
			return nil, err
		}
	}
	if s, err = s.Rekey(ctx, models, progress); err != nil {
		return nil, err
	}
	if err := s.rewrite(dir, to); err != nil {
		return nil, err
	}
	return s, nil
}
