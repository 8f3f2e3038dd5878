// Package paper measures the paper's two tables, beside what computes the same otherwise,
// and says of each row whether it confirms the paper.
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

	"github.com/securenets/securenets/cmd/securenets/internal/bench/layer"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
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
			// Answers of split are unmasked as those of pad.
			if n.checks[s.Inputs] == nil && s.Roles() == 1 {
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

// outsourced is a network under a scheme, host and daemons on so many threads each.
type outsourced struct {
	*demo.Costs
	network *network
	scheme  transform.Scheme
	in      hostclient.Ring
	threads int

	// Milliseconds an image: elapsed, of a batch as the product runs it, and of
	// processors; and of its parts one after the other.
	total, hostCPU, daemonCPU measure.Series
	host, cloud, transfer     measure.Series
	offline, offlineCPU       measure.Series
	up, down                  int64 // bytes of all batches
	batches                   int
	classified
}

// round runs a batch as the product does, with two parts in work at once, and the same
// parts one after the other, so that times add up. A run that does not count goes before
// each: it connects, and takes memory.
func (o *outsourced) round(ctx context.Context, from int) ([]float32, error) {
	n := o.network
	runtime.GOMAXPROCS(o.threads)
	runtime.GC() // nobody pays for another's garbage
	var offline, took demo.Spent
	var y []float32
	var before, after hostclient.Stats
	run := func(c *demo.Costs, call int) (err error) {
		if o.scheme.Inputs == transform.InputPad {
			if offline, err = c.Precompute(ctx, n.batch()); err != nil {
				return err
			}
		}
		before = c.Session().Stats()
		took, y, err = c.Infer(ctx, from, n.batch(), call)
		after = c.Session().Stats()
		return err
	}
	for range 2 {
		if err := run(o.Costs, n.batch()); err != nil {
			return nil, err
		}
	}
	whole, pads, up, down := took, offline, after.BytesUp-before.BytesUp, after.BytesDown-before.BytesDown
	apart, err := o.Apart(ctx)
	if err != nil {
		return nil, err
	}
	for range 2 {
		if err := run(apart, o.Session().PartSize(n.batch())); err != nil {
			return nil, err
		}
	}
	add := func(s *measure.Series, d time.Duration) { *s = append(*s, n.each(d)) }
	waited, computed := after.Waited-before.Waited, after.Computed-before.Computed
	add(&o.total, whole.Elapsed)
	add(&o.hostCPU, whole.Host)
	if whole.Daemons >= 0 {
		add(&o.daemonCPU, whole.Daemons)
	}
	add(&o.host, took.Elapsed-waited)
	add(&o.cloud, computed)
	add(&o.transfer, waited-computed)
	add(&o.offline, pads.Elapsed)
	add(&o.offlineCPU, pads.Host)
	o.up, o.down, o.batches = o.up+up, o.down+down, o.batches+1
	o.count(from, n.batch(), n.right(from, y))
	return y, nil
}

// remasking is masking all weights anew and sending them, as the paper's host does
// where it keeps nothing.
type remasking struct {
	*outsourced
	ring       ring.Ring
	layers     []plan.Op
	w          [][]int32
	mask, push measure.Series // milliseconds an image of the batch that it is for
	bytes      int
}

// quantise makes the integers of the network's weights, once.
func (r *remasking) quantise() error {
	sent, err := r.Plan()
	if err != nil {
		return err
	}
	r.ring = sent.Ring
	described := r.Description().Layers
	for i, node := range r.network.local.Graph().Nodes {
		op, ok := node.Op.(graph.Linear)
		if !ok {
			continue
		}
		q, err := transform.QuantizeWeights(r.ring, op.Plan(), op.Weights(), described[i].XMax)
		if err != nil {
			return err
		}
		r.layers, r.w = append(r.layers, op.Plan()), append(r.w, q.W)
	}
	return nil
}

func (r *remasking) round(ctx context.Context) error {
	if r.layers == nil {
		if err := r.quantise(); err != nil {
			return err
		}
	}
	runtime.GOMAXPROCS(r.threads)
	runtime.GC()
	start := time.Now()
	model := sealed.Model{Plan: plan.Plan{Ring: r.ring}}
	for i, op := range r.layers {
		masks, err := transform.NewLayer(r.ring, r.scheme, op)
		if err != nil {
			return err
		}
		what, err := masks.Seal(r.w[i])
		if err != nil {
			return err
		}
		model.Plan.Ops, model.Weights = append(model.Plan.Ops, masks.CloudOp()), append(model.Weights, what[0])
	}
	masked := time.Since(start)
	start = time.Now()
	b, err := model.Marshal()
	if err != nil {
		return err
	}
	m := hostclient.SealedModel{Digest: sealed.Sum(b), Bytes: b}
	if err := r.Cloud(0).Push(ctx, m, nil); err != nil {
		return err
	}
	pushed := time.Since(start)
	r.mask, r.push = append(r.mask, r.network.each(masked)), append(r.push, r.network.each(pushed))
	r.bytes = len(b)
	return r.Cloud(0).Remove(ctx, m.Digest)
}

// spotPoints are the paper's numbers of entries that are computed again.
var spotPoints = []int{10, 100}

// checking is what checks cost, measured on layers of the network's shapes with weights
// and values drawn at random: on no value of them does a time depend.
type checking struct {
	n      int // samples of a call
	layers []*layer.Call

	// Milliseconds an image, on one thread: of the check, the sums that the host forms as
	// it masks, and those as it unmasks, which all threads share; and of spot checks.
	inputs, answers measure.Series
	spot            []measure.Series // by spotPoints
}

func newChecking(ctx context.Context, n *network, s transform.Scheme, samples int) (_ *checking, err error) {
	b := cpu.New(cpu.Options{})
	defer func() { err = errors.Join(err, b.Close()) }()
	c := &checking{n: samples, spot: make([]measure.Series, len(spotPoints))}
	for _, node := range n.local.Graph().Nodes {
		op, ok := node.Op.(graph.Linear)
		if !ok {
			continue
		}
		l, err := layer.New(ctx, b, op.Plan(), samples, s)
		if err != nil {
			return nil, err
		}
		candidate, err := l.First.UnmaskDecoded(l.Answers)
		if err != nil {
			return nil, err
		}
		if l.Y, err = l.Key.Open(candidate, l.X); err != nil {
			return nil, err
		}
		c.layers = append(c.layers, l)
	}
	return c, nil
}

func (c *checking) round() error {
	runtime.GOMAXPROCS(1)
	runtime.GC()
	var inputs, answers time.Duration
	spot := make([]time.Duration, len(spotPoints))
	for _, l := range c.layers {
		expected, in := l.Key.Expect(l.N), len(l.R)
		start := time.Now()
		for i := range l.N {
			expected.Add(i, 0, l.X[i*in:(i+1)*in])
		}
		inputs += time.Since(start)
		candidate := verify.NewCandidate(l.Y, l.N)
		start = time.Now()
		if err := l.Key.OpenFloats(l.Floats, candidate, expected, l.Samples, l.To); err != nil {
			return err
		}
		answers += time.Since(start)
		start = time.Now()
		l.To.Floats(l.Floats, l.Y, l.Samples)
		answers -= time.Since(start)
		// Unmasking counts where it was measured: products are at hand.
		each := len(l.Y) / l.N
		products := verify.LazyCandidate(l.N, each, 1, func(dst, _ []int32, i, at int) { dst[0] = l.Y[i*each+at] })
		for k, points := range spotPoints {
			start = time.Now()
			passed, err := verify.SpotCheck(l.Op, l.W, l.X, products, points)
			spot[k] += time.Since(start)
			if err != nil {
				return err
			}
			if !passed {
				return fmt.Errorf("bench: a right answer fails the spot check")
			}
		}
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 / float64(c.n) }
	c.inputs, c.answers = append(c.inputs, each(inputs)), append(c.answers, each(answers))
	for k, d := range spot {
		c.spot[k] = append(c.spot[k], each(d))
	}
	return nil
}

// instead returns what a check of so many points costs an image more than the real one
// does, on so many threads: less than 0 where that costs more.
func (c *checking) instead(points, threads int) float64 {
	more := -c.inputs.Median() - max(0, c.answers.Median())/float64(threads)
	if k := slices.Index(spotPoints, points); k >= 0 {
		more += c.spot[k].Median()
	}
	return more
}
