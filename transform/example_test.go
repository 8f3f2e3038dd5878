package transform_test

import (
	"context"
	"fmt"
	"log"

	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// One layer's product, computed by a cloud that sees masked weights and a masked input alone.
func ExampleLayer() {
	ctx := context.Background()
	r, op := ring.Q4(), plan.Dense(3, 2)
	w := []int32{
		1, 2, 3,
		4, 5, 6,
	}

	// The host seals the weights, once.
	layer, err := transform.NewLayer(r, transform.DefaultScheme(), op)
	if err != nil {
		log.Fatal(err)
	}
	key, err := verify.NewKey(verify.DefaultField(), op, w)
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := layer.Seal(w)
	if err != nil {
		log.Fatal(err)
	}

	// The cloud loads what it was given.
	backend := cpu.New(cpu.Options{})
	defer backend.Close()
	cloud, err := backend.Load(ctx, r, layer.CloudOp(), sealed[0])
	if err != nil {
		log.Fatal(err)
	}
	defer cloud.Close()

	// The host makes the pads of one sample beforehand, with a product of its own: who
	// computes What·r knows r.
	own, err := backend.Load(ctx, r, layer.CloudOp(), sealed[0])
	if err != nil {
		log.Fatal(err)
	}
	defer own.Close()
	pads, err := layer.NewPads(ctx, own, 1)
	if err != nil {
		log.Fatal(err)
	}

	// It masks the sample.
	x := []int32{1, 0, -1}
	call, err := layer.Mask(x, 1, pads)
	if err != nil {
		log.Fatal(err)
	}
	defer call.Close()

	// The cloud multiplies.
	xhat, _ := call.Masked()[0].Words()
	yhat := ring.NewMatrix(layer.CloudRows(1), layer.CloudOp().OutLen())
	if err := cloud.Evaluate(ctx, yhat, xhat); err != nil {
		log.Fatal(err)
	}

	// The host unmasks and checks.
	candidate, err := call.Unmask([]ring.Matrix{yhat})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Open(candidate, x))
	// Output:
	// [-2 -2] <nil>
}
