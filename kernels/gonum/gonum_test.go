package gonum_test

import (
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/kerneltest"
	"github.com/securenets/securenets/kernels/gonum"
)

func TestConformance(t *testing.T) {
	kerneltest.Run(t, func(testing.TB) kernels.Backend { return gonum.New() })
}
