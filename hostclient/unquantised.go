package hostclient

import (
	"context"
	"fmt"
	"io"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/ring"
)

// Unquantised runs a network as its model has it, in float32 and on this machine alone: results to
// compare quantised ones with. It may be used by several goroutines at once, each of which holds the
// weights of one layer at a time.
type Unquantised struct{ net *network }

// Format prints it redacted, whatever the verb.
func (*Unquantised) Format(f fmt.State, _ rune) {
	io.WriteString(f, "hostclient.Unquantised(redacted)")
}

// NewUnquantised prepares the model, which must stay open.
func (m *ModelFile) NewUnquantised(ctx context.Context) (*Unquantised, error) {
	nw, _, err := prepare(ctx, ring.Ring{}, m.file.Graph, SealOptions{}) // without samples it needs no ring
	if err != nil {
		return nil, fmt.Errorf("hostclient: unquantised: %w", err)
	}
	return &Unquantised{nw}, nil
}

// Output returns the sizes of a sample's output: C, H, W, where H is 1 if the model has two dimensions.
func (u *Unquantised) Output() [3]int {
	out := u.net.shapes[u.net.Output]
	return [3]int{out.C, out.H, out.W}
}

// Infer is Session.Infer in float32. It reads the weights anew for every block of samples.
func (u *Unquantised) Infer(ctx context.Context, x []float32, n int) ([]float32, error) {
	weights := u.net.oneLayer()
	return u.net.infer(x, n, func() ([]float32, error) {
		return u.net.inBlocks(x, n, func(l, _, k int, x []float32) ([]float32, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			linear := u.net.layers[l]
			w, err := weights.read(linear)
			if err != nil {
				return nil, err
			}
			y := floats.Get(k * linear.Plan().OutLen())
			graph.Multiply(linear, w, y, k, x)
			return y, nil
		})
	})
}
