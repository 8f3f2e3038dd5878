package transform_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

func TestSchemes(t *testing.T) {
	var names []string
	for _, s := range transform.Schemes() {
		names = append(names, s.String())
		if got, err := transform.ParseScheme(s.String()); err != nil || got != s {
			t.Errorf("ParseScheme(%q) = %v, %v", s, got, err)
		}
		want := map[transform.InputMask][2]int{transform.InputSplit: {2, 1}, transform.InputLagrange: {3, 2}}[s.Inputs]
		if want[0] == 0 {
			want = [2]int{1, 1}
		}
		if got := [2]int{s.Roles(), s.WordRoles()}; got != want {
			t.Errorf("%v has %d roles, %d of which are sent words", s, got[0], got[1])
		}
	}
	if want := []string{"permute+pad", "permute", "none+pad", "permute+split", "none+split", "lagrange"}; !slices.Equal(names, want) {
		t.Errorf("schemes %v, want %v", names, want)
	}
	if transform.Schemes()[0] != transform.DefaultScheme() {
		t.Error("the default is not first")
	}
	for _, s := range []string{"", "none", "pad", "split", "none+permute", "permute+permute", "permute+none", "none+none", "Permute", "permute+pad ", "+", "lagrange+lagrange", "lagrange+pad", "permute+lagrange", "none+lagrange"} {
		if got, err := transform.ParseScheme(s); !errors.Is(err, transform.ErrScheme) || got != (transform.Scheme{}) {
			t.Errorf("ParseScheme(%q) = %v, %v, want ErrScheme", s, got, err)
		}
	}
	for _, s := range []transform.Scheme{{}, {Weights: transform.WeightNone, Inputs: transform.InputPermute}, {Weights: transform.WeightPermute}, {Weights: "lpn", Inputs: transform.InputPad}, {Inputs: transform.InputSplit},
		{Weights: transform.WeightLagrange, Inputs: transform.InputSplit}, {Weights: transform.WeightPermute, Inputs: transform.InputLagrange}} {
		if _, err := transform.NewLayer(ring.Q4(), s, plan.Dense(1, 1)); !errors.Is(err, transform.ErrScheme) {
			t.Errorf("NewLayer under %v: error %v, want ErrScheme", s, err)
		}
		if _, err := transform.RestoreLayer(ring.Q4(), s, transform.LayerState{Op: plan.Dense(1, 1)}); !errors.Is(err, transform.ErrScheme) {
			t.Errorf("RestoreLayer under %v: error %v, want ErrScheme", s, err)
		}
	}
}

// TestGuarantees checks each scheme's guarantee: obfuscation is never called hidden or safe, and
// a promise that rests on an assumption names it.
func TestGuarantees(t *testing.T) {
	for _, s := range transform.Schemes() {
		g := s.Guarantee()
		says := func(text, field string, want ...string) {
			t.Helper()
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%v: %s does not say %q: %s", s, field, w, text)
				}
			}
		}
		never := func(text, field string, unwanted ...string) {
			t.Helper()
			for _, w := range unwanted {
				if strings.Contains(text, w) {
					t.Errorf("%v: %s says %q: %s", s, field, w, text)
				}
			}
		}
		says(g.Integrity, "Integrity", "a wrong answer passes with probability below 2^-51 per forged call")
		says(g.Leakage, "Leakage", "shapes", "batch sizes", "layer reached", "number of calls", "timing")
		switch s.Inputs {
		case transform.InputPad:
			says(g.Inputs, "Inputs", "hidden as long as AES-256 is")
			says(g.Work, "Work", "In total the host does more multiply-adds than computing locally", "O(m+n)")
		case transform.InputSplit:
			says(g.Inputs, "Inputs", "hidden as long as AES-256 is", "the two clouds never collude (share what they see, or agree on how to answer)")
			says(g.Work, "Work", "O(m+n) in total", "no offline part")
			says(g.Leakage, "Leakage", "Each cloud sees")
		case transform.InputLagrange:
			says(g.Inputs, "Inputs", "hidden as long as AES-256 is", "no two of the three clouds ever collude (share what they see, or agree on how to answer)", "any two that do have them all")
			says(g.Work, "Work", "O(m+n) in total", "no offline part")
			says(g.Leakage, "Leakage", "Each cloud sees")
		case transform.InputPermute:
			says(g.Inputs, "Inputs", "only obfuscated: known attacks recover them")
			says(g.Work, "Work", "O(m+n)")
			never(g.Inputs, "Inputs", "hidden", "safe", "secure", "AES")
		}
		switch s.Weights {
		case transform.WeightPermute:
			says(g.Weights, "Weights", "only obfuscated: known attacks recover them")
			never(g.Weights, "Weights", "hidden", "safe", "secure", "AES")
		case transform.WeightNone:
			says(g.Weights, "Weights", "not hidden", "cloud sees them")
		case transform.WeightLagrange:
			says(g.Weights, "Weights", "hidden as long as AES-256 is", "no two of the three clouds ever collude (share what they see, or agree on how to answer)", "any two that do have them all")
		}
		all := g.Inputs + g.Weights + g.Integrity + g.Leakage + g.Work
		// "Never" is for the assumption of split, which the code cannot enforce.
		all = strings.ReplaceAll(all, "the two clouds never collude", "")
		never(all, "the guarantee", "perfect", "impossible", "guarantee", "never", "private")
	}
}
