package lane

// For tests of the formats.
var (
	Preface      = preface
	ParsePreface = parsePreface
	Reply        = reply
	ParseReply   = parseReply
)

// Free returns the free parts of the region, as pairs of an offset and a size.
func (s *Slots) Free() (free [][2]int) {
	for _, f := range s.spans {
		free = append(free, [2]int{f.at, f.size})
	}
	return free
}
