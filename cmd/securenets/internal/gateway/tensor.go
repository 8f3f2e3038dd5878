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

// bytesOf returns the little-endian bytes of y.
func bytesOf(y []float32) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, y)
	if err != nil {
		panic(err) // floats have a size
	}
	return b
}
