package transform_test

import (
	"context"
	"errors"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// TestZeroValues: zero values return typed errors, and do not panic.
func TestZeroValues(t *testing.T) {
	var layer transform.Layer
	var call transform.Call
	var pads transform.Pads
	var r ring.Ring
	op := plan.Dense(2, 1)
	real, err := transform.NewLayer(ring.Q4(), transform.DefaultScheme(), op)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		do   func() error
		want error
	}{
		"Mask":             {func() error { _, err := layer.Mask(nil, 1, nil); return err }, transform.ErrShape},
		"Mask of elements": {func() error { _, err := layer.Mask([]int32{1}, 1, nil); return err }, transform.ErrShape},
		"MaskFloats":       {func() error { _, err := layer.MaskFloats(nil, 1, 1, &verify.Key{}, nil); return err }, transform.ErrShape},
		"Seal":             {func() error { _, err := layer.Seal(nil); return err }, transform.ErrShape},
		"Unseal":           {func() error { _, err := layer.Unseal(nil); return err }, transform.ErrShape},
		"NewPads":          {func() error { _, err := layer.NewPads(context.Background(), nil, 1); return err }, transform.ErrPads},
		"RestorePads":      {func() error { _, err := layer.RestorePads(transform.PadsState{}); return err }, transform.ErrPads},
		"RestoreLayer": {func() error {
			_, err := transform.RestoreLayer(r, transform.Scheme{}, transform.LayerState{})
			return err
		}, transform.ErrScheme},
		"no key":          {func() error { _, err := real.MaskFloats([]float32{1, 2}, 1, 1, nil, nil); return err }, transform.ErrShape},
		"zero key":        {func() error { _, err := real.MaskFloats([]float32{1, 2}, 1, 1, &verify.Key{}, nil); return err }, transform.ErrShape},
		"zero pads":       {func() error { _, err := real.Mask([]int32{1, 2}, 1, &pads); return err }, transform.ErrPads},
		"Take":            {func() error { _, err := pads.Take(1); return err }, transform.ErrPads},
		"state of none":   {func() error { _, err := real.RestorePads(pads.State()); return err }, transform.ErrPads},
		"Unmask":          {func() error { _, err := call.Unmask(nil); return err }, transform.ErrShape},
		"UnmaskDecoded":   {func() error { _, err := call.UnmaskDecoded(nil); return err }, transform.ErrShape},
		"Liars":           {func() error { _, err := call.Liars(context.Background(), nil, nil, 0); return err }, transform.ErrShape},
		"Expand":          {func() error { return transform.Expand(ring.NewMatrix(1, 1), r, transform.Seed{}, 0) }, ring.ErrParameters},
		"QuantizeWeights": {func() error { _, err := transform.QuantizeWeights(r, op, []float32{1, 2}, 1); return err }, ring.ErrParameters},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if n := pads.Len(); n != 0 {
		t.Errorf("zero pads are of %d samples", n)
	}
	if x := transform.ChooseXMax(r, op, []float32{1, 2}, 0); x != 1 {
		t.Errorf("ChooseXMax in no ring: %d", x)
	}
	call.Close()
	if _, err := call.Unmask(nil); !errors.Is(err, transform.ErrUnmasked) {
		t.Errorf("closed: %v", err)
	}
}
