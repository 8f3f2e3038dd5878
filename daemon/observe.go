package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/localsocket"
	"github.com/securenets/securenets/kernels"
)

// devicePeriod is the time between two checks of the devices. Tests set it.
var devicePeriod = 10 * time.Second

// setHealth sets the health of the daemon, of its service, and of each device, under
// "device/" and the device's name.
func setHealth(status *health.Server, backend kernels.Backend, serving bool) {
	v := healthOf(serving)
	status.SetServingStatus("", v)
	status.SetServingStatus(pb.SecureNets_ServiceDesc.ServiceName, v)
	setDeviceHealth(status, backend, serving)
}

func setDeviceHealth(status *health.Server, backend kernels.Backend, serving bool) {
	if r, ok := backend.(kernels.Reporter); ok {
		for _, d := range r.Report() {
			status.SetServingStatus("device/"+d.Name, healthOf(serving && d.Ready))
		}
	}
}

func healthOf(serving bool) healthpb.HealthCheckResponse_ServingStatus {
	if serving {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}

// watchDevices keeps the health of the devices up to date until ctx ends.
func watchDevices(ctx context.Context, backend kernels.Backend, status *health.Server) {
	tick := time.NewTicker(devicePeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			setDeviceHealth(status, backend, true)
		case <-ctx.Done():
			return
		}
	}
}

// serveMetrics serves the metrics over HTTP, if an address is configured, until stop is called.
func (s *service) serveMetrics(c config.Metrics) (stop func(), err error) {
	network, address, err := c.Address()
	if err != nil || network == "" {
		return func() {}, err
	}
	var l net.Listener
	if network == "unix" {
		l, err = localsocket.Listen(address, localsocket.Private, s.stranger)
	} else {
		l, err = net.Listen(network, address)
	}
	if err != nil {
		return nil, fmt.Errorf("daemon: metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler(s.log))
	server := &http.Server{
		Handler:        mux,
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   30 * time.Second,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.log.Info("metrics", "network", network, "address", l.Addr().String())
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("metrics server failed", "error", err)
		}
	}()
	return func() {
		// Requests in progress read the backend, which is closed soon.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		<-served
	}, nil
}
