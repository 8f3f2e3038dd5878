package daemon_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// residentModels are models that each hold about 1/4 MiB in memory and need less than 2 MiB to
// load.
func residentModels(t testing.TB, n int) (all []*testModel) {
	for i := range n {
		all = append(all, newModel(t, ring.Q4(), plan.Dense(250+i, 150), plan.Dense(150, 150+i)))
	}
	return all
}

// tight leaves room to load one of them beside one or two others.
func tight(c *config.Config) {
	withMetrics(c)
	c.Limits.MaxLoadedBytes = 9 << 18
}

// TestSmallBudget: a random script of uploads, requests, removals and restarts gets the same
// answers, bit for bit, from a daemon with room for a few models as from one with room for all.
func TestSmallBudget(t *testing.T) {
	const models, steps = 7, 60
	small, big := start(t, nil, tight), start(t, nil, nil)
	all := residentModels(t, models)
	rnd := rand.New(rand.NewPCG(8, 9))
	stored := map[*testModel]bool{}
	evictions := 0.0
	both := func(f func(d *running)) {
		f(small)
		f(big)
	}
	for step := range steps {
		m := all[rnd.IntN(models)]
		switch action := rnd.IntN(10); {
		case action < 2 || step < 4:
			both(func(d *running) { d.push(m) })
			stored[m] = true
		case action == 2:
			both(func(d *running) {
				_, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]})
				if stored[m] {
					if err != nil {
						t.Error(err)
					}
				} else {
					wantReason(t, wire.FromStatus(err), codes.NotFound, wire.ReasonModelNotFound)
				}
			})
			delete(stored, m)
		case action == 3 && step%3 == 0:
			evictions += small.scrape().value("securenets_model_evictions_total")
			both(func(d *running) {
				d.wait()
				d.run()
			})
		default:
			// Requests for several models at a time, on several streams.
			seed := rnd.Uint64()
			answers := make([][][]byte, 2)
			for i, d := range []*running{small, big} {
				answers[i] = mixed(t, d, all, stored, seed)
			}
			for i := range answers[0] {
				if !bytes.Equal(answers[0][i], answers[1][i]) {
					t.Fatalf("step %d, answer %d: the daemons differ", step, i)
				}
			}
		}
		both(func(d *running) {
			resp, err := d.client().List(d.ctx(), &pb.ListRequest{})
			if err != nil || len(resp.Models) != len(stored) {
				t.Errorf("step %d: %v, %v, want %d models", step, resp, err, len(stored))
			}
		})
		if held := small.backend.Stats().Bytes; held > small.cfg.Limits.MaxLoadedBytes {
			t.Errorf("step %d: %d bytes held of %d", step, held, small.cfg.Limits.MaxLoadedBytes)
		}
	}
	evictions += small.scrape().value("securenets_model_evictions_total")
	if evictions < 10 {
		t.Errorf("%v evictions", evictions)
	}
}

// mixed sends requests for models, stored and not stored, checks the answers, and returns them
// by request.
func mixed(t *testing.T, d *running, all []*testModel, stored map[*testModel]bool, seed uint64) [][]byte {
	t.Helper()
	const streams, requests = 3, 6
	answers := make([][]byte, streams*requests)
	var wg sync.WaitGroup
	for s := range streams {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(s)))
			asked := map[uint64]*testModel{}
			e := evaluate(t, d.ctx(), d.cc)
			for i := range requests {
				m := all[rnd.IntN(len(all))]
				id := uint64(s*requests + i)
				asked[id] = m
				e.send(m.request(int(id%2), 1+int(id%3), id))
			}
			for range requests {
				r, err := e.receive()
				if err != nil {
					t.Error(err)
					return
				}
				m := asked[r.ID]
				if !stored[m] {
					if r.Err.GetReason() != string(wire.ReasonModelNotFound) {
						t.Errorf("a model that is not stored: %v", r)
					}
					continue
				}
				answers[r.ID] = bytes.Clone(r.Words.Materialize())
				m.check(t, r, int(r.ID%2), m.input(int(r.ID%2), 1+int(r.ID%3), r.ID))
			}
			if err := e.stream.CloseSend(); err != nil {
				t.Error(err)
			}
			e.receive()
		})
	}
	wg.Wait()
	return answers
}

// TestLoadHoldsUpNobody: while a model is loaded, requests for others are answered, even on the
// same stream. Requests that wait for it time out, end with their caller, and are refused if
// too many wait.
func TestLoadHoldsUpNobody(t *testing.T) {
	h := newHooked()
	all, three := residentModels(t, 5), 3
	d := start(t, h, func(c *config.Config) {
		tight(c)
		c.Batching.Models = map[string]config.Override{all[0].digest.String(): {MaxQueueSize: &three}}
	})
	for _, m := range all {
		d.push(m)
	}
	away, there := all[0], all[4]
	if !strings.Contains(d.log.String(), `msg="model evicted" owner=`+owner()+` model=`+away.digest.String()) {
		t.Fatal("the first model is still there")
	}
	begun, resume := h.holdLoads(t, 10)
	e := evaluate(t, d.ctx(), d.cc)
	bad := away.request(0, 2, 0)
	bad.Layer = 2
	e.send(bad)
	if r, err := e.receive(); err != nil || r.Err.GetReason() != string(wire.ReasonLayerNotFound) || len(begun) != 0 {
		t.Errorf("answer %v, %v, %d loads", r, err, len(begun))
	}
	e.send(away.request(0, 2, 1))
	<-begun
	late := away.request(0, 1, 2)
	late.TimeoutNS = uint64(time.Millisecond)
	e.send(late)
	if r, err := e.receive(); err != nil || r.ID != 2 || r.Err.GetReason() != string(wire.ReasonTimeout) || codes.Code(r.Err.GetCode()) != codes.DeadlineExceeded {
		t.Errorf("answer %v, %v", r, err)
	}
	e.works(there)
	cc, cut := d.connectCut()
	gone := evaluate(t, d.ctx(), cc)
	waits := d.scrape().value("securenets_in_flight_bytes", "part", "parked")
	gone.send(away.request(0, 1, 3))
	for ctx := d.ctx(); d.scrape().value("securenets_in_flight_bytes", "part", "parked") <= waits; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("the request does not arrive")
		}
	}
	cut()
	d.waitForFigure(1, "nv_inference_request_failure", "model", away.digest.String(), "reason", "CANCELED")
	for id := range uint64(3) {
		e.send(away.request(0, 2, 4+id))
	}
	if r, err := e.receive(); err != nil || r.ID < 4 || r.Err.GetReason() != string(wire.ReasonOverloaded) || r.Err.RetryNs == 0 {
		t.Errorf("answer %v, %v", r, err)
	}
	e.works(there)
	close(resume)
	for range 3 {
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		if r.QueueNS == 0 {
			t.Errorf("request %d did not wait", r.ID)
		}
		away.check(t, r, 0, away.input(0, 2, r.ID))
	}
	h.setLoad(nil)
	for _, m := range all {
		e.works(m)
	}
}

// memoryModels are models of which only one has room. Four requests for a layer 0 fill the
// memory for requests, with few bytes of words in messages.
func memoryModels(t testing.TB) (all []*testModel) {
	for i := range 2 {
		all = append(all, newModel(t, ring.Q4(), plan.Dense(4, 2000), plan.Dense(250+i, 150), plan.Dense(150, 150)))
	}
	return all
}

const memoryRows = 2050

func forOne(c *config.Config) {
	withMetrics(c)
	c.Limits.MaxBytesInFlight = 144 << 20
	c.Limits.MaxLoadedBytes = 9 << 18
}

// answered sends a request for layer 0 on a stream of its own and checks the answer.
func (d *running) answered(m *testModel, rows int, id uint64) {
	d.t.Helper()
	e := evaluate(d.t, d.ctx(), d.cc)
	e.send(m.request(0, rows, id))
	r, err := e.receive()
	if err != nil {
		d.t.Error(err)
		return
	}
	m.check(d.t, r, 0, m.input(0, rows, id))
	if err := e.stream.CloseSend(); err != nil {
		d.t.Error(err)
	}
	e.receive()
}

// TestMemoryAndModels: requests that wait for memory and requests that wait for models do not
// deadlock when there is too little of both.
func TestMemoryAndModels(t *testing.T) {
	h := newHooked()
	d := start(t, h, forOne)
	all := memoryModels(t)
	a, b := all[0], all[1]
	d.push(b)
	d.push(a)
	if !strings.Contains(d.log.String(), `msg="model evicted" owner=`+owner()+` model=`+b.digest.String()) {
		t.Fatal("there is room for both")
	}
	_, resume := h.hold(t, 100)
	var wg sync.WaitGroup
	// Requests for a fill the memory; requests for b queue behind them, and more for a behind those.
	for i, m := range []*testModel{a, a, a, a, b, b, b, b, a, a} {
		wg.Go(func() { d.answered(m, memoryRows, uint64(i)) })
		if time.Sleep(5 * time.Millisecond); i == 3 || i == 7 || i == 9 {
			time.Sleep(100 * time.Millisecond)
		}
	}
	close(resume)
	wg.Wait()
	for c := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(c, 5))
			for i := range uint64(3) {
				d.answered(all[rnd.IntN(2)], memoryRows-rnd.IntN(500), 100*c+i)
			}
		})
	}
	wg.Wait()
	if v := d.scrape().value("securenets_model_evictions_total"); v < 3 {
		t.Errorf("%v evictions", v)
	}
	for _, part := range []string{"messages", "parked", "requests"} {
		d.waitForFigure(0, "securenets_in_flight_bytes", "part", part)
	}
}

// TestWaitersHoldNoMemory: however many and large the requests that wait for a model are, other
// models' requests are served. A request that has no room to wait is told to retry.
func TestWaitersHoldNoMemory(t *testing.T) {
	h := newHooked()
	d := start(t, h, func(c *config.Config) {
		tight(c)
		c.Limits.MaxBytesInFlight = 144 << 20
	})
	away := newModel(t, ring.Q4(), plan.Dense(4, 2000), plan.Dense(2000, 4), plan.Dense(250, 150))
	d.push(away)
	others := residentModels(t, 8)
	for _, m := range others {
		d.push(m)
	}
	if !strings.Contains(d.log.String(), `msg="model evicted" owner=`+owner()+` model=`+away.digest.String()) {
		t.Fatal("it is still there")
	}
	there := others[7]
	d.works(there)
	begun, resume := h.holdLoads(t, 100)
	var wg sync.WaitGroup
	for id := range uint64(6) {
		wg.Go(func() { d.answered(away, memoryRows, id) })
	}
	<-begun
	d.works(there)
	e := evaluate(t, d.ctx(), d.cc)
	for id := range uint64(3) {
		e.send(away.request(1, 2050, id)) // 16 MiB of words
	}
	for range 2 {
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		if r.Err.GetReason() != string(wire.ReasonOverloaded) || r.Err.RetryNs == 0 {
			t.Errorf("answer %v", r.Err)
		}
	}
	d.works(there)
	close(resume)
	wg.Wait()
	if r, err := e.receive(); err != nil {
		t.Error(err)
	} else {
		away.check(t, r, 1, away.input(1, 2050, r.ID))
	}
}

func owner() string { return string(model.User(uint32(os.Geteuid()))) }

// TestPinnedFirst: the daemon serves once pinned models are loaded, without waiting for others,
// and does not start if they have no room.
func TestPinnedFirst(t *testing.T) {
	h := newHooked()
	d := start(t, h, withMetrics)
	all := residentModels(t, 2)
	for _, m := range all {
		d.push(m)
	}
	d.wait()
	d.cfg.Residency.Pinned = []string{all[0].digest.String()}
	begun, resume := make(chan struct{}, 10), make(chan struct{})
	h.setLoad(func(op plan.Op) {
		if op.In == 250 || op.In == 251 { // not the self-test's
			pass(t.Context(), begun, resume)
		}
	})
	starting := make(chan struct{})
	go func() { d.run(); close(starting) }()
	<-begun
	select {
	case <-starting:
		t.Error("it serves without a pinned model")
	case <-time.After(20 * time.Millisecond):
	}
	resume <- struct{}{}
	<-starting
	<-begun // of the other model, behind that
	d.works(all[0])
	close(resume)
	d.works(all[1])
	d.wait()
	d.cfg.Limits.MaxLoadedBytes = 1 << 20
	err := daemon.Run(t.Context(), d.cfg, slog.New(slog.DiscardHandler), h)
	if err == nil || !strings.Contains(err.Error(), all[0].digest.String()) {
		t.Errorf("without room: %v", err)
	}
}

// TestDamagedInStore: a model that is damaged on disk is reported when it is used, put aside,
// and can be uploaded again. Its caller's other models are served meanwhile.
func TestDamagedInStore(t *testing.T) {
	d := start(t, nil, tight)
	all := residentModels(t, 5)
	for _, m := range all {
		d.push(m)
	}
	bad := all[0]
	path := filepath.Join(d.cfg.StateDir, "callers", owner(), bad.digest.String())
	damaged := bytes.Clone(bad.bytes)
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(path+".safetensors", damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	e := evaluate(t, d.ctx(), d.cc)
	for range 2 {
		e.send(bad.request(0, 1, 1))
		if r, err := e.receive(); err != nil || r.Err.GetReason() != string(wire.ReasonModelNotFound) {
			t.Errorf("answer %v, %v", r, err)
		}
		e.works(all[4])
	}
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Error(err)
	}
	if v := d.scrape().value("securenets_model_load_failures_total"); v != 1 {
		t.Errorf("%v loads failed", v)
	}
	d.push(bad)
	e.works(bad)
}
