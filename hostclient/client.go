package hostclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/reread"
	"github.com/securenets/securenets/internal/wire"
)

// defaultTimeout limits the wait for one layer's answers, for one short call, and for an
// upload's next step.
const defaultTimeout = 30 * time.Second

const (
	// uploadChunk is the largest piece of a model in one message, in bytes.
	uploadChunk = 1 << 20
	// checkRate is the lowest rate at which a cloud may store and check a whole model, in
	// bytes a second.
	checkRate = 16 << 20
)

// Client is a connection to one cloud. It may be used by several goroutines at once.
type Client struct {
	addr     string
	place    string // addr, in one spelling
	provider string
	conn     *grpc.ClientConn // for Evaluate only if the cloud knows no direct streams
	rpc      pb.SecureNetsClient
	timeout  time.Duration // of all but Evaluate
	// dialDirect opens a direct stream.
	dialDirect func(context.Context) (*wire.Direct, error)

	mu      sync.Mutex
	stream  *stream // of Evaluate calls; nil: none opened yet
	barred  error   // why no stream may be opened any more: quarantined or closed
	running sync.WaitGroup
}

// DialOption is a choice for a daemon on the same machine.
type DialOption func(*dialOptions)

type dialOptions struct{ shared int64 }

// DefaultSharedMemory is how many bytes a client shares with a daemon by default: room for
// two requests of the largest size in flight, with their answers.
const DefaultSharedMemory = 64 << 20

// SharedMemory makes a client share the given bytes of memory with the daemon, so that
// words need not go through the socket; 0 shares none. Results are the same either way.
// Words that find no room go through the socket, and so do all words if the daemon refuses
// the memory or this system cannot share any (only Linux can).
func SharedMemory(bytes int64) DialOption { return func(o *dialOptions) { o.shared = bytes } }

// Dial returns a client of the daemon at addr ("unix:/path"). It connects when
// first used. Its provider has the name of the address.
func Dial(addr string, options ...DialOption) (*Client, error) {
	return DialProvider(addr, "", options...)
}

// DialProvider is Dial for a daemon that a named provider runs: see Secret.Bind. An empty
// name stands for the address, with its path made absolute.
func DialProvider(addr, provider string, options ...DialOption) (*Client, error) {
	o := dialOptions{shared: DefaultSharedMemory}
	for _, option := range options {
		option(&o)
	}
	if o.shared < 0 || o.shared > lane.MaxSize {
		return nil, fmt.Errorf("hostclient: %d bytes of shared memory", o.shared)
	}
	conn, err := wire.Dial(addr)
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	path, err := wire.SocketPath(addr)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	shared := (o.shared + lane.Grain - 1) / lane.Grain * lane.Grain
	c := newClient(conn, addr, scheme+path, provider)
	c.dialDirect = func(ctx context.Context) (*wire.Direct, error) { return wire.DialDirect(ctx, addr, shared) }
	return c, nil
}

// DialTLS is DialProvider for a daemon at "tls:HOST:PORT". config has the host's
// certificate and the CAs that the daemon's is checked against: see LoadTLS. TLS 1.3 is
// used whatever config says, and no proxy. A nil config stands for the zero one.
func DialTLS(addr, provider string, config *tls.Config) (*Client, error) {
	if config = config.Clone(); config == nil { // for each stream, too
		config = new(tls.Config)
	}
	conn, err := wire.DialTLS(addr, config)
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	c := newClient(conn, addr, strings.ToLower(addr), provider)
	c.dialDirect = func(ctx context.Context) (*wire.Direct, error) { return wire.DialDirectTLS(ctx, addr, config) }
	return c, nil
}

// LoadTLS reads PEM files: the host's certificate, its key, and the CA certificates that
// clouds are checked against. "" for the last stands for the system's. Connections present what
// the first two hold when they are made; while that is no certificate and key, what they held
// before.
func LoadTLS(certificate, key, ca string) (*tls.Config, error) {
	own, err := reread.New(func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(certificate, key)
		return &c, err
	}, certificate, key)
	if err != nil {
		return nil, fmt.Errorf("hostclient: certificate and key: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		now, _, _ := own.Get()
		return now, nil
	}}
	if ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("hostclient: %s contains no PEM certificate", ca)
	}
	return c, nil
}

func newClient(conn *grpc.ClientConn, addr, place, provider string) *Client {
	if provider == "" {
		provider = place
	}
	return &Client{
		addr: addr, place: place, provider: provider,
		conn: conn, rpc: pb.NewSecureNetsClient(conn), timeout: defaultTimeout,
	}
}

// scheme begins the address of a unix socket.
const scheme = "unix:"

// Addr returns the address given to Dial or DialTLS.
func (c *Client) Addr() string { return c.addr }

// Provider returns the name of whoever runs the cloud.
func (c *Client) Provider() string { return c.provider }

// Close closes the connection. Calls in flight return ErrUnavailable.
func (c *Client) Close() error {
	c.bar(fmt.Errorf("%w: client closed", ErrUnavailable))
	err := c.conn.Close()
	c.running.Wait()
	return err
}

// bar ends the stream and prevents others. The first reason is kept.
func (c *Client) bar(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barred != nil {
		return
	}
	c.barred = why
	if c.stream != nil {
		c.stream.fail(why)
	}
}

// stopped says why ctx, which has ended, ended a call.
func stopped(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrTimeout, cause)
	}
	return cause
}

// classify converts a gRPC error of a call with ctx to an error that callers can tell apart.
func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	var refused *wire.Error
	if errors.As(wire.FromStatus(err), &refused) {
		return refused
	}
	s := status.Convert(err)
	if alert, ok := wire.Alert(cause(s.Message())); ok && s.Code() == codes.Unavailable {
		return &AlertError{alert}
	}
	kind, message := ErrUnavailable, cause(s.Message())
	switch s.Code() {
	case codes.DeadlineExceeded:
		kind = ErrTimeout
	case codes.Unavailable:
		if strings.HasPrefix(message, "error reading server preface") && strings.HasSuffix(message, net.ErrClosed.Error()) {
			kind, message = ErrTimeout, mute // gRPC itself gave the connection up
		}
	case codes.Internal, codes.ResourceExhausted:
		// Without a reason of the protocol it comes from this end's gRPC: a message that cannot
		// be decoded or exceeds the limit.
		kind = ErrBadAnswer
	}
	return fmt.Errorf("%w: %.256q", kind, message)
}

// mute describes a cloud that hangs before it says a word.
const mute = "it accepts connections, but answers nothing"

// cause returns the cause of a failed connection, which gRPC quotes in its message.
func cause(message string) string {
	if _, quoted, ok := strings.Cut(message, "connection error: desc = "); ok {
		if s, err := strconv.Unquote(quoted); err == nil {
			return strings.TrimPrefix(s, "transport: Error while dialing: ")
		}
	}
	return message
}

// fault is classify with the call's name and the cloud's address added.
func (c *Client) fault(ctx context.Context, call string, err error) error {
	return fmt.Errorf("%s at %s: %w", call, c.addr, classify(ctx, err))
}

// Push uploads a sealed model, from where an earlier upload stopped. Under a scheme of
// several roles, first give the role to the client's provider with Secret.Bind or
// BindDir. Progress may be nil. For a large model see PushFile.
func (c *Client) Push(ctx context.Context, m SealedModel, progress func(done, total int64)) error {
	return c.push(ctx, SealedFile{Role: m.Role, Digest: m.Digest, Size: int64(len(m.Bytes))}, bytes.NewReader(m.Bytes), progress)
}

// PushFile is Push for a sealed model in a file (see SealedFiles and ModelFile.SealDir),
// which is read as it is sent.
func (c *Client) PushFile(ctx context.Context, m SealedFile, progress func(done, total int64)) error {
	f, err := openRegular(m.path)
	if err != nil {
		return modelError(m.Role, err)
	}
	defer f.Close()
	return c.push(ctx, m, f, progress)
}

// push uploads a sealed model whose bytes are in from.
func (c *Client) push(ctx context.Context, m SealedFile, from io.ReaderAt, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	for try := 1; ; try++ {
		held, err := c.upload(ctx, m, 0, nil, progress) // asks how much is there
		if err != nil {
			return err
		}
		if !held.Complete && held.Received > uint64(m.Size) {
			return fmt.Errorf("%w: push: %s holds %d bytes of a model of %d", ErrBadAnswer, c.addr, held.Received, m.Size)
		}
		if !held.Complete {
			held, err = c.upload(ctx, m, int64(held.Received), from, progress)
		}
		var refused *RefusedError
		switch {
		case errors.As(err, &refused) && refused.Reason == wire.ReasonBadOffset && try < uploadTries:
			continue // more of it has arrived since: from a connection that broke, or another push
		case err != nil:
			return err
		case !held.Complete:
			return fmt.Errorf("%w: push: all was sent, but %s holds %d bytes of a model of %d", ErrBadAnswer, c.addr, held.Received, m.Size)
		}
		progress(m.Size, m.Size)
		return nil
	}
}

// uploadTries is how often a push asks how much a cloud holds, and goes on from there.
const uploadTries = 5

// upload sends a model from an offset on in one stream; nothing if from is nil.
func (c *Client) upload(ctx context.Context, m SealedFile, offset int64, from io.ReaderAt, progress func(done, total int64)) (*pb.UploadResponse, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A cloud that accepts nothing for this long is hung.
	hung := time.AfterFunc(c.timeout, func() { cancel(ErrTimeout) })
	defer hung.Stop()
	stream, err := c.rpc.Upload(ctx)
	if err != nil {
		return nil, c.fault(ctx, "push", err)
	}
	req := &pb.UploadRequest{Digest: m.Digest[:], Size: uint64(m.Size), Offset: uint64(offset)}
	for {
		// On io.EOF, CloseAndRecv returns the reason.
		if err := stream.Send(req); err == io.EOF {
			break
		} else if err != nil {
			return nil, c.fault(ctx, "push", err)
		}
		hung.Reset(c.timeout)
		if from == nil || offset == m.Size {
			break
		}
		progress(offset, m.Size)
		data := make([]byte, min(m.Size-offset, uploadChunk)) // not reused: gRPC may still hold the last one
		if n, err := from.ReadAt(data, offset); n < len(data) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, modelError(m.Role, err)
		}
		offset += int64(len(data))
		req = &pb.UploadRequest{Data: data}
	}
	hung.Reset(c.timeout + time.Duration(m.Size/checkRate)*time.Second)
	held, err := stream.CloseAndRecv()
	if err != nil {
		return nil, c.fault(ctx, "push", err)
	}
	return held, nil
}

// Model is a model that a cloud holds.
type Model struct {
	Digest string `json:"digest"` // hex
	Bytes  int64  `json:"bytes"`
	Layers int    `json:"layers"`
}

// Models lists the models that the cloud holds for this caller.
func (c *Client) Models(ctx context.Context) ([]Model, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	list, err := c.rpc.List(ctx, &pb.ListRequest{})
	if err != nil {
		return nil, c.fault(ctx, "list", err)
	}
	models := make([]Model, len(list.Models))
	for i, m := range list.Models {
		models[i] = Model{Digest: hex.EncodeToString(m.Digest), Bytes: int64(m.Size), Layers: int(m.Layers)}
	}
	return models, nil
}

// Remove removes a model.
func (c *Client) Remove(ctx context.Context, d Digest) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if _, err := c.rpc.Remove(ctx, &pb.RemoveRequest{Digest: d[:]}); err != nil {
		return c.fault(ctx, "remove", err)
	}
	return nil
}

// Info is what a cloud reports about itself.
type Info struct {
	Version string `json:"version"`
	Backend string `json:"backend"`
	Serving bool   `json:"serving"` // as its health service reports
}

// Info asks the cloud for its version, backend and health.
func (c *Client) Info(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	info, err := c.rpc.Info(ctx, &pb.InfoRequest{})
	if err != nil {
		return Info{}, c.fault(ctx, "info", err)
	}
	health, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return Info{}, c.fault(ctx, "health", err)
	}
	return Info{
		Version: wire.Printable(info.Version),
		Backend: wire.Printable(info.Backend),
		Serving: health.Status == healthpb.HealthCheckResponse_SERVING,
	}, nil
}
