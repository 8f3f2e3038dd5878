package daemon_test

import (
	"context"
	"log"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/kernels/cpu"
)

// A daemon that multiplies on a backend of one's own; here it is the processor's.
func ExampleRun() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load("config.toml")
	if err != nil {
		log.Fatal(err)
	}
	backend := cpu.New(cpu.Options{})
	defer backend.Close()
	if err := daemon.Run(ctx, cfg, slog.Default(), backend); err != nil {
		log.Fatal(err)
	}
}
