package hostclient

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"filippo.io/age"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// A secret file is a safetensors file, encrypted by age. The metadata has
// secretHeader as JSON under secretKey. The tensors, one-dimensional, are
// "constant.0", "constant.1" and so on (F32, those of graph.EncodeShared; files written before
// have them in the structure), "structure" (U8, its bytes), "table.0", "table.1" and so on (F32,
// row-major, those of embeddings in order), "stock" (U8, the key of durable
// stocks; InputPad only) and, for layer l in order,
//
//	l.scale F32 · l.D l.F l.E l.U U32 (WeightPermute only) · l.S l.V U64
//
// or, for a layer that is kept,
//
//	l.scale F32 · l.W U32 (row-major words)
//
// Version 1 sends all layers and knows no costs; version 2 has Placement.
const (
	secretKey    = "securenets.secret"
	secretAll    = 1
	secretPlaced = 2
	maxSecret    = 1 << 32 // bytes, of plaintext
	ageIntro     = "age-encryption.org/v1\n"
)

// constantName returns the name of long constant i.
func constantName(i int) string { return "constant." + strconv.Itoa(i) }

// tableName returns the name of the table of embedding i.
func tableName(i int) string { return "table." + strconv.Itoa(i) }

type secretHeader struct {
	Version int      `json:"version"`
	Scheme  string   `json:"scheme"`
	Ring    []uint32 `json:"ring"`
	Digests []string `json:"digests"`
	XMax    []int32  `json:"x_max"`
	// By role; left out where none is bound.
	Providers [][]string `json:"providers,omitempty"`
	// Whom the file is encrypted to; left out where that is not a list of public keys.
	Recipients []string `json:"recipients,omitempty"`
	// By layer; version 2 only.
	Placement []placedLayer `json:"placement,omitempty"`
	// What sending was measured to cost, as Placement has it; version 2 only.
	Links []LinkCost `json:"links,omitempty"`
}

// placedLayer says where a layer is, and what was measured for that.
type placedLayer struct {
	Kept bool `json:"kept"`
	LayerCost
}

// marshal writes the plaintext of a file that is encrypted to the recipients.
func (s *Secret) marshal(w io.Writer, to []age.Recipient) error {
	structure, shared, err := graph.EncodeShared(s.net.Graph)
	if err != nil {
		return err
	}
	h := secretHeader{
		Version: secretAll, Scheme: s.scheme.String(), Ring: s.ring.Primes(),
		Providers: s.providers, Recipients: publicKeys(to), Links: s.links,
	}
	for _, d := range s.digests {
		h.Digests = append(h.Digests, d.String())
	}
	var f vectors
	for i, v := range shared {
		add(&f, constantName(i), v)
	}
	add(&f, "structure", structure)
	for i, e := range s.net.Embeddings() {
		add(&f, tableName(i), e.Table)
	}
	if s.scheme.Inputs == transform.InputPad {
		add(&f, "stock", s.stock[:])
	}
	for l, layer := range s.layers {
		h.XMax = append(h.XMax, layer.xmax)
		name := func(s string) string { return strconv.Itoa(l) + "." + s }
		add(&f, name("scale"), layer.scale)
		if layer.cost != nil {
			h.Version = secretPlaced
			h.Placement = append(h.Placement, placedLayer{layer.kept(), *layer.cost})
		}
		if layer.kept() {
			add(&f, name("W"), layer.weights.Data)
			continue
		}
		if st := layer.masks.State(); s.scheme.Weights == transform.WeightPermute {
			add(&f, name("D"), st.D)
			add(&f, name("F"), st.F)
			add(&f, name("E"), st.E)
			add(&f, name("U"), st.U)
		}
		vs, vv := layer.key.Vectors()
		add(&f, name("S"), vs)
		add(&f, name("V"), vv)
	}
	header, err := json.Marshal(h)
	if err != nil {
		return err
	}
	f.Metadata = map[string]string{secretKey: string(header)}
	head, _, err := f.Head()
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, write := range f.write {
		if err := write(w); err != nil {
			return err
		}
	}
	return nil
}

// vectors are a file's tensors, whose elements are written from where they are.
type vectors struct {
	safetensors.File
	write []func(io.Writer) error // one a tensor
}

// add appends a tensor.
func add[T safetensors.Element](f *vectors, name string, v []T) {
	f.Tensors = append(f.Tensors, safetensors.Bare[T](name, len(v)))
	f.write = append(f.write, func(w io.Writer) error { return safetensors.Write(w, v) })
}

// tensors hands out a file's tensors in order, as they are read. After the first error it
// hands out nothing.
type tensors struct {
	left []safetensors.Tensor
	file io.Reader
	err  error
}

// next returns the next tensor's elements, which must have the name given.
func next[T safetensors.Element](t *tensors, name string) []T {
	if t.err != nil {
		return nil
	}
	if len(t.left) == 0 || t.left[0].Name != name || len(t.left[0].Shape) != 1 {
		t.err = fmt.Errorf("no vector %s in its place", name)
		return nil
	}
	v, err := safetensors.Read[T](t.file, t.left[0])
	t.left, t.err = t.left[1:], err
	return v
}

// unmarshalSecret reads the plaintext of a secret file, at most most bytes, to its end. It
// may come from someone who knows the recipient alone, so nothing in it is trusted. Its
// errors hold no content.
func unmarshalSecret(r io.Reader, most int64) (*Secret, error) {
	head, err := safetensors.ReadHead(r)
	var f *safetensors.File
	if err == nil {
		f, err = safetensors.ParseHeadOf(head, int(most))
	}
	if err != nil {
		return nil, errors.New("content is not a safetensors file") // the error may quote it
	}
	var h secretHeader
	text := []byte(f.Metadata[secretKey])
	if json.Unmarshal(text, &h) != nil || len(f.Metadata) != 1 {
		return nil, errors.New("no readable header")
	}
	if h.Version != secretAll && h.Version != secretPlaced {
		return nil, fmt.Errorf("%w: %d, want %d or %d", ErrSecretVersion, h.Version, secretAll, secretPlaced)
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(text, again) {
		return nil, errors.New("header is not in the form that is written")
	}
	s := &Secret{&content{providers: h.Providers, recipients: h.Recipients, links: h.Links}}
	if s.scheme, err = transform.ParseScheme(h.Scheme); err != nil {
		return nil, errors.New("unknown scheme")
	}
	if s.ring, err = ring.New(h.Ring...); err != nil {
		return nil, err
	}
	t := &tensors{left: f.Tensors, file: r}
	var shared [][]float32
	for len(t.left) > 0 && t.left[0].Name == constantName(len(shared)) && t.err == nil {
		shared = append(shared, next[float32](t, constantName(len(shared))))
	}
	structure := next[uint8](t, "structure")
	if t.err != nil {
		return nil, t.err
	}
	g, err := graph.DecodeShared(structure, shared)
	if err != nil {
		return nil, err
	}
	if s.net, err = newNetwork(g); err != nil {
		return nil, err
	}
	for i, e := range s.net.Embeddings() {
		e.Table = next[float32](t, tableName(i))
		if t.err != nil || len(e.Table) != e.Rows*e.Width {
			return nil, errors.New("a table is missing, or of another size")
		}
		if err := e.Load(); err != nil {
			return nil, err
		}
	}
	if s.scheme.Inputs == transform.InputPad {
		if n := copy(s.stock[:], next[uint8](t, "stock")); n != len(s.stock) {
			return nil, errors.New("no key for durable stocks")
		}
	}
	if len(h.XMax) != len(s.net.layers) {
		return nil, fmt.Errorf("%d input bounds for %d layers", len(h.XMax), len(s.net.layers))
	}
	if placed := len(h.Placement); placed != 0 && placed != len(s.net.layers) || (placed != 0) != (h.Version == secretPlaced) {
		return nil, fmt.Errorf("%d layers are placed, of %d, in version %d", placed, len(s.net.layers), h.Version)
	}
	if !validLinks(h.Links) || len(h.Links) > 0 && h.Version != secretPlaced {
		return nil, errors.New("costs of sending that nobody measured")
	}
	for l, linear := range s.net.layers {
		var p *placedLayer
		if h.Version == secretPlaced {
			p = &h.Placement[l]
		}
		layer, err := s.restore(t, l, linear.Plan(), h.XMax[l], p)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
		s.layers = append(s.layers, layer)
	}
	s.number()
	if len(t.left) != 0 {
		return nil, errors.New("more tensors than layers have")
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 || err != io.EOF { // age tells of damage up to here
		return nil, errors.New("content does not end with the last tensor")
	}
	if len(h.Digests) != s.Roles() {
		return nil, fmt.Errorf("%d digests for %d roles", len(h.Digests), s.Roles())
	}
	if err := checkProviders(h.Providers, s.Roles()); err != nil {
		return nil, err
	}
	s.digests = make([]sealed.Digest, len(h.Digests))
	for i, d := range h.Digests {
		b, err := hex.DecodeString(d)
		if err != nil || len(b) != len(s.digests[i]) {
			return nil, fmt.Errorf("digest %d is not 64 hexadecimal digits", i)
		}
		copy(s.digests[i][:], b)
	}
	return s, nil
}

// restore reads layer l, placed where p says: nil stands for sent.
func (s *Secret) restore(t *tensors, l int, op plan.Op, xmax int32, p *placedLayer) (layer, error) {
	name := func(s string) string { return strconv.Itoa(l) + "." + s }
	scale := next[float32](t, name("scale"))
	kept := p != nil && p.Kept
	st := transform.LayerState{Op: op}
	var w []uint32
	var vs, vv []uint64
	switch {
	case kept:
		w = next[uint32](t, name("W"))
	case s.scheme.Weights == transform.WeightPermute:
		st.D, st.F = next[uint32](t, name("D")), next[uint32](t, name("F"))
		st.E, st.U = next[uint32](t, name("E")), next[uint32](t, name("U"))
		fallthrough
	default:
		vs, vv = next[uint64](t, name("S")), next[uint64](t, name("V"))
	}
	if t.err != nil {
		return layer{}, errors.New("tensors are missing, or not as they are written")
	}
	if xmax < 1 || xmax > s.ring.Max() {
		return layer{}, errors.New("input bound out of range")
	}
	if len(scale) != op.Rows() {
		return layer{}, fmt.Errorf("%d scales for %d rows", len(scale), op.Rows())
	}
	for i, a := range scale {
		if !(a > 0) || a > math.MaxFloat32 {
			return layer{}, fmt.Errorf("scale %d is not positive and finite", i)
		}
	}
	restored := layer{scale: scale, xmax: xmax}
	if p != nil {
		if !p.valid() {
			return layer{}, errors.New("costs that nobody measured")
		}
		restored.cost = &p.LayerCost
	}
	if kept {
		if err := checkKept(s.ring, op, w, xmax); err != nil {
			return layer{}, err
		}
		restored.weights = &ring.Matrix{Rows: op.Rows(), Cols: op.Terms(), Data: w}
		return restored, nil
	}
	// First: S and V are as long as the maps, so what follows takes no more
	// memory than the file has.
	key, err := verify.RestoreKey(verify.DefaultField(), op, vs, vv)
	if err != nil {
		return layer{}, err
	}
	masks, err := transform.RestoreLayer(s.ring, s.scheme, st)
	if err != nil {
		return layer{}, err
	}
	if err := checkSize(s.ring, masks.CloudOp()); err != nil {
		return layer{}, err
	}
	restored.masks, restored.key = masks, key
	return restored, nil
}

// checkKept refuses words that are not the weights of an operator, for inputs of at
// most xmax in magnitude.
func checkKept(r ring.Ring, op plan.Op, words []uint32, xmax int32) error {
	if len(words) != op.Rows()*op.Terms() {
		return fmt.Errorf("%d weights for %d by %d", len(words), op.Rows(), op.Terms())
	}
	if err := r.CheckCanonical(words); err != nil {
		return errors.New("a weight is not canonical")
	}
	w := make([]int32, len(words))
	transform.FromRing(r, w, words)
	return checkBound(r, op, w, xmax)
}

// checkBound refuses weights whose products with inputs of at most xmax in magnitude
// leave the range of the signed lift: (1) of the spec, which quantisation keeps to.
func checkBound(r ring.Ring, op plan.Op, w []int32, xmax int32) error {
	for row := range slices.Chunk(w, op.Terms()) {
		var sum int64 // at most 2^16·2^31
		for _, a := range row {
			v := int64(a)
			sum += max(v, -v)
		}
		if sum > int64(r.Max())/int64(xmax) {
			return errors.New("products leave the ring's range")
		}
	}
	return nil
}

// publicKeys returns the recipients as text that age.ParseRecipients reads, or
// nil unless that can be done with all: the text of a passphrase is none.
func publicKeys(to []age.Recipient) []string {
	var keys []string
	for _, r := range to {
		switch r := r.(type) {
		case *age.X25519Recipient:
			keys = append(keys, r.String())
		case *age.HybridRecipient:
			keys = append(keys, r.String())
		default:
			return nil
		}
	}
	return keys
}

// Encrypt writes the secret, encrypted to the recipients.
func (s *Secret) Encrypt(w io.Writer, to ...age.Recipient) error {
	enc, err := age.Encrypt(w, to...)
	if err != nil {
		return fmt.Errorf("hostclient: encrypt secret: %w", err)
	}
	if err := s.marshal(enc, to); err != nil {
		return fmt.Errorf("hostclient: write secret: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("hostclient: write secret: %w", err)
	}
	return nil
}

// DecryptSecret reads what Encrypt wrote. Its errors wrap ErrSecret.
func DecryptSecret(r io.Reader, with ...age.Identity) (*Secret, error) {
	plain, err := decrypt(r, with)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(plain, maxSecret+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: damaged: %w", ErrSecret, err)
	case len(b) > maxSecret:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrSecret, int64(maxSecret))
	}
	return restored(unmarshalSecret(bytes.NewReader(b), int64(len(b))))
}

// decryptFile is DecryptSecret of a file of size bytes, no vector of which is in memory
// twice.
func decryptFile(r io.Reader, size int64, with []age.Identity) (*Secret, error) {
	plain, err := decrypt(r, with)
	if err != nil {
		return nil, err
	}
	noting := &notingReader{Reader: plain}
	s, err := unmarshalSecret(noting, min(size, maxSecret)) // the plaintext is shorter than the file
	if noting.err != nil {
		return nil, fmt.Errorf("%w: damaged: %w", ErrSecret, noting.err)
	}
	return restored(s, err)
}

// restored returns what unmarshalSecret did, with errors that wrap ErrSecret.
func restored(s *Secret, err error) (*Secret, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	return s, nil
}

// notingReader notes the error that ended reading, unless that is the end.
type notingReader struct {
	io.Reader
	err error
}

func (r *notingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// decrypt returns the plaintext of a file. It is authentic as far as it can be read, and
// whole if it can be to its end.
func decrypt(r io.Reader, with []age.Identity) (io.Reader, error) {
	file := bufio.NewReader(r)
	// What age says of a file that is none may quote it.
	switch intro, err := file.Peek(len(ageIntro)); {
	case err != nil && err != io.EOF:
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	case string(intro) != ageIntro:
		return nil, fmt.Errorf("%w: not a file encrypted by age", ErrSecret)
	}
	plain, err := age.Decrypt(file, with...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, fmt.Errorf("%w: wrong identity or passphrase", ErrSecret)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	return plain, nil
}
