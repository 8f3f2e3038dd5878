// Package attack attacks what SecureNets sends, to measure what the masks hide: it has
// the attacks of docs/threat-model.md on the weights and inputs of trained networks.
//
// An attacker has what a cloud has: masked weights, what it receives of calls, the
// operators' shapes, and this source. Some attacks are given more, as their names say:
// base models, the two candidates of a game, and for Statistics which inputs are zero.
// Run makes weights, images and masks; it reveals them only to score.go, which says what
// an attack got right.
package attack

import (
	"sort"

	"gonum.org/v1/gonum/mathext"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/transform"
)

// Network is a trained network and images that it takes, which its first linear layer
// sees as they are.
type Network struct {
	Name   string
	Graph  *graph.Graph
	Images []float32 // sample-major, NHWC
	Count  int       // of them, 16 or more
}

// Options say what to attack.
type Options struct {
	Ring     ring.Ring
	Networks []Network
	Schemes  []transform.Scheme
	// Quick plays fewer games, and matches base models at two noise levels, once.
	Quick bool
	// Progress is called before each step.
	Progress func(label string, done, total int)
}

// Report is what attacks got right.
type Report struct {
	Results []Result `json:"results"`
}

// Result is an attack on one layer. Of so many things it got some right.
type Result struct {
	Target  Target  `json:"target"`
	Attack  string  `json:"attack"`
	Network string  `json:"network"`
	Layer   int     `json:"layer"` // of the linear ones; -1 for all
	Op      string  `json:"op"`
	Scheme  string  `json:"scheme"` // several where they send the same
	Role    int     `json:"role"`   // whose cloud attacks
	Noise   float64 `json:"noise"`  // of a base model, over the layer's root mean square
	What    string  `json:"what"`   // what one thing is
	Right   int     `json:"right"`
	Of      int     `json:"of"`
	Rate    float64 `json:"rate"`
	Chance  float64 `json:"chance"` // the rate of who sees nothing
	Game    bool    `json:"game"`   // each is which of two candidates
	// Detectable is the least rate above chance that is told from it, 0 for none.
	Detectable float64 `json:"detectable"`
	Verdict    Verdict `json:"verdict"`
	Seconds    float64 `json:"seconds,omitempty"` // that the attack took
}

// Target is what an attack is after.
type Target string

const (
	OnWeights Target = "weights"
	OnInputs  Target = "inputs"
)

// Verdict says what a rate means.
type Verdict string

const (
	Broken   Verdict = "broken"  // more than chance, and 90 % or more
	Leaks    Verdict = "leaks"   // more than chance; of a game of two candidates, less, too
	AtChance Verdict = "chance"  // not told from chance
	Few      Verdict = "too few" // not told from chance, were all of them right
)

// Alarm is the probability below which a rate or a statistic is not put down to chance. A
// report has fewer than 2,000 of both: the probability of any such by chance is below 1e-9.
const Alarm = 1e-13

// score is how many of so many things an attack got right, and how many are by chance.
type score struct {
	right, of int
	chance    float64 // the rate of who sees nothing
	// game: each was which of two candidates. Who is wrong too often need only say the
	// other one, so that less than chance tells as much as more.
	game bool
}

func (s score) rate() float64 { return float64(s.right) / float64(max(1, s.of)) }

// p returns the probability of as many right or more by chance, were each so on its own; of a game,
// of a number as far off on either side.
func (s score) p() float64 {
	more := atLeast(s.right, s.of, s.chance)
	if !s.game {
		return more
	}
	return twoSided(atLeast(s.of-s.right, s.of, 1-s.chance), more)
}

// detectable returns the least rate above chance that is told from it, 0 for none.
func (s score) detectable() float64 {
	least := s
	least.right = sort.Search(s.of+1, func(n int) bool {
		if float64(n) <= s.chance*float64(s.of) {
			return false
		}
		least.right = n
		return least.p() < Alarm
	})
	if least.right > s.of {
		return 0
	}
	return least.rate()
}

func (s score) verdict() Verdict {
	switch {
	case s.p() < Alarm && s.rate() >= 0.9:
		return Broken
	case s.p() < Alarm:
		return Leaks
	case s.detectable() == 0:
		return Few
	}
	return AtChance
}

// atLeast returns the probability of n or more of so many, of which each is by chance.
func atLeast(n, of int, chance float64) float64 {
	switch {
	case n <= 0 || chance >= 1:
		return 1
	case chance <= 0:
		return 0
	}
	return mathext.RegIncBeta(float64(n), float64(of-n+1), chance)
}

// twoSided returns the probability of a value as far off, on either side, as one with these
// probabilities of no more and of no less.
func twoSided(below, above float64) float64 { return min(1, 2*min(below, above)) }
