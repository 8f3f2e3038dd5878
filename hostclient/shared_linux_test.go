package hostclient_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/verify"
)

// dialSharing returns a client that shares so many bytes.
func dialSharing(t testing.TB, c *cloud, bytes int64) *hostclient.Client {
	t.Helper()
	client, err := hostclient.Dial(c.addr, hostclient.SharedMemory(bytes))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// TestSharedMemory: results are the same bit for bit, with all words in shared memory, with
// none, and where some of them find no room.
func TestSharedMemory(t *testing.T) {
	for _, scheme := range schemes {
		t.Run(scheme.String(), func(t *testing.T) {
			g := mnistCNN()
			r := newRig(t, g, scheme)
			const n = 40
			x := gaussian(rand.New(rand.NewPCG(5, 6)), n*g.Input.Len())
			var want []float32
			for _, c := range []struct {
				bytes     int64
				all, none bool
			}{{0, false, true}, {hostclient.DefaultSharedMemory, true, false}, {1, false, false}, {300_000, false, false}} {
				for role, cloud := range r.clouds {
					r.clients[role] = dialSharing(t, cloud, c.bytes)
					cloud.requests.Store(0)
					cloud.shared.Store(0)
				}
				y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n)
				if want == nil {
					want = y
				}
				if !slices.Equal(bits(y), bits(want)) {
					t.Errorf("%d bytes: other results", c.bytes)
				}
				requests, shared := r.clouds[0].requests.Load(), r.clouds[0].shared.Load()
				if c.all && shared != requests || c.none && shared != 0 {
					t.Errorf("%d bytes: %d of %d requests in shared memory", c.bytes, shared, requests)
				}
			}
		})
	}
	if _, err := hostclient.Dial("unix:/s", hostclient.SharedMemory(-1)); err == nil {
		t.Error("a negative size")
	}
	if _, err := hostclient.Dial("unix:/s", hostclient.SharedMemory(lane.MaxSize+1)); err == nil {
		t.Error("an absurd size")
	}
}

// flip changes the lowest bits of words until stop is called: they stay canonical, mostly.
func flip(b []byte) (stop func()) {
	end := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for i := 0; ; i = (i + 4) % len(b) {
			select {
			case <-end:
				return
			default:
				b[i] ^= 1
			}
		}
	})
	return func() { close(end); running.Wait() }
}

// TestWordsThatFlip: a cloud that changes its answers in shared memory while the host reads
// them, and after, is caught, or had no effect.
func TestWordsThatFlip(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	const n = 50
	x := gaussian(rand.New(rand.NewPCG(5, 5)), n*7)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n)
	var mu sync.Mutex
	var stops []func()
	c.behave(func(c *call) error {
		to := c.memory(c.req.Answer)
		wire.PutWords(c.ring, to, c.y.Data)
		region := regionOf(c.stream)
		if !region.Hold() {
			return errors.New("the connection has ended")
		}
		stop := flip(to)
		mu.Lock()
		stops = append(stops, func() { stop(); region.Release() })
		mu.Unlock()
		return c.stream.SendMsg(&wire.Response{ID: c.req.ID, Shared: c.req.Answer})
	})
	rejected := 0
	for i := 0; i < 40 || rejected == 0 && i < 4000; i++ {
		r.clients[0] = dialSharing(t, c, lane.Grain)
		s := r.open(t, hostclient.Options{Multiplier: kernel})
		y, err := s.Infer(t.Context(), x, n)
		mu.Lock()
		for _, stop := range stops {
			stop()
		}
		stops = nil
		mu.Unlock()
		switch {
		case errors.As(err, new(*verify.RejectedError)):
			rejected++
		case err != nil && !errors.Is(err, hostclient.ErrBadAnswer):
			t.Fatal(err)
		case err == nil && !slices.Equal(bits(y), bits(want)):
			t.Fatal("a wrong result")
		}
		r.clients[0].Close()
	}
	if t.Logf("%d rejected", rejected); rejected == 0 {
		t.Error("nothing was changed in time")
	}
}

// TestFlipsAfterwards: once an answer was taken, what the cloud writes has no effect.
func TestFlipsAfterwards(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 3*7)
	want := infer(t, s, x, 3)
	s.SetParts(1)
	for range 20 {
		var last []byte // the latest answer, which the host is done with as the next request comes
		c.behave(func(c *call) error {
			for i := range last {
				last[i] ^= 0xff
			}
			if err := c.honest(); err != nil {
				return err
			}
			last = c.memory(c.req.Answer)
			return nil
		})
		if y := infer(t, s, x, 3); !slices.Equal(bits(y), bits(want)) {
			t.Fatal("other results")
		}
	}
}

// TestAnswersElsewhere: an answer that is said to be in shared memory, and not where it was
// asked for, is none.
func TestAnswersElsewhere(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	for name, at := range map[string]func(*wire.Span) *wire.Span{
		"another offset": func(s *wire.Span) *wire.Span { return &wire.Span{Offset: s.Offset + 64, Length: s.Length} },
		"past the end":   func(s *wire.Span) *wire.Span { return &wire.Span{Offset: 1 << 62, Length: s.Length} },
		"a byte less":    func(s *wire.Span) *wire.Span { return &wire.Span{Offset: s.Offset, Length: s.Length - 1} },
		"nowhere":        func(*wire.Span) *wire.Span { return &wire.Span{} },
		"not asked for":  nil,
	} {
		bytes := int64(lane.Grain)
		if at == nil {
			bytes = 0
		}
		r.clients[0] = dialSharing(t, c, bytes)
		s := r.open(t, hostclient.Options{Multiplier: kernel})
		c.behave(func(c *call) error {
			span := &wire.Span{Length: uint64(len(c.y.Data) * 4)}
			if at != nil {
				span = at(c.req.Answer)
			}
			return c.stream.SendMsg(&wire.Response{ID: c.req.ID, Shared: span})
		})
		if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, hostclient.ErrBadAnswer) {
			t.Errorf("%s: %v", name, err)
		}
		c.behave(nil)
		infer(t, s, make([]float32, 7), 1)
	}
}

// overlap reports whether two spans have a byte in common.
func overlap(a, b *wire.Span) bool {
	return a.Offset < b.Offset+b.Length && b.Offset < a.Offset+a.Length
}

// TestGivenUp: memory of a request that its caller gave up is nobody else's until it is
// answered, however late, and then is.
func TestGivenUp(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	r.clients[0] = dialSharing(t, c, lane.Grain)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 7)
	want := infer(t, s, x, 1)
	if free := r.clients[0].SharedFree(); free != lane.Grain {
		t.Fatalf("%d bytes are free, of %d", free, lane.Grain)
	}
	calls := make(chan *call, 10)
	c.behave(func(c *call) error { calls <- c; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Infer(ctx, x, 1)
		done <- err
	}()
	late := <-calls
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	held := []*wire.Span{late.req.Shared, late.req.Answer}
	c.behave(func(c *call) error {
		for _, of := range held {
			if overlap(of, c.req.Shared) || overlap(of, c.req.Answer) {
				t.Errorf("%v is used again: %v, %v", of, c.req.Shared, c.req.Answer)
			}
		}
		clear(late.memory(held[1])) // as the late one may, meanwhile
		return c.honest()
	})
	for range 5 {
		if y := infer(t, s, x, 1); !slices.Equal(bits(y), bits(want)) {
			t.Fatal("other results")
		}
	}
	if free := r.clients[0].SharedFree(); free >= lane.Grain {
		t.Error("memory of a request that is not answered is free")
	}
	var once sync.Once
	c.behave(func(c *call) (err error) {
		once.Do(func() { err = late.honest() })
		return errors.Join(err, c.honest())
	})
	infer(t, s, x, 1)
	if free := r.clients[0].SharedFree(); free != lane.Grain {
		t.Errorf("%d bytes are free in the end, of %d", free, lane.Grain)
	}
}

// TestHungConnection: where the stream is given up with requests that may still be answered, the
// connection ends, the next one has memory of its own, and the old memory goes.
func TestHungConnection(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := make([]float32, 7)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	want := infer(t, s, x, 1)
	_, maps := opened(t)
	var old atomic.Pointer[lane.Region]
	resume := make(chan struct{})
	end := sync.OnceFunc(func() { close(resume) })
	defer end()
	c.behave(func(c *call) error {
		old.Store(regionOf(c.stream))
		<-resume
		return c.honest() // to nobody
	})
	hasty := r.open(t, hostclient.Options{Multiplier: kernel, Timeout: 50 * time.Millisecond})
	if _, err := hasty.Infer(t.Context(), x, 1); !errors.Is(err, hostclient.ErrTimeout) {
		t.Fatal(err)
	}
	c.behave(func(c *call) error {
		if regionOf(c.stream) == old.Load() {
			t.Error("memory that a request may still be answered in is used again")
		}
		return c.honest()
	})
	if y := infer(t, s, x, 1); !slices.Equal(bits(y), bits(want)) {
		t.Error("other results")
	}
	end()
	waitForMaps(t, maps)
}

func opened(t testing.TB) (fds, maps int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries), strings.Count(string(b), "memfd:securenets")
}

// waitForMaps waits until no more is shared than before, counted at both ends.
func waitForMaps(t testing.TB, maps int) {
	t.Helper()
	waitForOpened(t, math.MaxInt, maps)
}

// waitForOpened waits until there are no more descriptors and mappings than before.
func waitForOpened(t testing.TB, fds, maps int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if f, m := opened(t); f <= fds && m <= maps {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%d descriptors and %d mappings, %d and %d before", f, m, fds, maps)
		}
	}
}

// TestNoMemory: of a cloud that takes no memory a stream is direct all the same, and a cloud
// that knows nothing of such streams answers by gRPC.
func TestNoMemory(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 7)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1)
	fds, maps := opened(t)
	works := func(name string, direct, shares bool) {
		t.Helper()
		r.clients[0] = dialSharing(t, c, lane.Grain)
		c.requests.Store(0)
		c.shared.Store(0)
		c.streams.Store(0)
		for range 3 {
			if y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1); !slices.Equal(bits(y), bits(want)) {
				t.Errorf("%s: other results", name)
			}
		}
		requests, shared := c.requests.Load(), c.shared.Load()
		if requests == 0 || shares != (shared == requests) || !shares && shared > 0 {
			t.Errorf("%s: %d of %d requests in shared memory", name, shared, requests)
		}
		if streams := c.streams.Load(); streams > 1 || direct != (streams == 1) {
			t.Errorf("%s: %d direct streams", name, streams)
		}
		r.clients[0].Close()
	}
	for _, v := range []lane.Verdict{lane.Off, lane.TooLarge, lane.NoRoom, lane.BadMemory, 99} {
		c.verdict.Store(uint64(v))
		works(v.String(), true, false)
	}
	c.verdict.Store(uint64(lane.Accepted))
	works("accepted again", true, true)
	c.stop()
	c.old = true
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	works("a server that knows nothing of it", false, false)
	waitForOpened(t, fds+2, maps)
}

// TestBrokenStreams: a direct stream that breaks with requests in work fails them, unless they
// may be tried again, and the next one is direct, too.
func TestBrokenStreams(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 7)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1)
	for _, retries := range []int{0, 3} {
		s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: retries})
		for range 5 {
			var broken atomic.Bool
			c.behave(func(c *call) error {
				if broken.Swap(true) {
					return c.honest()
				}
				c.stream.(*directStream).HangUp()
				return nil
			})
			y, err := s.Infer(t.Context(), x, 1)
			if retries == 0 {
				if !errors.Is(err, hostclient.ErrUnavailable) {
					t.Fatalf("a stream that breaks: %v", err)
				}
				y, err = s.Infer(t.Context(), x, 1)
			}
			if err != nil || !slices.Equal(bits(y), bits(want)) {
				t.Fatalf("%d retries: other results, %v", retries, err)
			}
			if !broken.Load() || r.clients[0].SharedFree() != hostclient.DefaultSharedMemory {
				t.Error("the stream that replaces it is not direct, or not free")
			}
		}
	}
}

// TestTwoClients: two clients of one cloud have a direct stream each, at the same time, and
// one that breaks is nothing to the other.
func TestTwoClients(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 5*7)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 5)
	var sessions []*hostclient.Session
	var own []*lane.Region
	for range 2 {
		r.clients[0] = dialSharing(t, c, lane.Grain)
		s := r.open(t, hostclient.Options{Multiplier: kernel})
		var region atomic.Pointer[lane.Region]
		c.behave(func(c *call) error { region.Store(regionOf(c.stream)); return c.honest() })
		infer(t, s, x, 5)
		sessions, own = append(sessions, s), append(own, region.Load())
	}
	if own[0] == nil || own[1] == nil || own[0] == own[1] {
		t.Fatal("the clients have no stream each")
	}
	var seen [2]atomic.Int64
	breaks := int64(0) // the first one's, at this request of it
	c.behave(func(c *call) error {
		for i := range own {
			if regionOf(c.stream) == own[i] && seen[i].Add(1) == breaks && i == 0 {
				c.stream.(*directStream).HangUp()
				return nil
			}
		}
		return c.honest()
	})
	both := func(first error) {
		t.Helper()
		var running sync.WaitGroup
		for i, s := range sessions {
			running.Go(func() {
				var failed error
				for range 20 {
					y, err := s.Infer(t.Context(), x, 5)
					if err != nil {
						failed = errors.Join(failed, err)
					} else if !slices.Equal(bits(y), bits(want)) {
						t.Errorf("client %d: other results", i)
					}
				}
				if i == 0 && !errors.Is(failed, first) || i == 1 && failed != nil {
					t.Errorf("client %d: %v", i, failed)
				}
			})
		}
		running.Wait()
	}
	both(nil)
	if seen[0].Load() < 20 || seen[0].Load() != seen[1].Load() {
		t.Errorf("%d requests of one client, %d of the other", seen[0].Load(), seen[1].Load())
	}
	breaks = seen[0].Load() + 10
	both(hostclient.ErrUnavailable)
	if seen[0].Load() != breaks || seen[1].Load() < 2*(breaks-10) {
		t.Errorf("%d requests of the client whose stream broke, %d of the other", seen[0].Load(), seen[1].Load())
	}
}

// TestCloudsThatDie: a cloud that dies and comes back, with requests in work, leaves
// nothing open or mapped with the host, which goes on.
func TestCloudsThatDie(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 7)
	s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 5})
	want := infer(t, s, x, 1)
	fds, maps := opened(t)
	for i := range 100 {
		if i%2 == 0 {
			die := make(chan struct{}, 10)
			c.behave(func(c *call) error { die <- struct{}{}; <-c.stream.Context().Done(); return nil })
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = s.Infer(ctx, x, 1)
			}()
			<-die
			c.stop()
			cancel()
			<-done
		} else {
			c.stop()
		}
		c.behave(nil)
		if err := c.start(); err != nil {
			t.Fatal(err)
		}
		if y := infer(t, s, x, 1); !slices.Equal(bits(y), bits(want)) {
			t.Fatal("other results")
		}
	}
	waitForOpened(t, fds+2, maps) // what the runtime opens meanwhile
}
