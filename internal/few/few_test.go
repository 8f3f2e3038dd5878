package few

import (
	"strconv"
	"testing"
)

func TestOf(t *testing.T) {
	for n, want := range map[int]string{
		0: "", 1: `"0"`, 2: `"0", "1"`, 6: `"0", "1", "2", "3", "4", "5"`,
		7: `"0", "1", "2", "3", "4", "5" and 1 more`, 1000: `"0", "1", "2", "3", "4", "5" and 994 more`,
	} {
		var all []int
		for i := range n {
			all = append(all, i)
		}
		if got := Of(all, func(i int) string { return strconv.Quote(strconv.Itoa(i)) }); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
