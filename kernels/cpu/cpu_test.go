package cpu_test

import (
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/kerneltest"
)

func TestConformance(t *testing.T) {
	kerneltest.Run(t, func(testing.TB) kernels.Backend { return cpu.New(cpu.Options{}) })
}
