package attack

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// The bit widths of inputs are not sent, but the recovered weights have them: the L1 norm of
// a row is just below (M-1)/2 over XMax.
func TestWeightsShowXMax(t *testing.T) {
	r := ring.Q4()
	for _, node := range network(t, "mnist-cnn", 1).Graph.Nodes {
		linear, ok := node.Op.(graph.Linear)
		if !ok {
			continue
		}
		op := linear.Plan()
		w := make([]float32, op.Rows()*op.Terms())
		if err := graph.ReadWeights(w, linear); err != nil {
			t.Fatal(err)
		}
		xmax := transform.ChooseXMax(r, op, w, 0)
		q, err := transform.QuantizeWeights(r, op, w, xmax)
		if err != nil {
			t.Fatal(err)
		}
		layer, err := transform.NewLayer(r, permutePad, op)
		if err != nil {
			t.Fatal(err)
		}
		whats, err := layer.Seal(q.W)
		if err != nil {
			t.Fatal(err)
		}
		found, err := Recover(t.Context(), r, layer.CloudOp(), whats[0], 1<<20)
		if err != nil || found == nil {
			t.Fatalf("%v: nothing recovered, %v", op, err)
		}
		var guesses []int32 // (M-1)/2 over each row's norm
		for row := range slices.Chunk(found.W, found.Terms) {
			var norm int32
			for _, e := range row {
				norm += max(e, -e)
			}
			guesses = append(guesses, r.Max()/max(norm, 1))
		}
		slices.Sort(guesses)
		// The largest 2^b - 1 that is not above the median.
		if guess := int32(1)<<(bits.Len32(uint32(guesses[len(guesses)/2])+1)-1) - 1; guess != xmax {
			t.Errorf("%v: %d by its rows' norms, XMax is %d", op, guess, xmax)
		}
	}
}
