package graph

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Floats are many floats, which JSON has as their bytes in base64.
type Floats []float32

// MarshalJSON writes little-endian bytes in base64, or null.
func (v Floats) MarshalJSON() ([]byte, error) {
	if v == nil {
		return []byte("null"), nil
	}
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(b))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Floats) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	if len(b)%4 != 0 {
		return fmt.Errorf("%w: half a float", ErrInvalid)
	}
	if *v = nil; b != nil {
		*v = make(Floats, len(b)/4)
	}
	for i := range *v {
		(*v)[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return nil
}

// Shifts are finite, or negative infinity, as masks of attention have it where a softmax is to
// give 0.
type Shifts []float32

// infinite stands for negative infinity in JSON, which has no number for it.
const infinite = "-inf"

// MarshalJSON writes them as numbers.
func (s Shifts) MarshalJSON() ([]byte, error) {
	if notFinite(s) < 0 {
		return json.Marshal([]float32(s))
	}
	v := make([]any, len(s))
	for i, x := range s {
		if v[i] = x; negativeInfinity(x) {
			v[i] = infinite
		}
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Shifts) UnmarshalJSON(b []byte) error {
	var v []shift
	if err := json.Unmarshal(b, &v); err != nil || v == nil {
		*s = nil
		return err
	}
	*s = make(Shifts, len(v))
	for i, x := range v {
		(*s)[i] = float32(x)
	}
	return nil
}

// shift is one of Shifts.
type shift float32

func (s *shift) UnmarshalJSON(b []byte) error {
	if string(b) == strconv.Quote(infinite) {
		*s = shift(math.Inf(-1))
		return nil
	}
	return json.Unmarshal(b, (*float32)(s))
}

func negativeInfinity(v float32) bool { return v < -math.MaxFloat32 }

// notFinite returns the index of the first NaN or infinity, or -1.
func notFinite(v []float32) int {
	for i, x := range v {
		if math.Float32bits(x)&0x7f800000 == 0x7f800000 {
			return i
		}
	}
	return -1
}
