package attack

// unhalve multiplies rows by a small prime and divides by it the columns that are multiples
// of it in all other rows, as long as that makes the integers shorter. shrink, which takes
// rows and columns one by one, does not find such moves.
func (g *Weights) unhalve() {
	if g.Rows > 32 {
		return // shrink finds such columns: the word of one row is a small loss to it
	}
	for range 32 {
		shorter := false
		for _, p := range []uint32{2, 3, 5, 7} {
			shorter = g.unhalveBy(p) || shorter
		}
		if !shorter {
			return
		}
	}
}

// unhalveBy makes the moves by the prime p that save most, and reports whether there are any.
func (g *Weights) unhalveBy(p uint32) bool {
	inv := invert(g.ring.Modulus(), p)
	if inv == 0 {
		return false
	}
	n := g.closure(p)
	n.saturate()
	rows := n.selected()
	if rows == nil {
		return false
	}
	for k, is := range rows {
		if is {
			g.Row[k] = g.ring.Mul(g.Row[k], p)
		}
	}
	for c := range g.Column {
		if n.closed(c, rows) {
			g.Column[c] = g.ring.Mul(g.Column[c], inv)
		}
	}
	g.integers()
	return true
}

// closure returns the network of the moves by p. Every integer but 0 gains or costs log2(p)
// bits, the unit here: a column gains its integers if it is divided, a row costs its own if it
// is multiplied, and a column needs the rows where it has an integer that p does not divide.
func (g *Weights) closure(p uint32) *flowNetwork {
	n := newFlowNetwork(len(g.Column), g.Rows)
	for i, w := range g.W {
		k, c := i/g.Terms, i%g.Terms%len(g.Column)
		if w != 0 {
			n.gains[c]++
			n.costs[k]++
		}
		if !g.Known[i] || w%int32(p) != 0 {
			n.needs[c][k] = true
		}
	}
	return n
}

// flowNetwork is the network of a maximum closure problem (Picard, "Maximal closure of a
// graph", 1976): choose rows for the largest gains, less the rows' costs, where a column
// gains if all rows that it needs are chosen. Its arcs go from a source to columns, from
// columns to the rows that they need, without bound, and from rows to a sink. The best
// choice is the rows on the source's side of a minimum cut.
type flowNetwork struct {
	gains []int    // residual capacity from the source, by column
	costs []int    // residual capacity to the sink, by row
	needs [][]bool // arcs, by column and row
	flow  [][]int  // on these arcs
	seen  []bool   // rows that the search for a path has reached
}

func newFlowNetwork(columns, rows int) *flowNetwork {
	n := &flowNetwork{
		gains: make([]int, columns), costs: make([]int, rows),
		needs: make([][]bool, columns), flow: make([][]int, columns), seen: make([]bool, rows),
	}
	for c := range columns {
		n.needs[c], n.flow[c] = make([]bool, rows), make([]int, rows)
	}
	return n
}

// saturate finds a maximum flow, by augmenting paths (Ford and Fulkerson, 1956).
func (n *flowNetwork) saturate() {
	for c := range n.gains {
		for m := 1; m > 0 && n.gains[c] > 0; n.gains[c] -= m {
			clear(n.seen)
			m = n.augment(c, n.gains[c])
		}
	}
}

// augment sends a flow of at most most from column c to the sink, along one path in the
// residual network through rows not seen yet. It returns that flow, 0 if there is no path:
// then all rows that can be reached are marked as seen.
func (n *flowNetwork) augment(c, most int) int {
	for k, need := range n.needs[c] {
		if !need || n.seen[k] {
			continue
		}
		n.seen[k] = true
		m := min(most, n.costs[k])
		n.costs[k] -= m
		for other := 0; m == 0 && other < len(n.flow); other++ {
			if back := n.flow[other][k]; back > 0 {
				m = n.augment(other, min(most, back)) // takes the place of other's flow
				n.flow[other][k] -= m
			}
		}
		if m > 0 {
			n.flow[c][k] += m
			return m
		}
	}
	return 0
}

// selected returns the rows of the best choice, once the flow is maximum: those that columns
// with a residual gain reach. It returns nil if no choice gains more than it costs.
func (n *flowNetwork) selected() []bool {
	clear(n.seen)
	profit := 0
	for c, gain := range n.gains {
		if gain > 0 {
			profit += gain
			n.augment(c, gain)
		}
	}
	if profit == 0 {
		return nil
	}
	return n.seen
}

// closed reports whether rows has all rows that column c needs.
func (n *flowNetwork) closed(c int, rows []bool) bool {
	for k, need := range n.needs[c] {
		if need && !rows[k] {
			return false
		}
	}
	return true
}
