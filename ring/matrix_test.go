package ring_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/securenets/securenets/ring"
)

// numbered returns a matrix whose element (i, j) is 100·i + j.
func numbered(rows, cols int) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	for i := range rows {
		for j := range cols {
			m.Data[i*cols+j] = uint32(100*i + j)
		}
	}
	return m
}

func TestMatrix(t *testing.T) {
	m := numbered(3, 5)
	mt := m.T()
	if mt.Rows != 5 || mt.Cols != 3 || mt.Order != ring.ColMajor || &mt.Data[0] != &m.Data[0] {
		t.Errorf("T is %dx%d %v", mt.Rows, mt.Cols, mt.Order)
	}
	for i := range 3 {
		for j := range 5 {
			want := uint32(100*i + j)
			for name, got := range map[string]uint32{
				"At": m.At(i, j), "T": mt.At(j, i), "T T": mt.T().At(i, j), "Row": m.Row(i)[j], "RowRange": m.RowRange(i, 3).At(0, j),
			} {
				if got != want {
					t.Errorf("%s: element (%d, %d) is %d, want %d", name, i, j, got, want)
				}
			}
		}
	}
	if r := m.Row(1); len(r) != 5 || cap(r) != 5 {
		t.Errorf("a row of %d words, room for %d", len(r), cap(r))
	}
	if r := m.RowRange(1, 2); len(r.Data) != 5 || cap(r.Data) != 5 || r.Want("r", 1, 5) != nil {
		t.Errorf("a range of %d words, room for %d", len(r.Data), cap(r.Data))
	}
	if r := m.RowRange(2, 2); r.Want("r", 0, 5) != nil {
		t.Error("an empty range is not 0x5")
	}
}

// A product of sizes that wraps gives no matrix of fewer words.
func TestNewMatrixOutOfRange(t *testing.T) {
	for _, size := range [][2]int{{1 << 32, 1 << 32}, {1 << 62, 4}, {math.MinInt64, 2}, {1<<32 + 1, 1 << 32}, {-1, -1}, {-1, 0}, {0, -1}, {-1, 1}, {math.MaxInt, 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%dx%d is a matrix", size[0], size[1])
				}
			}()
			ring.NewMatrix(size[0], size[1])
		}()
	}
	for _, size := range [][2]int{{0, 0}, {0, math.MaxInt}, {math.MaxInt, 0}} {
		if m := ring.NewMatrix(size[0], size[1]); m.Want("m", size[0], size[1]) != nil {
			t.Errorf("%dx%d is %dx%d of %d words", size[0], size[1], m.Rows, m.Cols, len(m.Data))
		}
	}
}

func TestWant(t *testing.T) {
	if err := numbered(3, 5).Want("m", 3, 5); err != nil {
		t.Error(err)
	}
	for name, m := range map[string]ring.Matrix{
		"rows":          numbered(2, 5),
		"columns":       numbered(3, 4),
		"transposed":    numbered(5, 3).T(),
		"swapped":       numbered(5, 3),
		"cut short":     {Rows: 3, Cols: 5, Data: make([]uint32, 14)},
		"too long":      {Rows: 3, Cols: 5, Data: make([]uint32, 16)},
		"no data":       {Rows: 3, Cols: 5},
		"strange order": {Rows: 3, Cols: 5, Order: 7, Data: make([]uint32, 15)},
	} {
		err := m.Want("the operand", 3, 5)
		e := (*ring.ShapeError)(nil)
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if e.What != "the operand" || e.Rows != 3 || e.Cols != 5 || e.Len != len(m.Data) || e.Got.Rows != m.Rows || e.Got.Data != nil {
			t.Errorf("%s: %+v", name, e)
		}
		if !strings.HasPrefix(err.Error(), "the operand is ") || !strings.HasSuffix(err.Error(), "want 3x5 row-major") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Sizes whose product wraps to the length held.
	for _, size := range [][2]int{{1 << 62, 4}, {math.MinInt64, 2}, {-1, 0}, {0, -1}, {-1, -1}, {1 << 32, 1 << 32}} {
		m := ring.Matrix{Rows: size[0], Cols: size[1]}
		if size == [2]int{-1, -1} {
			m.Data = make([]uint32, 1)
		}
		if err := m.Want("m", size[0], size[1]); err == nil {
			t.Errorf("%dx%d of %d words passes", size[0], size[1], len(m.Data))
		}
	}
}
