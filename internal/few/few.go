// Package few shortens lists of names in errors.
package few

import (
	"fmt"
	"strings"
)

// most is how many names are listed.
const most = 6

// Of lists the names of the first of all, and says how many more there are.
func Of[T any](all []T, name func(T) string) string {
	var names []string
	for _, v := range all[:min(len(all), most)] {
		names = append(names, name(v))
	}
	list := strings.Join(names, ", ")
	if more := len(all) - len(names); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
