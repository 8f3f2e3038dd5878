// Package sealed reads and writes the file that the cloud of one role gets: masked weights
// and the plan, nothing of which is secret from it. It is a safetensors file with numbered
// U32 tensors ("0", "1", ...) and the plan as JSON under the metadata key
// "securenets.plan". A model is named by the SHA-256 of its bytes. See docs/spec.md,
// section 7.
//
//	{"version": 1, "ring": [251, 241, 239, 233], "ops": [
//	  {"conv2d": {"in": [28, 28, 1], "out": 20, "kernel": [5, 5], "stride": [1, 1],
//	              "dilation": [1, 1], "padding": [0, 0, 0, 0], "groups": 1}},
//	  {"dense": {"in": 800, "out": 500}}]}
//
// Input maps are H, W, C; padding is top, left, bottom, right. A plan has exactly one
// encoding: keys in this order, no white space, nothing else.
package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

const (
	version = 1
	planKey = "securenets.plan"
	// wordBytes is the size of a U32, whatever the ring's words are on the wire.
	wordBytes = 4
)

// ErrInvalid reports bytes that are not a sealed model.
var ErrInvalid = errors.New("sealed: invalid model")

// Digest names a sealed model: the SHA-256 of its bytes.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the digest in hex, for logs.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Sum returns the digest of a model's bytes.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// SumOf reads a model to its end and returns its digest and its size in bytes.
func SumOf(r io.Reader) (Digest, int64, error) {
	sum := sha256.New()
	size, err := io.Copy(sum, r)
	return Digest(sum.Sum(nil)), size, err
}

// Model is a sealed model: one masked weight matrix per operator.
type Model struct {
	Plan    plan.Plan
	Weights []ring.Matrix // Plan.Ops[i].Rows() x Plan.Ops[i].Terms(), canonical
}

// planJSON and the types below it are the plan's encoding.
type planJSON struct {
	Version int      `json:"version"`
	Ring    []uint32 `json:"ring"`
	Ops     []opJSON `json:"ops"`
}

// opJSON has exactly one field set.
type opJSON struct {
	Dense  *denseJSON  `json:"dense,omitempty"`
	Conv2D *conv2dJSON `json:"conv2d,omitempty"`
}

type denseJSON struct {
	In  int `json:"in"`
	Out int `json:"out"`
}

type conv2dJSON struct {
	In       [3]int `json:"in"` // H, W, C
	Out      int    `json:"out"`
	Kernel   [2]int `json:"kernel"`
	Stride   [2]int `json:"stride"`
	Dilation [2]int `json:"dilation"`
	Padding  [4]int `json:"padding"` // top, left, bottom, right
	Groups   int    `json:"groups"`
}

func encodePlan(p plan.Plan) ([]byte, error) {
	j := planJSON{Version: version, Ring: p.Ring.Primes(), Ops: make([]opJSON, len(p.Ops))}
	for i, o := range p.Ops {
		switch c := o.Conv; o.Kind {
		case plan.KindDense:
			j.Ops[i].Dense = &denseJSON{In: o.In, Out: o.Out}
		case plan.KindConv2D:
			j.Ops[i].Conv2D = &conv2dJSON{
				In: [3]int{c.H, c.W, c.C}, Out: c.OutC, Kernel: [2]int{c.KH, c.KW},
				Stride: [2]int{c.SH, c.SW}, Dilation: [2]int{c.DH, c.DW},
				Padding: [4]int{c.Top, c.Left, c.Bot, c.Right}, Groups: c.Groups,
			}
		}
	}
	return json.Marshal(j)
}

func decodePlan(b []byte) (plan.Plan, error) {
	var j planJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // names the key
	if err := d.Decode(&j); err != nil {
		return plan.Plan{}, err
	}
	if j.Version != version {
		return plan.Plan{}, fmt.Errorf("version %d, want %d", j.Version, version)
	}
	r, err := ring.New(j.Ring...)
	if err != nil {
		return plan.Plan{}, err
	}
	p := plan.Plan{Ring: r, Ops: make([]plan.Op, len(j.Ops))}
	for i, o := range j.Ops {
		switch {
		case o.Dense != nil && o.Conv2D == nil:
			p.Ops[i] = plan.Dense(o.Dense.In, o.Dense.Out)
		case o.Conv2D != nil && o.Dense == nil:
			c := o.Conv2D
			p.Ops[i] = plan.Conv(plan.Conv2D{
				H: c.In[0], W: c.In[1], C: c.In[2], OutC: c.Out, KH: c.Kernel[0], KW: c.Kernel[1],
				SH: c.Stride[0], SW: c.Stride[1], DH: c.Dilation[0], DW: c.Dilation[1],
				Top: c.Padding[0], Left: c.Padding[1], Bot: c.Padding[2], Right: c.Padding[3],
				Groups: c.Groups,
			})
		default:
			return plan.Plan{}, fmt.Errorf("operator %d does not have exactly one kind", i)
		}
	}
	if err := p.Validate(); err != nil {
		return plan.Plan{}, err
	}
	// Decoding accepts duplicate keys, other spellings and short arrays. Comparing with the
	// plan's only encoding refuses them.
	if again, err := encodePlan(p); err != nil || !bytes.Equal(again, b) {
		return plan.Plan{}, errors.New("the plan is not in canonical encoding")
	}
	return p, nil
}

// Marshal returns the model's bytes, which depend on the model alone. It refuses, with
// ring's and plan's errors, a model that Parse would not accept.
func (m *Model) Marshal() ([]byte, error) {
	if err := m.Plan.Validate(); err != nil {
		return nil, err
	}
	if len(m.Weights) != len(m.Plan.Ops) {
		return nil, fmt.Errorf("%w: %d matrices for %d operators", ErrInvalid, len(m.Weights), len(m.Plan.Ops))
	}
	w, err := NewWriter(m.Plan)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(w.Size()))
	if err := w.Begin(&b); err != nil {
		return nil, err
	}
	for i, op := range m.Plan.Ops {
		if err := m.Weights[i].Want(fmt.Sprintf("weights of operator %d", i), op.Rows(), op.Terms()); err != nil {
			return nil, err
		}
		if err := w.Write(m.Weights[i]); err != nil {
			return nil, err
		}
	}
	if _, err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Writer writes a model some rows at a time.
type Writer struct {
	plan    plan.Plan
	head    []byte
	size    int64
	to      io.Writer // the file and sum
	sum     hash.Hash
	op, row int // next to be written
}

// NewWriter returns a writer of a model with the given plan. Its errors are those of Marshal.
func NewWriter(p plan.Plan) (*Writer, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	text, err := encodePlan(p)
	if err != nil {
		return nil, err
	}
	f := safetensors.File{Metadata: map[string]string{planKey: string(text)}}
	for i, op := range p.Ops {
		f.Tensors = append(f.Tensors, safetensors.Bare[uint32](strconv.Itoa(i), op.Rows(), op.Terms()))
	}
	head, size, err := f.Head()
	if err != nil {
		return nil, err
	}
	return &Writer{plan: p, head: head, size: int64(len(head)) + int64(size)}, nil
}

// Size returns the size of the model in bytes.
func (w *Writer) Size() int64 { return w.size }

// Begin writes the header to a file, to which Write then writes the rows.
func (w *Writer) Begin(file io.Writer) error {
	w.sum = sha256.New()
	w.to = io.MultiWriter(file, w.sum)
	_, err := w.to.Write(w.head)
	return err
}

// Write writes the next rows: row-major, canonical, all of one operator. Its errors are
// Marshal's, or the file's.
func (w *Writer) Write(rows ring.Matrix) error {
	if w.op == len(w.plan.Ops) || rows.Rows > w.plan.Ops[w.op].Rows()-w.row {
		return fmt.Errorf("%w: more rows than the plan has", ErrInvalid)
	}
	op, what := w.plan.Ops[w.op], fmt.Sprintf("weights of operator %d", w.op)
	if err := rows.Want(what, rows.Rows, op.Terms()); err != nil {
		return err
	}
	if err := w.plan.Ring.CheckCanonical(rows.Data); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if w.row += rows.Rows; w.row == op.Rows() {
		w.op, w.row = w.op+1, 0
	}
	return safetensors.Write(w.to, rows.Data)
}

// Close returns the digest of the model, or an error if rows are missing.
func (w *Writer) Close() (Digest, error) {
	if w.op != len(w.plan.Ops) {
		return Digest{}, fmt.Errorf("%w: the rows end at row %d of operator %d", ErrInvalid, w.row, w.op)
	}
	return Digest(w.sum.Sum(nil)), nil
}

// Parse reads a model from untrusted bytes; it allocates about as much memory as they
// take. Every error wraps ErrInvalid.
func Parse(b []byte) (*Model, error) {
	r, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	m := &Model{Plan: r.Plan(), Weights: make([]ring.Matrix, len(r.Plan().Ops))}
	for i := range m.Weights {
		if m.Weights[i], err = r.Next(nil); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Reader reads a model's matrices one after the other, from untrusted bytes. Their digest is
// known only at the end: see Sum.
type Reader struct {
	plan plan.Plan
	from io.Reader // reads the file, and feeds sum
	sum  hash.Hash
	op   int // next to be read
}

// NewReader reads the plan of a model of size bytes, as ReadPlan does.
func NewReader(r io.Reader, size int64) (*Reader, error) {
	sum := sha256.New()
	m := &Reader{from: io.TeeReader(r, sum), sum: sum}
	var err error
	m.plan, err = ReadPlan(m.from, size)
	return m, err
}

// Plan returns the model's plan.
func (r *Reader) Plan() plan.Plan { return r.plan }

// Next returns the matrix of the next operator, in the given memory if that is large enough.
// It must not be called after the last one. Errors wrap ErrInvalid, or are the file's.
func (r *Reader) Next(memory []uint32) (ring.Matrix, error) {
	// ReadPlan has compared the plan's sizes with the size of the file, which bounds what is
	// allocated here.
	op := r.plan.Ops[r.op]
	w := ring.Matrix{Rows: op.Rows(), Cols: op.Terms()}
	if n := w.Rows * w.Cols; cap(memory) < n {
		w.Data = make([]uint32, n)
	} else {
		w.Data = memory[:n]
	}
	const most = 1 << 14 // words at a time
	b := make([]byte, wordBytes*min(most, len(w.Data)))
	for left := w.Data; len(left) > 0; {
		n := min(most, len(left))
		if _, err := io.ReadFull(r.from, b[:wordBytes*n]); err != nil {
			return ring.Matrix{}, cut(err)
		}
		for k := range n {
			left[k] = binary.LittleEndian.Uint32(b[wordBytes*k:])
		}
		left = left[n:]
	}
	if err := r.plan.Ring.CheckCanonical(w.Data); err != nil {
		return ring.Matrix{}, fmt.Errorf("%w: tensor %d: %w", ErrInvalid, r.op, err)
	}
	r.op++
	return w, nil
}

// Sum returns the digest of the model, once the last matrix was read.
func (r *Reader) Sum() Digest { return Digest(r.sum.Sum(nil)) }

// ReadPlan reads the plan of a model of size bytes from its beginning, at most 1 MiB. It
// checks everything that Parse checks, except the words. Neither checks the digest.
// Errors wrap ErrInvalid, or are r's.
func ReadPlan(r io.Reader, size int64) (plan.Plan, error) {
	b, err := safetensors.ReadHead(r)
	if err != nil {
		return plan.Plan{}, cut(err)
	}
	f, err := safetensors.ParseHead(b, int(size))
	if err == nil {
		var p plan.Plan
		if p, err = planOf(f); err == nil {
			return p, nil
		}
	}
	return plan.Plan{}, fmt.Errorf("%w: %w", ErrInvalid, err)
}

// cut wraps ErrInvalid around an early end of a file.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrInvalid, io.ErrUnexpectedEOF)
	}
	return err
}

// planOf returns the plan of a file, after checking that the file's tensors match it.
func planOf(f *safetensors.File) (plan.Plan, error) {
	text, ok := f.Metadata[planKey]
	if !ok || len(f.Metadata) != 1 {
		return plan.Plan{}, errors.New("metadata is not a plan alone")
	}
	p, err := decodePlan([]byte(text))
	if err != nil {
		return plan.Plan{}, err
	}
	if len(f.Tensors) != len(p.Ops) {
		return plan.Plan{}, fmt.Errorf("%d tensors for %d operators", len(f.Tensors), len(p.Ops))
	}
	for i, t := range f.Tensors {
		op := p.Ops[i]
		if t.Name != strconv.Itoa(i) || t.DType != safetensors.U32 ||
			len(t.Shape) != 2 || t.Shape[0] != op.Rows() || t.Shape[1] != op.Terms() {
			return plan.Plan{}, fmt.Errorf("tensor %d is %.32q, %s %.64s, want %s [%d %d]",
				i, t.Name, t.DType, fmt.Sprint(t.Shape), safetensors.U32, op.Rows(), op.Terms())
		}
	}
	return p, nil
}
