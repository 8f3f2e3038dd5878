package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/verify"
)

// shown is how many images a tampered batch has, and the picture.
const shown = 16

// tamper puts a proxy before every cloud, which tells each kind of lie once, and
// draws what an honest one saw.
func (r *run) tamper(ctx context.Context) error {
	var proxies []*adversary.Proxy
	defer func() {
		for _, p := range proxies {
			p.Close()
		}
	}()
	var addrs []string
	for i, c := range r.clouds {
		addr := fmt.Sprintf("unix:%s", filepath.Join(r.dir, fmt.Sprint("proxy-", i)))
		p, err := adversary.Start(addr, c.addr, ring.Q4())
		if err != nil {
			return err
		}
		proxies, addrs = append(proxies, p), append(addrs, addr)
	}

	infer := func() error {
		s, err := r.openSession(ctx, addrs) // a new one each: a liar is not asked again
		if err != nil {
			return err
		}
		_, err = s.Infer(ctx, r.images.Range(0, shown), shown)
		return errors.Join(err, s.Close())
	}
	proxies[0].Record(0, shown*int(r.layers[0].WordsUp))
	if err := infer(); err != nil {
		return fmt.Errorf("demo: through an honest proxy: %w", err)
	}
	if err := r.drawView(proxies[0].Seen()); err != nil {
		return err
	}

	fmt.Fprintln(r.Out, "Answers tampered with on their way, one in each run:")
	t := render.Table(r.Out)
	for i, lie := range adversary.Lies() {
		r.Progress("lies", i, len(adversary.Lies()))
		p, layer := proxies[i%len(proxies)], i%len(r.layers)
		p.Tell(lie, layer, 1)
		err := infer()
		verdict := "NOT CAUGHT"
		switch {
		case errors.Is(err, verify.ErrRejected):
			verdict = "caught: rejected by the check"
		case errors.Is(err, hostclient.ErrBadAnswer):
			verdict = "caught: not a canonical answer"
		case err != nil:
			return err
		case p.Told() != 1:
			return fmt.Errorf("demo: %q could not be told", lie.Name)
		}
		if err != nil {
			r.result.TamperCaught++
		}
		r.result.TamperTried++
		fmt.Fprintf(t, "  %s\tlayer %d\t%s\n", lie.Name, layer, verdict)
		p.BeHonest()
	}
	t.Flush()
	if err := infer(); err != nil {
		return fmt.Errorf("demo: through an honest proxy: %w", err)
	}
	fmt.Fprintf(r.Out, "  %d of %d caught; through the same proxy an honest run passes\n\n", r.result.TamperCaught, r.result.TamperTried)
	return nil
}
