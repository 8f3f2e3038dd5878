package daemon_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
)

// rawDirect is a direct stream of bytes as they are: a wire.Stream of []byte and *[]byte.
type rawDirect struct{ *net.UnixConn }

func (d *running) rawDirect() rawDirect {
	d.t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(d.cfg.Listen, "unix:")})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	region, err := lane.Offer(d.ctx(), c, lane.Grain)
	if err != nil {
		d.t.Fatal(err)
	}
	region.Release()
	c.SetDeadline(time.Now().Add(patience))
	return rawDirect{c}
}

func (r rawDirect) SendMsg(m any) error {
	b := m.([]byte)
	_, err := r.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
	return err
}

func (r rawDirect) CloseSend() error { return r.CloseWrite() }

// RecvMsg returns the status of the last message as its error, and io.ErrUnexpectedEOF
// where there is none.
func (r rawDirect) RecvMsg(m any) error {
	var prefix [5]byte
	if _, err := io.ReadFull(r, prefix[:]); err == io.EOF {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if prefix[0] == 0 {
		*m.(*[]byte) = b
		return nil
	}
	var last pb.Error
	if err := proto.Unmarshal(b, &last); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n > 0 || err == nil {
		return errors.New("something came after the last message")
	}
	if last.Code == 0 {
		return io.EOF
	}
	return status.Error(codes.Code(last.Code), last.Message)
}

// TestVanishes: what a caller has asked for leaves the queue as soon as it closes its
// connection or dies, whatever its stream waits for then, and what that held is free.
func TestVanishes(t *testing.T) {
	const most = 64 // requests of a stream that are worked on at a time
	for name, c := range map[string]struct {
		requests int
		large    bool
		closes   bool // its sending side, first
		received int
		queued   int
	}{
		"waits for a request":  {4, false, false, 4, 3},
		"has no more requests": {4, false, true, 4, 3},
		"waits for its turn":   {most + 20, false, false, most, most - 1},
		"waits for memory":     {5, true, false, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, by way) {
				h := newHooked()
				d := start(t, h, func(c *config.Config) {
					withMetrics(c)
					c.Limits.MaxBytesInFlight = 144 << 20
					c.Batching.MaxBatchSize = 1
				})
				m := newModel(t, ring.Q4(), plan.Dense(1024, 1))
				d.push(m)
				begun, resume := make(chan struct{}, 1), make(chan struct{})
				h.set(func(context.Context) error { begun <- struct{}{}; <-resume; return nil })
				e, _, cut := by.openApart(d, d.ctx())
				rows := 1
				if c.large {
					rows = 4090 // which take 34 MiB of 78
				}
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for id := range uint64(c.requests) {
						r := m.request(0, rows, id)
						_ = e.stream.SendMsg(r)
						r.Free()
					}
					if c.closes {
						_ = e.stream.CloseSend()
					}
				}()
				<-begun
				d.waitForQueue(c.queued)
				d.waitForReceived(c.received)
				if !c.large {
					<-sent
				}
				time.Sleep(10 * time.Millisecond) // until it waits
				cut()
				d.waitForQueue(0)
				h.set(nil)
				close(resume)
				<-sent
				d.waitForFigure(0, "securenets_calls")
				for _, part := range []string{"messages", "requests", "parked"} {
					d.waitForFigure(0, "securenets_in_flight_bytes", "part", part)
				}
				d.waitForFigure(0, "securenets_shared_memory_bytes")
				// It has left, which is no fault.
				f := d.scrape()
				if got := f.value("securenets_calls_total", "method", "Evaluate", "code", "Canceled"); got != 1 && !c.closes {
					t.Errorf("%v calls were cancelled, of 1", got)
				}
				if got := f.value("securenets_refusals_total", "reason", "PROTOCOL"); got != 0 {
					t.Errorf("%v calls broke the protocol", got)
				}
				d.works(m)
			})
		})
	}
}

// waitForReceived waits until so many requests were received.
func (d *running) waitForReceived(requests int) {
	d.t.Helper()
	for ctx := d.ctx(); ; time.Sleep(time.Millisecond) {
		f := d.scrape()
		got := f.find("securenets_transfer_duration_seconds", "direction", "received").GetHistogram().GetSampleCount()
		if int(got) == uploaded+requests {
			return
		}
		if ctx.Err() != nil {
			d.t.Fatalf("%d messages were received, want %d and the model's %d", got, requests, uploaded)
		}
	}
}
