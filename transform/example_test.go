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

// The two clouds of split, each of which sees what is uniform to it, and which must not collude: the
// first gets masked inputs, the second a seed that it expands to the mask.
func ExampleExpand() {
	ctx := context.Background()
	r, op := ring.Q4(), plan.Dense(3, 2)
	w := []int32{
		1, 2, 3,
		4, 5, 6,
	}
	scheme, err := transform.ParseScheme("permute+split")
	if err != nil {
		log.Fatal(err)
	}

	// The host seals the weights, once, for both clouds.
	layer, err := transform.NewLayer(r, scheme, op)
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
	backend := cpu.New(cpu.Options{})
	defer backend.Close()

	// cloud is one of them: it multiplies what it receives by the weights that it holds.
	cloud := func(weights ring.Matrix, received transform.Masked) ring.Matrix {
		loaded, err := backend.Load(ctx, r, layer.CloudOp(), weights)
		if err != nil {
			log.Fatal(err)
		}
		defer loaded.Close()
		xhat, _ := received.Words()
		if seed, ok := received.Seed(); ok {
			xhat = ring.NewMatrix(received.Rows(), received.Cols())
			if err := transform.Expand(xhat, r, seed, 0); err != nil {
				log.Fatal(err)
			}
		}
		yhat := ring.NewMatrix(received.Rows(), layer.CloudOp().OutLen())
		if err := loaded.Evaluate(ctx, yhat, xhat); err != nil {
			log.Fatal(err)
		}
		return yhat
	}

	// It masks two samples, and sends each cloud its share.
	x := []int32{
		1, 0, -1,
		0, 2, 1,
	}
	call, err := layer.Mask(x, 2, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer call.Close()
	var answers []ring.Matrix
	for role, share := range call.Masked() {
		answers = append(answers, cloud(sealed[role], share))
	}

	// The host unmasks and checks.
	candidate, err := call.Unmask(answers)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Open(candidate, x))
	// Output:
	// [-2 -2 7 16] <nil>
}
