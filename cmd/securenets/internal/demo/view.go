package demo

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"

	"github.com/securenets/securenets/internal/sealed"
)

// The picture's grid, in pixels before scaling.
const (
	viewScale = 4
	viewPairs = 4 // a line
	viewGap   = 2 // between an image and what was seen of it, doubled between pairs
)

// drawView writes cloud-view.png: the first images, each with what the cloud of
// role 0 got for it in the first layer at its right, a word a pixel, as grey.
// words are those of all, sample-major; of more than there are pixels the first.
func (r *run) drawView(words []uint32) error {
	model, err := sealed.Parse(r.models[0].Bytes)
	if err != nil {
		return err
	}
	modulus := uint64(model.Plan.Ring.Modulus())
	h, w := r.images.H, r.images.W
	pairW, pairH := 2*w+3*viewGap, h+2*viewGap
	lines := (shown + viewPairs - 1) / viewPairs
	small := image.NewGray(image.Rect(0, 0, viewPairs*pairW+viewGap, lines*pairH))
	for i := range small.Pix {
		small.Pix[i] = 0xff
	}
	each := len(words) / shown
	for i := range shown {
		left, top := viewGap+i%viewPairs*pairW, viewGap+i/viewPairs*pairH
		clear := r.images.Range(i, i+1)
		seen := words[i*each : (i+1)*each]
		for p := range h * w {
			x, y := left+p%w, top+p/w
			small.SetGray(x, y, color.Gray{Y: uint8(clear[p] * 0xff)})
			if p < len(seen) {
				small.SetGray(x+w+viewGap, y, color.Gray{Y: uint8(uint64(seen[p]) << 8 / modulus)})
			}
		}
	}
	f, err := os.Create(filepath.Join(r.OutDir, viewFile))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := png.Encode(f, enlarge(small, viewScale)); err != nil {
		return err
	}
	return f.Close()
}

// enlarge makes k x k pixels of each.
func enlarge(m *image.Gray, k int) *image.Gray {
	big := image.NewGray(image.Rect(0, 0, k*m.Rect.Dx(), k*m.Rect.Dy()))
	for y := range big.Rect.Dy() {
		for x := range big.Rect.Dx() {
			big.SetGray(x, y, m.GrayAt(x/k, y/k))
		}
	}
	return big
}
