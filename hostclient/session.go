package hostclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
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
	Multiplier Multiplier
	// RequireStock makes Infer return ErrNoPads when the stock has too few pads for the whole
	// batch; otherwise it makes pads on the spot, and Stats counts them.
	RequireStock bool
	// Stock keeps the pads that Precompute makes on disk. Nil: the stock lives in
	// memory and dies with the session.
	Stock *DurableStock
	// Timeout bounds the wait for one layer's answers, in each try. Zero: 30 s. When it
	// passes, whether or not the caller still waits, the session goes on to a spare if it has
	// one, and the connection may be given up for everything that uses the client: a Push
	// in progress then fails, and resumes where it stopped when it is called again.
	Timeout time.Duration
	// Retries is how often a layer's call is repeated, at most, if a cloud cannot be
	// reached, does not answer in time or as it should, refuses for the time being, or
	// lies. A spare is asked if there is one, else the same cloud after a pause: of 20 ms at first,
	// doubled each time up to 2 s, or as long as the cloud asks for within these. A cloud
	// that lied is not asked again. No pad serves twice: see docs/threat-model.md. Zero:
	// never.
	Retries int
	// Retrying is called with why a call failed before it is repeated, and with the pause until then,
	// 0 if a spare is asked. Several goroutines may call it at once. It must not close the session.
	Retrying func(err error, pause time.Duration)
	// Spares are further clouds for each role, which have its sealed model too. A spare
	// replaces a cloud that failed, for the rest of the session. Its provider is bound to
	// its role like any other. The caller closes them.
	Spares [][]*Client
	// Parts is how many parts of a batch are in flight at once: while the clouds compute
	// a layer of one part, the host works on another, and with more processors on
	// several. Zero: 2.
	Parts int
	// PadMemory is how many bytes of pads the session keeps in stock, at most; it makes more in
	// the background once a part of them is used, or too few for a batch are left.
	// Secret.PadBytes says what a sample takes. Zero: only those of Precompute.
	PadMemory int64
	// PadError is called when pads cannot be made in the background, each time before a longer
	// pause. It must not close the session. Nil: ErrNoPads and Close alone say why.
	PadError func(error)
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
	files, err := s.inDir(dir)
	if err != nil {
		return nil, err
	}
	return open(ctx, s, files, clients, o)
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
// pads could not be made in the background, if they could not in the end.
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
		if err := ss.addSheet(ctx, min(n, part)); err != nil {
			return err
		}
	}
	return nil
}

// addSheet adds pads for n samples to the stock, as one sheet.
func (ss *Session) addSheet(ctx context.Context, n int) error {
	sh, err := ss.newPads(ctx, n)
	if err != nil {
		return err
	}
	return ss.stock.add(sh)
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

// pipelined is how many parts of a batch are in work at once where Options does not say.
const pipelined = 2

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
