// Package hostclient is the trusted side of SecureNets: it seals a network,
// gives the masked weights to untrusted clouds, and runs inference there with
// every product checked.
//
//	sealed, secret, err := hostclient.Seal(ctx, onnxBytes, hostclient.SealOptions{})
//	client, err := hostclient.Dial("unix:/run/securenets.sock")
//	err = client.Push(ctx, sealed[0], nil)
//	session, err := hostclient.Open(ctx, secret, sealed, []*hostclient.Client{client}, hostclient.Options{...})
//	result, err := session.Infer(ctx, images, n)
package hostclient

import (
	"context"
	"errors"
	"io"
	"time"

	"filippo.io/age"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/transform"
)

var errTODO = errors.New("hostclient: not written yet")

// Errors that Infer, Push and the others return, to be told apart with
// errors.Is. A wrong answer is a *verify.RejectedError; what a cloud refused is
// a *wire.Error.
var (
	// ErrUnavailable: the cloud cannot be reached, or went away during a call.
	ErrUnavailable = errors.New("hostclient: cloud unavailable")
	// ErrTimeout: the cloud did not answer in time.
	ErrTimeout = errors.New("hostclient: no answer in time")
	// ErrBadAnswer: an answer is malformed: its length, a word that is not
	// canonical, or an id that was not asked for.
	ErrBadAnswer = errors.New("hostclient: malformed answer")
	// ErrQuarantined: an earlier answer of this cloud was wrong; it is not asked again.
	ErrQuarantined = errors.New("hostclient: cloud quarantined after a wrong answer")
	// ErrNoPads: the stock of pads is empty and Options.RequireStock is set.
	ErrNoPads = errors.New("hostclient: no pads in stock")
	// ErrSecret: bytes that are not a secret file, or a wrong identity or passphrase.
	ErrSecret = errors.New("hostclient: cannot open secret")
	// ErrInput: inputs of the wrong length or not finite.
	ErrInput = errors.New("hostclient: bad input")
	// ErrMismatch: a sealed model that is not the one the secret was made with.
	ErrMismatch = errors.New("hostclient: sealed model does not belong to this secret")
)

// SealOptions are the choices made at sealing. The zero value is the default
// scheme, calibrated without data.
type SealOptions struct {
	Scheme transform.Scheme // zero: transform.DefaultScheme
	// Calibration holds samples as Infer takes them, from which the bits of
	// each layer's activations are chosen. Without any, they are chosen for
	// normally distributed activations.
	Calibration []float32
	// Multiplier computes the calibration's products; needed with Calibration.
	Multiplier plan.Multiplier
	// Progress is called as work goes on, from one goroutine. May be nil.
	Progress func(done, total int)
}

// SealedModel is the file for one role's cloud: public to that cloud.
type SealedModel struct {
	Role   int
	Digest sealed.Digest
	Bytes  []byte
}

// Seal reads an ONNX model, quantises and masks its linear layers, and returns
// one sealed model a role and the secret that belongs to them.
func Seal(ctx context.Context, onnx []byte, o SealOptions) ([]SealedModel, *Secret, error) {
	return nil, nil, errTODO
}

// Secret is what the host alone knows of a sealed network. It prints redacted.
type Secret struct{}

// Encrypt writes the secret, encrypted to the recipients.
func (s *Secret) Encrypt(w io.Writer, to ...age.Recipient) error { return errTODO }

// DecryptSecret reads what Encrypt wrote. Its errors wrap ErrSecret.
func DecryptSecret(r io.Reader, with ...age.Identity) (*Secret, error) { return nil, errTODO }

// Description is what a secret says of its network, for the host's eyes.
type Description struct {
	Scheme    string              `json:"scheme"`
	Guarantee transform.Guarantee `json:"guarantee"`
	Digests   []string            `json:"digests"` // hex, one a role
	Input     [3]int              `json:"input"`   // C, H, W
	Output    int                 `json:"output"`
	Layers    []LayerDescription  `json:"layers"`
}

// LayerDescription describes one operator, linear or not.
type LayerDescription struct {
	Name      string `json:"name"`            // of the operator
	Shape     string `json:"shape"`           // of its output
	Cloud     string `json:"cloud,omitempty"` // what the cloud evaluates; empty where the host computes it
	XMax      int32  `json:"x_max,omitempty"` // largest magnitude of a quantised input
	MulAdds   int64  `json:"mul_adds"`        // a sample, in the cloud
	WordsUp   int64  `json:"words_up"`        // a sample
	WordsDown int64  `json:"words_down"`
}

// Describe returns the description.
func (s *Secret) Describe() Description { return Description{} }

// Client is a connection to one cloud. It may be used by several goroutines at once.
type Client struct{}

// Dial returns a client of the daemon at addr ("unix:/path"). It connects when first used.
func Dial(addr string) (*Client, error) { return nil, errTODO }

// Addr returns the address given to Dial.
func (c *Client) Addr() string { return "" }

// Push uploads a sealed model, from where an earlier upload stopped. Progress
// may be nil.
func (c *Client) Push(ctx context.Context, m SealedModel, progress func(done, total int64)) error {
	return errTODO
}

// Model is a model that a cloud holds.
type Model struct {
	Digest string `json:"digest"` // hex
	Bytes  int64  `json:"bytes"`
	Layers int    `json:"layers"`
}

// Models lists the models that the cloud holds for this caller.
func (c *Client) Models(ctx context.Context) ([]Model, error) { return nil, errTODO }

// Remove removes a model.
func (c *Client) Remove(ctx context.Context, d sealed.Digest) error { return errTODO }

// Info is what a cloud says of itself.
type Info struct {
	Version string `json:"version"`
	Backend string `json:"backend"`
	Serving bool   `json:"serving"` // its health service says so
}

// Info asks the cloud for its version, backend and health.
func (c *Client) Info(ctx context.Context) (Info, error) { return Info{}, errTODO }

// Close closes the connection.
func (c *Client) Close() error { return nil }

// Options are the choices of a session.
type Options struct {
	// Multiplier computes pads; needed by schemes with pads.
	Multiplier plan.Multiplier
	// RequireStock makes Infer return ErrNoPads when the stock runs dry;
	// otherwise it makes pads on the spot, and Stats counts them.
	RequireStock bool
	// Timeout bounds the wait for one layer's answers. Zero: 30 s.
	Timeout time.Duration
}

// Session runs inference of one sealed network. It may be used by several
// goroutines at once.
type Session struct{}

// Open checks that the sealed models belong to the secret and returns a session
// that asks clients[i] for role i. The clients stay the caller's to close.
func Open(ctx context.Context, s *Secret, models []SealedModel, clients []*Client, o Options) (*Session, error) {
	return nil, errTODO
}

// Infer runs n samples through the network. x holds them one after the other, in
// the order of the model's ONNX input (C, H, W). The result has the network's
// outputs in that order. On any error nothing of the batch is returned; pads
// that it took are gone.
func (s *Session) Infer(ctx context.Context, x []float32, n int) ([]float32, error) {
	return nil, errTODO
}

// Precompute adds pads for n samples to the stock, which lives in memory and dies
// with the process. It does nothing under schemes without pads.
func (s *Session) Precompute(ctx context.Context, n int) error { return errTODO }

// Stats are a session's counters.
type Stats struct {
	Samples   int64 `json:"samples"`     // inferred without error
	Checked   int64 `json:"checked"`     // products (one a layer and sample) checked
	Rejected  int64 `json:"rejected"`    // of them, wrong
	BytesUp   int64 `json:"bytes_up"`    // payload sent
	BytesDown int64 `json:"bytes_down"`  // payload received
	Stock     int   `json:"stock"`       // samples that pads are in stock for
	OnTheSpot int64 `json:"on_the_spot"` // samples whose pads were made during Infer
}

// Stats returns the counters.
func (s *Session) Stats() Stats { return Stats{} }

// Close discards the stock.
func (s *Session) Close() error { return nil }
