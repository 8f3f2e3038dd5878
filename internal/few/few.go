// Package few shortens lists of names in errors.
package few

import (
	"fmt"
	"strings"
)

// most is how many names are listed.
const most = 6

// There says which there are, of at least one.
func There[T any](all []T, name func(T) string) string {
	if len(all) == 1 {
		return "there is only " + name(all[0])
	}
	return "there are " + Of(all, name)
}

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
