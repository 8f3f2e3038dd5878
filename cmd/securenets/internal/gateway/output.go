package gateway

import (
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/few"
)

// Output is one of a network's outputs, of floats.
type Output struct {
	Name  string
	Shape []int // of a sample
}

// OutputsOf returns the outputs of a network. One that is alone is a vector, and has one name for
// all networks.
func OutputsOf(d hostclient.Description) (outputs []Output) {
	for _, out := range d.Outputs {
		outputs = append(outputs, Output{out.Name, out.Shape})
	}
	if outputs == nil {
		outputs = []Output{{outputName, []int{d.Output}}}
	}
	return outputs
}

func (o *Output) elements() int {
	n := 1
	for _, d := range o.Shape {
		n *= d
	}
	return n
}

// shape returns that of a tensor of n samples, or of any number, -1.
func (o *Output) shape(n int) []int64 {
	shape := []int64{int64(n)}
	for _, d := range o.Shape {
		shape = append(shape, int64(d))
	}
	return shape
}

// requested returns the numbers of the outputs of those names. None stand for all.
func (m *Model) requested(names []string) (which []int, err error) {
	for _, name := range names {
		i := slices.IndexFunc(m.Outputs, func(o Output) bool { return o.Name == name })
		if i < 0 {
			return nil, refusal(codes.InvalidArgument, "no output %.64q: model %s has %s", name, m.Name, m.outputNames())
		}
		if slices.Contains(which, i) {
			return nil, refusal(codes.InvalidArgument, "two outputs %q", name)
		}
		which = append(which, i)
	}
	if which == nil {
		for i := range m.Outputs {
			which = append(which, i)
		}
	}
	return which, nil
}

func (m *Model) outputNames() string {
	return few.Of(m.Outputs, func(o Output) string { return strconv.Quote(o.Name) })
}

// part returns the elements of output i of all samples, whose results are y.
func (m *Model) part(y []float32, i int) []float32 {
	if len(m.Outputs) == 1 {
		return y
	}
	at := 0
	for k := range i {
		at += m.Outputs[k].elements()
	}
	n, each := m.Outputs[i].elements(), m.results()
	part := make([]float32, 0, len(y)/each*n)
	for results := range slices.Chunk(y, each) {
		part = append(part, results[at:at+n]...)
	}
	return part
}
