package hostclient

import (
	"context"
	"fmt"
	"slices"

	"filippo.io/age"

	"github.com/securenets/securenets/ring"
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
// Use it when S or V became known: whoever knows them can forge answers that pass. It
// repairs nothing else: see docs/threat-model.md.
func (s *Secret) Rekey(ctx context.Context, models []SealedModel, progress func(done, total int)) (*Secret, error) {
	files, err := s.inMemory(models)
	if err != nil {
		return nil, err
	}
	return s.rekey(ctx, files, progress)
}

// rekey is Rekey with sealed models in files, which it reads layer by layer.
func (s *Secret) rekey(ctx context.Context, files []modelFile, progress func(done, total int)) (*Secret, error) {
	roles := make([]*modelReader, len(files))
	for i, file := range files {
		r, err := s.openModel(i, file)
		if err != nil {
			return nil, err
		}
		defer r.file.Close()
		roles[i] = r
	}
	own := *s.content
	again := Secret{&own}
	again.layers, again.providers = slices.Clone(s.layers), nil
	for _, p := range s.providers {
		again.providers = append(again.providers, slices.Clone(p))
	}
	var wrong error // the first layer's that is; it counts if the models are the secret's
	for at, l := range s.sent {
		whats := make([]ring.Matrix, len(roles))
		for i, r := range roles {
			var err error
			if whats[i], err = r.next(); err != nil {
				return nil, err
			}
		}
		if wrong != nil {
			continue
		}
		key, err := s.layers[l].rekey(s.ring, whats)
		if err != nil {
			wrong = fmt.Errorf("%w: layer %d: %w", ErrInconsistent, l, err)
			continue
		}
		again.layers[l].key = key
		if progress != nil {
			progress(at+1, len(s.sent))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	for _, r := range roles {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	if wrong != nil {
		return nil, wrong
	}
	return &again, nil
}

// rekey returns another key of a layer that is sent, given the masked weights of all roles.
func (l *layer) rekey(r ring.Ring, whats []ring.Matrix) (*verify.Key, error) {
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
// that. An error wrapping fs.ErrNotExist says that there is no sealed model, one wrapping
// ErrRoleFiles that some are missing. One call at a time works on a folder; others wait.
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
	files, err := s.inDir(dir)
	if err != nil {
		return nil, err
	}
	if s, err = s.rekey(ctx, files, progress); err != nil {
		return nil, err
	}
	if err := s.rewrite(dir, to); err != nil {
		return nil, err
	}
	return s, nil
}
