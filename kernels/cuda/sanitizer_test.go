//go:build gpu && !asan

package cuda

// sanitizer are flags for the fake driver's compiler.
var sanitizer []string
