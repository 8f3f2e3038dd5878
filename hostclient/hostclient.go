// Package hostclient is the trusted side of SecureNets: it seals a network,
// gives the masked weights to untrusted clouds, and runs inference there with
// every product checked.
//
//	sealed, secret, err := hostclient.Seal(ctx, onnxBytes, hostclient.SealOptions{})
//	client, err := hostclient.Dial("unix:/run/securenets/securenetsd.sock")
//	err = client.Push(ctx, sealed[0], nil)
//	session, err := hostclient.Open(ctx, secret, sealed, []*hostclient.Client{client},
//		hostclient.Options{Multiplier: cpu.New(cpu.Options{})}) // of kernels/cpu: pads take products
//	result, err := session.Infer(ctx, images, n)
//
// A large model is sealed from its file to a folder (OpenModel, ModelFile.SealDir), and
// pushed and opened from there (Client.PushFile, ReadSecret, OpenDir), with the weights of
// one layer in memory at a time.
//
// A scheme of several roles has a sealed model and a client for each role; the clouds
// must not collude. Before a model is pushed to a provider, the provider's role is
// written to the secret, for good: secret.Bind(i, client.Provider()).
//
// With PlaceAuto, layers that are cheaper to compute than to send stay on the host;
// secret.Roles then says how many clouds are needed.
package hostclient

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

// Multiplier computes products on the host itself. Package kernels/cpu has one: cpu.New.
type Multiplier = plan.Multiplier

// Digest names a sealed model: the SHA-256 of its bytes.
type Digest = sealed.Digest

// Errors that Infer, Push and the others return, to be told apart with
// errors.Is. A wrong answer is a *verify.RejectedError; what a cloud refused is
// a *RefusedError, or an *AlertError of TLS.
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
	// ErrNoPads: the stock has fewer pads than the batch needs, and Options.RequireStock is
	// set.
	ErrNoPads = errors.New("hostclient: too few pads in stock")
	// ErrSecret: bytes that are not a secret file, or a wrong identity or passphrase.
	ErrSecret = errors.New("hostclient: cannot open secret")
	// ErrSecretVersion: a secret file of a format that this version does not read;
	// beside ErrSecret.
	ErrSecretVersion = errors.New("hostclient: unknown format version")
	// ErrInput: inputs of the wrong length or not finite, or so large that the
	// network's values leave the range of float32. A *SampleError says which sample it is.
	ErrInput = errors.New("hostclient: bad input")
	// ErrTooLarge: one sample of a layer does not fit into a message, or a value or the
	// keys of all layers would take gigabytes of the host's memory.
	ErrTooLarge = errors.New("hostclient: layer too large")
	// ErrMultiplier: the host has to compute something (pads, a calibration, costs, a
	// layer that is kept), and no Multiplier was given.
	ErrMultiplier = errors.New("hostclient: no multiplier")
	// ErrClosed: the session was closed.
	ErrClosed = errors.New("hostclient: session closed")
	// ErrProvider: a provider may not have a role, because it has another one or was
	// never given this one; or ErrOneProvider.
	ErrProvider = errors.New("hostclient: wrong provider")
	// ErrOneProvider: two roles are at one cloud, or at clouds of one provider.
	ErrOneProvider = fmt.Errorf("%w: two roles have one", ErrProvider)
	// ErrRecipients: a secret cannot be written again, because it is not known to whom it
	// was encrypted.
	ErrRecipients = errors.New("hostclient: no recipients of the secret")
	// ErrMismatch: a sealed model is not the one that the secret was made with.
	ErrMismatch = errors.New("hostclient: sealed model does not belong to this secret")
	// ErrRoleFiles: a folder does not have one sealed model for each role: it is an incomplete
	// copy, or also has models of another network.
	ErrRoleFiles = errors.New("hostclient: not one sealed model for each role")
	// ErrInconsistent: a secret whose masks, bounds or check vectors do not fit the sealed
	// models that it was made with: it is damaged, or was not made by sealing.
	ErrInconsistent = errors.New("hostclient: secret does not fit its sealed models")
)

// RefusedError is a cloud's refusal. Its Reason is one of the protocol's, such as
// "MODEL_NOT_FOUND" (docs/spec.md, section 8).
type RefusedError = wire.Error

// AlertError is a TLS alert that a cloud sent: it does not accept the host's certificate,
// say, or has none of the host's versions of TLS. It wraps ErrUnavailable.
type AlertError struct{ Alert tls.AlertError }

func (e *AlertError) Error() string {
	what := "the cloud ended the TLS connection"
	if e.Certificate() {
		what = "the cloud does not accept this host's certificate"
	}
	return fmt.Sprintf("%v: %s: %v", ErrUnavailable, what, e.Alert)
}

func (e *AlertError) Unwrap() error { return ErrUnavailable }

// Certificate reports whether the alert is about the host's certificate (RFC 8446, section 6.2):
// another try would not change that.
func (e *AlertError) Certificate() bool {
	switch e.Alert {
	case 42, 43, 44, 45, 46, 48, 49, 116: // bad_certificate to certificate_unknown, unknown_ca, access_denied, certificate_required
		return true
	}
	return false
}

// SampleError is an ErrInput of one sample of a batch. It names places and no values.
type SampleError struct {
	Sample int // in the batch
	Err    error
}

func (e *SampleError) Error() string {
	return fmt.Sprintf("%v: sample %d: %v", ErrInput, e.Sample, e.Err)
}
func (e *SampleError) Unwrap() []error { return []error{ErrInput, e.Err} }

// CloudError is an error of one cloud. It names the cloud that did not answer, answered
// with something malformed, or lied. It wraps one of the errors above, an
// *AlertError, a *RefusedError or a *verify.RejectedError.
type CloudError struct {
	Role int
	Addr string // as it was given to Dial
	Err  error

	cloud *Client // nil outside of sessions
}

func (e *CloudError) Error() string { return fmt.Sprintf("role %d at %s: %v", e.Role, e.Addr, e.Err) }
func (e *CloudError) Unwrap() error { return e.Err }
