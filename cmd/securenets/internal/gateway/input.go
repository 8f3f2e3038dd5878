package gateway

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	pb "github.com/securenets/securenets/api/inference"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/few"
)

// Input is one of a network's inputs, a map or a vector of floats or of integers.
type Input struct {
	Name        string
	Shape       [3]int // C, H, W
	Datatype    string // as the protocol has it: FP32, INT64, INT32, UINT8 or BOOL
	Least, Most int    // of integers
}

// datatypes has those of the protocol by those of descriptions.
var datatypes = map[string]string{"float32": datatype, "int64": int64s, "int32": int32s, "uint8": uint8s, "bool": bools}

// InputsOf returns the inputs of a network. One of floats has one name for all networks.
func InputsOf(d hostclient.Description) (inputs []Input) {
	for _, in := range d.Inputs {
		i := Input{Name: in.Name, Shape: in.Shape, Datatype: datatypes[in.Type]}
		if in.Integers != nil {
			i.Least, i.Most = in.Integers[0], in.Integers[1]
		}
		inputs = append(inputs, i)
	}
	if inputs == nil {
		inputs = []Input{{Name: inputName, Shape: d.Input, Datatype: datatype}}
	}
	return inputs
}

func (in *Input) elements() int { return in.Shape[0] * in.Shape[1] * in.Shape[2] }

// dims returns the extents of a sample: those of a map, or one of a vector.
func (in *Input) dims() []int64 {
	if in.Shape[1]*in.Shape[2] == 1 {
		return []int64{int64(in.Shape[0])}
	}
	return []int64{int64(in.Shape[0]), int64(in.Shape[1]), int64(in.Shape[2])}
}

// samples returns how many samples a tensor of a request holds. A map may come as a vector, and
// one of one row without it: their order is one.
func (in *Input) samples(of string, shape []int64) (int, error) {
	if of != in.Datatype {
		return 0, refusal(codes.InvalidArgument, "input %q of %.16q: want %s", in.Name, of, in.Datatype)
	}
	all := int64(in.elements())
	if len(shape) >= 2 && shape[0] >= 1 && shape[0] <= maxElements/all {
		each, dims := shape[1:], in.dims()
		if slices.Equal(each, dims) || slices.Equal(each, []int64{all}) || in.Shape[1] == 1 && len(dims) == 3 && slices.Equal(each, []int64{dims[0], dims[2]}) {
			return int(shape[0]), nil
		}
	}
	return 0, refusal(codes.InvalidArgument, "input %q of shape %.64s: want %v, with a number of samples before it", in.Name, fmt.Sprint(shape), in.dims())
}

// given is one input of a request: so many samples, and what reads their elements.
type given struct {
	name     string
	datatype string
	shape    []int64
	// read returns the elements, of which so many are expected. It may return others.
	read func(in *Input, elements int) ([]float32, error)
}

// gather returns the samples of a request, each with its inputs one after the other, and
// their number.
func (m *Model) gather(request []given) (x []float32, n int, err error) {
	parts := make([][]float32, len(m.Inputs))
	first := ""
	for _, r := range request {
		i := slices.IndexFunc(m.Inputs, func(in Input) bool { return in.Name == r.name })
		if i < 0 {
			return nil, 0, refusal(codes.InvalidArgument, "an input %.64q: model %s takes %s", r.name, m.Name, m.inputNames())
		}
		in := &m.Inputs[i]
		if parts[i] != nil {
			return nil, 0, refusal(codes.InvalidArgument, "two inputs %q", in.Name)
		}
		k, err := in.samples(r.datatype, r.shape)
		if err != nil {
			return nil, 0, err
		}
		if first == "" {
			n, first = k, in.Name
		} else if k != n {
			return nil, 0, refusal(codes.InvalidArgument, "%d samples of input %q and %d of input %q", n, first, k, in.Name)
		}
		part, err := r.read(in, n*in.elements())
		if err != nil {
			return nil, 0, err
		}
		if len(part) != n*in.elements() {
			return nil, 0, refusal(codes.InvalidArgument, "%d elements in input %q, its shape has %d", len(part), in.Name, n*in.elements())
		}
		parts[i] = part
	}
	for i, part := range parts {
		if part == nil {
			return nil, 0, refusal(codes.InvalidArgument, "no input %q: model %s takes %s", m.Inputs[i].Name, m.Name, m.inputNames())
		}
	}
	if len(parts) == 1 {
		return parts[0], n, nil
	}
	x = make([]float32, 0, n*m.elements())
	for range n {
		for i := range parts {
			k := m.Inputs[i].elements()
			x, parts[i] = append(x, parts[i][:k]...), parts[i][k:]
		}
	}
	return x, n, nil
}

func (m *Model) inputNames() string {
	return few.Of(m.Inputs, func(in Input) string { return strconv.Quote(in.Name) })
}

// place says which element one is.
func (in *Input) place(i int) string {
	return fmt.Sprintf("element %d of input %q of sample %d", i%in.elements(), in.Name, i/in.elements())
}

// notInteger refuses element i. It does not say what it is: ids are an application's secrets.
func (in *Input) notInteger(i int) error {
	return refusal(codes.InvalidArgument, "%s is no integer of %d to %d", in.place(i), in.Least, in.Most)
}

// finite refuses NaN and infinities.
func (in *Input) finite(x []float32) ([]float32, error) {
	if i := slices.IndexFunc(x, func(v float32) bool { return v-v != 0 }); i >= 0 {
		return nil, refusal(codes.InvalidArgument, "%s is not finite", in.place(i))
	}
	return x, nil
}

// integers returns them as floats, which have all that an input may hold.
func integers[T int32 | int64 | uint8 | uint32](in *Input, v []T) ([]float32, error) {
	x := make([]float32, len(v))
	for i, v := range v {
		if int64(v) < int64(in.Least) || int64(v) > int64(in.Most) {
			return nil, in.notInteger(i)
		}
		x[i] = float32(v)
	}
	return x, nil
}

// raw returns what little-endian bytes hold.
func (in *Input) raw(b []byte) ([]float32, error) {
	switch in.Datatype {
	case int64s:
		v, err := decode[int64](in, b, 8)
		if err != nil {
			return nil, err
		}
		return integers(in, v)
	case int32s:
		v, err := decode[int32](in, b, 4)
		if err != nil {
			return nil, err
		}
		return integers(in, v)
	case uint8s:
		return integers(in, b)
	case bools:
		x := make([]float32, len(b))
		for i, v := range b {
			if v > 1 {
				return nil, in.notInteger(i)
			}
			x[i] = float32(v)
		}
		return x, nil
	}
	x, err := decode[float32](in, b, 4)
	if err != nil {
		return nil, err
	}
	return in.finite(x)
}

func decode[T float32 | int32 | int64](in *Input, b []byte, size int) ([]T, error) {
	x := make([]T, len(b)/size)
	if n, err := binary.Decode(b, binary.LittleEndian, x); err != nil || n < len(b) {
		return nil, refusal(codes.InvalidArgument, "%d bytes of %s in input %q", len(b), in.Datatype, in.Name)
	}
	return x, nil
}

// contents returns those of a gRPC request.
func (in *Input) contents(c *pb.InferTensorContents) ([]float32, error) {
	own := map[string]int{int64s: len(c.GetInt64Contents()), int32s: len(c.GetIntContents()), uint8s: len(c.GetUintContents()), bools: len(c.GetBoolContents()), datatype: len(c.GetFp32Contents())}
	all := len(c.GetUint64Contents()) + len(c.GetFp64Contents()) + len(c.GetBytesContents())
	for _, n := range own {
		all += n
	}
	if all != own[in.Datatype] {
		return nil, refusal(codes.InvalidArgument, "contents of another type than %s in input %q", in.Datatype, in.Name)
	}
	switch in.Datatype {
	case int64s:
		return integers(in, c.GetInt64Contents())
	case int32s:
		return integers(in, c.GetIntContents())
	case uint8s:
		return integers(in, c.GetUintContents())
	case bools:
		x := make([]float32, len(c.GetBoolContents()))
		for i, v := range c.GetBoolContents() {
			if v {
				x[i] = 1
			}
		}
		return x, nil
	}
	return in.finite(c.GetFp32Contents())
}

// numbers returns those of a JSON array, or of arrays in one, in their order; n are expected.
// Text is valid JSON, or nothing.
func (in *Input) numbers(n int, text string) ([]float32, error) {
	if !strings.HasPrefix(text, "[") {
		return nil, refusal(codes.InvalidArgument, "the data of input %q is not an array", in.Name)
	}
	x := make([]float32, 0, min(n, len(text)/2))
	for i := 0; i < len(text); {
		c := text[i]
		if strings.IndexByte("[], \t\r\n", c) >= 0 {
			i++
			continue
		}
		end := i + 1
		for end < len(text) && strings.IndexByte("],\t\r\n ", text[end]) < 0 {
			end++
		}
		word := text[i:end]
		v, err := 0., error(nil)
		switch number := c == '-' || '0' <= c && c <= '9'; {
		case in.Datatype == bools && (word == "true" || word == "false"):
			if word == "true" {
				v = 1
			}
		case !number:
			return nil, refusal(codes.InvalidArgument, "the data of input %q holds something other than %s", in.Name, in.elementNames())
		case in.Datatype == datatype:
			if v, err = strconv.ParseFloat(word, 32); err != nil {
				return nil, refusal(codes.InvalidArgument, "%.32q in the data of input %q is out of the range of %s", word, in.Name, datatype)
			}
		default:
			k, err := strconv.ParseInt(word, 10, 64)
			if err != nil || k < int64(in.Least) || k > int64(in.Most) {
				return nil, in.notInteger(len(x))
			}
			v = float64(k)
		}
		x, i = append(x, float32(v)), end
	}
	return x, nil
}

func (in *Input) elementNames() string {
	switch in.Datatype {
	case datatype:
		return "numbers"
	case bools:
		return "true and false"
	}
	return "integers"
}
