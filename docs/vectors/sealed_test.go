package vectors_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

type sealedCase struct {
	Name string `json:"name"`
	Hex  string `json:"hex"`
	// "accept", with what the file holds, or "reject" (BAD_MODEL at upload).
	Expect  string          `json:"expect"`
	Digest  string          `json:"digest,omitempty"`
	Plan    json.RawMessage `json:"plan,omitempty"`
	Weights [][]uint32      `json:"weights,omitempty"`
}

func sum(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// file returns the bytes of a safetensors file.
func file(header string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func sealedCases(t *testing.T) (cases []any) {
	rng := random(500)
	r := ring.Q4()
	conv := plan.Conv(plan.Conv2D{H: 4, W: 3, C: 2, OutC: 2, KH: 2, KW: 1, SH: 1, SW: 2, DH: 1, DW: 1, Top: 1, Left: 0, Bot: 0, Right: 0, Groups: 2})
	m := model(t, rng, r, conv, plan.Dense(3, 2))
	b := must[[]byte](t)(m.Marshal())
	accept := func(name string, b []byte) {
		m := must[*sealed.Model](t)(sealed.Parse(b))
		f := must[*safetensors.File](t)(safetensors.Parse(b))
		c := sealedCase{Name: name, Hex: hexOf(b), Expect: "accept", Digest: sealed.Sum(b).String(), Plan: json.RawMessage(f.Metadata["securenets.plan"])}
		for _, w := range m.Weights {
			c.Weights = append(c.Weights, w.Data)
		}
		cases = append(cases, c)
	}
	accept("a convolution and a dense operator", b)
	accept("q3", must[[]byte](t)(model(t, rng, ring.Q3(), plan.Dense(2, 3)).Marshal()))
	accept("the smallest", must[[]byte](t)(model(t, rng, newRing(t, 3), plan.Dense(1, 1)).Marshal()))

	n := binary.LittleEndian.Uint64(b)
	header, data := strings.TrimRight(string(b[8:8+n]), " "), b[8+n:]
	replaced := func(old, new string) string {
		h := strings.Replace(header, old, new, 1)
		if h == header {
			t.Fatalf("%s is not in the header", old)
		}
		return h
	}
	withPlan := func(old, new string) []byte {
		quote := func(s string) string { return strings.ReplaceAll(s, `"`, `\"`) }
		return file(replaced(quote(old), quote(new)), data)
	}
	accept("a header that does not end on 8 bytes", file(header, data))
	accept("white space in the header", file(replaced(`,"1":`, ` ,`+"\n"+`"1" : `), data))
	first, second := header[strings.Index(header, `"0":`):strings.Index(header, `,"1":`)], header[strings.Index(header, `"1":`):len(header)-1]
	accept("the second tensor named first", file(replaced(first+","+second, second+","+first), data))

	spoilt := bytes.Clone(b)
	binary.LittleEndian.PutUint32(spoilt[len(b)-4:], r.Modulus())
	long := bytes.Clone(b)
	binary.LittleEndian.PutUint64(long, uint64(len(b)))
	huge := bytes.Clone(b)
	binary.LittleEndian.PutUint64(huge, 1<<63+8)
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"no bytes", nil},
		{"seven bytes", b[:7]},
		{"a header length past the end", long},
		{"a header length of 2^63 + 8", huge},
		{"no header", file("", nil)},
		{"an empty header", file("{}", nil)},
		{"no JSON", file(header[:len(header)-1], data)},
		{"a header that begins with white space", file(" "+header, data)},
		{"two headers", file(header+"{}", data)},
		{"a byte missing", b[:len(b)-1]},
		{"a byte left over", append(bytes.Clone(b), 0)},
		{"a hole between tensors", file(replaced(`"data_offsets":[16,40]`, `"data_offsets":[20,44]`), append(make([]byte, 4), data...))},
		{"tensors that overlap", file(replaced(`"data_offsets":[16,40]`, `"data_offsets":[12,36]`), data[:36])},
		{"bytes before the first tensor", file(strings.NewReplacer("[0,16]", "[4,20]", "[16,40]", "[20,44]").Replace(header), append(make([]byte, 4), data...))},
		{"an unknown key", file(replaced(`"dtype"`, `"scale":1,"dtype"`), data)},
		{"a key twice", file(replaced(`"dtype":"U32"`, `"dtype":"U32","dtype":"U32"`), data)},
		{"a tensor twice", file(replaced(second, second+","+second), data)},
		{"no shape", file(replaced(`"shape":[2,3],`, ``), data)},
		{"a flat tensor", file(replaced(`"shape":[2,3]`, `"shape":[6]`), data)},
		{"a transposed tensor", file(replaced(`"shape":[2,3]`, `"shape":[3,2]`), data)},
		{"a shape that overflows", file(replaced(`"shape":[2,3]`, `"shape":[4611686018427387906,4]`), data)},
		{"a negative size", file(replaced(`"shape":[2,3]`, `"shape":[-2,-3]`), data)},
		{"a size with an exponent", file(replaced(`"shape":[2,3]`, `"shape":[2e0,3]`), data)},
		{"another element type", file(replaced(`"dtype":"U32"`, `"dtype":"I32"`), data)},
		{"a tensor named 01", file(replaced(`"1":`, `"01":`), data)},
		{"tensors in another order", file(strings.NewReplacer(`"0":`, `"1":`, `"1":`, `"0":`).Replace(header), data)},
		{"a tensor more", file(replaced(second, second+`,"2":{"dtype":"U32","shape":[0,1],"data_offsets":[40,40]}`), data)},
		{"a tensor less", file(replaced(","+second, ""), data[:16])},
		{"no metadata", file("{"+first+","+second+"}", data)},
		{"other metadata beside the plan", file(replaced(`{"securenets.plan"`, `{"name":"x","securenets.plan"`), data)},
		{"a word that is not canonical", spoilt},

		{"plan: version 2", withPlan(`"version":1`, `"version":2`)},
		{"plan: an unknown key", withPlan(`"in":3`, `"in":3,"bias":true`)},
		{"plan: a key twice", withPlan(`"in":3`, `"in":4,"in":3`)},
		{"plan: another case", withPlan(`"in":3`, `"IN":3`)},
		{"plan: white space", withPlan(`"in":3`, `"in": 3`)},
		{"plan: keys in another order", withPlan(`"in":3,"out":2`, `"out":2,"in":3`)},
		{"plan: an array too short", withPlan(`"padding":[1,0,0,0]`, `"padding":[1,0,0]`)},
		{"plan: no ring", withPlan(`"ring":[251,241,239,233]`, `"ring":[]`)},
		{"plan: no prime", withPlan(`"ring":[251,241,239,233]`, `"ring":[251,241,239,235]`)},
		{"plan: a prime twice", withPlan(`"ring":[251,241,239,233]`, `"ring":[251,241,239,251]`)},
		{"plan: a smaller ring", withPlan(`"ring":[251,241,239,233]`, `"ring":[251,241,239]`)},
		{"plan: no operators", withPlan(`"ops":[{`, `"ops":[],"x":[{`)},
		{"plan: no kind", withPlan(`{"dense":{"in":3,"out":2}}`, `{}`)},
		{"plan: two kinds", withPlan(`{"dense":{"in":3,"out":2}}`, `{"dense":{"in":3,"out":2},"conv2d":null}`)},
		{"plan: an operator less", withPlan(`,{"dense":{"in":3,"out":2}}`, ``)},
		{"plan: a size of 0", withPlan(`"stride":[1,2]`, `"stride":[1,0]`)},
		{"plan: an absurd size", withPlan(`"in":3`, `"in":9223372036854775807`)},
		{"plan: a map that overflows", withPlan(`"in":[4,3,2]`, `"in":[2147483647,2147483647,2]`)},
		{"plan: groups that do not divide", withPlan(`"groups":2`, `"groups":3`)},
		{"plan: a kernel past the map", withPlan(`"dilation":[1,1]`, `"dilation":[5,1]`)},
		{"plan: padding as large as the kernel", withPlan(`"padding":[1,0,0,0]`, `"padding":[2,0,0,0]`)},
		{"plan: another shape", withPlan(`"in":3`, `"in":4`)},
	} {
		if _, err := sealed.Parse(c.b); !errors.Is(err, sealed.ErrInvalid) {
			t.Fatalf("%s: %v", c.name, err)
		}
		cases = append(cases, sealedCase{Name: c.name, Hex: hexOf(c.b), Expect: "reject"})
	}
	return cases
}
