package hostclient_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/verify"
)

// In the smaller ring less is sent and results are coarser, and a wrong answer is
// rejected all the same.
func TestRings(t *testing.T) {
	for name, g := range nets() {
		for _, scheme := range schemes {
			const n = 3
			x := gaussian(rand.New(rand.NewPCG(41, 1)), n*g.Input.Len())
			var down [2]int64
			var results [2][]float32
			for i, in := range hostclient.Rings() {
				r := &rig{}
				var err error
				if r.models, r.secret, err = hostclient.Seal(t.Context(), model(g), hostclient.SealOptions{Scheme: scheme, Ring: in}); err != nil {
					t.Fatal(err)
				}
				if d := r.secret.Describe(); d.Ring != string(in) || d.WordBytes != 4-i {
					t.Errorf("%s of %d bytes a word, want %s", d.Ring, d.WordBytes, in)
				}
				id := identity(t)
				again, err := hostclient.DecryptSecret(bytes.NewReader(encrypt(t, r.secret, id.Recipient())), id)
				if err != nil {
					t.Fatal(err)
				}
				r.secret = again
				r.push(t)
				s := r.open(t, hostclient.Options{Multiplier: kernel})
				results[i] = infer(t, s, x, n)
				down[i] = s.Stats().BytesDown
				r.clouds[0].behave(func(c *call) error { c.y.Data[0] = c.ring.Add(c.y.Data[0], 1); return c.honest() })
				if _, err := s.Infer(t.Context(), x, n); !errors.Is(err, verify.ErrRejected) {
					t.Errorf("%s, %v, %s: a wrong answer: %v", name, scheme, in, err)
				}
			}
			if 4*down[1] != 3*down[0] {
				t.Errorf("%s, %v: %d bytes down in q4, %d in q3", name, scheme, down[0], down[1])
			}
			var top, apart float64
			for i, y := range results[0] {
				top = max(top, math.Abs(float64(y)))
				apart = max(apart, math.Abs(float64(y)-float64(results[1][i])))
			}
			if apart == 0 || apart > top/10 {
				t.Errorf("%s, %v: the rings' results differ by %g of at most %g", name, scheme, apart, top)
			}
		}
	}
}

func TestParseRing(t *testing.T) {
	for _, r := range hostclient.Rings() {
		if got, err := hostclient.ParseRing(string(r)); err != nil || got != r {
			t.Errorf("%v, %v", got, err)
		}
	}
	for _, text := range []string{"q5", "Q4", " q4"} {
		if _, err := hostclient.ParseRing(text); !errors.Is(err, hostclient.ErrRing) {
			t.Errorf("%q: %v", text, err)
		}
	}
	o := hostclient.SealOptions{Ring: "q5", Multiplier: kernel}
	for name, g := range nets() {
		if _, _, err := hostclient.Seal(t.Context(), model(g), o); !errors.Is(err, hostclient.ErrRing) {
			t.Errorf("seal %s: %v", name, err)
		}
		if _, err := hostclient.NewEmulator(t.Context(), model(g), o); !errors.Is(err, hostclient.ErrRing) {
			t.Errorf("emulate %s: %v", name, err)
		}
		if _, err := hostclient.Preview(model(g), permutePad, o.Ring); !errors.Is(err, hostclient.ErrRing) {
			t.Errorf("preview %s: %v", name, err)
		}
	}
	if slices.Contains(hostclient.Rings(), "") {
		t.Error("a ring without a name")
	}
}
