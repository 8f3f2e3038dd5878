// Package demo runs the main job end to end on one machine: a real network on real
// images, with a daemon of its own that sees neither. Every product is checked, and a
// cloud that cheats is caught.
package demo

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"

	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

// Options say what to run.
type Options struct {
	Network  string // one of models.Names
	Scheme   transform.Scheme
	Ring     hostclient.Ring
	Place    hostclient.Place
	Samples  int    // test images; 0: all
	Batch    int    // images a batch
	OutDir   string // where cloud-view.png and demo.json go
	Daemon   string // path of securenetsd
	Threads  int    // that each daemon computes on; 0: one a processor
	Out, Log io.Writer
	Progress func(label string, done, total int)
}

// Result are the figures of a run, as demo.json has them.
type Result struct {
	Samples         int     `json:"samples"`
	AccuracyFloat   float64 `json:"accuracy_float"` // fractions
	AccuracyPrivate float64 `json:"accuracy_private"`
	Agreement       float64 `json:"agreement"`   // images that both put in one class
	LayersSent      int     `json:"layers_sent"` // linear ones
	LayersKept      int     `json:"layers_kept"`
	Checked         int64   `json:"checked"` // products, one a layer that is sent and image
	Rejected        int64   `json:"rejected"`
	TamperTried     int     `json:"tamper_tried"`
	TamperCaught    int     `json:"tamper_caught"`
	// CPU time of the host's process an image, all threads, in nanoseconds.
	HostOnlineNS  int64 `json:"host_online_ns"`
	HostOfflineNS int64 `json:"host_offline_ns"`
	LocalNS       int64 `json:"local_ns"`
	// Payload an image.
	BytesUp    int64   `json:"bytes_up"`
	BytesDown  int64   `json:"bytes_down"`
	ImagesPerS float64 `json:"images_per_s"` // in elapsed time, online
}

// ErrMissed: a lie was not caught.
var ErrMissed = errors.New("demo: a lie was not caught")

// run is the state that the steps share.
type run struct {
	Options
	result   Result
	dir      string // private and temporary
	images   *dataset.Images
	labels   []uint8
	onnx     []byte
	graph    *graph.Graph
	multiply plan.Multiplier

	clouds  []*child.Daemon // one a role
	models  []hostclient.SealedModel
	secret  *hostclient.Secret
	layers  []hostclient.LayerDescription // that the clouds evaluate
	classes []int                         // by private inference
	view    image.Image                   // of what a cloud saw; nil: nothing
}

// Run does it all. Its errors wrap verify.ErrRejected where the honest daemon
// answered wrongly, and ErrMissed.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	r := &run{Options: o, multiply: cpu.New(cpu.Options{})}
	if err := r.load(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "securenets-demo-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(r.dir)
	defer func() {
		for _, c := range r.clouds {
			err = errors.Join(err, c.Stop())
		}
		if err != nil {
			result = nil
		}
		if err != nil && ctx.Err() == nil {
			for _, c := range r.clouds {
				c.ShowLog(r.Log)
			}
		}
	}()
	for _, step := range []func(context.Context) error{
		r.promise, r.seal, r.start, r.push, r.inferPrivately, r.inferLocally, r.report, r.tamper, r.write,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return &r.result, nil
}

// load reads what there is to run, and makes the folder to write to.
func (r *run) load() error {
	if err := os.MkdirAll(r.OutDir, 0o755); err != nil {
		return err
	}
	return r.read()
}

// read reads the network and the images.
func (r *run) read() (err error) {
	if r.onnx, err = models.ONNX(r.Network); err != nil {
		return err
	}
	if r.graph, err = onnx.Parse(r.onnx); err != nil {
		return fmt.Errorf("demo: %s: %w", r.Network, err)
	}
	if r.images, r.labels, err = models.TestSet(); err != nil {
		return err
	}
	in := r.graph.Input
	if r.images, err = r.images.Fit(in.C, in.H, in.W); err != nil {
		return err
	}
	if r.Samples == 0 {
		r.Samples = r.images.N
	}
	if r.Samples > r.images.N {
		return fmt.Errorf("demo: %d samples, the test set has %d", r.Samples, r.images.N)
	}
	r.Batch = min(r.Batch, r.Samples)
	r.result.Samples = r.Samples
	return nil
}

// start runs a daemon for every role.
func (r *run) start(ctx context.Context) error {
	config := fmt.Sprintf("threads = %d\n", r.Threads)
	for role := range r.models {
		c, err := child.Start(r.Daemon, filepath.Join(r.dir, fmt.Sprint("cloud-", role)), config)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		r.clouds = append(r.clouds, c)
	}
	for _, c := range r.clouds {
		if err := c.Ready(ctx); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	return nil
}

// seal masks the network's weights.
func (r *run) seal(ctx context.Context) (err error) {
	r.models, r.secret, err = peer.Seal(ctx, r.onnx, hostclient.SealOptions{
		Scheme: r.Scheme, Ring: r.Ring, Place: r.Place, Multiplier: r.multiply,
		Progress: func(done, total int) { r.Progress("sealing layers", done, total) },
	})
	if err != nil {
		return err
	}
	for _, l := range r.secret.Describe().Layers {
		switch {
		case l.Kept:
			r.result.LayersKept++
		case l.Cloud != "":
			r.layers = append(r.layers, l)
		}
	}
	r.result.LayersSent = len(r.layers)
	return nil
}

// push gives each cloud its own masked weights.
func (r *run) push(ctx context.Context) error {
	if r.result.LayersKept > 0 {
		fmt.Fprintf(r.Out, "%d of %d linear layers stay on this host, where they cost it less. Their products are its own, and not checked.\n",
			r.result.LayersKept, r.result.LayersKept+r.result.LayersSent)
	}
	for i, m := range r.models {
		client, err := hostclient.DialProvider(r.clouds[i].Addr, provider(i))
		if err != nil {
			return err
		}
		if err := r.secret.Bind(i, client.Provider()); err != nil {
			return err
		}
		err = client.Push(ctx, m, func(done, total int64) { r.Progress("pushing bytes", int(done), int(total)) })
		if err := errors.Join(err, client.Close()); err != nil {
			return err
		}
		fmt.Fprintf(r.Out, "Cloud %d: securenetsd %s, %s kernel; it was given the sealed model %.12s of %s bytes.\n",
			i, r.clouds[i].Info.Version, r.clouds[i].Info.Backend, m.Digest, render.Count(len(m.Bytes)))
	}
	fmt.Fprintln(r.Out)
	return nil
}

// batches calls f for the batches of samples [from, to), of so many each.
func batches(from, to, size int, f func(i, j int) error) error {
	for i := from; i < to; i += size {
		if err := f(i, min(i+size, to)); err != nil {
			return err
		}
	}
	return nil
}

// provider names who runs a role's cloud, be it asked by way of a proxy or not.
func provider(role int) string { return fmt.Sprintf("the owner of cloud %d", role) }

// openSession opens a session with new clients at addrs, one a role, and options but
// for the multiplier. Closing it closes them.
func (r *run) openSession(ctx context.Context, addrs []string, o hostclient.Options) (*session, error) {
	o.Multiplier = r.multiply
	s := &session{}
	for role, addr := range addrs {
		c, err := hostclient.DialProvider(addr, provider(role))
		if err != nil {
			s.Close()
			return nil, err
		}
		s.clients = append(s.clients, c)
	}
	var err error
	s.Session, err = hostclient.Open(ctx, r.secret, r.models, s.clients, o)
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// session owns its clients.
type session struct {
	*hostclient.Session
	clients []*hostclient.Client
}

func (s *session) Close() error {
	var errs []error
	if s.Session != nil {
		errs = append(errs, s.Session.Close())
	}
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// addrs returns where the daemons serve.
func (r *run) addrs() []string {
	var addrs []string
	for _, c := range r.clouds {
		addrs = append(addrs, c.Addr)
	}
	return addrs
}
