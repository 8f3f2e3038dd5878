package hostclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// measureLinks measures a link to the echo at addr, which runs in another process; a unix
// socket it measures both with and without shared memory. The first result is the link that
// sessions would use: link, or LinkSocket if no memory can be shared. Without an address it
// starts an echo in this process: both ends do the same work, so each is charged half of what
// the process spends.
func measureLinks(ctx context.Context, r ring.Ring, link Link, addr string) (costs []LinkCost, err error) {
	ends := 1.0 // of the link that are in this process
	if addr == "" {
		ends = 2
		dir, err := os.MkdirTemp("", "sn") // short: a socket's path is at most 107 bytes
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		network, at := "unix", filepath.Join(dir, "s")
		addr = scheme + at
		if link == LinkTLS {
			network, at = "tcp", "127.0.0.1:0"
		}
		l, err := net.Listen(network, at)
		if err != nil {
			return nil, err
		}
		if link == LinkTLS {
			addr = "tls:" + l.Addr().String()
		}
		echoing, stop := context.WithCancel(context.WithoutCancel(ctx)) // must outlive the calls, whose error says why ctx ended
		served := make(chan error, 1)
		go func() { served <- ServeEcho(echoing, l) }()
		defer func() {
			stop()
			err = errors.Join(err, <-served)
		}()
	}
	ways := []Link{link}
	switch link {
	case LinkShared:
		ways = append(ways, LinkSocket)
	case LinkSocket:
		ways = append(ways, LinkShared)
	}
	for _, way := range ways {
		c, shared, err := measureLink(ctx, r, way, addr)
		if err != nil {
			return nil, err
		}
		if shared == (way == LinkShared) {
			c.Message, c.Word = c.Message/ends, c.Word/ends
			costs = append(costs, c)
		}
	}
	return costs, nil
}

// measureLink measures the CPU time that a connection to an echo costs this process, and
// reports whether the connection shares memory.
func measureLink(ctx context.Context, r ring.Ring, link Link, addr string) (c LinkCost, shared bool, err error) {
	var client *Client
	switch link {
	case LinkShared:
		client, err = Dial(addr)
	case LinkSocket:
		client, err = Dial(addr, SharedMemory(0))
	case LinkTLS:
		// The server need not be verified: only zeros are sent.
		client, err = DialTLS(addr, "", &tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		return c, false, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	const short, rows, cols = 32, 256, 4096 // 4 MiB
	small, err := echoed(ctx, client, r, 1, 1, short)
	if err != nil {
		return c, false, err
	}
	large, err := echoed(ctx, client, r, rows, cols, 2)
	if err != nil {
		return c, false, err
	}
	client.mu.Lock()
	defer client.mu.Unlock()
	shared = client.stream.direct != nil && client.stream.direct.Slots != nil
	return LinkCost{Link: link, Message: small, Word: max(0, large-small) / (2 * rows * cols)}, shared, nil
}

// echoed returns the CPU time of a call that sends rows of words and gets them back: the
// median over rounds, each with the given number of calls.
func echoed(ctx context.Context, c *Client, r ring.Ring, rows, cols, calls int) (float64, error) {
	// A client sends only values of type Masked, which only masking makes.
	layer, err := transform.NewLayer(r, transform.Scheme{Weights: transform.WeightNone, Inputs: transform.InputSplit}, plan.Dense(cols, cols))
	if err != nil {
		return 0, err
	}
	call, err := layer.Mask(make([]int32, rows*cols), rows, nil)
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for i := range 1 + placeRounds {
		err := timed(&took, func() error {
			for range calls {
				if _, err := c.evaluate(ctx, time.Now().Add(defaultTimeout), func() {}, r, sealed.Digest{}, echoLayer(r), call.Masked()[0], ring.NewMatrix(rows, cols)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if i == 0 {
			took = took[:0] // the first round includes connecting
		}
	}
	return float64(median(took)) / float64(calls), nil
}

// ServeEcho answers requests at l with their own words, until ctx ends. It is the server that
// SealOptions.Echo names, in a process of its own. It serves direct streams, on a unix socket
// with shared memory, and gRPC; on TCP it uses TLS with a self-signed certificate.
func ServeEcho(ctx context.Context, l net.Listener) error {
	var secure *tls.Config
	if l.Addr().Network() == "tcp" {
		own, err := unsigned()
		if err != nil {
			return err
		}
		secure = &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13, NextProtos: wire.Protocols()}
	}
	greeter := wire.NewGreeter(ctx, secure, func(stream *wire.DirectStream) error { return serveEcho(stream) })
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.Creds(greeter), grpc.WaitForHandlers(true))...)
	pb.RegisterSecureNetsServer(server, echo{})
	stop := context.AfterFunc(ctx, server.Stop)
	err := server.Serve(l)
	if stop() {
		server.Stop()
	}
	greeter.Wait()
	return err
}

// unsigned returns a self-signed certificate.
func unsigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// echo answers every request with its words, decoded and encoded as a host does. The
// request's layer number names the ring: see echoLayer.
type echo struct {
	pb.UnimplementedSecureNetsServer
}

// echoLayer returns the layer number that names a ring: its number of primes.
func echoLayer(r ring.Ring) int { return len(r.Primes()) }

func echoRing(layer uint32) (ring.Ring, error) {
	for _, name := range Rings() {
		if r, err := name.ring(); err == nil && echoLayer(r) == int(layer) {
			return r, nil
		}
	}
	return ring.Ring{}, status.Errorf(codes.NotFound, "no ring of %d primes", layer)
}

func (echo) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	return serveEcho(stream)
}

func serveEcho(stream wire.ServerStream) error {
	for {
		req := new(wire.Request)
		if err := stream.RecvMsg(req); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		resp, err := echoOf(req, stream)
		req.Free()
		if err != nil {
			return err
		}
		err = stream.SendMsg(resp)
		resp.Free()
		if err != nil {
			return err
		}
	}
}

// echoOf returns the answer to a request. Both may be in a direct stream's shared memory.
func echoOf(req *wire.Request, stream wire.ServerStream) (*wire.Response, error) {
	r, err := echoRing(req.Layer)
	if err != nil {
		return nil, err
	}
	in, err := sharedPart(stream, req.Shared)
	if err != nil {
		return nil, err
	}
	from := req.Words
	if req.Shared != nil {
		from = mem.BufferSlice{mem.SliceBuffer(in)}
	}
	words := make([]uint32, from.Len()/r.WordBytes())
	to, err := sharedPart(stream, req.Answer)
	if err != nil {
		return nil, err
	}
	if req.Answer != nil && len(to) != len(words)*r.WordBytes() {
		return nil, status.Error(codes.InvalidArgument, "the answer's span has another length than the words")
	}
	resp := &wire.Response{ID: req.ID, Shared: req.Answer}
	touched := lane.Touch(func() {
		if err = wire.DecodeWords(r, words, from); err != nil {
			return
		}
		if req.Answer != nil {
			wire.PutWords(r, to, words)
		} else {
			resp.Words = wire.EncodeWords(r, words, nil)
		}
	})
	return resp, errors.Join(err, touched)
}

// sharedPart returns the part of a stream's shared memory that s names; nil for nil.
func sharedPart(stream wire.ServerStream, s *wire.Span) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	if d, ok := stream.(*wire.DirectStream); ok && d.Region() != nil {
		if b, ok := d.Region().Bytes(s.Offset, s.Length); ok {
			return b, nil
		}
	}
	return nil, status.Error(codes.InvalidArgument, "not in shared memory")
}
