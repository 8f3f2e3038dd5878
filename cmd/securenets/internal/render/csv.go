package render

import (
	"encoding/csv"
	"io"
	"strconv"
)

// CSV writes a line of names, and one for each row.
func CSV[R interface{ Record() []string }](w io.Writer, names []string, rows []R) error {
	c := csv.NewWriter(w)
	c.Write(names)
	for _, r := range rows {
		c.Write(r.Record())
	}
	c.Flush()
	return c.Error()
}

// Decimal returns a number with no more digits than it takes.
func Decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
