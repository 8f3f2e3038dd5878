package hostclient

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/transform"
)

// Description is what a secret says of its network, for the host's eyes.
type Description struct {
	Scheme    string              `json:"scheme"`
	Ring      string              `json:"ring"`       // a Ring, or its modulus
	WordBytes int                 `json:"word_bytes"` // of a word that is sent
	Guarantee transform.Guarantee `json:"guarantee"`
	Digests   []string            `json:"digests"`             // hex, one a role
	Providers [][]string          `json:"providers,omitempty"` // by role; left out where none has one for good
	Input     [3]int              `json:"input"`               // C, H, W; of all inputs one after the other, where there are several
	Inputs    []InputDescription  `json:"inputs,omitempty"`    // of several, or of one of integers; else left out
	Output    int                 `json:"output"`              // elements, of all outputs
	Outputs   []OutputDescription `json:"outputs,omitempty"`   // of several; else left out
	Layers    []LayerDescription  `json:"layers"`
	// Placement sums up the costs of all layers; nil where they were not measured.
	Placement *Placement `json:"placement,omitempty"`
}

// InputDescription describes one of a network's inputs.
type InputDescription struct {
	Name  string `json:"name"`
	Shape [3]int `json:"shape"` // C, H, W
	Type  string `json:"type"`  // of elements: "float32", "int64", "int32", "uint8" or "bool"
	// Integers are the least and the largest that an element may be; nil for floats.
	Integers *[2]int `json:"integers,omitempty"`
}

// describeInputs returns what the inputs of a graph are, if it is not one of floats.
func describeInputs(g *graph.Graph) (inputs []InputDescription) {
	for _, p := range g.Parts {
		d := InputDescription{Name: p.Name, Shape: [3]int{p.Shape.C, p.Shape.H, p.Shape.W}, Type: "float32"}
		if p.From != p.Below {
			d.Type, d.Integers = cmp.Or(p.Type, "int64"), &[2]int{p.From, p.Below - 1}
		}
		inputs = append(inputs, d)
	}
	return inputs
}

// OutputDescription describes one of a network's outputs.
type OutputDescription struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"` // of a sample, as the model has it; empty for a single number
}

// Elements returns how many a sample has.
func (o OutputDescription) Elements() int {
	n := 1
	for _, d := range o.Shape {
		n *= d
	}
	return n
}

// describeOutputs returns what the outputs of a graph are, if there are several.
func describeOutputs(g *graph.Graph) (outputs []OutputDescription) {
	for _, r := range g.Results {
		outputs = append(outputs, OutputDescription{r.Name, append([]int{}, r.Dims...)})
	}
	return outputs
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
		Inputs:    describeInputs(s.net.Graph),
		Outputs:   describeOutputs(s.net.Graph),
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
