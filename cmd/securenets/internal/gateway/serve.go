package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/securenets/securenets/internal/localsocket"
	"github.com/securenets/securenets/internal/wire"
)

// ErrAddress reports an address that is no place on this machine.
var ErrAddress = errors.New("gateway: bad address")

// Listen listens at unix:/path, where this process's user and root may connect, or at
// HOST:PORT with a host that is this machine's alone.
func (g *Gateway) Listen(addr string) (net.Listener, error) {
	if err := checkAddress(addr); err != nil {
		return nil, err
	}
	if path, err := wire.SocketPath(addr); err == nil {
		l, err := localsocket.Listen(path, localsocket.Private, func(uid uint32, err error) {
			g.o.Log.Warn("caller turned away", "uid", uid, "error", err)
		})
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		return l, nil
	}
	return net.Listen("tcp", addr)
}

// CheckAddresses refuses what Listen takes for no address, and two addresses that are one;
// "" stands for none. Its errors wrap ErrAddress or, of a socket, wire.ErrAddress.
func CheckAddresses(rest, calls string) error {
	for _, addr := range []string{rest, calls} {
		if err := checkAddress(addr); addr != "" && err != nil {
			return err
		}
	}
	if at := place(rest); at != "" && at == place(calls) {
		return fmt.Errorf("%w %q: it is given for REST and for gRPC", ErrAddress, calls)
	}
	return nil
}

func checkAddress(addr string) error {
	if strings.HasPrefix(addr, "unix:") {
		_, err := wire.SocketPath(addr)
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || !loopback(addr) {
		return fmt.Errorf("%w %q: want unix:/path, or a port of this machine as 127.0.0.1:8000", ErrAddress, addr)
	}
	return nil
}

// place returns an address in one spelling, or "" if it is none or names no port.
func place(addr string) string {
	if path, err := wire.SocketPath(addr); err == nil {
		path, _ = filepath.Abs(path)
		return path
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil || port == 0 {
		return ""
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

const (
	idleTimeout = 2 * time.Minute
	maxStreams  = 64       // gRPC calls of one connection
	callWindow  = 64 << 10 // bytes of one that waits for its place
)

// times are how long callers may take.
type times struct {
	read  time.Duration // to send a request, which holds a place among those that run
	write time.Duration // to read its answer, over REST
	greet time.Duration // to begin with gRPC, which waits for that at an end
}

var usual = times{read: time.Minute, write: time.Minute, greet: 5 * time.Second}

// Serve serves the REST part at rest and the gRPC part at calls, one of which may be nil,
// until ctx ends. It finishes what is in work then, for so long at most.
func (g *Gateway) Serve(ctx context.Context, rest, calls net.Listener, atMost time.Duration) error {
	group, ctx := errgroup.WithContext(ctx)
	within := func(stop func(context.Context)) {
		<-ctx.Done()
		left, cancel := context.WithTimeout(context.Background(), atMost)
		defer cancel()
		stop(left)
	}
	if rest != nil {
		server := &http.Server{
			Handler: g.Handler(), MaxHeaderBytes: 16 << 10,
			ReadTimeout: g.times.read, WriteTimeout: g.times.write, IdleTimeout: idleTimeout,
			ErrorLog: slog.NewLogLogger(g.o.Log.Handler(), slog.LevelWarn),
		}
		group.Go(func() error {
			if err := server.Serve(rest); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			within(func(left context.Context) {
				if server.Shutdown(left) != nil {
					server.Close()
				}
			})
			return nil
		})
	}
	if calls != nil {
		server := grpc.NewServer(grpc.MaxRecvMsgSize(int(g.o.MaxBytes)), grpc.ConnectionTimeout(g.times.greet),
			grpc.MaxConcurrentStreams(maxStreams), grpc.InitialWindowSize(callWindow))
		g.Register(server)
		healthpb.RegisterHealthServer(server, health.NewServer())
		group.Go(func() error {
			if err := server.Serve(calls); !errors.Is(err, grpc.ErrServerStopped) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			within(func(left context.Context) {
				defer context.AfterFunc(left, server.Stop)()
				server.GracefulStop()
			})
			return nil
		})
	}
	return group.Wait()
}
