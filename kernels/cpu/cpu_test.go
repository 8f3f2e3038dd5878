package cpu_test

import (
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/kerneltest"
	"github.com/securenets/securenets/kernels/cpu"
)

func TestConformance(t *testing.T) {
	kerneltest.Run(t, func(testing.TB) kernels.Backend { return cpu.New(cpu.Options{}) })
}
