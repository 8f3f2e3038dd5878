package dataset

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"image/color"
	"image/png"
	"io"
)

var pngMagic = []byte("\x89PNG\r\n\x1a\n")

// maxPixels bounds one PNG: the decoder takes up to 8 bytes per pixel, and the result 12 more.
const maxPixels = 1 << 24

// ReadPNG reads one image as the given number of channels, 1 (grey, with the
// luma weights of ITU-R BT.601) or 3 (red, green, blue). Transparent pixels are blended with
// black. Samples of 16 bits keep their precision.
func ReadPNG(r io.Reader, channels int) (*Images, error) {
	if channels != 1 && channels != 3 {
		return nil, fmt.Errorf("dataset: a PNG of %d channels, want 1 or 3", channels)
	}
	// The file begins with the length and type of the first chunk, then width and height.
	// These are checked before anything is decoded.
	br := bufio.NewReader(r)
	head, err := br.Peek(24)
	if err != nil {
		return nil, malformed(err, "PNG header")
	}
	if string(head[:8]) != string(pngMagic) || string(head[12:16]) != "IHDR" {
		return nil, fmt.Errorf("%w: not a PNG", ErrFormat)
	}
	w, h := binary.BigEndian.Uint32(head[16:]), binary.BigEndian.Uint32(head[20:])
	if w == 0 || h == 0 || uint64(w)*uint64(h) > maxPixels {
		return nil, fmt.Errorf("%w: PNG of %d x %d pixels, at most %d are read", ErrFormat, w, h, maxPixels)
	}
	img, err := png.Decode(br)
	if err != nil {
		return nil, malformed(err, "PNG")
	}
	b := img.Bounds()
	m := &Images{N: 1, C: channels, H: b.Dy(), W: b.Dx()}
	plane := m.H * m.W
	m.Data = make([]float32, channels*plane)
	for i := range plane {
		at := img.At(b.Min.X+i%m.W, b.Min.Y+i/m.W)
		if channels == 1 {
			m.Data[i] = unit(uint32(color.Gray16Model.Convert(at).(color.Gray16).Y))
			continue
		}
		red, green, blue, _ := at.RGBA()
		m.Data[i], m.Data[plane+i], m.Data[2*plane+i] = unit(red), unit(green), unit(blue)
	}
	return m, nil
}

// unit maps 16 bits to [0, 1]. A sample of 8 bits arrives multiplied by 257, so that the result
// equals scale's.
func unit(v uint32) float32 { return float32(v) / 0xffff }
