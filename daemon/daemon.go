// Package daemon is the cloud's side: it stores sealed models and multiplies masked
// inputs by them, for callers on a unix socket or over TLS. It trusts no byte that it
// receives, and is itself trusted with nothing: it sees masked matrices, shapes and
// traffic.
//
//	Run:  open state directory and socket -> test the backend -> load pinned models -> SERVING
//	      -> ctx ends -> NOT_SERVING, answer what came in -> close
package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/localsocket"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

// maxUnary is the largest message in bytes that gRPC itself receives, unasked: a
// request that is no stream's.
const maxUnary = 64 << 10

// Run serves until ctx ends. Then it stops accepting, answers what it has received, for
// up to the drain timeout, and returns nil. An error means that it could not start, or
// that the socket failed. The caller closes the backend; by then no product is open.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger, backend kernels.Backend) (err error) {
	path, err := wire.SocketPath(cfg.Listen)
	if err != nil {
		return err
	}
	draining, drain := context.WithCancel(context.Background())
	defer drain()
	policy := policies(cfg.Batching)
	s := newService(cfg.Limits, log, backend.Name(), draining)
	s.store, err = model.Open(model.Options{
		Dir: cfg.StateDir, Backend: backend, Check: s.checkPlan, Log: log,
		Own:       model.User(uint32(os.Geteuid())),
		MaxModels: cfg.Limits.MaxModels, MaxBytes: cfg.Limits.MaxModelBytes, MaxLoaded: cfg.Limits.MaxLoadedBytes,
		CallerModels: cfg.Limits.MaxModelsPerCaller, CallerBytes: cfg.Limits.MaxModelBytesPerCaller,
		UploadExpiry: cfg.Limits.UploadExpiry(), MaxWaiting: func(d sealed.Digest) int { return policy(d).MaxCalls }, Pinned: pinned(cfg.Residency), Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	who, err := accessOf(cfg)
	if err != nil {
		return err
	}
	socket, err := localsocket.Listen(path, who, s.stranger)
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer socket.Close()
	listeners := []net.Listener{socket}
	port, secure, err := listenTLS(cfg.TLS)
	if err != nil {
		return err
	}
	if port != nil {
		defer port.Close()
		listeners = append(listeners, port)
		log.Info("tls", "address", port.Addr().String())
	}

	work, cancelWork := context.WithCancel(context.Background())
	defer cancelWork()
	lender, _ := backend.(kernels.Lender)
	queue := batch.New(work, batch.Options{Parallel: parallel(cfg, backend), Lender: lender})
	defer queue.Close()
	s.batcher, s.policy = queue, policy
	sharing := newSharing(cfg.SharedMemory, s.metrics, log)
	s.metrics.Watch(metrics.Sources{
		Ready:   s.serving.Load,
		Waiting: queue.Waiting, Models: s.store.Size, Loaded: s.store.Loaded, Backend: backend,
		Messages: s.incoming, Parked: s.parked, Requests: s.memory, Shared: sharing.all,
	})
	stopMetrics, err := s.serveMetrics(cfg.Metrics)
	if err != nil {
		return err
	}
	defer stopMetrics()
	server := grpc.NewServer(append(wire.ServerOptions(),
		grpc.Creds(transport{insecure.NewCredentials(), secure, func(from net.Addr, why error) {
			s.metrics.Refused(metrics.Stranger)
			log.Warn("caller turned away", "address", from, "error", why)
		}, new(atomic.Uint64), sharing, s.serveDirect}),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxRecvMsgSize(maxUnary),
		grpc.InTapHandle(s.tap),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))...)
	pb.RegisterSecureNetsServer(server, s)
	status := health.NewServer()
	setHealth(status, backend, false)
	healthpb.RegisterHealthServer(server, status)
	defer func() { // once gRPC, which finds them, has stopped
		s.directs.cut()
		s.directs.wait()
	}()

	var begun greetings
	stop := func() {
		begun.hurry(0) // gRPC waits for them
		server.Stop()
	}
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { served <- server.Serve(begun.listen(l)) }()
	}
	if err := prepare(ctx, backend, s.store); err != nil {
		stop()
		for range listeners {
			<-served
		}
		if ctx.Err() != nil {
			return nil // told to stop before it was ready
		}
		return err
	}
	close(s.ready)
	s.serving.Store(true)
	setHealth(status, backend, true)
	var watched sync.WaitGroup
	watched.Go(func() { watchDevices(draining, backend, status) })
	watched.Go(func() { s.store.Warm(draining) })
	watched.Go(func() { expireUploads(draining, s.store) })
	defer func() {
		drain()
		watched.Wait()
	}()
	log.Info("serving", "address", cfg.Listen, "backend", backend.Name())
	tellSystemd(sd.SdNotifyReady, log)

	select {
	case err := <-served:
		stop()
		for range len(listeners) - 1 {
			<-served
		}
		return fmt.Errorf("daemon: serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("draining", "timeout", cfg.DrainTimeout())
	tellSystemd(sd.SdNotifyStopping, log)
	status.Shutdown()
	s.serving.Store(false)
	for _, l := range listeners { // before anyone is told
		l.Close()
	}
	drain()
	begun.hurry(lateTimeout)
	late := time.AfterFunc(cfg.DrainTimeout(), func() {
		log.Warn("drain timeout passed: cancelling calls in flight")
		cancelWork()
		stop()
		s.directs.cut()
	})
	server.GracefulStop()
	s.directs.wait()
	late.Stop()
	for range listeners {
		<-served
	}
	frames, shared := &s.counts[metrics.Frames], &s.counts[metrics.Shared]
	log.Info("stopped", "requests", frames.requests.Load(), "payload_bytes", frames.payload.Load(), "copied_bytes", frames.copied.Load(),
		"shared_requests", shared.requests.Load(), "shared_payload_bytes", shared.payload.Load(), "shared_copied_bytes", shared.copied.Load())
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

// pinned returns the models that are.
func pinned(r config.Residency) (all []sealed.Digest) {
	for _, model := range r.Pinned {
		digest, _ := hex.DecodeString(model) // as it was validated
		all = append(all, sealed.Digest(digest))
	}
	return all
}

// expireUploads looks for old uploads, until ctx ends.
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

// prepare does what must be done before the first call.
func prepare(ctx context.Context, backend kernels.Backend, store *model.Store) error {
	if err := kernels.SelfTest(ctx, backend); err != nil {
		return err
	}
	return store.Load(ctx)
}

// tellSystemd says what the daemon does now to systemd, where it was started by that.
func tellSystemd(state string, log *slog.Logger) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}
