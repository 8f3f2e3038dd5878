package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// CrowdOptions say how many callers a daemon is to hold.
type CrowdOptions struct {
	measure.Options
	Threads int // of the daemon that compute
	Active  int // callers with a request without an answer each
	Idle    int // callers with a connection and nothing to ask
	Rows    int // of a request
	// hold has so many idle callers connected.
	hold func(ctx context.Context, addr string, callers int) (*crowd, error)
}

// CrowdResult says how a daemon held them.
type CrowdResult struct {
	CPU     string `json:"cpu"`
	Threads int    `json:"threads"`
	Idle    int    `json:"idle"`
	// Alive are the idle callers who were answered on the connection that they had, once
	// the load was over.
	Alive  int     `json:"idle_alive"`
	Load   Row     `json:"load"`
	Before Figures `json:"before"`
	With   Figures `json:"with_idle"` // and nobody active
	After  Figures `json:"after"`     // all have left
	// EachIdle is the daemon's memory for one idle caller.
	EachIdle float64 `json:"memory_bytes_an_idle_caller"`
}

// Verdict returns an error where idle callers were lost, or something of them stayed.
func (r *CrowdResult) Verdict() error {
	var all []error
	if r.Alive != r.Idle {
		all = append(all, fmt.Errorf("bench: %d of %d idle callers were answered at the end", r.Alive, r.Idle))
	}
	if r.After.Goroutines > r.Before.Goroutines || r.After.Descriptors > r.Before.Descriptors {
		all = append(all, fmt.Errorf("bench: %d goroutines and %d descriptors before, %d and %d after",
			r.Before.Goroutines, r.Before.Descriptors, r.After.Goroutines, r.After.Descriptors))
	}
	return errors.Join(all...)
}

// Crowd loads a daemon of its own with active callers of this process while idle ones
// of another process are connected.
func Crowd(ctx context.Context, o CrowdOptions) (*CrowdResult, error) {
	o.hold = holdElsewhere
	return o.crowd(ctx, traffic.Model(0, serveOp), o.Each(time.Second, 20*time.Second))
}

func (o CrowdOptions) crowd(ctx context.Context, model sealed.Model, budget time.Duration) (_ *CrowdResult, err error) {
	config := fmt.Sprintf("[batching]\nmax_queue_size = %d", max(256, o.Active))
	w, err := startWatched(ctx, o.Daemon, o.Threads, config)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	r := &CrowdResult{CPU: measure.Processor(), Threads: o.Threads, Idle: o.Idle}
	// Idle callers are weighed before there is a model: what its upload leaves to the
	// garbage collector would hide them.
	if r.Before, err = w.settled(ctx, Figures{}); err != nil {
		return nil, err
	}
	o.Progress("idle callers", 0, 3)
	idle, err := o.hold(ctx, w.Addr, o.Idle)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, idle.leave()) }()
	if r.With, err = w.settled(ctx, Figures{}); err != nil {
		return nil, err
	}
	r.EachIdle = float64(r.With.Memory-r.Before.Memory) / float64(max(1, o.Idle))
	o.Progress("active callers", 1, 3)
	of, err := w.store(ctx, model, o.Rows)
	if err != nil {
		return nil, err
	}
	s := &served{daemon: w.Daemon, budget: budget}
	if r.Load, err = s.load(ctx, loadClosed, same(o.Active, 0, of)); err != nil {
		return nil, err
	}
	o.Progress("idle callers", 2, 3)
	if r.Alive, err = idle.alive(); err != nil {
		return nil, err
	}
	if err := idle.leave(); err != nil {
		return nil, err
	}
	r.After, err = w.settled(ctx, r.Before)
	return r, err
}

// crowd are idle callers. What it is told and what it says are lines.
type crowd struct {
	in  io.Closer
	ask io.Writer
	out *bufio.Scanner
	end func() error // waits for it, once in is closed
}

// alive asks the idle callers, and returns how many are answered.
func (c *crowd) alive() (int, error) {
	if _, err := fmt.Fprintln(c.ask); err != nil {
		return 0, err
	}
	return c.next()
}

func (c *crowd) next() (int, error) {
	if !c.out.Scan() {
		return 0, errors.Join(errors.New("bench: the idle callers' process gives no answer"), c.out.Err())
	}
	return strconv.Atoi(strings.TrimSpace(c.out.Text()))
}

// leave has them leave. It may be called again.
func (c *crowd) leave() error {
	if c.end == nil {
		return nil
	}
	end := c.end
	c.end = nil
	return errors.Join(c.in.Close(), end())
}

// HoldCommand is the name of the hidden command that holds idle callers, with an
// address and how many.
const HoldCommand = "hold"

// holdElsewhere has another process of this program hold idle callers.
func holdElsewhere(ctx context.Context, addr string, callers int) (*crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, HoldCommand, addr, strconv.Itoa(callers))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		return nil, err
	}
	return newCrowd(in, out, cmd.Wait, callers)
}

// newCrowd waits until all callers are connected.
func newCrowd(in io.WriteCloser, out io.Reader, end func() error, callers int) (*crowd, error) {
	c := &crowd{in: in, ask: in, out: bufio.NewScanner(out), end: end}
	n, err := c.next()
	if err == nil && n != callers {
		err = fmt.Errorf("bench: %d of %d idle callers are connected", n, callers)
	}
	if err != nil {
		return nil, errors.Join(err, c.leave())
	}
	return c, nil
}

// Hold connects callers to a daemon, asks once on each connection, and says on out of how
// many it has an answer; and again, on the same connections, at each line of in.
func Hold(ctx context.Context, addr string, callers int, in io.Reader, out io.Writer) error {
	path, err := wire.SocketPath(addr)
	if err != nil {
		return err
	}
	held := make([]*grpc.ClientConn, callers)
	for i := range held {
		var had atomic.Bool
		conn, err := grpc.NewClient("passthrough:///localhost", append(wire.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				if had.Load() {
					return nil, errors.New("bench: a caller has lost its connection")
				}
				c, err := new(net.Dialer).DialContext(ctx, "unix", path)
				had.Store(err == nil)
				return c, err
			}))...)
		if err != nil {
			return err
		}
		defer conn.Close()
		held[i] = conn
	}
	ask := func() error {
		var mu sync.Mutex
		var wg sync.WaitGroup
		answered := 0
		const atATime = 32
		for part := range atATime {
			wg.Go(func() {
				for i := part; i < callers; i += atATime {
					if askOn(ctx, held[i]) == nil {
						mu.Lock()
						answered++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		_, err := fmt.Fprintln(out, answered)
		return err
	}
	if err := ask(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := ask(); err != nil {
			return err
		}
	}
	return nil
}

func askOn(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := pb.NewSecureNetsClient(conn).Info(ctx, &pb.InfoRequest{})
	return err
}

// CSV writes the load.
func (r *CrowdResult) CSV(w io.Writer) error { return render.CSV(w, columns, []Row{r.Load}) }

// Table writes the figures for people.
func (r *CrowdResult) Table(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprintln(t, "\tmemory, MiB\tgoroutines\tdescriptors")
	for _, row := range []struct {
		name string
		Figures
	}{{"before", r.Before}, {fmt.Sprintf("with %d idle callers", r.Idle), r.With}, {"all gone", r.After}} {
		fmt.Fprintf(t, "%s\t%.1f\t%d\t%d\n", row.name, float64(row.Memory)/(1<<20), row.Goroutines, row.Descriptors)
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "memory of the daemon for an idle caller\t%.1f KiB\n", r.EachIdle/1024)
	fmt.Fprintf(t, "idle callers answered at the end\t%d of %d\n", r.Alive, r.Idle)
	fmt.Fprintf(t, "active callers\t%d\n", r.Load.Callers)
	fmt.Fprintf(t, "goodput\t%.0f requests per second, %.0f refused with a reason and a time to come back\n", r.Load.Goodput, r.Load.Refused)
	fmt.Fprintf(t, "latency\tmedian %.0f us, p99 %.0f us\n", r.Load.P50, r.Load.P99)
	return t.Flush()
}
