package onnx

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/securenets/securenets/plan"
)

// ErrSize reports a size for a dimension that a model does not have, or that it cannot have.
var ErrSize = errors.New("onnx: no such size")

// Sizes fixes dimensions of a model's inputs that have a name and no size, by that name: a
// sequence length, say. The batch needs none, and takes none.
type Sizes map[string]int

// fix gives inputs the sizes.
func (s Sizes) fix(inputs []valueInfo) error {
	own, batches := map[string]bool{}, map[string]bool{}
	for _, v := range inputs {
		for i, name := range v.params {
			switch {
			case name == "":
			case i == 0:
				batches[name] = true
			default:
				own[name] = true
			}
		}
	}
	maps.DeleteFunc(own, func(name string, _ bool) bool { return batches[name] })
	for _, name := range slices.Sorted(maps.Keys(s)) {
		size := s[name]
		switch {
		case batches[name]:
			return fmt.Errorf("%w: %s is the batch, which may have any size: %s", ErrSize, clean(name), there(own))
		case !own[name]:
			return fmt.Errorf("%w: no dimension of an input is named %s: %s", ErrSize, clean(name), there(own))
		case size < 1 || size > plan.MaxExtent:
			return fmt.Errorf("%w: %d of dimension %s: want 1 to %d", ErrSize, size, clean(name), plan.MaxExtent)
		}
	}
	for _, v := range inputs {
		for i, name := range v.params {
			if size := s[name]; size > 0 {
				v.dims[i] = int64(size)
			}
		}
	}
	return nil
}

// there says which dimensions can be fixed.
func there(names map[string]bool) string {
	if len(names) == 0 {
		return "there is none to fix"
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, clean(name))
	}
	return "there are " + strings.Join(list, ", ")
}

// symbolic notes the dimensions of an input that have no size.
func (p *parser) symbolic(v valueInfo) {
	for i, d := range v.dims {
		switch {
		case i == 0 || d != 0:
		case v.params[i] == "":
			p.unsupported["input of symbolic size without a name"] = true
		case v.params[i] == v.params[0]:
			p.unsupported[fmt.Sprintf("input of symbolic size %s, which is the batch's", clean(v.params[i]))] = true
		default:
			p.unsupported[fmt.Sprintf("input of symbolic size %s (--size %[1]s=N fixes it)", clean(v.params[i]))] = true
		}
	}
}
