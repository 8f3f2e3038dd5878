package transform

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// WeightMask says how weights are masked, InputMask how inputs are masked.
type (
	WeightMask string
	InputMask  string
)

const (
	WeightNone     WeightMask = "none"     // What = W
	WeightPermute  WeightMask = "permute"  // What = E D W F U
	WeightLagrange WeightMask = "lagrange" // three roles: (W + R)/2, (W - R)/2 and R (needs InputLagrange)
	InputPermute   InputMask  = "permute"  // xhat = U^-1 F^-1 X F_Y U_Y (needs WeightPermute)
	InputPad       InputMask  = "pad"      // xhat = x' + r, r used once
	InputSplit     InputMask  = "split"    // two roles: one gets x' + s, the other s
	InputLagrange  InputMask  = "lagrange" // three roles: x + s, x - s and s (needs WeightLagrange)
)

// Scheme is a pair of masks. Its text is "WEIGHT+INPUT", for example "permute+pad". If both
// masks have the same name, the text is that name: "permute", the paper's scheme, and
// "lagrange".
type Scheme struct {
	Weights WeightMask
	Inputs  InputMask
}

// DefaultScheme is permute+pad.
func DefaultScheme() Scheme { return Scheme{WeightPermute, InputPad} }

// Schemes lists every scheme, the default first.
func Schemes() []Scheme {
	return []Scheme{
		DefaultScheme(), {WeightPermute, InputPermute}, {WeightNone, InputPad},
		{WeightPermute, InputSplit}, {WeightNone, InputSplit}, {WeightLagrange, InputLagrange},
	}
}

// ErrScheme reports a scheme that does not exist.
var ErrScheme = errors.New("transform: unknown scheme")

// ParseScheme reads a scheme's text.
func ParseScheme(s string) (Scheme, error) {
	var names []string
	for _, scheme := range Schemes() {
		if s == scheme.String() {
			return scheme, nil
		}
		names = append(names, scheme.String())
	}
	return Scheme{}, fmt.Errorf("%w %.32q, want one of %s", ErrScheme, s, strings.Join(names, ", "))
}

func (s Scheme) String() string {
	if string(s.Weights) == string(s.Inputs) {
		return string(s.Inputs)
	}
	return string(s.Weights) + "+" + string(s.Inputs)
}

// check returns an error wrapping ErrScheme unless s is one of Schemes.
func (s Scheme) check() error {
	if slices.Contains(Schemes(), s) {
		return nil
	}
	return fmt.Errorf("%w %.32q", ErrScheme, s.String())
}

// Roles returns the number of clouds that the scheme needs, which must not collude.
func (s Scheme) Roles() int {
	switch s.Inputs {
	case InputSplit:
		return 2
	case InputLagrange:
		return 3
	}
	return 1
}

// WordRoles returns the number of roles that are sent words for each call: the first ones. The
// others are sent a seed.
func (s Scheme) WordRoles() int {
	if n := s.Roles(); n > 1 {
		return n - 1
	}
	return 1
}

// Guarantee states a scheme's promises in plain sentences.
type Guarantee struct {
	Inputs    string `json:"inputs"` // how inputs and results are protected, and the assumption
	Weights   string `json:"weights"`
	Integrity string `json:"integrity"`
	Leakage   string `json:"leakage"` // what the cloud sees in every case
	Work      string `json:"work"`    // the host's work, compared with computing locally
}

// Guarantee returns exactly what s promises.
func (s Scheme) Guarantee() Guarantee {
	cloud, first := "the cloud", "The cloud"
	if s.Roles() > 1 {
		cloud, first = "each cloud", "Each cloud"
	}
	g := Guarantee{
		Integrity: "Every product of " + cloud + " is checked before it is used: a wrong answer passes with probability below 2^-51 per forged call.",
		Leakage:   first + " sees shapes, batch sizes, the layer reached, the number of calls and their timing.",
	}
	switch s.Weights {
	case WeightPermute:
		g.Weights = "Weights are only obfuscated: known attacks recover them from the sealed model alone, up to order, signs and a factor for each row and input."
	case WeightNone:
		g.Weights = "Weights are not hidden: " + cloud + " sees them, as integers."
	case WeightLagrange:
		g.Weights = "Weights are hidden as long as AES-256 is secure and no two of the three clouds ever collude (share what they see, or agree on how to answer): " +
			"any two that do have them all, as integers."
	}
	switch s.Inputs {
	case InputPad:
		g.Inputs = "Inputs and results are hidden as long as AES-256 is secure: every call is masked with fresh pads, each used once."
		g.Work = "In total the host does more multiply-adds than computing locally: every pad costs the full product, computed beforehand. " +
			"Online, the host's work for a sample of an m x n layer is O(m+n)."
	case InputSplit:
		g.Inputs = "Inputs and results are hidden as long as AES-256 is secure and the two clouds never collude (share what they see, or agree on how to answer)."
		g.Work = "The host's work for a sample of an m x n layer is O(m+n) in total: there is no offline part."
	case InputLagrange:
		g.Inputs = "Inputs and results are hidden as long as AES-256 is secure and no two of the three clouds ever collude (share what they see, or agree on how to answer): " +
			"any two that do have them all."
		g.Work = "The host's work for a sample of an m x n layer is O(m+n) in total: there is no offline part."
	case InputPermute:
		g.Inputs = "Inputs and results are only obfuscated: known attacks recover them."
		g.Work = "The host's work for a sample of an m x n layer is O(m+n); for a convolution, O(m+n) at every position of its output."
	}
	return g
}
