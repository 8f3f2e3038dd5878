package ring

import (
	"fmt"
	"math"
	"math/bits"
)

// Order is the memory order of a matrix.
type Order uint8

const (
	// RowMajor: element (i, j) is Data[i·Cols + j].
	RowMajor Order = iota
	// ColMajor: element (i, j) is Data[j·Rows + i].
	ColMajor
)

func (o Order) String() string {
	if o == ColMajor {
		return "col-major"
	}
	return "row-major"
}

// Matrix is a dense Rows x Cols matrix over a ring. Data holds exactly
// Rows·Cols words, without padding.
type Matrix struct {
	Rows, Cols int
	Order      Order
	Data       []uint32
}

// NewMatrix returns a zero row-major matrix. Callers have checked the sizes: it panics, as make
// does, where one is negative or no slice can hold as many words.
func NewMatrix(rows, cols int) Matrix {
	hi, lo := bits.Mul64(uint64(rows), uint64(cols))
	if rows < 0 || cols < 0 || hi != 0 || lo > math.MaxInt {
		panic("ring: NewMatrix: size out of range")
	}
	return Matrix{Rows: rows, Cols: cols, Data: make([]uint32, lo)}
}

// ShapeError reports a matrix with the wrong shape, order or length.
type ShapeError struct {
	What       string // which operand
	Got        Matrix // Data is dropped
	Len        int    // words held
	Rows, Cols int    // wanted, row-major
}

func (e *ShapeError) Error() string {
	return fmt.Sprintf("%s is %dx%d %v of %d words, want %dx%d %v",
		e.What, e.Got.Rows, e.Got.Cols, e.Got.Order, e.Len, e.Rows, e.Cols, RowMajor)
}

// Want returns a *ShapeError that names the operand, unless m is row-major, rows x cols,
// and holds exactly as many words.
func (m Matrix) Want(what string, rows, cols int) error {
	if m.Rows == rows && m.Cols == cols && m.Order == RowMajor && rows >= 0 && cols >= 0 {
		if hi, lo := bits.Mul64(uint64(rows), uint64(cols)); hi == 0 && lo == uint64(len(m.Data)) {
			return nil
		}
	}
	e := &ShapeError{What: what, Got: m, Len: len(m.Data), Rows: rows, Cols: cols}
	e.Got.Data = nil
	return e
}

// At returns element (i, j).
func (m Matrix) At(i, j int) uint32 {
	if m.Order == ColMajor {
		return m.Data[j*m.Rows+i]
	}
	return m.Data[i*m.Cols+j]
}

// Row returns row i of a row-major matrix, sharing its memory.
func (m Matrix) Row(i int) []uint32 { return m.Data[i*m.Cols : (i+1)*m.Cols : (i+1)*m.Cols] }

// RowRange returns rows [i, j) of a row-major matrix, sharing its memory.
func (m Matrix) RowRange(i, j int) Matrix {
	return Matrix{Rows: j - i, Cols: m.Cols, Data: m.Data[i*m.Cols : j*m.Cols : j*m.Cols]}
}

// T returns the transpose, sharing memory: the order flips.
func (m Matrix) T() Matrix {
	return Matrix{Rows: m.Cols, Cols: m.Rows, Order: 1 - m.Order, Data: m.Data}
}
