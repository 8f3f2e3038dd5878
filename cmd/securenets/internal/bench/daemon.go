package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// daemonCallers is how many callers keep a request in flight each.
const daemonCallers = 8

// throughDaemon measures a dense layer through a daemon of its own, and compares it with
// what was measured from pinned memory.
func (sc scope) throughDaemon(ctx context.Context, binary string, measured []DeviceRow) (rows []DeviceRow, err error) {
	dir, err := os.MkdirTemp("", "securenets-bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := child.Start(binary, filepath.Join(dir, "daemon"), "backend = \"cuda\"\n[cuda]\npinned_bytes = 1073741824\n")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	if err := d.Ready(ctx); err != nil {
		d.ShowLog(os.Stderr)
		return nil, err
	}
	conn, err := wire.Dial(d.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	model := traffic.Model(0, sc.served[0].op) // all have this operator
	b, err := model.Marshal()
	if err != nil {
		return nil, err
	}
	digest := sealed.Sum(b)
	if err := traffic.Upload(ctx, conn, digest, b); err != nil {
		return nil, err
	}
	for _, s := range sc.served {
		for _, where := range []string{inDaemon, inShared} {
			row, err := sc.asked(ctx, d.Addr, s, digest, where)
			if err != nil {
				return nil, err
			}
			for _, m := range measured {
				if m.Where == pinned && m.Shape == s.name {
					row.Ratio = row.GMACs / m.GMACs
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// asked measures a shape through the daemon at addr, by its socket or in shared memory.
func (sc scope) asked(ctx context.Context, addr string, s shape, digest sealed.Digest, where string) (row DeviceRow, err error) {
	row = s.row("q4", where)
	callers := make([]traffic.Caller, daemonCallers)
	by := traffic.Direct
	if where == inShared {
		by = traffic.Shared
	}
	for i := range callers {
		callers[i] = traffic.Caller{Targets: []traffic.Target{{Digest: digest, Op: s.op, X: traffic.Rows(s.op, s.n)}}, Depth: 1, By: by}
	}
	start := time.Now()
	answers, err := traffic.Unix(addr).Drive(ctx, callers, start.Add(max(sc.budget, 200*time.Millisecond)))
	if err != nil {
		return row, err
	}
	row.set(measure.Series{time.Since(start).Seconds() / float64(len(answers))})
	var total, computed time.Duration
	for _, a := range answers {
		total, computed = total+a.Done.Sub(a.Due), computed+a.Compute
	}
	row.Socket = float64(total-computed) / float64(total) // the part of requests' time that was not their product's
	return row, nil
}
