// Package daemon is the cloud's side: it stores sealed models and multiplies masked
// inputs by them, for callers on a unix socket or over TLS. It trusts no byte that it
// receives, and is itself trusted with nothing: it sees masked matrices, shapes and
// traffic.
//
//	Run:  open state directory and sockets -> test the backend -> load pinned models -> SERVING
//	      -> ctx ends -> NOT_SERVING, answer the requests received -> close
package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

// Run serves until ctx ends. Then it stops accepting, answers the requests that it has
// received, for up to the drain timeout, and returns nil. An error means that it could not
// start, in particular that the configuration is not valid (config.ErrInvalid), or that a socket
// failed. The caller closes the backend; by then no product is open. A nil log is no log.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger, backend kernels.Backend) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return run(ctx, cfg, log, backend)
}

// run is Run with a configuration that is valid.
func run(ctx context.Context, cfg config.Config, log *slog.Logger, backend kernels.Backend) (err error) {
	path, err := wire.SocketPath(cfg.Listen)
	if err != nil {
		return err
	}
	draining, drain := context.WithCancel(context.Background())
	defer drain()
	s := newService(cfg.Limits, log, backend.Name(), draining)
	s.policy = policies(cfg.Batching)
	if s.store, err = s.openStore(cfg, backend); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	listeners, secure, err := s.listen(path, cfg)
	if err != nil {
		return err
	}
	defer closeAll(listeners)

	work, cancelWork := context.WithCancel(context.Background())
	defer cancelWork()
	lender, _ := backend.(kernels.Lender)
	s.batcher = batch.New(work, batch.Options{Parallel: parallel(cfg, backend), Lender: lender})
	defer s.batcher.Close()
	sharing := newSharing(cfg.SharedMemory, s.metrics, log)
	sources := metrics.Sources{
		Ready:   s.serving.Load,
		Waiting: s.batcher.Waiting, Models: s.store.Size, Loaded: s.store.Loaded, Backend: backend,
		Messages: s.incoming, Parked: s.parked, Requests: s.memory, Shared: sharing.all,
	}
	if secure != nil {
		sources.Expires = secure.expires
	}
	s.metrics.Watch(sources)
	stopMetrics, err := s.serveMetrics(cfg.Metrics)
	if err != nil {
		return err
	}
	defer stopMetrics()

	server := newServer(s, backend, listeners, secure, sharing)
	defer func() { // once gRPC, whose handshakes begin direct streams, has stopped
		s.directs.cut()
		s.directs.wait()
	}()
	server.start()
	if err := prepare(ctx, backend, s.store); err != nil {
		server.stop()
		if ctx.Err() != nil {
			return nil // told to stop before it was ready
		}
		return err
	}
	server.ready()
	var watched sync.WaitGroup
	watched.Go(func() { watchDevices(draining, backend, server.health) })
	watched.Go(func() { s.store.Warm(draining) })
	watched.Go(func() { expireUploads(draining, s.store) })
	defer func() {
		drain()
		watched.Wait()
	}()
	log.Info("serving", "address", cfg.Listen, "backend", backend.Name())
	tellSystemd(sd.SdNotifyReady, log)

	select {
	case err := <-server.ended:
		server.stop()
		return fmt.Errorf("daemon: serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("draining", "timeout", cfg.DrainTimeout())
	tellSystemd(sd.SdNotifyStopping, log)
	server.drain(drain, cancelWork, cfg.DrainTimeout())
	s.logTotals()
	return nil
}

// openStore opens the state directory.
func (s *service) openStore(cfg config.Config, backend kernels.Backend) (*model.Store, error) {
	l := cfg.Limits
	return model.Open(model.Options{
		Dir: cfg.StateDir, Backend: backend, Check: s.checkPlan, Log: s.log, Metrics: s.metrics,
		Own:       model.User(uint32(os.Geteuid())),
		MaxModels: l.MaxModels, MaxBytes: l.MaxModelBytes, MaxLoaded: l.MaxLoadedBytes,
		CallerModels: l.MaxModelsPerCaller, CallerBytes: l.MaxModelBytesPerCaller, UploadExpiry: l.UploadExpiry(),
		MaxWaiting: func(d sealed.Digest) int { return s.policy(d).MaxCalls }, Pinned: pinned(cfg.Residency),
	})
}

// logTotals logs the totals of the run.
func (s *service) logTotals() {
	frames, shared := &s.counts[metrics.Frames], &s.counts[metrics.Shared]
	s.log.Info("stopped", "requests", frames.requests.Load(), "payload_bytes", frames.payload.Load(), "copied_bytes", frames.copied.Load(),
		"shared_requests", shared.requests.Load(), "shared_payload_bytes", shared.payload.Load(), "shared_copied_bytes", shared.copied.Load())
}

// parallel returns how many products to compute at a time.
func parallel(cfg config.Config, backend kernels.Backend) int {
	if c, ok := backend.(kernels.Concurrent); ok {
		return c.Parallel()
	}
	if cfg.Threads > 0 {
		return cfg.Threads
	}
	return runtime.GOMAXPROCS(0)
}

// policies returns a function that looks up a model's policy.
func policies(b config.Batching) func(sealed.Digest) *batch.Policy {
	policy := func(p config.Policy) *batch.Policy {
		return &batch.Policy{
			MaxRows: p.MaxBatchSize, MaxDelay: p.MaxQueueDelay(), MaxCalls: p.MaxQueueSize,
			Timeout: p.DefaultTimeout(), Levels: uint32(p.PriorityLevels), Level: uint32(p.DefaultPriorityLevel),
		}
	}
	all, some := policy(b.Policy), map[sealed.Digest]*batch.Policy{}
	for model := range b.Models {
		digest, _ := hex.DecodeString(model) // validated by package config
		some[sealed.Digest(digest)] = policy(b.For(model))
	}
	return func(model sealed.Digest) *batch.Policy {
		if p, ok := some[model]; ok {
			return p
		}
		return all
	}
}

// pinned returns the digests of the pinned models.
func pinned(r config.Residency) (all []sealed.Digest) {
	for _, model := range r.Pinned {
		digest, _ := hex.DecodeString(model) // validated by package config
		all = append(all, sealed.Digest(digest))
	}
	return all
}

// expireUploads removes expired uploads, every hour, until ctx ends.
func expireUploads(ctx context.Context, store *model.Store) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			store.Expire(now)
		case <-ctx.Done():
			return
		}
	}
}

// prepare tests the backend and loads the store, which must precede the first call.
func prepare(ctx context.Context, backend kernels.Backend, store *model.Store) error {
	if err := kernels.SelfTest(ctx, backend); err != nil {
		return err
	}
	return store.Load(ctx)
}

// tellSystemd notifies systemd of the daemon's state, if systemd has started it.
func tellSystemd(state string, log *slog.Logger) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}
