package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/ring"
)

// Figures are what the daemon's process holds, by its own account for Prometheus.
type Figures struct {
	Memory      int64 `json:"resident_memory_bytes"`
	Goroutines  int64 `json:"goroutines"`
	Descriptors int64 `json:"open_fds"`
}

// watched is a daemon whose figures can be read.
type watched struct {
	*child.Daemon
	dir  string
	http http.Client
}

// startWatched starts a daemon in a folder of its own, with more lines of configuration.
func startWatched(ctx context.Context, binary string, threads int, config string) (*watched, error) {
	dir, err := os.MkdirTemp("", "sn") // short: a socket's path is at most 107 bytes
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "m")
	config = fmt.Sprintf("backend = \"cpu\"\nthreads = %d\n%s\n[metrics]\nlisten = %q\n", threads, config, "unix:"+socket)
	w := &watched{dir: dir}
	w.http.Transport = &http.Transport{
		DisableKeepAlives: true, // between two readings the daemon holds nothing of them
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	if w.Daemon, err = child.Start(binary, filepath.Join(dir, "daemon"), config); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := w.Ready(ctx); err != nil {
		w.ShowLog(os.Stderr)
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

// Stop ends the daemon and removes its folder.
func (w *watched) Stop() error { return errors.Join(w.Daemon.Stop(), os.RemoveAll(w.dir)) }

// store has the daemon store a model, and returns what asks for rows of its first layer.
func (w *watched) store(ctx context.Context, model sealed.Model, rows int) (t traffic.Target, err error) {
	b, err := model.Marshal()
	if err != nil {
		return t, err
	}
	t = traffic.Target{Digest: sealed.Sum(b), Op: model.Plan.Ops[0], X: traffic.Rows(model.Plan.Ops[0], rows)}
	if t.Want, err = answerTo(ctx, model, t.X); err != nil {
		return t, err
	}
	conn, err := wire.Dial(w.Addr)
	if err != nil {
		return t, err
	}
	return t, errors.Join(traffic.Upload(ctx, conn, t.Digest, b), conn.Close())
}

// answerTo returns the product of x with a model's first operator.
func answerTo(ctx context.Context, m sealed.Model, x ring.Matrix) (_ []uint32, err error) {
	backend := cpu.New(cpu.Options{})
	p, err := backend.Load(ctx, m.Plan.Ring, m.Plan.Ops[0], m.Weights[0])
	if err != nil {
		return nil, err
	}
	y := ring.NewMatrix(x.Rows, m.Plan.Ops[0].OutLen())
	err = p.Evaluate(ctx, y, x)
	return y.Data, errors.Join(err, p.Close(), backend.Close())
}

// figures reads the daemon's.
func (w *watched) figures(ctx context.Context) (f Figures, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/metrics", nil)
	if err != nil {
		return f, err
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return f, err
	}
	defer resp.Body.Close()
	return parseFigures(bufio.NewScanner(resp.Body))
}

func parseFigures(lines *bufio.Scanner) (f Figures, err error) {
	want := map[string]*int64{"process_resident_memory_bytes": &f.Memory, "go_goroutines": &f.Goroutines, "process_open_fds": &f.Descriptors}
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		to, ok := want[name]
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return f, fmt.Errorf("bench: %s of the daemon: %w", name, err)
		}
		*to = int64(v)
		delete(want, name)
	}
	if len(want) > 0 {
		return f, errors.Join(lines.Err(), fmt.Errorf("bench: the daemon tells %d figures too few", len(want)))
	}
	return f, nil
}
