package throughput

import (
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
)

func TestMain(m *testing.M) { benchtest.Main(m) }
