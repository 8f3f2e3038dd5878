package gonum_test

import (
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/gonum"
	"github.com/securenets/securenets/kernels/kerneltest"
)

func TestConformance(t *testing.T) {
	kerneltest.Run(t, func(testing.TB) kernels.Backend { return gonum.New() })
}
