package hostclient

import (
	"sync"

	"github.com/securenets/securenets/transform"
)

// sheet holds pads of n samples for every layer.
type sheet struct {
	n    int
	pads []*transform.Pads // one a layer; nil under schemes without pads
}

// stock is the pads made beforehand. What is taken never comes back.
type stock struct {
	mu     sync.Mutex
	sheets []sheet
	n      int // samples in all sheets
}

func (st *stock) add(sh sheet) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sheets = append(st.sheets, sh)
	st.n += sh.n
}

// take removes the pads of n samples, or of as many as there are; with all set,
// of n samples or of none.
func (st *stock) take(n int, all bool) ([]sheet, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if all && st.n < n {
		return nil, ErrNoPads
	}
	var taken []sheet
	for n > 0 && len(st.sheets) > 0 {
		first := &st.sheets[0]
		sh := *first
		if n < first.n {
			sh = sheet{n: n, pads: make([]*transform.Pads, len(first.pads))}
			for l, p := range first.pads {
				var err error
				if sh.pads[l], err = p.Take(n); err != nil {
					return nil, err
				}
			}
			first.n -= n
		} else {
			st.sheets[0] = sheet{}
			st.sheets = st.sheets[1:]
		}
		taken = append(taken, sh)
		n -= sh.n
		st.n -= sh.n
	}
	return taken, nil
}

// size returns the samples that pads are in stock for.
func (st *stock) size() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.n
}

// discard empties the stock.
func (st *stock) discard() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sheets, st.n = nil, 0
}
