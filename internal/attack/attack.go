// Package attack attacks what SecureNets sends, to measure what the masks hide: it has
// the attacks of docs/threat-model.md on the weights and inputs of trained networks.
//
// An attacker has what a cloud has: the masked weights, the masked inputs of calls, the
// operators' shapes, and this source. Some attacks are given more, as their names say:
// base models, the two candidates of a game, and for Statistics which inputs are zero.
// Run makes weights, images and masks. Only score.go, which counts what an attack got
// right, sees them.
package attack

import (
	"sort"

	"gonum.org/v1/gonum/mathext"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// Network is a trained network with images, which are the inputs of its first linear layer.
type Network struct {
	Name   string
	Graph  *graph.Graph
	Images []float32 // sample-major, NHWC
	Count  int       // images, 16 or more
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

// Report has the results of all attacks.
type Report struct {
	Results []Result `json:"results"`
}

// Result is the outcome of an attack on one layer: it got Right of Of things right.
type Result struct {
	Target  Target  `json:"target"`
	Attack  string  `json:"attack"`
	Network string  `json:"network"`
	Layer   int     `json:"layer"` // index among the linear layers; -1 for all
	Op      string  `json:"op"`
	Scheme  string  `json:"scheme"` // several if they send the same
	Role    int     `json:"role"`   // whose cloud attacks
	Noise   float64 `json:"noise"`  // of a base model, relative to the layer's root mean square
	What    string  `json:"what"`   // what is counted
	Right   int     `json:"right"`
	Of      int     `json:"of"`
	Rate    float64 `json:"rate"`
	Chance  float64 `json:"chance"` // the rate of a blind guess
	Game    bool    `json:"game"`   // each guess is which of two candidates it is
	// Detectable is the least rate that differs significantly from chance, 0 for none.
	Detectable float64 `json:"detectable"`
	Verdict    Verdict `json:"verdict"`
	Seconds    float64 `json:"seconds,omitempty"` // running time of the attack
}

// Target is what an attack tries to recover.
type Target string

const (
	OnWeights Target = "weights"
	OnInputs  Target = "inputs"
)

// Verdict says what a rate means.
type Verdict string

const (
	Broken   Verdict = "broken"  // significantly more than chance, and 90 % or more
	Leaks    Verdict = "leaks"   // significantly more than chance; in a game, also less
	AtChance Verdict = "chance"  // no significant difference from chance
	Few      Verdict = "too few" // no rate, not even 1, would be significant
)

// Alarm is the significance level: a rate or statistic whose p-value is below it is not put
// down to chance. A report has fewer than 2,000 of them, so the probability of any false
// alarm is below 1e-9.
const Alarm = 1e-13

// score counts what an attack got right, against the rate of a blind guess.
type score struct {
	right, of int
	chance    float64 // the rate of a blind guess
	// game: each guess is which of two candidates it is. An attacker who is wrong too often
	// can invert its guesses, so less than chance is as significant as more.
	game bool
}

func (s score) rate() float64 { return float64(s.right) / float64(max(1, s.of)) }

// p returns the p-value: the probability that independent blind guesses are right at least as
// often, or for a game, that they are as far from chance on either side.
func (s score) p() float64 {
	more := atLeast(s.right, s.of, s.chance)
	if !s.game {
		return more
	}
	return twoSided(atLeast(s.of-s.right, s.of, 1-s.chance), more)
}

// detectable returns the least rate that is significantly above chance, 0 for none.
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

// atLeast returns the probability of n or more successes in the given number of independent
// trials, each with probability chance.
func atLeast(n, of int, chance float64) float64 {
	switch {
	case n <= 0 || chance >= 1:
		return 1
	case chance <= 0:
		return 0
	}
	return mathext.RegIncBeta(float64(n), float64(of-n+1), chance)
}

// twoSided returns the two-sided p-value of a value with the lower tail below and the upper
// tail above, both inclusive.
func twoSided(below, above float64) float64 { return min(1, 2*min(below, above)) }
