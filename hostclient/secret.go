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

// Secret is what the host alone knows of a sealed network. It prints redacted.
type Secret struct {
	scheme  transform.Scheme
	ring    ring.Ring
	digests []sealed.Digest // one a role
	net     *network        // without weights of linear operators
	layers  []layer         // one a linear operator
	stock   padstock.Key    // that durable stocks are encrypted under; schemes with pads only

	providers  [][]string // by role; nil where none has one yet, and for schemes of one role
	recipients []string   // public keys that its file is encrypted to; nil where they are not known
}

// layer is what the host knows of one linear operator, beside its shape and bias.
type layer struct {
	masks *transform.Layer
	key   *verify.Key
	scale []float32 // one a row of the weight matrix
	xmax  int32     // largest magnitude of a quantised input
}

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
const (
	secretKey     = "securenets.secret"
	secretVersion = 1
	maxSecret     = 1 << 32 // bytes, of plaintext
	ageIntro      = "age-encryption.org/v1\n"
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
}

// marshal returns the plaintext of a file that is encrypted to the recipients.
func (s *Secret) marshal(to []age.Recipient) ([]byte, error) {
	structure, err := graph.EncodeStructure(s.net.Graph)
	if err != nil {
		return nil, err
	}
	h := secretHeader{
		Version: secretVersion, Scheme: s.scheme.String(), Ring: s.ring.Primes(),
		Providers: s.providers, Recipients: publicKeys(to),
	}
	for _, d := range s.digests {
		h.Digests = append(h.Digests, d.String())
	}
	f := safetensors.File{Tensors: []safetensors.Tensor{safetensors.New("structure", structure, len(structure))}}
	if s.scheme.Inputs == transform.InputPad {
		f.Tensors = append(f.Tensors, safetensors.New("stock", s.stock[:], len(s.stock)))
	}
	for l, layer := range s.layers {
		h.XMax = append(h.XMax, layer.xmax)
		name := func(s string) string { return strconv.Itoa(l) + "." + s }
		f.Tensors = append(f.Tensors, safetensors.New(name("scale"), layer.scale, len(layer.scale)))
		if st := layer.masks.State(); s.scheme.Weights == transform.WeightPermute {
			f.Tensors = append(f.Tensors,
				safetensors.New(name("D"), st.D, len(st.D)), safetensors.New(name("F"), st.F, len(st.F)),
				safetensors.New(name("E"), st.E, len(st.E)), safetensors.New(name("U"), st.U, len(st.U)))
		}
		vs, vv := layer.key.Vectors()
		f.Tensors = append(f.Tensors,
			safetensors.New(name("S"), vs, len(vs)), safetensors.New(name("V"), vv, len(vv)))
	}
	header, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	f.Metadata = map[string]string{secretKey: string(header)}
	return f.Marshal()
}

// tensors hands out a file's tensors in order. After the first error it hands
// out nothing.
type tensors struct {
	left []safetensors.Tensor
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
	v, err := safetensors.Values[T](t.left[0])
	t.left, t.err = t.left[1:], err
	return v
}

// unmarshalSecret reads the plaintext of a secret file. It may come from
// someone who knows the recipient alone, so nothing in it is trusted. Its errors
// hold no content.
func unmarshalSecret(b []byte) (*Secret, error) {
	f, err := safetensors.Parse(b)
	if err != nil {
		return nil, errors.New("content is not a safetensors file") // the error may quote it
	}
	var h secretHeader
	text := []byte(f.Metadata[secretKey])
	if json.Unmarshal(text, &h) != nil || len(f.Metadata) != 1 {
		return nil, errors.New("no readable header")
	}
	if h.Version != secretVersion {
		return nil, fmt.Errorf("format version %d, want %d", h.Version, secretVersion)
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(text, again) {
		return nil, errors.New("header is not in the form that is written")
	}
	s := &Secret{providers: h.Providers, recipients: h.Recipients}
	if s.scheme, err = transform.ParseScheme(h.Scheme); err != nil {
		return nil, errors.New("unknown scheme")
	}
	if s.ring, err = ring.New(h.Ring...); err != nil {
		return nil, err
	}
	if len(h.Digests) != s.scheme.Roles() {
		return nil, fmt.Errorf("%d digests for %d roles", len(h.Digests), s.scheme.Roles())
	}
	if err := checkProviders(h.Providers, s.scheme.Roles()); err != nil {
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
	t := &tensors{left: f.Tensors}
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
	for l, linear := range s.net.layers {
		layer, err := s.restore(t, l, linear.Plan(), h.XMax[l])
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
		s.layers = append(s.layers, layer)
	}
	if len(t.left) != 0 {
		return nil, errors.New("more tensors than layers have")
	}
	return s, nil
}

// restore reads layer l.
func (s *Secret) restore(t *tensors, l int, op plan.Op, xmax int32) (layer, error) {
	name := func(s string) string { return strconv.Itoa(l) + "." + s }
	scale := next[float32](t, name("scale"))
	st := transform.LayerState{Op: op}
	if s.scheme.Weights == transform.WeightPermute {
		st.D, st.F = next[uint32](t, name("D")), next[uint32](t, name("F"))
		st.E, st.U = next[uint32](t, name("E")), next[uint32](t, name("U"))
	}
	vs, vv := next[uint64](t, name("S")), next[uint64](t, name("V"))
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
	return layer{masks: masks, key: key, scale: scale, xmax: xmax}, nil
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
	b, err := s.marshal(to)
	if err != nil {
		return fmt.Errorf("hostclient: write secret: %w", err)
	}
	enc, err := age.Encrypt(w, to...)
	if err != nil {
		return fmt.Errorf("hostclient: encrypt secret: %w", err)
	}
	if _, err := enc.Write(b); err != nil {
		return fmt.Errorf("hostclient: write secret: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("hostclient: write secret: %w", err)
	}
	return nil
}

// DecryptSecret reads what Encrypt wrote. Its errors wrap ErrSecret.
func DecryptSecret(r io.Reader, with ...age.Identity) (*Secret, error) {
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
	b, err := io.ReadAll(io.LimitReader(plain, maxSecret+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: damaged: %w", ErrSecret, err)
	case len(b) > maxSecret:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrSecret, int64(maxSecret))
	}
	s, err := unmarshalSecret(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	return s, nil
}

// Description is what a secret says of its network, for the host's eyes.
type Description struct {
	Scheme    string              `json:"scheme"`
	Guarantee transform.Guarantee `json:"guarantee"`
	Digests   []string            `json:"digests"`             // hex, one a role
	Providers [][]string          `json:"providers,omitempty"` // by role; left out where none has one for good
	Input     [3]int              `json:"input"`               // C, H, W
	Output    int                 `json:"output"`
	Layers    []LayerDescription  `json:"layers"`
}

// LayerDescription describes one operator, linear or not.
type LayerDescription struct {
	Name      string `json:"name"`            // of the operator
	Shape     string `json:"shape"`           // of its output
	Cloud     string `json:"cloud,omitempty"` // what the cloud evaluates; empty where the host computes it
	XMax      int32  `json:"x_max,omitempty"` // largest magnitude of a quantised input
	MulAdds   int64  `json:"mul_adds"`        // a sample, in each cloud
	WordsUp   int64  `json:"words_up"`        // a sample, to all clouds; a seed in their place is not counted
	WordsDown int64  `json:"words_down"`      // a sample, from all clouds
}

// Describe returns the description.
func (s *Secret) Describe() Description {
	in, out := s.net.Input, s.net.shapes[s.net.Output]
	d := Description{
		Scheme:    s.scheme.String(),
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
		if _, ok := node.Op.(graph.Linear); ok {
			layer := s.layers[l]
			op, rows := layer.masks.CloudOp(), int64(layer.masks.CloudRows(1))
			ld.Cloud = op.String()
			if rows > 1 {
				ld.Cloud = fmt.Sprintf("%v, %d rows", op, rows)
			}
			ld.XMax = layer.xmax
			ld.MulAdds = rows * op.MulAdds()
			ld.WordsUp, ld.WordsDown = rows*int64(op.InLen()), int64(s.scheme.Roles())*rows*int64(op.OutLen())
			l++
		}
		d.Layers = append(d.Layers, ld)
	}
	return d
}
