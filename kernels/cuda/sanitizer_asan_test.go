//go:build gpu && asan

package cuda

var sanitizer = []string{"-fsanitize=address"}
