package hostclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// big returns a sealed model of a little over 2 MiB.
var big = sync.OnceValue(func() hostclient.SealedModel {
	g := chain(graph.Vector(1<<10), &graph.Dense{In: 1 << 10, Out: 520, W: make([]float32, 520<<10)})
	models, _, err := hostclient.Seal(context.Background(), model(g), hostclient.SealOptions{Scheme: nonePad})
	if err != nil {
		panic(err)
	}
	return models[0]
})

// bigFile returns big in a file.
func bigFile(t *testing.T) hostclient.SealedFile {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "role-0.safetensors"), big().Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := hostclient.SealedFiles(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0]
}

func TestPush(t *testing.T) {
	m, f := big(), bigFile(t)
	size := int64(len(m.Bytes))
	if f.Role != m.Role || f.Digest != m.Digest || f.Size != size {
		t.Errorf("%+v is not the model that was written", f)
	}
	for what, push := range map[string]func(*hostclient.Client, func(done, total int64)) error{
		"bytes": func(c *hostclient.Client, progress func(done, total int64)) error {
			return c.Push(t.Context(), m, progress)
		},
		"file": func(c *hostclient.Client, progress func(done, total int64)) error {
			return c.PushFile(t.Context(), f, progress)
		},
	} {
		t.Run(what, func(t *testing.T) {
			ctx := t.Context()
			c := newCloud(t)
			client := dial(t, c)
			var steps []int64
			progress := func(done, total int64) {
				if total != size {
					t.Errorf("%d of %d", done, total)
				}
				steps = append(steps, done)
			}
			// An earlier upload stopped on the way.
			c.partial[m.Digest] = slices.Clone(m.Bytes[:5000])
			if err := push(client, progress); err != nil {
				t.Fatal(err)
			}
			if want := []int64{5000, 5000 + 1<<20, 5000 + 2<<20, size}; !slices.Equal(steps, want) {
				t.Errorf("progress %v, want %v", steps, want)
			}
			if sent := c.uploaded.Load(); sent != size-5000 {
				t.Errorf("%d bytes sent", sent)
			}
			// What is there is not sent again.
			if err := push(client, nil); err != nil || c.uploaded.Load() != size-5000 {
				t.Errorf("%d bytes sent, %v", c.uploaded.Load(), err)
			}
			list, err := client.Models(ctx)
			if want := (hostclient.Model{Digest: m.Digest.String(), Bytes: size, Layers: 1}); err != nil || !slices.Equal(list, []hostclient.Model{want}) {
				t.Errorf("%+v, %v", list, err)
			}
			if err := client.Remove(ctx, m.Digest); err != nil {
				t.Error(err)
			}
			var refused *hostclient.RefusedError
			if err := client.Remove(ctx, m.Digest); !errors.As(err, &refused) || refused.Reason != "MODEL_NOT_FOUND" {
				t.Error(err)
			}
			if list, err := client.Models(ctx); err != nil || len(list) != 0 {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

func TestPushRefused(t *testing.T) {
	client := dial(t, newCloud(t))
	m, f := big(), bigFile(t)
	m.Digest[0] ^= 1
	f.Digest[0] ^= 2
	for _, err := range []error{client.Push(t.Context(), m, nil), client.PushFile(t.Context(), f, nil)} {
		var refused *hostclient.RefusedError
		if !errors.As(err, &refused) || refused.Reason != wire.ReasonBadModel {
			t.Error(err)
		}
	}
}

// TestPushLate: what an earlier connection sent may arrive after a push has asked how much is held. It
// goes on from there, and not for ever.
func TestPushLate(t *testing.T) {
	m := big()
	for late, want := range map[int]wire.Reason{2: "", 4: "", 5: wire.ReasonBadOffset} {
		c := newCloud(t)
		for i := range late {
			c.late = append(c.late, m.Bytes[1000*i:1000*(i+1)])
		}
		err := dial(t, c).Push(t.Context(), m, nil)
		var refused *hostclient.RefusedError
		switch {
		case want == "" && err != nil, want != "" && (!errors.As(err, &refused) || refused.Reason != want):
			t.Errorf("%d parts arrive late: %v", late, err)
		case want == "" && c.uploaded.Load() >= int64(len(m.Bytes)):
			t.Errorf("%d parts arrive late: %d bytes sent", late, c.uploaded.Load())
		}
	}
}

// A file that cannot be read, or not to its end any more, is not the cloud's fault.
func TestPushBrokenFile(t *testing.T) {
	client := dial(t, newCloud(t))
	f := bigFile(t)
	longer := f
	longer.Size++
	if err := client.PushFile(t.Context(), longer, nil); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, hostclient.ErrUnavailable) {
		t.Error(err)
	}
	if err := client.PushFile(t.Context(), hostclient.SealedFile{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if files, err := hostclient.SealedFiles(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", files, err)
	}
}

// A pipe or a folder in the place of a sealed model is refused, and nothing waits for whoever would
// write to it.
func TestPushNoFile(t *testing.T) {
	client := dial(t, newCloud(t))
	for what, replace := range map[string]func(path string) error{
		"pipe":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "role-0.safetensors")
		if err := os.WriteFile(path, big().Bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		files, err := hostclient.SealedFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(path), replace(path)); err != nil {
			t.Fatal(err)
		}
		failed := func(call string, do func() error) {
			done := make(chan error, 1)
			go func() { done <- do() }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), "not a regular file") {
					t.Errorf("%s of a %s: %v", call, what, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s waits for a %s", call, what)
			}
		}
		failed("SealedFiles", func() error { _, err := hostclient.SealedFiles(dir); return err })
		failed("PushFile", func() error { return client.PushFile(t.Context(), files[0], nil) })
	}
}

// TestPushMemory: of a file that is pushed, a few messages are in memory.
func TestPushMemory(t *testing.T) {
	const size = 48 << 20
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "role-0.safetensors"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "role-0.safetensors"), size); err != nil {
		t.Fatal(err)
	}
	client := dialOdd(t, func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
		resp := &pb.UploadResponse{}
		for {
			req, err := s.Recv()
			if err != nil {
				resp.Complete = resp.Received == size
				return s.SendAndClose(resp)
			}
			resp.Received += uint64(len(req.Data))
		}
	})
	held := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := held(), uint64(0)
	files, err := hostclient.SealedFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	if err := client.PushFile(t.Context(), files[0], func(int64, int64) {
		if steps++; steps%8 == 0 {
			most = max(most, held())
		}
	}); err != nil {
		t.Fatal(err)
	}
	if want := before + size/2; most == 0 || most > want {
		t.Errorf("%d bytes in use, want at most %d", most, want)
	}
}

func TestInfo(t *testing.T) {
	info, err := dial(t, newCloud(t)).Info(t.Context())
	if want := (hostclient.Info{Version: "test", Backend: "cpu", Serving: true}); err != nil || info != want {
		t.Errorf("%+v, %v", info, err)
	}
	// What a cloud says ends in terminals.
	odd := newCloud(t)
	odd.version = "1\x1b[2J\n" + strings.Repeat("x", 1<<20)
	info, err = dial(t, odd).Info(t.Context())
	if err != nil || !strings.HasPrefix(info.Version, "1\uFFFD[2J\uFFFDx") || len(info.Version) > 1<<10 {
		t.Errorf("%d bytes, %.20q, %v", len(info.Version), info.Version, err)
	}
}

// oddCloud gets uploads wrong.
type oddCloud struct {
	pb.UnimplementedSecureNetsServer
	upload func(grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error
}

func (c oddCloud) Upload(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	return c.upload(s)
}

// dialOdd returns a client of an oddCloud, or of a server that is no cloud.
func dialOdd(t *testing.T, upload func(grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error) *hostclient.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(wire.ServerOptions()...)
	if upload != nil {
		pb.RegisterSecureNetsServer(server, oddCloud{upload: upload})
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	client, err := hostclient.Dial("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestPushToOddCloud(t *testing.T) {
	type stream = grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]
	answer := func(received uint64) func(stream) error {
		return func(s stream) error {
			for {
				if _, err := s.Recv(); err != nil {
					return s.SendAndClose(&pb.UploadResponse{Received: received})
				}
			}
		}
	}
	for _, test := range []struct {
		what   string
		upload func(stream) error
		want   error
	}{
		{"holds more than there is", answer(1 << 40), hostclient.ErrBadAnswer},
		{"is never complete", answer(7), hostclient.ErrBadAnswer},
		{"hangs", func(s stream) error { <-s.Context().Done(); return nil }, hostclient.ErrTimeout},
		{"is none", nil, hostclient.ErrUnavailable},
	} {
		client := dialOdd(t, test.upload)
		if test.want == hostclient.ErrTimeout {
			client.SetTimeout(200 * time.Millisecond)
		}
		if err := client.Push(t.Context(), big(), nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.what, err)
		}
	}
}

// A listener that never speaks is found out by every call.
func TestSilence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := hostclient.Dial("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetTimeout(100 * time.Millisecond)
	models, secret := seal(t, nets()["mlp"], permutePad)
	s := open(t, secret, models, client, hostclient.Options{Timeout: 100 * time.Millisecond})
	calls := map[string]func(context.Context) error{
		"push":   func(ctx context.Context) error { return client.Push(ctx, models[0], nil) },
		"models": func(ctx context.Context) error { _, err := client.Models(ctx); return err },
		"remove": func(ctx context.Context) error { return client.Remove(ctx, sealed.Digest{}) },
		"info":   func(ctx context.Context) error { _, err := client.Info(ctx); return err },
		"infer":  func(ctx context.Context) error { _, err := s.Infer(ctx, make([]float32, 7), 1); return err },
	}
	for name, call := range calls {
		if err := call(t.Context()); !errors.Is(err, hostclient.ErrTimeout) {
			t.Errorf("%s: %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", name, err)
		}
	}
}

func TestDial(t *testing.T) {
	for _, bad := range []string{"", "localhost:1", "tcp:localhost:1", "unix:", "tls:localhost:1"} {
		if _, err := hostclient.Dial(bad); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "unix:/s", "tls:localhost", "tls::1"} {
		if _, err := hostclient.DialTLS(bad, "", new(tls.Config)); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A nil configuration is an empty one, without a certificate.
func TestDialTLSWithoutConfig(t *testing.T) {
	c, err := hostclient.DialTLS("tls:127.0.0.1:1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Info(t.Context()); !errors.Is(err, hostclient.ErrUnavailable) {
		t.Error(err)
	}
}

// TestTLSPlace: one address is one place, however it is spelled.
func TestTLSPlace(t *testing.T) {
	var clients []*hostclient.Client
	for _, addr := range []string{"tls:Host.Example:7443", "tls:host.example:7443"} {
		c, err := hostclient.DialTLS(addr, "", new(tls.Config))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.Addr() != addr || c.Provider() != "tls:host.example:7443" {
			t.Errorf("%s is %s of %s", addr, c.Addr(), c.Provider())
		}
		clients = append(clients, c)
	}
	if clients[0].Provider() != clients[1].Provider() {
		t.Error("one address is two providers")
	}
}
