package verify

import (
	"errors"
	"testing"

	"github.com/securenets/securenets/plan"
)

// TestZeroValues: zero values return typed errors, and do not panic.
func TestZeroValues(t *testing.T) {
	var none Key
	op := plan.Dense(2, 1)
	w := []int32{1, 2}
	key, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	scale, err := NewScale([]float32{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	y := func() Candidate { return NewCandidate([]int32{3}, 1) }
	dst, sample := make([]float32, 1), []float32{1}
	read := func(dst, _ []int32, _, _ int) { dst[0] = 3 }
	isKey := func(err error) bool { return errors.Is(err, ErrKey) }
	isField := func(err error) bool { return errors.Is(err, ErrField) }
	for name, c := range map[string]struct {
		do   func() error
		want func(error) bool
	}{
		"key":                {func() error { _, err := none.Open(y(), nil); return err }, isLength},
		"key of nothing":     {func() error { _, err := none.Open(NewCandidate(nil, 1), nil); return err }, isLength},
		"rekey":              {func() error { _, err := none.Rekey(nil); return err }, isLength},
		"floats by no key":   {func() error { return none.OpenFloats(nil, NewCandidate(nil, 1), none.Expect(1), sample, scale) }, isLength},
		"candidate":          {func() error { _, err := key.Open(Candidate{}, nil); return err }, isLength},
		"uneven candidate":   {func() error { _, err := key.Open(NewCandidate([]int32{1, 2, 3}, 2), w); return err }, isLength},
		"no tile":            {func() error { _, err := key.Open(LazyCandidate(1, 1, 0, read), w); return err }, isLength},
		"negative tile":      {func() error { _, err := SpotCheck(op, w, w, LazyCandidate(1, 1, -1, read), 1); return err }, isLength},
		"nothing to read":    {func() error { _, err := key.Open(LazyCandidate(1, 1, 1, nil), w); return err }, isLength},
		"spot check":         {func() error { _, err := SpotCheck(op, w, nil, Candidate{}, 1); return err }, isLength},
		"expected":           {func() error { return key.OpenFloats(dst, y(), Expected{}, sample, scale) }, isKey},
		"scale":              {func() error { return key.OpenFloats(dst, y(), key.Expect(1), sample, Scale{}) }, isLength},
		"field":              {func() error { _, err := NewKey(Field{}, op, w); return err }, isField},
		"field of a secret":  {func() error { _, err := RestoreKey(Field{}, op, []uint64{1}, []uint64{1, 2}); return err }, isField},
		"operator":           {func() error { _, err := NewKey(DefaultField(), plan.Op{}, nil); return err }, func(err error) bool { return errors.Is(err, plan.ErrInvalid) }},
		"no rows":            {func() error { _, err := NewScale(nil, nil); return err }, isLength},
		"rejection of none":  {func() error { return &RejectedError{} }, func(err error) bool { return errors.Is(err, ErrRejected) }},
		"scales of no batch": {func() error { scale.Floats(nil, nil, nil); return nil }, func(err error) bool { return err == nil }},
	} {
		if err := c.do(); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
