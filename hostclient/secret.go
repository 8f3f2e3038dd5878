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
	"github.com/securenets/securenets/internal/padstock"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// Secret is what only the host knows of a sealed network. It prints redacted.
type Secret struct {
	*content // also in fields of others that are not exported, where fmt calls no Format
}

// content is that of a Secret.
type content struct {
	scheme  transform.Scheme
	ring    ring.Ring
	digests []sealed.Digest // one a role
	net     *network        // without weights of linear operators
	layers  []layer         // one a linear operator
	sent    []int           // the layers that clouds evaluate, in the order of the sealed model
	links   []LinkCost      // the first is what layers were placed by; nil where none was measured
	stock   padstock.Key    // that durable stocks are encrypted under; schemes with pads only

	providers  [][]string // by role; nil where none has one yet, and for schemes of one role
	recipients []string   // public keys that its file is encrypted to; nil where they are not known
}

// layer is what the host knows of one linear operator, beside its shape and bias.
type layer struct {
	scale []float32 // one a row of the weight matrix
	xmax  int32     // largest magnitude of a quantised input

	// Of a layer that clouds evaluate.
	masks *transform.Layer
	key   *verify.Key
	at    int // its place in the sealed model

	weights *ring.Matrix // of a layer that the host keeps, W as words; else nil
	cost    *LayerCost   // nil where it was not measured
}

func (l *layer) kept() bool { return l.weights != nil }

// number numbers the layers that are sent, once it is known of all where they are.
func (s *Secret) number() {
	s.sent = nil
	for l := range s.layers {
		if layer := &s.layers[l]; !layer.kept() {
			layer.at = len(s.sent)
			s.sent = append(s.sent, l)
		}
	}
}

// Roles returns how many clouds the network needs, which is also how many sealed models
// it has: as many as its scheme has roles, or none if the host keeps every layer.
func (s *Secret) Roles() int {
	if len(s.sent) == 0 {
		return 0
	}
	return s.scheme.Roles()
}

// padded reports whether calls need pads.
func (s *Secret) padded() bool { return s.scheme.Inputs == transform.InputPad && len(s.sent) > 0 }

// Format prints the secret redacted, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "hostclient.Secret(redacted)") }

// checkSize returns ErrTooLarge for an operator of which one row of a batch does
// not fit a message.
func checkSize(r ring.Ring, op plan.Op) error {
	if rowsPerMessage(op.InLen()*r.WordBytes(), op.OutLen()*r.WordBytes()) == 0 {
		return fmt.Errorf("%w: %v", ErrTooLarge, op)
	}
	return nil
}

// A secret file is a safetensors file, encrypted by age. The metadata has
// secretHeader as JSON under secretKey. The tensors, one-dimensional, are
// "structure" (U8, graph.EncodeStructure's bytes), "stock" (U8, the key of durable
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
	structure, err := graph.EncodeStructure(s.net.Graph)
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
	add(&f, "structure", structure)
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
	structure := next[uint8](t, "structure")
	if t.err != nil {
		return nil, t.err
	}
	g, err := graph.DecodeStructure(structure)
	if err != nil {
		return nil, err
	}
	if s.net, err = newNetwork(g); err != nil {
		return nil, err
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
			return nil, fmt.Errorf("digest %d is none", i)
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
	if intro, _ := file.Peek(len(ageIntro)); string(intro) != ageIntro {
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

// Description is what a secret says of its network, for the host's eyes.
type Description struct {
	Scheme    string              `json:"scheme"`
	Ring      string              `json:"ring"`       // a Ring, or its modulus
	WordBytes int                 `json:"word_bytes"` // of a word that is sent
	Guarantee transform.Guarantee `json:"guarantee"`
	Digests   []string            `json:"digests"`             // hex, one a role
	Providers [][]string          `json:"providers,omitempty"` // by role; left out where none has one for good
	Input     [3]int              `json:"input"`               // C, H, W
	Output    int                 `json:"output"`
	Layers    []LayerDescription  `json:"layers"`
	// Placement sums up the costs of all layers; nil where they were not measured.
	Placement *Placement `json:"placement,omitempty"`
}

// Placement is what the linear layers of a network cost the host per sample, as sealing
// measured it: CPU time in nanoseconds.
type Placement struct {
	AllOnline  int64 `json:"all_online_ns"`  // were every layer sent
	AllOffline int64 `json:"all_offline_ns"` // and for its pads
	Online     int64 `json:"online_ns"`      // as they are placed
	Offline    int64 `json:"offline_ns"`
	// Links are the costs of sending: first those that decided the placement, then those
	// of another way to use the same socket. It is empty if they were not kept: an
	// earlier version measured only a unix socket.
	Links []LinkCost `json:"links,omitempty"`
}

// LayerDescription describes one operator, linear or not.
type LayerDescription struct {
	Name      string `json:"name"`            // of the operator
	Shape     string `json:"shape"`           // of its output
	Cloud     string `json:"cloud,omitempty"` // what the cloud evaluates; empty where the host computes it
	Kept      bool   `json:"kept,omitempty"`  // it is linear, and the host computes it
	XMax      int32  `json:"x_max,omitempty"` // largest magnitude of a quantised input
	MulAdds   int64  `json:"mul_adds"`        // a sample, in each cloud or on the host
	WordsUp   int64  `json:"words_up"`        // a sample, to all clouds; a seed in their place is not counted
	WordsDown int64  `json:"words_down"`      // a sample, from all clouds
	// Cost is why a linear layer is where it is; nil where that was not measured.
	Cost *LayerCost `json:"cost,omitempty"`
}

// Describe returns the description.
func (s *Secret) Describe() Description {
	in, out := s.net.Input, s.net.shapes[s.net.Output]
	d := Description{
		Scheme:    s.scheme.String(),
		Ring:      ringOf(s.ring),
		WordBytes: s.ring.WordBytes(),
		Guarantee: s.scheme.Guarantee(),
		Providers: s.providers,
		Input:     [3]int{in.C, in.H, in.W},
		Output:    out.Len(),
	}
	for _, digest := range s.digests {
		d.Digests = append(d.Digests, digest.String())
	}
	l := 0
	for i, node := range s.net.Nodes {
		ld := LayerDescription{Name: node.Op.Name(), Shape: s.net.shapes[i+1].String()}
		if linear, ok := node.Op.(graph.Linear); ok {
			layer := s.layers[l]
			ld.XMax, ld.MulAdds, ld.Kept = layer.xmax, linear.Plan().MulAdds(), layer.kept()
			if !ld.Kept {
				op, rows := layer.masks.CloudOp(), int64(layer.masks.CloudRows(1))
				ld.Cloud = op.String()
				if rows > 1 {
					ld.Cloud = fmt.Sprintf("%v, %d rows", op, rows)
				}
				ld.WordsUp = int64(s.scheme.WordRoles()) * rows * int64(op.InLen())
				ld.WordsDown = int64(s.scheme.Roles()) * rows * int64(op.OutLen())
			}
			if layer.cost != nil {
				cost := *layer.cost
				ld.Cost = &cost
				d.Placement = d.Placement.plus(cost, ld.Kept)
			}
			l++
		}
		d.Layers = append(d.Layers, ld)
	}
	if d.Placement != nil {
		d.Placement.Links = slices.Clone(s.links)
	}
	return d
}

// plus returns p, nil for none, with another layer.
func (p *Placement) plus(c LayerCost, kept bool) *Placement {
	if p == nil {
		p = &Placement{}
	}
	p.AllOnline += c.Send()
	p.AllOffline += c.Pads
	if kept {
		p.Online += c.Keep
	} else {
		p.Online += c.Send()
		p.Offline += c.Pads
	}
	return p
}
