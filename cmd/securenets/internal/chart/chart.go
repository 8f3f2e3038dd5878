// Package chart draws line charts with logarithmic axes, as PNG and SVG.
package chart

import (
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
)

// A picture's size, and the dots of an inch of a PNG.
const (
	Width  = 9 * vg.Inch
	Height = 5.4 * vg.Inch
	DPI    = 110
)

// ErrPoint reports a point that has no place on a logarithmic axis.
var ErrPoint = errors.New("chart: not a finite number above zero")

// ErrEmpty reports a chart without a point.
var ErrEmpty = errors.New("chart: no points")

// Chart is what to draw. Both axes are logarithmic.
type Chart struct {
	Title string
	X, Y  string    // labels, with their units
	Ticks []float64 // of X; nil: 1, 2 and 5 of each decade
	Lines []Line
}

// Line joins its points, in their order.
type Line struct {
	Name   string
	Points []Point
	Colour int // lines of one number have one colour
	Dashed bool
}

// Point is one of a line, with a bar from Low to High where these differ.
type Point struct{ X, Y, Low, High float64 }

// Of Okabe and Ito, told apart by all eyes.
var colours = []color.Color{
	color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255}, color.RGBA{0, 158, 115, 255},
	color.RGBA{204, 121, 167, 255}, color.RGBA{86, 180, 233, 255}, color.RGBA{230, 159, 0, 255}, color.RGBA{0, 0, 0, 255},
}

// Write draws the chart to path.png and path.svg. On an error there is neither.
func (c Chart) Write(path string) error {
	err := errors.Join(render.File(path+".png", c.PNG), render.File(path+".svg", c.SVG))
	if err != nil {
		os.Remove(path + ".png")
		os.Remove(path + ".svg")
	}
	return err
}

// PNG draws the chart.
func (c Chart) PNG(w io.Writer) error {
	picture := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(Width, Height), vgimg.UseDPI(DPI))}
	if err := c.draw(draw.New(picture)); err != nil {
		return err
	}
	_, err := picture.WriteTo(w)
	return err
}

// SVG draws the chart.
func (c Chart) SVG(w io.Writer) error {
	picture := vgsvg.New(Width, Height)
	if err := c.draw(draw.New(picture)); err != nil {
		return err
	}
	_, err := picture.WriteTo(w)
	return err
}

func sans(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// draw draws logarithms over linear axes: on its own logarithmic ones the library
// takes labels to be elsewhere than it writes them.
func (c Chart) draw(canvas draw.Canvas) error {
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Rectangle.Path())
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.X, c.Y
	p.Title.TextStyle.Font, p.Title.Padding = sans(13), 10
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Tick.Marker = plot.TickerFunc(func(least, most float64) []plot.Tick { return labelled(digits(least, most)) })
		axis.Label.TextStyle.Font, axis.Label.Padding = sans(12), 6
		axis.Tick.Label.Font, axis.Padding = sans(11), 0
	}
	if c.Ticks != nil {
		p.X.Tick.Marker = plot.TickerFunc(func(float64, float64) []plot.Tick { return labelled(c.Ticks) })
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)

	legend := plot.NewLegend()
	legend.Left, legend.Top = true, true
	legend.TextStyle.Font, legend.Padding, legend.ThumbnailWidth = sans(11), 6, 26
	var x, y span
	for _, l := range c.Lines {
		if len(l.Points) == 0 {
			continue
		}
		thumb, err := l.add(p)
		if err != nil {
			return err
		}
		legend.Add(l.Name, thumb...)
		for _, at := range l.Points {
			x.add(at.X)
			y.add(at.Low)
			y.add(at.High)
		}
	}
	if !x.some {
		return ErrEmpty
	}
	p.X.Min, p.X.Max = x.around(0.05)
	p.Y.Min, p.Y.Max = y.around(0.1)

	// The legend stands beside the lines, not over them.
	const margin = 12
	r := legend.Rectangle(canvas)
	beside := r.Max.X - r.Min.X + margin
	inner := draw.Crop(canvas, margin, -margin, margin, -margin)
	p.Draw(draw.Crop(inner, 0, -beside-margin, 0, 0))
	box := draw.Crop(inner, inner.Max.X-inner.Min.X-beside, 0, 0, -3*margin)
	legend.Draw(box)
	return nil
}

// add puts the line on a plot and returns what stands for it in the legend.
func (l Line) add(p *plot.Plot) ([]plot.Thumbnailer, error) {
	var xys plotter.XYs
	var bars plotter.YErrors
	for _, at := range l.Points {
		for _, v := range []float64{at.X, at.Y, at.Low, at.High} {
			if !(v > 0) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("%w: %v of %q", ErrPoint, v, l.Name)
			}
		}
		y := math.Log10(at.Y)
		xys = append(xys, plotter.XY{X: math.Log10(at.X), Y: y})
		bars = append(bars, struct{ Low, High float64 }{y - math.Log10(at.Low), math.Log10(at.High) - y})
	}
	line, dots, err := plotter.NewLinePoints(xys)
	if err != nil {
		return nil, err
	}
	spread, err := plotter.NewYErrorBars(struct {
		plotter.XYs
		plotter.YErrors
	}{xys, bars})
	if err != nil {
		return nil, err
	}
	colour := colours[l.Colour%len(colours)]
	line.Color, line.Width = colour, 1.8
	dots.Color, dots.Shape, dots.Radius = colour, draw.CircleGlyph{}, 2.6
	spread.Color, spread.Width = colour, 1
	if l.Dashed {
		line.Dashes = []vg.Length{6, 4}
	}
	p.Add(line, spread, dots)
	return []plot.Thumbnailer{line, dots}, nil
}

// span is the least and the most of the logarithms of some numbers.
type span struct {
	some        bool
	least, most float64
}

func (s *span) add(v float64) {
	v = math.Log10(v)
	if !s.some {
		*s = span{true, v, v}
	}
	s.least, s.most = min(s.least, v), max(s.most, v)
}

// around returns the span, of a third of a decade or more, with room at both ends.
func (s span) around(room float64) (least, most float64) {
	const narrow = 1. / 3
	if width := s.most - s.least; width < narrow {
		room += (narrow - width) / 2
	}
	return s.least - room, s.most + room
}

// digits returns what to mark between two logarithms: 1, 2 and 5 of each decade, of many
// decades 1 alone, and more of less than one.
func digits(least, most float64) []float64 {
	marks := []float64{1, 2, 5}
	switch decades := most - least; {
	case decades > 4:
		marks = marks[:1]
	case decades < 0.8:
		marks = []float64{1, 1.5, 2, 3, 4, 5, 6, 8}
	}
	var at []float64
	for e := math.Floor(least); e <= most; e++ {
		for _, d := range marks {
			if v := d * math.Pow(10, e); math.Log10(v) >= least && math.Log10(v) <= most {
				at = append(at, v)
			}
		}
	}
	return at
}

// labelled returns ticks at the logarithms of numbers.
func labelled(at []float64) []plot.Tick {
	var all []plot.Tick
	for _, v := range at {
		all = append(all, plot.Tick{Value: math.Log10(v), Label: label(v)})
	}
	return all
}

// label writes a number without what rounding left at its end.
func label(v float64) string {
	if v >= 1000 && v < 1e15 {
		return render.Count(int64(math.Round(v)))
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
