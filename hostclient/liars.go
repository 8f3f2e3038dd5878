package hostclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// reject bars the clouds that answered wrongly for layer l. It returns err with
// their names, and with the samples counted from the batch's start, where err
// counts from first.
func (ss *Session) reject(ctx context.Context, err error, l, first int, call *transform.Call, answers []ring.Matrix, asked []*Client) error {
	var wrong *verify.RejectedError
	if !errors.As(err, &wrong) {
		return err
	}
	ss.rejected.Add(int64(len(wrong.Samples)))
	moved := &verify.RejectedError{}
	for _, s := range wrong.Samples {
		moved.Samples = append(moved.Samples, first+s)
	}
	if liars := ss.liars(ctx, l, wrong.Samples[0], call, answers); len(liars) > 0 {
		errs := make([]error, len(liars))
		for i, role := range liars {
			ss.clients[role].bar(asked[role])
			errs[i] = blame(asked, role, moved)
		}
		return errors.Join(errs...)
	}
	names := make([]string, len(asked))
	for role, c := range asked {
		ss.clients[role].bar(c)
		names[role] = fmt.Sprintf("role %d at %s", role, c.addr)
	}
	return fmt.Errorf("%s: %w", strings.Join(names, " or "), moved)
}

// liars returns the roles that answered wrongly for a sample of a call, or none
// where that cannot be told. With several roles it computes their products of
// that sample again, to the end: a call that ends meanwhile makes nobody a liar.
func (ss *Session) liars(ctx context.Context, l, sample int, call *transform.Call, answers []ring.Matrix) []int {
	if len(ss.clients) == 1 {
		return []int{0}
	}
	ctx = context.WithoutCancel(ctx)
	if ss.options.Multiplier == nil {
		return nil
	}
	layer := &ss.secret.layers[l]
	whats := make([]ring.Matrix, len(ss.models))
	for role, file := range ss.models {
		err := ss.secret.readModel(role, file, func(at int, what ring.Matrix) error {
			if at == l {
				whats[role] = what
				whats[role].Data = slices.Clone(what.Data)
			}
			return nil
		})
		if err != nil {
			return nil
		}
	}
	products, err := loadRoles(ctx, ss.options.Multiplier, ss.secret.ring, layer.masks.CloudOp(), whats)
	if err != nil {
		return nil
	}
	defer products.close()
	roles, err := call.Liars(ctx, products.of, answers, sample)
	if err != nil {
		return nil
	}
	return roles
}

// roleProducts are the products of one layer with each role's What.
type roleProducts struct {
	of     []plan.Product // one a role
	loaded []plan.Product // each once
}

// loadRoles loads each role's masked weights, but only once for roles next to each other
// that hold the same ones.
func loadRoles(ctx context.Context, m plan.Multiplier, r ring.Ring, op plan.Op, whats []ring.Matrix) (roleProducts, error) {
	var all roleProducts
	for role, what := range whats {
		if role == 0 || !slices.Equal(what.Data, whats[role-1].Data) {
			p, err := m.Load(ctx, r, op, what)
			if err != nil {
				return roleProducts{}, errors.Join(err, all.close())
			}
			all.loaded = append(all.loaded, p)
		}
		all.of = append(all.of, all.loaded[len(all.loaded)-1])
	}
	return all, nil
}

func (p roleProducts) close() error {
	var errs []error
	for _, each := range p.loaded {
		errs = append(errs, each.Close())
	}
	return errors.Join(errs...)
}

// blame returns err as a CloudError of a role's cloud.
func blame(asked []*Client, role int, err error) error {
	return &CloudError{Role: role, Addr: asked[role].addr, Err: err, cloud: asked[role]}
}
