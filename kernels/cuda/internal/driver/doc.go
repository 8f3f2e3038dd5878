// Package driver joins gorgonia.org/cu to libraries that are opened at run time,
// so that a program that uses it starts on a machine without a GPU.
//
// gorgonia.org/cu and its package blas link against libcuda and libcublas. This package
// defines every symbol that they use, as a jump through a table. The table's entries return
// an error until Open has found the libraries and filled them in. Empty archives in lib
// stand for the libraries at link time. The headers in include declare the names, values and
// prototypes in use. A build must point the C compiler at both folders (CPATH and
// LIBRARY_PATH, see the Makefile).
//
// The package also has the calls that gorgonia.org/cu lacks.
package driver

//go:generate go run ./gen
