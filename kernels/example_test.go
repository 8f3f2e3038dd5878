package kernels_test

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// accelerator is a backend for some hardware. Base checks arguments, counts, and tells when
// products may be closed; what remains is to load weights and to multiply.
type accelerator struct{ kernels.Base }

func newAccelerator() *accelerator {
	a := new(accelerator)
	a.Init("accelerator", func(_ context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
		w.Data = slices.Clone(w.Data) // here they would go to the hardware
		return kernels.Loaded{
			Bytes: 4 * int64(len(w.Data)),
			Evaluate: func(_ context.Context, y, x ring.Matrix) error {
				copy(y.Data, kernels.Direct(r, op, w, x).Data) // and here it would multiply
				return nil
			},
		}, nil
	})
	return a
}

// A backend of one's own passes kerneltest.Run in its tests, and serves hosts by daemon.Run.
func ExampleBase() {
	ctx := context.Background()
	var b kernels.Backend = newAccelerator()
	if err := kernels.SelfTest(ctx, b); err != nil {
		log.Fatal(err)
	}

	r := ring.Q4()
	w := ring.Matrix{Rows: 1, Cols: 2, Data: []uint32{2, r.Neg(1)}}
	product, err := b.Load(ctx, r, plan.Dense(2, 1), w)
	if err != nil {
		log.Fatal(err)
	}
	x := ring.Matrix{Rows: 2, Cols: 2, Data: []uint32{5, 1, 0, 3}} // two samples
	y := ring.NewMatrix(2, 1)
	if err := product.Evaluate(ctx, y, x); err != nil {
		log.Fatal(err)
	}
	for _, word := range y.Data {
		fmt.Println(r.Lift(word))
	}
	if err := product.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(b.Close())
	// Output:
	// 9
	// -3
	// <nil>
}
