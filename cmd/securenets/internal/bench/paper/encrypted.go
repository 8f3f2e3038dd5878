package paper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/internal/graph"
)

// encrypted is CryptoNets' network on encrypted images, by TenSEAL.
type encrypted struct {
	absent string // why nothing below is set; "" where it is

	version                    string
	degree, modulusBits        int
	keyBytes                   int64
	encrypt, evaluate, decrypt measure.Series // milliseconds an image
	up, down                   int64          // bytes of all images
	images, same               int            // of those, with the class of plain float32
}

// errNotCryptoNets reports a network of another shape.
var errNotCryptoNets = errors.New("bench: not CryptoNets' network, which is a convolution of one channel and dense layers, each after a square")

// forTenSEAL returns the network as the script reads it.
func forTenSEAL(g *graph.Graph) (any, error) {
	type dense struct {
		Weights [][]float32 `json:"weights"` // a row an input, a column an output
		Bias    []float32   `json:"bias"`
	}
	var network struct {
		Padding    [4]int        `json:"padding"` // top, left, bottom, right
		Stride     int           `json:"stride"`
		Kernels    [][][]float32 `json:"kernels"`
		KernelBias []float32     `json:"kernel_bias"`
		Dense      []dense       `json:"dense"`
	}
	squares := 0
	for i, node := range g.Nodes {
		switch op := node.Op.(type) {
		case *graph.Conv2D:
			c := op.Geometry
			if i != 0 || c.C != 1 || c.KH != c.KW || c.SH != c.SW || c.DH != 1 || c.DW != 1 {
				return nil, errNotCryptoNets
			}
			network.Padding, network.Stride = [4]int{c.Top, c.Left, c.Bot, c.Right}, c.SH
			for o := range c.OutC {
				row := op.W[o*op.Plan().Terms():][:op.Plan().Terms()]
				network.Kernels = append(network.Kernels, slices.Collect(slices.Chunk(row, c.KW)))
			}
			network.KernelBias = bias(op, c.OutC)
		case *graph.Dense:
			d := dense{Bias: bias(op, op.Out)}
			for j := range op.In {
				row := make([]float32, op.Out)
				for o := range row {
					row[o] = op.W[o*op.In+j]
				}
				d.Weights = append(d.Weights, row)
			}
			network.Dense = append(network.Dense, d)
			if squares != len(network.Dense) {
				return nil, errNotCryptoNets
			}
		case graph.Square:
			squares++
		case graph.Reshape, graph.Softmax: // the order is C, H, W; softmax changes no class
		default:
			return nil, errNotCryptoNets
		}
	}
	if network.Kernels == nil || network.Dense == nil {
		return nil, errNotCryptoNets
	}
	return network, nil
}

// bias returns a layer's biases, zeros where it has none.
func bias(l graph.Linear, n int) []float32 {
	if b := l.Bias(); b != nil {
		return b
	}
	return make([]float32, n)
}

// encrypt runs a few images through TenSEAL.
func (n *network) encrypt(ctx context.Context) (*encrypted, error) {
	e := &encrypted{}
	if n.sc.encrypted == 0 {
		e.absent = "TenSEAL is not measured: --quick leaves it out, as it takes about half a minute per image"
		return e, nil
	}
	network, err := forTenSEAL(n.local.Graph())
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(network)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(n.dir, "network.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, err
	}
	p, err := startPython(ctx, n.Python, "TenSEAL", tensealScript, path)
	if missing := new(missingError); errors.As(err, &missing) {
		e.absent = missing.Error()
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	err = e.run(ctx, n, p)
	if closing := p.close(); err == nil {
		err = closing
	}
	return e, err
}

func (e *encrypted) run(ctx context.Context, n *network, p *python) error {
	var started struct {
		Version     string `json:"version"`
		Degree      int    `json:"degree"`
		ModulusBits int    `json:"modulus_bits"`
		KeysBytes   int64  `json:"keys_bytes"`
	}
	if err := json.Unmarshal(p.started, &started); err != nil {
		return err
	}
	e.version, e.degree, e.modulusBits, e.keyBytes = started.Version, started.Degree, started.ModulusBits, started.KeysBytes
	_, plain, err := n.local.Infer(0)
	if err != nil {
		return err
	}
	images := n.local.Images()
	for i := range n.sc.encrypted {
		n.Progress("TenSEAL", i, n.sc.encrypted)
		var got struct {
			Encrypt  float64   `json:"encrypt_ns"`
			Evaluate float64   `json:"evaluate_ns"`
			Decrypt  float64   `json:"decrypt_ns"`
			Up       int64     `json:"bytes_up"`
			Down     int64     `json:"bytes_down"`
			Scores   []float64 `json:"scores"`
		}
		image := slices.Collect(slices.Chunk(images.Range(i, i+1), images.W))
		if err := p.ask(map[string]any{"image": image}, &got); err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("TenSEAL: %w", err))
		}
		each := len(plain) / n.batch()
		scores := plain[i*each : (i+1)*each]
		if len(got.Scores) != each {
			return fmt.Errorf("TenSEAL: %d scores, want %d", len(got.Scores), each)
		}
		class := slices.Index(got.Scores, slices.Max(got.Scores))
		if class == slices.Index(scores, slices.Max(scores)) {
			e.same++
		}
		e.images++
		e.encrypt, e.evaluate, e.decrypt = append(e.encrypt, got.Encrypt/1e6), append(e.evaluate, got.Evaluate/1e6), append(e.decrypt, got.Decrypt/1e6)
		e.up, e.down = e.up+got.Up, e.down+got.Down
	}
	return nil
}
