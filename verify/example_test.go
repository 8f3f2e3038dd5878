package verify_test

import (
	"errors"
	"fmt"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/verify"
)

// A product that somebody else computed is checked with one multiply-add for each of its
// inputs and outputs.
func ExampleKey_Open() {
	op := plan.Dense(3, 2)
	w := []int32{
		1, 2, 3,
		4, 5, 6,
	}
	key, err := verify.NewKey(verify.DefaultField(), op, w)
	if err != nil {
		fmt.Println(err)
		return
	}
	x := []int32{1, 0, -1}

	y, err := key.Open(verify.NewCandidate([]int32{-2, -2}, 1), x)
	fmt.Println(y, err)

	_, err = key.Open(verify.NewCandidate([]int32{-2, -1}, 1), x)
	fmt.Println(errors.Is(err, verify.ErrRejected))
	// Output:
	// [-2 -2] <nil>
	// true
}
