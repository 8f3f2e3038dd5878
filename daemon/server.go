package daemon

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

// maxUnary is the largest request of a unary call, in bytes. Messages of streams are read
// by wire.Receiver instead.
const maxUnary = 64 << 10

// server is the gRPC server and its listeners. It belongs to one goroutine.
type server struct {
	*service
	backend   kernels.Backend
	grpc      *grpc.Server
	health    *health.Server
	listeners []net.Listener
	begun     greetings
	serving   sync.WaitGroup // a goroutine for each listener
	ended     chan error     // has room for why each of them ended
}

// newServer returns a server that has yet to be started. Its health is NOT_SERVING. secure
// is the configuration of TLS; nil if there is no TLS listener.
func newServer(s *service, backend kernels.Backend, listeners []net.Listener, secure *tlsFiles, sharing *sharing) *server {
	turnedAway := func(from net.Addr, why error) {
		s.metrics.Refused(metrics.Stranger)
		s.log.Warn("caller turned away", "address", from, "error", why)
	}
	v := &server{
		service: s, backend: backend, listeners: listeners, ended: make(chan error, len(listeners)), health: health.NewServer(),
		grpc: grpc.NewServer(append(wire.ServerOptions(),
			grpc.Creds(transport{insecure.NewCredentials(), secure, turnedAway, new(atomic.Uint64), sharing, s.serveDirect}),
			grpc.ConnectionTimeout(handshakeTimeout),
			grpc.MaxRecvMsgSize(maxUnary),
			grpc.InTapHandle(s.tap),
			grpc.WaitForHandlers(true),
			grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))...),
	}
	pb.RegisterSecureNetsServer(v.grpc, s)
	setHealth(v.health, backend, false)
	healthpb.RegisterHealthServer(v.grpc, v.health)
	return v
}

// start accepts connections. Calls of the protocol wait for ready.
func (v *server) start() {
	for _, l := range v.listeners {
		v.serving.Go(func() { v.ended <- v.grpc.Serve(v.begun.listen(l)) })
	}
}

// ready lets calls begin.
func (v *server) ready() {
	close(v.service.ready)
	v.service.serving.Store(true)
	setHealth(v.health, v.backend, true)
}

// cut ends all of gRPC's connections and calls.
func (v *server) cut() {
	v.begun.hurry(0) // gRPC waits for connections that have not begun
	v.grpc.Stop()
}

// stop cuts the server and waits until no listener is served.
func (v *server) stop() {
	v.cut()
	v.serving.Wait()
}

// drain stops accepting and waits until the calls in flight are answered. After the timeout
// it cancels them. refuse makes the service refuse further requests; cancelWork ends products.
func (v *server) drain(refuse, cancelWork context.CancelFunc, timeout time.Duration) {
	v.health.Shutdown()
	v.service.serving.Store(false)
	closeAll(v.listeners) // before any caller is told
	refuse()
	v.begun.hurry(lateTimeout)
	late := time.AfterFunc(timeout, func() {
		v.log.Warn("drain timeout passed: cancelling calls in flight")
		cancelWork()
		v.cut()
		v.directs.cut()
	})
	v.grpc.GracefulStop()
	v.directs.wait()
	late.Stop()
	v.serving.Wait()
}
