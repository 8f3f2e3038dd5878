package gateway

import (
	"encoding/binary"
	"slices"

	"google.golang.org/grpc/codes"
)

// known refuses parameters of a tensor that say something else of it than these say.
func known[V any](kind, name string, parameters map[string]V, these ...string) error {
	for p := range parameters {
		if !slices.Contains(these, p) {
			return refusal(codes.InvalidArgument, "parameter %.64q of %s %.64q is not supported", p, kind, name)
		}
	}
	return nil
}

// requested refuses names of outputs that there are not. None stand for all.
func (m *Model) requested(names []string) error {
	if len(names) > 1 || len(names) == 1 && names[0] != outputName {
		return refusal(codes.InvalidArgument, "outputs %.64q, the one of model %s is %q", names, m.Name, outputName)
	}
	return nil
}

// bytesOf returns the little-endian bytes of y.
func bytesOf(y []float32) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, y)
	if err != nil {
		panic(err) // floats have a size
	}
	return b
}
