package chart_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/chart"
)

// sample is a chart of two lines, one of them dashed, over so much.
func sample(least, most float64) chart.Chart {
	return chart.Chart{
		Title: "a title", X: "across, ms", Y: "up, images a second",
		Lines: []chart.Line{
			{Name: "the first line", Points: []chart.Point{{1, least, least / 2, least * 2}, {10, most, most, most}}},
			{Name: "the second line with a longer name", Colour: 1, Dashed: true, Points: []chart.Point{{1, most, most, most}, {1000, least, least, least}}},
			{Name: "a line without points", Colour: 2},
		},
	}
}

// TestPNG: a picture of the size that is promised, with the lines' colours in it, and
// nothing at its edges, where text would be cut off.
func TestPNG(t *testing.T) {
	for _, span := range [][2]float64{{1, 1}, {0.001, 0.002}, {123456, 987654}, {1e-9, 1e12}} {
		var b bytes.Buffer
		if err := sample(span[0], span[1]).PNG(&b); err != nil {
			t.Fatalf("%v: %v", span, err)
		}
		picture, err := png.Decode(&b)
		if err != nil {
			t.Fatalf("%v: %v", span, err)
		}
		if want := image.Rect(0, 0, 9*chart.DPI, 5.4*chart.DPI); picture.Bounds() != want {
			t.Errorf("%v: %v, want %v", span, picture.Bounds(), want)
		}
		drawn := map[color.RGBA]int{}
		for y := range picture.Bounds().Dy() {
			for x := range picture.Bounds().Dx() {
				c := color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)
				drawn[c]++
				edge := min(x, y, picture.Bounds().Dx()-1-x, picture.Bounds().Dy()-1-y)
				if edge < 4 && c != (color.RGBA{255, 255, 255, 255}) {
					t.Fatalf("%v: %v at (%d, %d), on the edge", span, c, x, y)
				}
			}
		}
		for i, c := range []color.RGBA{{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}} {
			if there, want := drawn[c] > 350, i < 2; there != want {
				t.Errorf("%v: %d pixels of line %d's colour", span, drawn[c], i)
			}
		}
	}
}

// TestSVG: well-formed, with every text of the chart in it.
func TestSVG(t *testing.T) {
	var b bytes.Buffer
	c := sample(100, 10000)
	c.Ticks = []float64{1, 8, 512}
	if err := c.SVG(&b); err != nil {
		t.Fatal(err)
	}
	var text []string
	for d := xml.NewDecoder(&b); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if chars, ok := token.(xml.CharData); ok && strings.TrimSpace(string(chars)) != "" {
			text = append(text, strings.TrimSpace(string(chars)))
		}
	}
	all := "\n" + strings.Join(text, "\n") + "\n"
	for _, want := range []string{"a title", "across, ms", "up, images a second", "the first line", "the second line with a longer name", "1", "8", "512", "100", "1,000", "10,000"} {
		if !strings.Contains(all, "\n"+want+"\n") {
			t.Errorf("no %q in%s", want, all)
		}
	}
	if strings.Contains(all, "without points") {
		t.Error("a line without points has a name")
	}
}

// TestRefuses: what has no place on an axis is an error, and leaves no file.
func TestRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	c := sample(1, 2)
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, p := range []chart.Point{{v, 1, 1, 1}, {1, v, 1, 1}, {1, 1, v, 1}, {1, 1, 1, v}} {
			c.Lines[1].Points[1] = p
			if err := c.Write(path); !errors.Is(err, chart.ErrPoint) {
				t.Errorf("%v: %v", p, err)
			}
		}
	}
	c.Lines = c.Lines[2:]
	if err := c.Write(path); !errors.Is(err, chart.ErrEmpty) {
		t.Error(err)
	}
	for _, suffix := range []string{".png", ".svg"} {
		if _, err := os.Stat(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", suffix, err)
		}
	}
	if err := sample(1, 2).Write(filepath.Join(path, "no", "folder")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
