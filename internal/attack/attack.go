// Package attack attacks what SecureNets sends, to measure what it hides: the attacks
// of docs/threat-model.md on the weights and inputs of trained networks.
//
// An attacker here has what a cloud has: masked weights, what it receives of calls, the
// operators' shapes, and this source. Some are given more, which their names say: base models,
// the two candidates of a game, and for Statistics which inputs are zero. Run makes
// weights, images and masks, and hands them for nothing else but to score.go, which says
// what an attack got right.
package attack

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"

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
	Scheme  string  `json:"scheme"`          // several where they send the same
	Role    int     `json:"role"`            // whose cloud attacks
	Noise   float64 `json:"noise,omitempty"` // of a base model, over the layer's root mean square
	What    string  `json:"what"`            // what one thing is
	Right   int     `json:"right"`
	Of      int     `json:"of"`
	Rate    float64 `json:"rate"`
	Chance  float64 `json:"chance"` // the rate of who sees nothing
	Verdict Verdict `json:"verdict"`
	Seconds float64 `json:"seconds,omitempty"` // that the attack took
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
	Broken   Verdict = "broken"  // 90 % and more, above chance
	Leaks    Verdict = "leaks"   // above chance
	AtChance Verdict = "chance"  // not told from chance
	Few      Verdict = "too few" // too few to tell
)

// Alarm is the probability, two-sided, below which a rate or a statistic is not put down
// to chance. A report has fewer than 2,000 of both: the probability of any such by chance is
// below 1e-9.
const Alarm = 1e-13

// verdict returns what right of so many means where chance is the rate of who sees nothing.
func verdict(right, of int, chance float64) Verdict {
	rate := float64(right) / float64(max(1, of))
	switch {
	case binomial(right, of, chance) >= Alarm:
		if math.Pow(chance, float64(of)) >= Alarm {
			return Few
		}
		return AtChance
	case rate >= 0.9:
		return Broken
	}
	return Leaks
}

// binomial returns the probability, two-sided, of a count as far off as right among so many of the
// given chance.
func binomial(right, of int, chance float64) float64 {
	switch {
	case of == 0:
		return 1
	case chance <= 0:
		if right > 0 {
			return 0
		}
		return 1
	}
	d := distuv.Binomial{N: float64(of), P: chance}
	below, above := d.CDF(float64(right)), 1.0
	if right > 0 {
		above = 1 - d.CDF(float64(right-1))
	}
	return min(1, 2*max(0, min(below, above)))
}
