package plan_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/securenets/securenets/plan"
)

// TestPatch compares Patch with its formula, element by element.
func TestPatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(t, name) }
		depth, groups := size("depth", 1, 3), size("groups", 1, 2)
		c := plan.Conv2D{
			C: depth * groups, OutC: groups, Groups: groups, KH: size("kh", 1, 4), KW: size("kw", 1, 4),
			SH: size("sh", 1, 3), SW: size("sw", 1, 3), DH: size("dh", 1, 3), DW: size("dw", 1, 3),
		}
		kh, kw := c.DH*(c.KH-1)+1, c.DW*(c.KW-1)+1
		c.Top, c.Bot, c.Left, c.Right = size("top", 0, kh-1), size("bot", 0, kh-1), size("left", 0, kw-1), size("right", 0, kw-1)
		c.H, c.W = size("h", max(1, kh-c.Top-c.Bot), kh+5), size("w", max(1, kw-c.Left-c.Right), kw+5)
		x := make([]uint32, c.H*c.W*c.C)
		for i := range x {
			x[i] = uint32(i + 1)
		}
		got := make([]uint32, c.Patch())
		for p := range c.OutH() {
			for q := range c.OutW() {
				for g := range groups {
					for i := range got {
						got[i] = 1 << 31
					}
					plan.Patch(got, &c, x, p, q, g)
					for k, word := range got {
						h, w := p*c.SH+k/depth/c.KW*c.DH-c.Top, q*c.SW+k/depth%c.KW*c.DW-c.Left
						want := uint32(0)
						if h >= 0 && h < c.H && w >= 0 && w < c.W {
							want = x[(h*c.W+w)*c.C+g*depth+k%depth]
						}
						if word != want {
							t.Fatalf("%+v: position (%d, %d), group %d, word %d is %d, want %d", c, p, q, g, k, word, want)
						}
					}
				}
			}
		}
	})
}
