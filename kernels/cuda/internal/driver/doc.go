// Package driver joins gorgonia.org/cu to libraries that are opened at run time,
// so that a program that uses it starts on a machine without a GPU.
//
// gorgonia.org/cu and its package blas link against libcuda and libcublas. This
// package defines every symbol that they name: a jump through a table whose
// entries return an error until Open has found the libraries and filled them in.
// Empty archives in lib take the place of the libraries at link time. The headers
// in include hold the names, values and prototypes in use. A build has to point the C
// compiler at both folders (CPATH and LIBRARY_PATH, see the Makefile).
//
// Beside that it has the calls that gorgonia.org/cu lacks.
package driver

//go:generate go run ./gen
