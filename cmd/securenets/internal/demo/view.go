package demo

import (
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/transform"
)

// The picture's grid, in pixels before scaling.
const (
	viewScale = 4
	viewPairs = 4 // a line
	viewGap   = 2 // between an image and what was seen of it, doubled between pairs
)

// drawView draws cloud-view.png: the first images, each with what the cloud of
// role 0 got for it in the first layer at its right. words are those of all,
// sample-major.
func (r *run) drawView(words []uint32) error {
	modulus, err := r.modulus()
	if err != nil {
		return err
	}
	r.view = view(r.images, shown, viewPairs, modulus, [][]uint32{words})
	return nil
}

// modulus returns that of the words that clouds get.
func (r *run) modulus() (uint32, error) {
	model, err := sealed.Parse(r.models[0].Bytes)
	if err != nil {
		return 0, err
	}
	return model.Plan.Ring.Modulus(), nil
}

// view draws the first images, each with what was seen of it at its right, a word a
// pixel, as grey: for each view the words of all images, sample-major, of more than
// there are pixels the first. So many images stand on a line.
func view(images *dataset.Images, n, line int, modulus uint32, views [][]uint32) *image.Gray {
	h, w := images.H, images.W
	cellW, cellH := (1+len(views))*(w+viewGap)+viewGap, h+2*viewGap
	lines := (n + line - 1) / line
	small := image.NewGray(image.Rect(0, 0, line*cellW+viewGap, lines*cellH))
	for i := range small.Pix {
		small.Pix[i] = 0xff
	}
	for i := range n {
		left, top := viewGap+i%line*cellW, viewGap+i/line*cellH
		clear := images.Range(i, i+1)
		for p := range h * w {
			small.SetGray(left+p%w, top+p/w, color.Gray{Y: uint8(clear[p] * 0xff)})
		}
		for _, words := range views {
			left += w + viewGap
			each := len(words) / n
			for p, word := range words[i*each : (i+1)*each][:min(each, h*w)] {
				small.SetGray(left+p%w, top+p/w, color.Gray{Y: uint8(uint64(word) << 8 / uint64(modulus))})
			}
		}
	}
	return enlarge(small, viewScale)
}

func writePNG(path string, m image.Image) error {
	return render.File(path, func(w io.Writer) error { return png.Encode(w, m) })
}

// figureImages is how many images DrawFigure draws, one a line.
const figureImages = 8

// DrawFigure draws a picture like the paper's figure 2: on each line a test image of o's
// network, and at its right what every role's cloud gets for it in the first layer,
// scheme by scheme. It also returns which scheme and role each column is of.
func DrawFigure(ctx context.Context, o Options, schemes []transform.Scheme) (image.Image, []Column, error) {
	var columns []Column
	var views [][]uint32
	var images *dataset.Images
	var modulus uint32
	for _, o.Scheme = range schemes {
		c, err := OpenCosts(ctx, o, 0)
		if err != nil {
			return nil, nil, err
		}
		if modulus, err = c.r.modulus(); err != nil {
			return nil, nil, errors.Join(err, c.Close())
		}
		seen, err := c.r.watch(ctx, figureImages)
		if err := errors.Join(err, c.Close()); err != nil {
			return nil, nil, err
		}
		for role, words := range seen {
			views, columns = append(views, words), append(columns, Column{o.Scheme, role})
		}
		images = c.r.images
	}
	return view(images, figureImages, 1, modulus, views), columns, nil
}

// Column is what a column of a figure shows.
type Column struct {
	Scheme transform.Scheme
	Role   int
}

// received returns how many words a role's cloud gets for an image in the first layer, or
// a seed for as many.
func (r *run) received() int { return int(r.layers[0].WordsUp) / r.Scheme.WordRoles() }

// watch returns what each role's cloud gets in the first layer for the first n images.
func (r *run) watch(ctx context.Context, n int) ([][]uint32, error) {
	proxies, addrs, stop, err := r.proxies()
	defer stop()
	if err != nil {
		return nil, err
	}
	for _, p := range proxies {
		p.Record(0, n*r.received())
	}
	s, err := r.openSession(ctx, addrs, hostclient.Options{})
	if err != nil {
		return nil, err
	}
	_, err = s.Infer(ctx, r.images.Range(0, n), n)
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	seen := make([][]uint32, len(proxies))
	for role, p := range proxies {
		seen[role] = p.Seen()
	}
	return seen, nil
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
