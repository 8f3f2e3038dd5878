package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/inference"
)

const (
	brief    = 400 * time.Millisecond
	patience = time.Minute // much more than anything takes
)

// served serves g until stop is called, which waits for that, and says where: REST, gRPC.
func served(t *testing.T, g *Gateway, atMost time.Duration) (at [2]string, stop func()) {
	var ls [2]net.Listener
	for i := range ls {
		at[i] = filepath.Join(t.TempDir(), "s")
		l, err := g.Listen("unix:" + at[i])
		if err != nil {
			t.Fatal(err)
		}
		ls[i] = l
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ls[0], ls[1], atMost) }()
	return at, func() {
		t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("it does not end")
		}
	}
}

// one returns a gateway with one place, and little time for callers, to a network whose samples
// have one element and so many outputs.
func one(outputs int, infer func(context.Context, []float32, int) ([]float32, error)) *Gateway {
	g := New(Options{Batch: 1 << 20, Concurrent: 1, MaxBytes: 1 << 24, Log: slog.New(slog.DiscardHandler)},
		Model{Name: "m", Inputs: floatInput(1, 1, 1), Outputs: []Output{{outputName, []int{outputs}}}, Infer: infer})
	g.times = times{brief, brief, brief}
	return g
}

// send connects and sends the start of a request whose body is padded to so many bytes: all of
// its header, and so many bytes of its body.
func send(t *testing.T, path string, length, sent int, headers ...string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	body := `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,1],"data":[1]}]}`
	body += strings.Repeat(" ", max(0, length-len(body)))
	go fmt.Fprintf(c, "POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s", len(body), strings.Join(headers, ""), body[:sent])
	return c
}

// statusOn returns the status of the answer that comes.
func statusOn(t *testing.T, c net.Conn) int {
	t.Helper()
	for b := bufio.NewReader(c); ; {
		r, err := http.ReadResponse(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusContinue {
			return r.StatusCode
		}
	}
}

// TestLongWait: a request may wait for its place, and run, for longer than it and its answer
// may take to be sent.
func TestLongWait(t *testing.T) {
	goOn := make(chan struct{})
	g := one(1, func(ctx context.Context, x []float32, _ int) ([]float32, error) {
		select {
		case <-goOn:
			return x, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	at, stop := served(t, g, time.Hour)
	defer stop()
	const large = 64 << 10 // more than is read ahead
	var conns []net.Conn
	for range 2 {
		conns = append(conns, send(t, at[0], large, large), send(t, at[0], large, large, "Expect: 100-continue\r\n"))
	}
	time.Sleep(2 * brief)
	close(goOn)
	for i, c := range conns {
		if status := statusOn(t, c); status != 200 {
			t.Errorf("request %d: %d", i, status)
		}
	}
}

// TestSlowSender: who does not send all of a request does not keep its place.
func TestSlowSender(t *testing.T) {
	g := one(1, func(_ context.Context, x []float32, _ int) ([]float32, error) { return x, nil })
	at, stop := served(t, g, time.Hour)
	defer stop()
	slow := send(t, at[0], 100, 50)
	if status := statusOn(t, slow); status != 400 {
		t.Errorf("slow: %d", status)
	}
	if status := statusOn(t, send(t, at[0], 100, 100)); status != 200 {
		t.Errorf("another: %d", status)
	}
}

// TestSlowHeader: nor does a connection stay that does not send all of a header, or of a body
// that was refused before it came.
func TestSlowHeader(t *testing.T) {
	at, stop := served(t, one(1, nil), time.Hour)
	defer stop()
	for _, request := range []string{
		"GET /v2 HTTP/1.1\r\nHost: local",
		"POST /v2/none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx",
	} {
		c, err := net.Dial("unix", at[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%q: %v", request, err)
		}
	}
}

// TestSlowReader: who does not read an answer does not keep it in memory.
func TestSlowReader(t *testing.T) {
	answered := make(chan struct{})
	const outputs = 1 << 19 // 1 MiB of JSON, which no socket takes at once
	g := one(outputs, func(context.Context, []float32, int) ([]float32, error) {
		defer close(answered)
		return make([]float32, outputs), nil
	})
	at, stop := served(t, g, time.Hour)
	send(t, at[0], 100, 100)
	<-answered
	many, err := net.Dial("unix", at[0])
	if err != nil {
		t.Fatal(err)
	}
	defer many.Close()
	many.SetDeadline(time.Now().Add(patience))
	request := "GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
	if _, err := io.WriteString(many, strings.Repeat(request, 1<<16)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("answers that are not read: %v", err)
	}
	stop()
}

// TestKeptAlive: a connection serves requests after the time that one may take.
func TestKeptAlive(t *testing.T) {
	g := one(1, func(_ context.Context, x []float32, _ int) ([]float32, error) { return x, nil })
	at, stop := served(t, g, time.Hour)
	defer stop()
	dials := 0
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		dials++
		return new(net.Dialer).DialContext(ctx, "unix", at[0])
	}}}
	defer c.CloseIdleConnections()
	for range 2 {
		resp, err := c.Post("http://localhost/v2/models/m/infer", "application/json", strings.NewReader(`{"inputs":[{"name":"input","datatype":"FP32","shape":[1,1],"data":[1]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || err != nil {
			t.Error(resp.Status, err)
		}
		time.Sleep(2 * brief)
	}
	if dials != 1 {
		t.Errorf("%d connections", dials)
	}
}

// TestSilent: an end waits for no connection that has yet to begin.
func TestSilent(t *testing.T) {
	at, stop := served(t, one(1, nil), time.Hour)
	silent, err := net.Dial("unix", at[1])
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cc, err := grpc.NewClient("unix:"+at[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err := pb.NewGRPCInferenceServiceClient(cc).ServerLive(t.Context(), &pb.ServerLiveRequest{}); err != nil {
		t.Error(err) // once it has, the one before is accepted
	}
	stop()
}

// TestEndAtOnce: a gateway that is to end before it serves does.
func TestEndAtOnce(t *testing.T) {
	for range 20 {
		_, stop := served(t, one(1, nil), time.Hour)
		stop()
	}
}

// counted counts the bytes that are read of its connections.
type counted struct {
	net.Listener
	read *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l.read}, err
}

type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// TestGRPCPlaces: a call that waits for a place is not read.
func TestGRPCPlaces(t *testing.T) {
	goOn, began := make(chan struct{}), make(chan struct{}, 2)
	g := one(1, func(_ context.Context, x []float32, _ int) ([]float32, error) {
		if began <- struct{}{}; len(x) == 1 {
			<-goOn
		}
		return x, nil
	})
	g.times.read = patience
	path := filepath.Join(t.TempDir(), "s")
	l, err := g.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	var read atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, nil, counted{l, &read}, time.Hour) }()
	cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	const large = 1 << 19 // elements
	answers := make(chan codes.Code, 2)
	ask := func(n int) { answers <- askGRPC(t, cc, n) }
	for range 8 { // windows grow with what they carry
		if code := askGRPC(t, cc, large); code != codes.OK {
			t.Fatal(code)
		}
		<-began
	}
	read.Store(0)
	go ask(1)
	<-began
	go ask(large)
	time.Sleep(2 * brief)
	if n := read.Load(); n > large {
		t.Errorf("%d bytes are read of a call that waits", n)
	}
	close(goOn)
	for range 2 {
		if code := <-answers; code != codes.OK {
			t.Error(code)
		}
	}
	cc.Close()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestGRPCUnsent: a call that is not sent does not keep its place.
func TestGRPCUnsent(t *testing.T) {
	at, stop := served(t, one(1, func(_ context.Context, x []float32, _ int) ([]float32, error) { return x, nil }), time.Hour)
	defer stop()
	cc, err := grpc.NewClient("unix:"+at[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	unsent, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, pb.GRPCInferenceService_ModelInfer_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := unsent.RecvMsg(new(pb.ModelInferResponse)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("not sent: %v", err)
	}
	if code := askGRPC(t, cc, 1); code != codes.OK {
		t.Errorf("another: %v", code)
	}
}

// askGRPC asks for so many samples, and returns the code of the answer.
func askGRPC(t *testing.T, cc *grpc.ClientConn, n int) codes.Code {
	_, err := pb.NewGRPCInferenceServiceClient(cc).ModelInfer(t.Context(), &pb.ModelInferRequest{ModelName: "m", Inputs: []*pb.ModelInferRequest_InferInputTensor{{
		Name: "input", Datatype: "FP32", Shape: []int64{int64(n), 1}, Contents: &pb.InferTensorContents{Fp32Contents: make([]float32, n)},
	}}})
	return status.Code(err)
}
