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

// A failed call is repeated as Options.Retries allows. What may be sent again depends on the
// scheme:
//
//   - With one role, the same masked words, which were kept, to the cloud that did not
//     answer or to a spare. A cloud that gets them twice learns nothing new, and no pad
//     masks a second input.
//   - With several roles, words masked with a new draw of the shares, to all clouds: a
//     provider must not get two roles' shares of one draw.
//   - After a wrong answer, words masked with new pads: the call was unmasked, which
//     used up its pads.

// cloudsOf are the clouds that may be asked for a role, in order of preference.
type cloudsOf struct {
	mu    sync.Mutex
	all   []*Client
	asked int // index of the cloud that is asked now
}

// now returns the cloud that is asked now.
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

// bar quarantines a cloud that lied, under all its addresses.
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

// withSpares returns the clouds of each role. It refuses a spare that would be refused as the
// client of its role, and any choice with two roles at one cloud or provider.
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
	// Every choice of one cloud for each role must be admitted, so all pairs are checked.
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

// The pause before a failed cloud is asked again doubles each time, within these limits.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 2 * time.Second
)

// attempts counts the retries that a call has left.
type attempts struct {
	ss    *Session
	left  int
	pause time.Duration
}

func (ss *Session) attempts() *attempts {
	return &attempts{ss: ss, left: max(0, ss.options.Retries), pause: firstPause}
}

// again decides whether a call that failed with err is repeated. It returns nil if so: at
// once with a spare, or, after a pause, with the same cloud.
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
			pause = max(pause, min(refused.RetryAfter, lastPause)) // as the cloud asked
		}
		if a.ss.clients[e.Role].next(e.cloud) {
			continue
		}
		var alert *AlertError
		if e.cloud.Quarantined() || errors.Is(e.Err, errDistrusted) || errors.As(e.Err, &alert) && alert.Certificate() {
			return err
		}
		same = true
	}
	if !same {
		pause = 0
	}
	if told := a.ss.options.Retrying; told != nil {
		told(err, pause)
	}
	if pause == 0 {
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

// cloudErrors returns all CloudErrors that err wraps.
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

// passing reports whether another try, or another cloud, may succeed.
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

// asked returns the clouds that are asked now, one for each role.
func (ss *Session) asked() []*Client {
	now := make([]*Client, len(ss.clients))
	for role, c := range ss.clients {
		now[role] = c.now()
	}
	return now
}

// repeat masks a layer's call and sends it, again and again until it is answered or no retries
// are left.
func (ss *Session) repeat(ctx context.Context, l int, x []float32, first, n int, pads *transform.Pads) ([]float32, error) {
	tries := ss.attempts()
	for {
		y, err := ss.multiply(ctx, l, x, first, n, pads, tries)
		if err == nil || len(ss.clients) == 1 && !errors.As(err, new(*verify.RejectedError)) {
			return y, err // multiply has itself repeated the same words
		}
		if pads != nil && ss.options.RequireStock {
			return nil, err // new pads would not be from the stock
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
