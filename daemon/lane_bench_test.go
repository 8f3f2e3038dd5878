package daemon_test

import (
	"testing"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// BenchmarkLanes is a request of 1 MiB each way and little to multiply, by messages and in
// shared memory, of one caller; both ends are in this process.
func BenchmarkLanes(b *testing.B) {
	for _, inMemory := range []bool{false, true} {
		b.Run(map[bool]string{false: "frames", true: "shared"}[inMemory], func(b *testing.B) {
			d := start(b, nil, nil)
			m := newModel(b, ring.Q4(), plan.Dense(64, 64))
			d.push(m)
			const rows = 4096
			x, y := m.input(0, rows, 1), make([]uint32, rows*64)
			s := d.evaluateShared(64 * lane.Grain)
			if !inMemory {
				s.evaluation = evaluate(b, b.Context(), d.cc)
			}
			b.SetBytes(2 * 4 * rows * 64)
			for b.Loop() {
				r := &wire.Request{ID: 1, Model: m.digest[:], Rows: rows}
				if inMemory {
					up, down := s.slot(4*len(x.Data)), s.slot(4*len(y))
					wire.PutWords(m.Plan.Ring, up.Bytes, x.Data)
					r.Shared, r.Answer = spanOf(up), spanOf(down)
					s.up[1], s.down[1] = up, down
				} else {
					r.Words = wire.EncodeWords(m.Plan.Ring, x.Data, nil)
				}
				s.send(r)
				resp, err := s.evaluation.receive()
				if err != nil || resp.Err != nil {
					b.Fatal(resp, err)
				}
				words := resp.Words
				if inMemory {
					words = memWords(s.down[1].Bytes)
				}
				if err := wire.DecodeWords(m.Plan.Ring, y, words); err != nil {
					b.Fatal(err)
				}
				resp.Free()
				if inMemory {
					s.up[1].Put()
					s.down[1].Put()
				}
			}
		})
	}
}
