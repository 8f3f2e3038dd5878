package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/verify"
)

const (
	// shown is how many images a tampered batch has, and the picture.
	shown = 16
	// patience is how long the host waits for an answer that comes too late.
	patience = 2 * time.Second
)

// tamper puts a proxy before every cloud, which tells each kind of lie once, and
// draws what an honest one saw.
func (r *run) tamper(ctx context.Context) error {
	if len(r.clouds) == 0 {
		fmt.Fprint(r.Out, "No layer is sent, so no cloud could lie or see anything.\n\n")
		return nil
	}
	proxies, addrs, stop, err := r.proxies()
	defer stop()
	if err != nil {
		return err
	}
	if len(proxies) > 1 {
		for role, p := range proxies {
			p.Conspire(proxies[(role+1)%len(proxies)])
		}
	}

	infer := func(timeout time.Duration) error {
		s, err := r.openSession(ctx, addrs, hostclient.Options{Timeout: timeout}) // a new one each: a liar is not asked again
		if err != nil {
			return err
		}
		_, err = s.Infer(ctx, r.images.Range(0, shown), shown)
		return errors.Join(err, s.Close())
	}
	proxies[0].Record(0, shown*r.received())
	if err := infer(0); err != nil {
		return fmt.Errorf("demo: through an honest proxy: %w", err)
	}
	if err := r.drawView(proxies[0].Seen()); err != nil {
		return err
	}

	fmt.Fprintln(r.Out, "Answers tampered with in transit, one in each run:")
	t := render.Table(r.Out)
	fmt.Fprintf(t, "  \t\t\tcaught by the paper's check of %d, of %d entries\n", spots[0], spots[1])
	for i, lie := range adversary.Lies() {
		r.Progress("lies", i, len(adversary.Lies()))
		role, layer := i%len(proxies), i%len(r.layers)
		var timeout time.Duration
		if lie.Kind == adversary.Late {
			timeout = patience
		}
		p := proxies[role]
		p.Tell(lie, layer, 1)
		err := infer(timeout)
		if err == nil && p.Told() == 0 {
			continue // it needs another model, or another role
		}
		p.BeHonest()
		verdict, ok := judge(lie, role, err)
		if !ok && err != nil {
			return fmt.Errorf("demo: %q: %w", lie.Name, err)
		}
		if ok {
			r.result.TamperCaught++
		}
		r.result.TamperTried++
		chance := ""
		if wrong, all := p.Wrong(); lie.Kind == adversary.Wrong {
			chance = fmt.Sprintf("%.2f %%, %.2f %%", 100*spotted(all, wrong, spots[0]), 100*spotted(all, wrong, spots[1]))
		}
		fmt.Fprintf(t, "  %s\tcloud %d, layer %d\t%s\t%s\n", lie.Name, role, layer, verdict, chance)
	}
	t.Flush()
	if err := infer(0); err != nil {
		return fmt.Errorf("demo: through an honest proxy: %w", err)
	}
	fmt.Fprintf(r.Out, "  %d of %d caught; an honest run through the same proxy passes\n\n", r.result.TamperCaught, r.result.TamperTried)
	return nil
}

// proxies puts a proxy before every cloud, until stop is called.
func (r *run) proxies() (proxies []*adversary.Proxy, addrs []string, stop func(), err error) {
	stop = func() {
		for _, p := range proxies {
			p.Close()
		}
	}
	for role, c := range r.clouds {
		model, err := sealed.Parse(r.models[role].Bytes)
		if err != nil {
			return nil, nil, stop, err
		}
		addr := fmt.Sprintf("unix:%s", filepath.Join(r.dir, fmt.Sprint("proxy-", role)))
		p, err := adversary.Start(addr, c.Addr, model.Plan)
		if err != nil {
			return nil, nil, stop, err
		}
		proxies, addrs = append(proxies, p), append(addrs, addr)
	}
	return proxies, addrs, stop, nil
}

// spots is how many entries of a call the paper's spot check computes again.
var spots = [2]int{10, 100}

// spotted returns the chance that c distinct entries of n, at random, have one of
// the wrong ones among them: 1 - C(n-wrong, c)/C(n, c), as for verify.SpotCheck.
func spotted(n, wrong, c int) float64 {
	missed := 1.0
	for i := range min(c, n) {
		missed *= float64(max(0, n-wrong-i)) / float64(n-i)
	}
	return 1 - missed
}

// judge says what became of a lie of a role's cloud, and whether it was caught
// for what it is, and that cloud named.
func judge(lie adversary.Lie, role int, err error) (verdict string, caught bool) {
	kinds := map[adversary.Kind]struct {
		error
		verdict string
	}{
		adversary.Wrong:     {verify.ErrRejected, "caught: rejected by the check"},
		adversary.Malformed: {hostclient.ErrBadAnswer, "caught: not an answer to the request"},
		adversary.Late:      {hostclient.ErrTimeout, "caught: timed out"},
	}
	kind := kinds[lie.Kind]
	var from *hostclient.CloudError
	if !errors.Is(err, kind.error) || !errors.As(err, &from) || from.Role != role {
		return "NOT CAUGHT", false
	}
	return kind.verdict, true
}
