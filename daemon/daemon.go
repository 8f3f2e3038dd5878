// Package daemon is the cloud's side: it stores sealed models and multiplies
// masked inputs with them, for callers on a unix socket. It trusts no byte that
// it receives, and it is trusted with nothing: it sees masked matrices, shapes
// and traffic.
//
//	Run:  open state directory and socket -> test the backend -> load models -> SERVING
//	      -> ctx ends -> NOT_SERVING, answer what came in -> close
package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/daemon/pool"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

// maxUnary is the largest message in bytes that gRPC itself receives, unasked: a
// request that is no stream's. Streams have an inbox.
const maxUnary = 64 << 10

// Run serves until ctx ends. Then it stops accepting, answers what it has
// received, for up to the drain timeout, and returns nil. An error means that it
// could not start, or that the socket failed. The backend stays the caller's to
// close; no product is open any more.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger, backend kernels.Backend) (err error) {
	path, err := wire.SocketPath(cfg.Listen)
	if err != nil {
		return err
	}
	draining, drain := context.WithCancel(context.Background())
	defer drain()
	s := newService(cfg.Limits, log, backend.Name(), draining)
	s.store, err = model.Open(model.Options{
		Dir: cfg.StateDir, Backend: backend, Check: s.checkPlan, Log: log,
		MaxModels: cfg.Limits.MaxModels, MaxBytes: cfg.Limits.MaxModelBytes, MaxLoaded: cfg.Limits.MaxLoadedBytes,
		Loaded: func() int64 { return backend.Stats().Bytes },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	socket, err := listen(path, log)
	if err != nil {
		return err
	}

	work, cancelWork := context.WithCancel(context.Background())
	defer cancelWork()
	s.batcher = batch.New(work, batch.Options{Parallel: parallel(cfg, backend), Lender: lender(backend)})
	defer s.batcher.Close()
	s.policy = policies(cfg.Batching)
	server := grpc.NewServer(append(wire.ServerOptions(),
		grpc.Creds(local{insecure.NewCredentials(), new(atomic.Uint64)}),
		grpc.MaxRecvMsgSize(maxUnary),
		grpc.InTapHandle(s.tap),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))...)
	pb.RegisterSecureNetsServer(server, s)
	status := health.NewServer()
	serving := func(v healthpb.HealthCheckResponse_ServingStatus) {
		status.SetServingStatus("", v)
		status.SetServingStatus(pb.SecureNets_ServiceDesc.ServiceName, v)
	}
	serving(healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, status)

	served := make(chan error, 1)
	go func() { served <- server.Serve(socket) }()
	if err := prepare(ctx, backend, s.store); err != nil {
		server.Stop()
		<-served
		if ctx.Err() != nil {
			return nil // told to stop before it was ready
		}
		return err
	}
	close(s.ready)
	serving(healthpb.HealthCheckResponse_SERVING)
	log.Info("serving", "address", cfg.Listen, "backend", backend.Name())

	select {
	case err := <-served:
		server.Stop()
		return fmt.Errorf("daemon: serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("draining", "timeout", cfg.DrainTimeout())
	status.Shutdown()
	socket.Close() // before anyone is told
	drain()
	late := time.AfterFunc(cfg.DrainTimeout(), func() {
		log.Warn("drain timeout has passed: calls in flight are cancelled")
		cancelWork()
		server.Stop()
	})
	server.GracefulStop()
	late.Stop()
	<-served
	log.Info("stopped", "requests", s.counts.requests.Load(), "payload_bytes", s.counts.payload.Load(), "copied_bytes", s.counts.copied.Load())
	return nil
}

// parallel returns how many products to have in progress at a time.
func parallel(cfg config.Config, backend kernels.Backend) int {
	if p, ok := backend.(interface{ Parallel() int }); ok {
		return p.Parallel()
	}
	if cfg.Threads > 0 {
		return cfg.Threads
	}
	return runtime.GOMAXPROCS(0)
}

// lender returns the memory that a backend lends, nil for none.
func lender(backend kernels.Backend) pool.Source {
	if l, ok := backend.(kernels.Lender); ok {
		return l
	}
	return nil
}

// policies returns what looks a model's policy up.
func policies(b config.Batching) func(sealed.Digest) *batch.Policy {
	policy := func(p config.Policy) *batch.Policy {
		return &batch.Policy{
			MaxRows: p.MaxBatchSize, MaxDelay: p.MaxQueueDelay(), MaxCalls: p.MaxQueueSize,
			Timeout: p.DefaultTimeout(), Levels: uint32(p.PriorityLevels), Level: uint32(p.DefaultPriorityLevel),
		}
	}
	all, some := policy(b.Policy), map[sealed.Digest]*batch.Policy{}
	for model := range b.Models {
		digest, _ := hex.DecodeString(model) // as it was validated
		some[sealed.Digest(digest)] = policy(b.For(model))
	}
	return func(model sealed.Digest) *batch.Policy {
		if p, ok := some[model]; ok {
			return p
		}
		return all
	}
}

// prepare does what must be done before the first call.
func prepare(ctx context.Context, backend kernels.Backend, store *model.Store) error {
	if err := kernels.SelfTest(ctx, backend); err != nil {
		return err
	}
	return store.Load(ctx)
}
