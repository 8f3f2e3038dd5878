package hostclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// A call that failed is made again as Options.Retries allows. What is safe to send again
// depends on the scheme:
//
//   - With one role, the same masked words, which were kept: to the cloud that did not
//     answer, or to a spare. Who has them twice learns nothing from that, and no pad
//     masks anything else.
//   - With several roles, words masked anew with a share drawn anew, to all: a provider
//     must not have two roles' parts of one draw.
//   - After a wrong answer, words masked anew, with pads made anew: the call was
//     unmasked, and its pads are gone.

// cloudsOf are the clouds that may be asked for a role, in the order in which they are.
type cloudsOf struct {
	mu    sync.Mutex
	all   []*Client
	asked int // the index of who is asked now
}

// now returns the cloud that is asked.
func (c *cloudsOf) now() *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[c.asked]
}

// next moves on from a cloud that failed to one that is not quarantined, unless another
// call has done so. It reports whether there is another cloud to ask.
func (c *cloudsOf) next(failed *Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[c.asked] != failed {
		return true
	}
	for i := 1; i < len(c.all); i++ {
		if at := (c.asked + i) % len(c.all); !c.all[at].Quarantined() {
			c.asked = at
			return true
		}
	}
	return false
}

// bar quarantines a cloud that lied, by whatever name it may be asked.
func (c *cloudsOf) bar(liar *Client) {
	for _, one := range c.all {
		if one.at(liar) {
			one.bar(ErrQuarantined)
		}
	}
}

// Quarantined reports whether the cloud answered wrongly and is not asked again. This lasts as
// long as the client: another one, or the next process, asks again.
func (c *Client) Quarantined() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Is(c.barred, ErrQuarantined)
}

// withSpares returns the clouds of each role. It refuses spares that clients of their
// role would be refused for, and any two roles at one cloud or provider.
func (s *Secret) withSpares(clients []*Client, spares [][]*Client) ([]*cloudsOf, error) {
	if len(spares) > len(clients) {
		return nil, fmt.Errorf("%w: spares of %d roles for %d", ErrMismatch, len(spares), len(clients))
	}
	all := make([]*cloudsOf, len(clients))
	for role, c := range clients {
		all[role] = &cloudsOf{all: []*Client{c}}
		if role < len(spares) {
			if slices.Contains(spares[role], nil) {
				return nil, fmt.Errorf("%w: a spare of role %d is nil", ErrMismatch, role)
			}
			all[role].all = append(all[role].all, spares[role]...)
		}
	}
	// Every choice of a cloud a role is admitted: all pairs of roles are compared.
	for role, c := range all {
		for _, spare := range c.all[1:] {
			for other, o := range all {
				if other == role {
					continue
				}
				for _, with := range o.all {
					chosen := slices.Clone(clients)
					chosen[role], chosen[other] = spare, with
					if err := s.admit(chosen); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return all, nil
}

// Pauses before a cloud that failed is asked again, twice as long each time.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 2 * time.Second
)

// attempts counts what a call has left.
type attempts struct {
	ss    *Session
	left  int
	pause time.Duration
}

func (ss *Session) attempts() *attempts {
	return &attempts{ss: ss, left: max(0, ss.options.Retries), pause: firstPause}
}

// again decides what becomes of a call that failed with err. It returns nil where the
// call is to be made again: of a spare, or, after a pause, of the same cloud.
func (a *attempts) again(ctx context.Context, err error) error {
	failed := cloudErrors(err)
	if a.left == 0 || ctx.Err() != nil || len(failed) == 0 {
		return err
	}
	for _, e := range failed {
		if e.cloud == nil || !passing(e.Err) {
			return err
		}
	}
	a.left--
	same, pause := false, a.pause
	for _, e := range failed {
		var refused *wire.Error
		if errors.As(e.Err, &refused) {
			pause = max(pause, min(refused.RetryAfter, lastPause)) // as it was told
		}
		if a.ss.clients[e.Role].next(e.cloud) {
			continue
		}
		if e.cloud.Quarantined() || errors.Is(e.Err, errDistrusted) {
			return err
		}
		same = true
	}
	if !same {
		return nil
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return err
	}
	a.pause = min(2*a.pause, lastPause)
	return nil
}

// cloudErrors returns the errors of clouds that err has.
func cloudErrors(err error) (all []*CloudError) {
	switch e := err.(type) {
	case *CloudError:
		return []*CloudError{e}
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			all = append(all, cloudErrors(each)...)
		}
	case interface{ Unwrap() error }:
		return cloudErrors(e.Unwrap())
	}
	return all
}

// passing reports whether another try, or another cloud, may do better.
func passing(err error) bool {
	var refused *wire.Error
	if errors.As(err, &refused) {
		switch refused.Code {
		case codes.ResourceExhausted:
			return refused.Reason != wire.ReasonTooLarge
		case codes.Unavailable, codes.Internal, codes.NotFound:
			return true // another cloud may have the model
		}
		return false
	}
	for _, known := range []error{ErrUnavailable, ErrTimeout, ErrBadAnswer, ErrQuarantined} {
		if errors.Is(err, known) {
			return true
		}
	}
	return errors.As(err, new(*verify.RejectedError))
}

// asked returns the clouds that are asked now, one a role.
func (ss *Session) asked() []*Client {
	now := make([]*Client, len(ss.clients))
	for role, c := range ss.clients {
		now[role] = c.now()
	}
	return now
}

// repeat masks a layer's call and has it answered, until it is or there is no more to try.
func (ss *Session) repeat(ctx context.Context, l int, x []float32, first, n int, pads *transform.Pads) ([]float32, error) {
	tries := ss.attempts()
	for {
		y, err := ss.multiply(ctx, l, x, first, n, pads, tries)
		if err == nil || len(ss.clients) == 1 && !errors.As(err, new(*verify.RejectedError)) {
			return y, err // multiply itself has sent the same words again
		}
		if pads != nil && ss.options.RequireStock {
			return nil, err // there are none for another try
		}
		if err := tries.again(ctx, err); err != nil {
			return nil, err
		}
		ss.retried.Add(1)
		if pads == nil {
			continue
		}
		if pads, err = ss.newPadsOf(ctx, l, n); err != nil {
			return nil, err
		}
		ss.onTheSpot.Add(int64(n))
	}
}

// newPadsOf makes pads of n samples for one layer.
func (ss *Session) newPadsOf(ctx context.Context, l, n int) (*transform.Pads, error) {
	p, err := ss.secret.layers[l].masks.NewPads(ctx, ss.products[l], n)
	if err != nil {
		if ctx.Err() != nil {
			err = stopped(ctx)
		}
		return nil, fmt.Errorf("pads of layer %d: %w", l, err)
	}
	return p, nil
}
