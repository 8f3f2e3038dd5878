package onnx

import (
	"errors"
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/few"
	"github.com/securenets/securenets/internal/graph"
)

// ErrOutput reports an output that a model does not have.
var ErrOutput = errors.New("onnx: no such output")

// Options say how a model is read.
type Options struct {
	Sizes Sizes
	// Outputs names those that are read; of none all of floats are, or all where there are none
	// of floats. If that leaves out an output, it leaves out all operators and inputs that those
	// read do not depend on, supported or not.
	Outputs []string
}

// choose leaves the graph the outputs that Options.Outputs names, in its own order, and the
// nodes and inputs that they depend on.
func (g *graphProto) choose(names []string) error {
	chosen := slices.Clone(g.outputs)
	if len(names) > 0 {
		chosen = slices.DeleteFunc(chosen, func(v valueInfo) bool { return !slices.Contains(names, v.name) })
	} else if slices.ContainsFunc(chosen, func(v valueInfo) bool { return v.kind == typeFloat }) {
		chosen = slices.DeleteFunc(chosen, func(v valueInfo) bool { return v.kind != typeFloat })
	}
	for _, name := range names {
		if !slices.ContainsFunc(chosen, func(v valueInfo) bool { return v.name == name }) {
			all := few.There(g.outputs, func(v valueInfo) string { return clean(v.name) })
			return fmt.Errorf("%w: none is named %s: %s", ErrOutput, clean(name), all)
		}
	}
	if len(chosen) == len(g.outputs) {
		return nil
	}
	g.outputs = chosen
	needed := map[string]bool{}
	for _, v := range chosen {
		needed[v.name] = true
	}
	var nodes []node // from the last on
	for i := len(g.nodes) - 1; i >= 0; i-- {
		if slices.ContainsFunc(g.nodes[i].outputs, func(name string) bool { return needed[name] }) {
			nodes = append(nodes, g.nodes[i])
			for _, name := range g.nodes[i].inputs {
				needed[name] = name != "" // an input that is left out is nobody's output
			}
		}
	}
	slices.Reverse(nodes)
	g.nodes = nodes
	read := slices.DeleteFunc(slices.Clone(g.inputs), func(v valueInfo) bool { return !needed[v.name] })
	if len(read) > 0 { // else the outputs are constant, which is said of them
		g.inputs = read
	}
	return nil
}

// readOutputs sets the graph's output: a value, or the elements of several, one after the other.
func (p *parser) readOutputs(outputs []valueInfo) error {
	if len(outputs) == 1 {
		x, err := p.output(outputs[0].name)
		if err != nil {
			return err
		}
		if rank := x.rank(); rank < 2 || rank > len(canonical) {
			x, _, err = p.flat(x)
			p.graph.Output = x.value
			return err
		}
		x, ok, err := p.settled(x)
		if err == nil && !ok {
			err = acrossSamples()
		}
		if err != nil {
			return err
		}
		x, err = p.ordered(x)
		p.graph.Output = x.value
		return err
	}
	flat := make([]operand, len(outputs))
	for i, v := range outputs {
		x, err := p.output(v.name)
		if err != nil {
			return err
		}
		r := graph.Result{Name: v.name}
		if flat[i], r.Dims, err = p.flat(x); err != nil {
			return err
		}
		p.graph.Results = append(p.graph.Results, r)
	}
	x, err := p.apply(graph.Outputs{}, axesC, flat...)
	p.graph.Output = x.value
	return err
}

// flat returns x as a vector of a sample's elements in the model's order, and a sample's dimensions.
func (p *parser) flat(x operand) (operand, []int, error) {
	s, ok := p.samplesFirst(x.view())
	if !ok {
		return x, nil, acrossSamples()
	}
	if x.split != nil {
		x.split = s
	}
	dims := []int{}
	for _, d := range s.sizes()[1:] {
		dims = append(dims, int(d.n))
	}
	x, err := p.flattened(x)
	if err != nil {
		return x, dims, err
	}
	if x, ok, err = p.settled(x); err == nil && !ok {
		err = acrossSamples()
	}
	if err != nil {
		return x, dims, err
	}
	x, err = p.ordered(x)
	return x, dims, err
}

func acrossSamples() error { return &UnsupportedError{[]string{"output across samples"}} }

// output returns an output, with the batch first where it has a dimension of its own: a recurrent
// layer's states have it second.
func (p *parser) output(name string) (operand, error) {
	x := p.operands[name]
	switch {
	case !x.known:
		return x, fmt.Errorf("%w: output %s is constant", ErrInvalid, clean(name))
	case x.truth != nil:
		return x, &UnsupportedError{[]string{"output of a comparison"}}
	case x.whole:
		return x, &UnsupportedError{[]string{"output of integers"}}
	case x.wide != nil:
		return x, &UnsupportedError{[]string{"output of what is expanded"}}
	case x.masked:
		return x, &UnsupportedError{[]string{"output of infinities"}}
	}
	if x.split != nil {
		if dim, _ := x.split.samples(); dim > 0 && len(x.split.dims[dim]) == 1 {
			x = p.turned(x, append([]int{dim}, x.split.others(dim)...))
		}
	}
	return x, nil
}
