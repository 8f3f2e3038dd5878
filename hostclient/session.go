package hostclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// blockWords is how many words the widest value of one block of samples has at
// most, if that is one sample or more: memory is then a small multiple of 16 MiB.
const blockWords = 4 << 20

// blockRows returns the samples of a block, for the words of one sample.
func blockRows(words int) int { return max(1, blockWords/words) }

// Options are the choices of a session.
type Options struct {
	// Multiplier computes pads and the layers that are kept; it is needed if there are
	// any. With several roles it also identifies the ones that lied: without it, all
	// count as liars.
	Multiplier plan.Multiplier
	// RequireStock makes Infer return ErrNoPads when the stock runs dry;
	// otherwise it makes pads on the spot, and Stats counts them.
	RequireStock bool
	// Stock keeps the pads that Precompute makes on disk. Nil: the stock lives in
	// memory and dies with the session.
	Stock *DurableStock
	// Timeout bounds the wait for one layer's answers, in each try. Zero: 30 s. When it
	// passes, the connection may be given up for everything that uses the client: a Push
	// in progress then fails, and resumes where it stopped when it is called again.
	Timeout time.Duration
	// Retries is how often a layer's call is repeated, at most, if a cloud cannot be
	// reached, does not answer in time or as it should, refuses for the time being, or
	// lies. A spare is asked if there is one, else the same cloud after a pause; a cloud
	// that lied is not asked again. No pad serves twice: see docs/threat-model.md. Zero:
	// never.
	Retries int
	// Spares are further clouds for each role, which have its sealed model too. A spare
	// replaces a cloud that failed, for the rest of the session. Its provider is bound to
	// its role like any other. The caller closes them.
	Spares [][]*Client
	// Parts is how many parts of a batch are in flight at once: while the clouds compute
	// a layer of one part, the host works on another, and with more processors on
	// several. Zero: 2.
	Parts int
	// PadMemory is how many bytes of pads the session keeps in stock; it makes more in
	// the background as they are used. Secret.PadBytes says what a sample takes. Zero:
	// only those of Precompute.
	PadMemory int64
}

// Session runs inference with one sealed network. It may be used by several goroutines at
// once.
type Session struct {
	secret   *Secret
	clients  []*cloudsOf // one a role
	options  Options
	products []plan.Product // one a layer: with W where it is kept, with What where it needs pads, else nil
	models   []modelFile    // one a role
	scales   []verify.Scale // one a layer
	block    int            // samples of a part of a batch
	parts    int            // of a batch that are in work at once
	stock    stock

	closing context.Context // ends with Close
	close   context.CancelFunc
	filler  *filler      // nil without Options.PadMemory
	mu      sync.RWMutex // held for writing by Close, for reading by all that use products

	samples, checked, rejected, kept, up, down, onTheSpot, retried atomic.Int64
	waited, queued, computed                                       atomic.Int64 // nanoseconds
}

// Format prints the session redacted, whatever the verb.
func (*Session) Format(f fmt.State, _ rune) { io.WriteString(f, "hostclient.Session(redacted)") }

// Open checks that the sealed models belong to the secret, and every client's provider to
// its role (see Secret.Bind). It returns a session that asks clients[i] for role i. The
// caller closes the clients. There must be Secret.Roles of both: none if every layer is
// kept.
func Open(ctx context.Context, s *Secret, models []SealedModel, clients []*Client, o Options) (*Session, error) {
	files, err := s.inMemory(models)
	if err != nil {
		return nil, err
	}
	return open(ctx, s, files, clients, o)
}

// OpenDir is Open with the sealed models of a folder that WriteDir or SealDir wrote. It
// reads them layer by layer, and holds no more of them than pads need. They must stay
// there until Close.
func OpenDir(ctx context.Context, dir string, s *Secret, clients []*Client, o Options) (*Session, error) {
	return open(ctx, s, s.inDir(dir), clients, o)
}

func open(ctx context.Context, s *Secret, models []modelFile, clients []*Client, o Options) (*Session, error) {
	if err := s.admit(clients); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Parts <= 0 {
		o.Parts = pipelined
	}
	all, err := s.withSpares(clients, o.Spares)
	if err != nil {
		return nil, err
	}
	ss := &Session{secret: s, clients: all, models: models, options: o, stock: &memoryStock{}}
	ss.closing, ss.close = context.WithCancel(context.Background())
	widest := s.net.widest()
	for i, l := range s.layers {
		if !l.kept() {
			op := l.masks.CloudOp()
			widest = max(widest, l.masks.CloudRows(1)*max(op.InLen(), op.OutLen()))
		}
		scale, err := verify.NewScale(l.scale, s.net.layers[i].Bias())
		if err != nil {
			return nil, fmt.Errorf("hostclient: layer %d: %w", i, err)
		}
		ss.scales = append(ss.scales, scale)
	}
	ss.block, ss.parts = blockRows(widest), o.Parts
	if err := ss.load(ctx); err != nil {
		ss.Close()
		return nil, err
	}
	stock, err := openStock(s, o.Stock)
	if err != nil {
		ss.Close()
		return nil, err
	}
	ss.stock = stock
	ss.fill()
	return ss, nil
}

// load checks the sealed models, and prepares the products that pads need and those of
// layers that are kept.
func (ss *Session) load(ctx context.Context) error {
	s := ss.secret
	ss.products = make([]plan.Product, len(s.layers))
	load := func(l int, op plan.Op, w ring.Matrix) (err error) {
		if ss.options.Multiplier == nil {
			return fmt.Errorf("%w for pads or layers that are kept", ErrMultiplier)
		}
		if ss.products[l], err = ss.options.Multiplier.Load(ctx, s.ring, op, w); err != nil {
			return fmt.Errorf("hostclient: layer %d: %w", l, err)
		}
		return nil
	}
	for role, file := range ss.models {
		err := s.readModel(role, file, func(l int, what ring.Matrix) error {
			if !s.padded() {
				return nil
			}
			return load(l, s.layers[l].masks.CloudOp(), what) // schemes with pads have one role
		})
		if err != nil {
			return err
		}
	}
	for l, layer := range s.layers {
		if layer.kept() {
			if err := load(l, s.net.layers[l].Plan(), *layer.weights); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close ends calls in progress and discards a stock in memory. Its error also says why
// pads could not be made in the background.
func (ss *Session) Close() error {
	ss.close()
	errs := []error{ss.filler.wait()}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	errs = append(errs, ss.stock.close())
	for _, p := range ss.products {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	ss.products = nil
	return errors.Join(errs...)
}

// enter lets a call use the session until leave is called. The context that it
// returns ends with the session, too.
func (ss *Session) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	ss.mu.RLock()
	if ss.closing.Err() != nil {
		ss.mu.RUnlock()
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ss.closing, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil); ss.mu.RUnlock() }, nil
}

// partRows is the least that a part has of a batch that would fit one: messages and
// products have costs of their own.
const partRows = 32

// PartSize returns the number of samples in a part of a batch of n; the last part may
// have fewer. Each part takes one call per layer. There are as many parts as can be in
// flight at once, or more if they would be too large.
func (ss *Session) PartSize(n int) int {
	if ss.parts == 1 {
		return ss.block
	}
	parts := max((n+ss.block-1)/ss.block, min(ss.parts, n/partRows), 1)
	return (n + parts - 1) / parts
}

// Precompute adds pads for n samples to the stock. On an error it may have added some. It
// does nothing if no layer needs pads.
func (ss *Session) Precompute(ctx context.Context, n int) error {
	ctx, leave, err := ss.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if !ss.secret.padded() {
		return nil
	}
	for part := ss.PartSize(n); n > 0; n -= part {
		sh, err := ss.newPads(ctx, min(n, part))
		if err != nil {
			return err
		}
		if err := ss.stock.add(sh); err != nil {
			return err
		}
	}
	return nil
}

// newPads makes pads of n samples for every layer that is sent.
func (ss *Session) newPads(ctx context.Context, n int) (sheet, error) {
	sh := sheet{n: n}
	for _, l := range ss.secret.sent {
		p, err := ss.newPadsOf(ctx, l, n)
		if err != nil {
			return sheet{}, err
		}
		sh.pads = append(sh.pads, p)
	}
	return sh, nil
}

// samples returns how many samples x holds. It refuses values that are not finite.
func (nw *network) samples(x []float32) (int, error) {
	in := nw.Input.Len()
	if len(x) == 0 || len(x)%in != 0 {
		return 0, fmt.Errorf("%w: %d values for samples of %d", ErrInput, len(x), in)
	}
	if i := notFinite(x); i >= 0 {
		return 0, fmt.Errorf("%w: value %d of sample %d is not finite", ErrInput, i%in, i/in)
	}
	return len(x) / in, nil
}

// notFinite returns the index of the first NaN or infinity, or -1.
func notFinite(x []float32) int {
	return slices.IndexFunc(x, func(v float32) bool { return math.Float32bits(v)&0x7f800000 == 0x7f800000 })
}

// checkOutputs refuses outputs of n samples that are not finite.
func checkOutputs(y []float32, n int) error {
	if i := notFinite(y); i >= 0 {
		return fmt.Errorf("%w: the outputs of sample %d leave the range of float32", ErrInput, i/(len(y)/n))
	}
	return nil
}

// Infer runs n samples through the network. x holds them one after the other, in the
// order of the model's ONNX input (C, H, W). The result has the network's outputs in that
// order. On any error nothing of the batch is returned, and the pads that it took are
// gone. It takes the pads of the whole batch before anything is sent, and none if ctx has
// ended by then.
func (ss *Session) Infer(ctx context.Context, x []float32, n int) ([]float32, error) {
	if have, err := ss.secret.net.samples(x); err != nil {
		return nil, err
	} else if have != n {
		return nil, fmt.Errorf("%w: %d samples, want %d", ErrInput, have, n)
	}
	ctx, leave, err := ss.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if ctx.Err() != nil { // pads that are taken do not come back
		return nil, stopped(ctx)
	}
	padded := ss.secret.padded()
	var stocked []sheet
	if padded {
		if stocked, err = ss.stock.take(n, ss.options.RequireStock); err != nil {
			return nil, err
		}
	}
	ss.filler.wake()
	in, each := ss.secret.net.Input.Len(), ss.secret.net.shapes[ss.secret.net.Output].Len()
	out := make([]float32, n*each)
	blocks, blocksCtx := errgroup.WithContext(ctx)
	blocks.SetLimit(ss.parts)
	part := ss.PartSize(n)
	for i, k := 0, 0; i < n && blocksCtx.Err() == nil; i += k {
		sh := sheet{n: min(n-i, part)}
		switch {
		case len(stocked) > 0 && stocked[0].n > part:
			if sh, err = stocked[0].cut(part); err != nil {
				return nil, errors.Join(err, blocks.Wait())
			}
		case len(stocked) > 0:
			sh, stocked = stocked[0], stocked[1:]
		}
		k = sh.n
		blocks.Go(func() error {
			y, err := ss.infer(blocksCtx, x[i*in:(i+k)*in], i, sh)
			copy(out[i*each:], y)
			return err
		})
	}
	if err := blocks.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, stopped(ctx)
	}
	if err := checkOutputs(out, n); err != nil {
		return nil, err
	}
	ss.samples.Add(int64(n))
	return out, nil
}

// pipelined is how many parts of a batch are in work at once where Options does not say.
const pipelined = 2

// infer runs one block of a batch, which begins with the batch's sample first, with
// the pads of sh or, where there are none, with new ones.
func (ss *Session) infer(ctx context.Context, x []float32, first int, sh sheet) ([]float32, error) {
	n := sh.n
	if ss.secret.padded() && sh.pads == nil {
		var err error
		if sh, err = ss.newPads(ctx, n); err != nil {
			return nil, err
		}
		ss.onTheSpot.Add(int64(n))
	}
	return ss.secret.net.run(x, n, func(l int, x []float32) ([]float32, error) {
		y, err := ss.layer(ctx, l, x, first, n, sh)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
		return y, nil
	})
}

// layer computes layer l of n samples where it is placed, with its pads of sh.
func (ss *Session) layer(ctx context.Context, l int, x []float32, first, n int, sh sheet) ([]float32, error) {
	layer := &ss.secret.layers[l]
	if layer.kept() {
		return ss.keep(ctx, l, x, first, n)
	}
	var pads *transform.Pads
	if ss.secret.padded() {
		pads = sh.pads[layer.at]
	}
	return ss.repeat(ctx, l, x, first, n, pads)
}

// keep computes layer l of n samples on the host. The first is the batch's sample first.
func (ss *Session) keep(ctx context.Context, l int, x []float32, first, n int) ([]float32, error) {
	layer := &ss.secret.layers[l]
	y, err := inClear(ctx, ss.secret.ring, ss.products[l], ss.secret.net.layers[l].Plan(), ss.scales[l], layer.xmax, x, first, n)
	if err != nil && ctx.Err() != nil {
		err = stopped(ctx)
	}
	if err != nil {
		return nil, err
	}
	ss.kept.Add(int64(n))
	return y, nil
}

// multiply computes layer l of n samples: W x + bias, by the clouds, checked, to
// memory of floats. The first is the batch's sample first. With one role it sends what
// it masked again, as long as there are tries.
func (ss *Session) multiply(ctx context.Context, l int, x []float32, first, n int, pads *transform.Pads, tries *attempts) ([]float32, error) {
	layer := &ss.secret.layers[l]
	call, err := layer.masks.MaskFloats(x, n, layer.xmax, layer.key, pads)
	if err != nil {
		return nil, badActivations(err, first)
	}
	defer call.Close()
	asked := ss.asked()
	answers, err := ss.evaluate(ctx, l, call.Masked(), asked)
	for err != nil && len(asked) == 1 {
		if err := tries.again(ctx, err); err != nil {
			return nil, err
		}
		ss.retried.Add(1)
		asked = ss.asked()
		answers, err = ss.evaluate(ctx, l, call.Masked(), asked)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, yhat := range answers {
			answered.Put(yhat.Data)
		}
	}()
	candidate, err := call.UnmaskDecoded(answers)
	if err != nil {
		return nil, err
	}
	y := floats.Get(n * layer.masks.Op().OutLen())
	err = layer.key.OpenFloats(y, candidate, call.Expected(), call.Scales(), ss.scales[l])
	ss.checked.Add(int64(n))
	if err != nil {
		floats.Put(y)
		return nil, ss.reject(ctx, err, l, first, call, answers, asked)
	}
	return y, nil
}

// What follows lends memory to calls, one kind to each, of all sessions: memory that
// is new to the process takes longer to write than what there is to compute.
var (
	// floats are values of networks. They never leave the host.
	floats pool.Of[float32]
	// answered are the words of answers. Those of a call that failed are left to the
	// garbage collector: answers may still be written there.
	answered pool.Of[uint32]
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

// loadRoles loads what each role holds, once where that is what the role before holds.
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

// blame returns err as that of a role's cloud.
func blame(asked []*Client, role int, err error) error {
	return &CloudError{Role: role, Addr: asked[role].addr, Err: err, cloud: asked[role]}
}

// errOther ends the wait for one role's answer when another one's failed.
var errOther = errors.New("hostclient: another role failed")

// evaluate has every role's cloud of those asked multiply its masked input with layer
// l's weights, all at once. The first that fails ends the call.
func (ss *Session) evaluate(ctx context.Context, l int, masked []transform.Masked, asked []*Client) ([]ring.Matrix, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, ss.options.Timeout, errHung)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	layer := &ss.secret.layers[l]
	cols := layer.masks.CloudOp().OutLen()
	answers := make([]ring.Matrix, len(masked))
	errs := make([]error, len(masked))
	of := make([]traffic, len(masked))
	start := time.Now()
	var wg sync.WaitGroup
	for role, m := range masked {
		wg.Go(func() {
			answers[role] = ring.Matrix{Rows: m.Rows(), Cols: cols, Data: answered.Get(m.Rows() * cols)}
			t, err := asked[role].evaluate(ctx, ss.secret.ring, ss.secret.digests[role], layer.at, m, answers[role])
			of[role] = t
			if errors.Is(err, errHung) {
				err = ErrTimeout // other parts end because of it, and their streams do not hang
			}
			if err != nil && !errors.Is(err, errOther) {
				errs[role] = blame(asked, role, err)
				fail(errOther)
			}
		})
	}
	wg.Wait()
	ss.waited.Add(int64(time.Since(start)))
	var longest traffic
	for _, t := range of {
		ss.up.Add(t.up)
		ss.down.Add(t.down)
		if t.compute > longest.compute {
			longest = t
		}
	}
	ss.queued.Add(int64(longest.queue))
	ss.computed.Add(int64(longest.compute))
	return answers, errors.Join(errs...)
}

// Stats are a session's counters.
type Stats struct {
	Samples   int64 `json:"samples"`     // inferred without error
	Checked   int64 `json:"checked"`     // products (one a layer and sample) checked
	Rejected  int64 `json:"rejected"`    // of them, wrong
	Kept      int64 `json:"kept"`        // products that the host computed itself
	BytesUp   int64 `json:"bytes_up"`    // payload sent
	BytesDown int64 `json:"bytes_down"`  // payload received
	Stock     int   `json:"stock"`       // samples that pads are in stock for
	OnTheSpot int64 `json:"on_the_spot"` // samples whose pads were made during Infer
	Retried   int64 `json:"retried"`     // calls made again

	// Elapsed time of calls, one per layer and part of a batch, summed even where parts
	// overlap: from masked words to the words of all answers. Queued and Computed are
	// reported by the cloud that computed longest, and each counts for at most what its
	// call took.
	Waited   time.Duration `json:"waited_ns"`
	Queued   time.Duration `json:"queued_ns"`   // until its product began
	Computed time.Duration `json:"computed_ns"` // in products
}

// Stats returns the counters.
func (ss *Session) Stats() Stats {
	return Stats{
		Samples:   ss.samples.Load(),
		Checked:   ss.checked.Load(),
		Rejected:  ss.rejected.Load(),
		Kept:      ss.kept.Load(),
		BytesUp:   ss.up.Load(),
		BytesDown: ss.down.Load(),
		Stock:     ss.stock.size(),
		OnTheSpot: ss.onTheSpot.Load(),
		Retried:   ss.retried.Load(),
		Waited:    time.Duration(ss.waited.Load()),
		Queued:    time.Duration(ss.queued.Load()),
		Computed:  time.Duration(ss.computed.Load()),
	}
}
