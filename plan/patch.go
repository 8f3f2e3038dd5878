package plan

// Patch sets dst to the inputs, c.Patch() words of one sample's map x, of the outputs of
// group g at position (p, q), in the order of the weights' columns:
//
//	dst[(a·KW + b)·C/G + i] = x[p·SH + a·DH - Top, q·SW + b·DW - Left, g·C/G + i]
//
// with zeros outside the map.
func Patch[T int32 | uint32 | float32](dst []T, c *Conv2D, x []T, p, q, g int) {
	depth := c.C / c.Groups
	left := q*c.SW - c.Left
	// A kernel row inside the map is contiguous in x unless dilation or groups skip words.
	run := c.Groups == 1 && c.DW == 1 && left >= 0 && left+c.KW <= c.W
	for a := range c.KH {
		row := dst[a*c.KW*depth:][:c.KW*depth]
		h := p*c.SH + a*c.DH - c.Top
		if h < 0 || h >= c.H {
			clear(row)
			continue
		}
		line := x[h*c.W*c.C:][:c.W*c.C]
		if run {
			copy(row, line[left*c.C:])
			continue
		}
		for b := range c.KW {
			cell := row[b*depth:][:depth]
			if w := left + b*c.DW; w < 0 || w >= c.W {
				clear(cell)
			} else {
				copy(cell, line[w*c.C+g*depth:])
			}
		}
	}
}
