// Package dataset reads images and labels from files: IDX (plain or gzipped),
// NumPy's .npy, and PNG. It treats them as hostile: memory is bounded by limits
// and errors say what is wrong.
package dataset

import (
	"errors"
	"io"
)

// ErrFormat reports a file that is not what its reader reads.
var ErrFormat = errors.New("dataset: bad file")

// Images are N samples in C, H, W order, one after the other. Bytes are scaled
// to [0, 1]; floating-point files are taken as they are.
type Images struct {
	N, C, H, W int
	Data       []float32
}

// Sample returns samples [i, j), sharing memory.
func (m *Images) Range(i, j int) []float32 { return nil }

var errTODO = errors.New("dataset: not written yet")

// ReadIDX reads a file of unsigned bytes in 3 dimensions (count, rows, columns).
func ReadIDX(r io.Reader) (*Images, error) { return nil, errTODO }

// ReadIDXLabels reads a file of unsigned bytes in 1 dimension.
func ReadIDXLabels(r io.Reader) ([]uint8, error) { return nil, errTODO }

// ReadNPY reads a uint8, float32 or float64 array of 2 (count, features), 3
// (count, rows, columns) or 4 (count, channels, rows, columns) dimensions.
func ReadNPY(r io.Reader) (*Images, error) { return nil, errTODO }

// ReadPNG reads one image with the given number of channels, 1 (grey) or 3.
func ReadPNG(r io.Reader, channels int) (*Images, error) { return nil, errTODO }

// Open reads a file of any of these kinds, told apart by their first bytes.
func Open(path string, channels int) (*Images, error) { return nil, errTODO }
