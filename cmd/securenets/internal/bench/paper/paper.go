// Package paper measures the paper's two tables, beside other ways to compute the same,
// and says for each row whether it confirms the paper.
package paper

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/transform"
)

// Options say what to measure, beside Options.
type Options struct {
	measure.Options
	// Networks are those to measure: of table 1, and cryptonets for table 2.
	Networks []string
	Python   string // interpreter for onnxruntime and TenSEAL; "": there is none
}

// CryptoNets is the network of table 2. The others are of table 1.
const CryptoNets = "cryptonets"

// Networks are the paper's, in its order.
var Networks = []string{"mlp", "mnist-cnn", "cifar-cnn", CryptoNets}

// schemes are the paper's own, and what takes its place.
var schemes = []transform.Scheme{
	{Weights: transform.WeightPermute, Inputs: transform.InputPermute},
	{Weights: transform.WeightPermute, Inputs: transform.InputPad},
	{Weights: transform.WeightPermute, Inputs: transform.InputSplit},
	{Weights: transform.WeightLagrange, Inputs: transform.InputLagrange},
}

// FigureSchemes are those that figure 2 shows.
func FigureSchemes() []transform.Scheme { return slices.Clone(schemes) }

// scope is what --quick and tests make smaller.
type scope struct {
	rounds    int
	batch     int // images of a call, table 1
	large     int // and table 2
	encrypted int // images that TenSEAL is given; 0: it is left out
}

func (o Options) scope() scope {
	s := scope{rounds: 5, batch: 256, large: 4096, encrypted: 2}
	if o.Quick {
		s.rounds, s.batch, s.encrypted = 3, 128, 0
	}
	return s
}

// Run measures the paper's two tables. Where ctx ends first, or something fails, it
// returns what was measured so far, marked partial, beside the error.
//
// All that one network is compared with is measured in turn, round by round, on one
// thread and on all: GOMAXPROCS is set meanwhile. Outputs that differ in a bit between
// schemes or numbers of threads, in one ring, are an error.
func Run(ctx context.Context, o Options) (*Result, error) {
	return o.measure(ctx, o.scope())
}

func (o Options) measure(ctx context.Context, sc scope) (*Result, error) {
	all := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(all)
	threads := []int{1, all}
	if all == 1 {
		threads = threads[:1]
	}
	result := &Result{CPU: measure.Processor(), Version: version.String(), Threads: all, Batch: sc.batch, Large: sc.large, Rounds: sc.rounds, Quick: o.Quick, Rows: []Row{}}
	for _, name := range o.Networks {
		n := &network{Options: o, sc: sc, name: name, threads: threads}
		if name == CryptoNets {
			n.threads = []int{all}
		}
		err := n.measure(ctx)
		result.Rows = append(result.Rows, n.rows()...)
		if err = errors.Join(err, n.close()); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err() // whatever it was that it ended
			}
			result.Partial = true
			return result, fmt.Errorf("%s: %w", name, err)
		}
	}
	return result, nil
}

// network is one network in the making.
type network struct {
	Options
	sc      scope
	name    string
	threads []int

	dir        string
	local      *demo.Local
	baselines  []*baseline
	outsourced []*outsourced
	remask     []*remasking
	checks     map[transform.InputMask]*checking
	runtime    *python // onnxruntime
	version    string  // of it
	missing    *missingError
	encrypted  *encrypted
}

// batch is the images of a call.
func (n *network) batch() int {
	if n.name == CryptoNets {
		return n.sc.large
	}
	return n.sc.batch
}

// each returns milliseconds an image.
func (n *network) each(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e6 / float64(n.batch())
}

func (n *network) options(s transform.Scheme, r hostclient.Ring, threads int) demo.Options {
	return demo.Options{
		Network: n.name, Scheme: s, Ring: r, Batch: n.batch(), Daemon: n.Daemon, Threads: threads,
		Out: io.Discard, Progress: func(string, int, int) {},
	}
}

func (n *network) close() error {
	var errs []error
	for _, s := range n.outsourced {
		errs = append(errs, s.Close())
	}
	if n.local != nil {
		errs = append(errs, n.local.Close())
	}
	if n.runtime != nil {
		n.runtime.close() // one that was killed, as ctx ended, has an error to tell
	}
	if n.dir != "" {
		errs = append(errs, os.RemoveAll(n.dir))
	}
	return errors.Join(errs...)
}

// open prepares all that is measured.
func (n *network) open(ctx context.Context) (err error) {
	if n.dir, err = os.MkdirTemp("", "securenets-paper-"); err != nil {
		return err
	}
	if n.local, err = demo.OpenLocal(n.options(transform.DefaultScheme(), "", 0)); err != nil {
		return err
	}
	if most := n.local.Images().N; n.batch() > most {
		return fmt.Errorf("bench: batches of %d images, the test set has %d", n.batch(), most)
	}
	if n.name != CryptoNets {
		if err := n.openBaselines(ctx); err != nil {
			return err
		}
	}
	n.checks = map[transform.InputMask]*checking{}
	for _, t := range n.threads {
		runtime.GOMAXPROCS(t)
		for i, s := range schemes {
			n.Progress(n.name+": sealing", i, len(schemes))
			o, err := n.outsource(ctx, s, hostclient.RingQ4, t)
			if err != nil {
				return err
			}
			if n.name == CryptoNets {
				continue // fully checked, and nothing is masked anew
			}
			if s.Inputs == transform.InputPermute {
				n.remask = append(n.remask, &remasking{outsourced: o})
			}
			if n.checks[s.Inputs] == nil && checkedAs(s) == s.Inputs {
				n.checks[s.Inputs], err = newChecking(ctx, n, s, o.Session().PartSize(n.batch()))
				if err != nil {
					return err
				}
			}
		}
	}
	if n.name == CryptoNets { // where bytes count
		for _, s := range schemes {
			if _, err := n.outsource(ctx, s, hostclient.RingQ3, n.threads[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// openBaselines prepares what table 1 compares with.
func (n *network) openBaselines(ctx context.Context) error {
	if err := n.startRuntime(ctx); err != nil && !errors.As(err, &n.missing) {
		return err
	}
	for _, t := range n.threads {
		n.baselines = append(n.baselines, &baseline{network: n, name: "reference", threads: t})
		if n.runtime != nil {
			n.baselines = append(n.baselines, &baseline{network: n, name: "onnxruntime", threads: t})
		}
	}
	return nil
}

// outsource seals the network and starts its daemons.
func (n *network) outsource(ctx context.Context, s transform.Scheme, r hostclient.Ring, threads int) (*outsourced, error) {
	c, err := demo.OpenCosts(ctx, n.options(s, r, threads), threads)
	if err != nil {
		return nil, err
	}
	o := &outsourced{Costs: c, network: n, scheme: s, in: r, threads: threads}
	n.outsourced = append(n.outsourced, o)
	return o, nil
}

// startRuntime gives onnxruntime the network and the images.
func (n *network) startRuntime(ctx context.Context) error {
	model, err := models.ONNX(n.name)
	if err != nil {
		return err
	}
	images := n.local.Images()
	raw, err := binary.Append(nil, binary.LittleEndian, images.Data)
	if err != nil {
		return err
	}
	args := []string{filepath.Join(n.dir, "model.onnx"), filepath.Join(n.dir, "images")}
	for i, b := range [][]byte{model, raw} {
		if err := os.WriteFile(args[i], b, 0o600); err != nil {
			return err
		}
	}
	for _, size := range []int{images.N, images.C, images.H, images.W} {
		args = append(args, fmt.Sprint(size))
	}
	if n.runtime, err = startPython(ctx, n.Python, "onnxruntime", onnxruntimeScript, args...); err != nil {
		return err
	}
	var first struct{ Version string }
	err = json.Unmarshal(n.runtime.started, &first)
	n.version = first.Version
	return err
}

// measure opens and then measures all in turn.
func (n *network) measure(ctx context.Context) error {
	if err := n.open(ctx); err != nil {
		return err
	}
	for round := range n.sc.rounds {
		n.Progress(n.name, round, n.sc.rounds)
		from := round % (n.local.Images().N / n.batch()) * n.batch()
		for _, b := range n.baselines {
			if err := b.round(from); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		first := map[hostclient.Ring][]float32{}
		for _, s := range n.outsourced {
			y, err := s.round(ctx, from)
			if err != nil {
				return err
			}
			if first[s.in] == nil {
				first[s.in] = y
			} else if !measure.SameBits(first[s.in], y) {
				return fmt.Errorf("bench: %s in %s on %d threads differs from other schemes", s.scheme, s.in, s.threads)
			}
		}
		for _, r := range n.remask {
			if err := r.round(ctx); err != nil {
				return err
			}
		}
		for _, c := range n.checks {
			if err := c.round(); err != nil {
				return err
			}
		}
	}
	if n.name == CryptoNets {
		var err error
		n.encrypted, err = n.encrypt(ctx)
		return err
	}
	return nil
}

// right returns how many of the outputs of images from one on have the label's class.
func (n *network) right(from int, y []float32) (right int) {
	each := len(y) / n.batch()
	for i := range n.batch() {
		scores := y[i*each : (i+1)*each]
		if slices.Index(scores, slices.Max(scores)) == int(n.local.Labels()[from+i]) {
			right++
		}
	}
	return right
}

// baseline is local inference without a cloud.
type baseline struct {
	network        *network
	name           string
	threads        int
	elapsed, spent measure.Series // milliseconds an image, elapsed and of processors
	classified
}

// classified counts images and those of the label's class, each image once.
type classified struct {
	seen          map[int]bool // batches, by their first image
	images, right int
}

func (c *classified) count(from, images, right int) {
	if c.seen == nil {
		c.seen = map[int]bool{}
	}
	if !c.seen[from] {
		c.seen[from] = true
		c.images, c.right = c.images+images, c.right+right
	}
}

func (b *baseline) round(from int) error {
	n := b.network
	runtime.GOMAXPROCS(b.threads)
	var took demo.Spent
	right := 0
	if b.name == "reference" {
		var y []float32
		var err error
		if took, y, err = n.local.Infer(from); err != nil {
			return err
		}
		right = n.right(from, y)
	} else {
		var got struct {
			Elapsed time.Duration `json:"elapsed_ns"`
			CPU     time.Duration `json:"cpu_ns"`
			Classes []int         `json:"classes"`
		}
		if err := n.runtime.ask(map[string]int{"threads": b.threads, "from": from, "count": n.batch()}, &got); err != nil {
			return fmt.Errorf("onnxruntime: %w", err)
		}
		if len(got.Classes) != n.batch() {
			return fmt.Errorf("onnxruntime classified %d images of %d", len(got.Classes), n.batch())
		}
		took = demo.Spent{Elapsed: got.Elapsed, Host: got.CPU}
		for i, class := range got.Classes {
			if class == int(n.local.Labels()[from+i]) {
				right++
			}
		}
	}
	b.elapsed, b.spent = append(b.elapsed, n.each(took.Elapsed)), append(b.spent, n.each(took.Host))
	b.count(from, n.batch(), right)
	return nil
}
