//go:build fflas

package main

/*
#cgo CXXFLAGS: -O3 -march=native -std=gnu++17 -DNDEBUG
#cgo LDFLAGS: -lgivaro -lgmpxx -lgmp -lopenblas
#include "fflas.h"
*/
import "C"

func init() {
	version := C.GoString(C.fflas_version())
	register(peer{"fflas-ffpack-double23", version, func(s *shape) (product, error) {
		p := s.float64s()
		p.modulus = prime23
		p.run = func() error {
			C.fflas_double(prime23, C.size_t(s.m), C.size_t(s.k), C.size_t(s.n), (*C.double)(&p.w[0]), (*C.double)(&p.x[0]), (*C.double)(&p.y[0]))
			return nil
		}
		return p, nil
	}})
	register(peer{"fflas-ffpack-int31", version, func(s *shape) (product, error) {
		p := s.int64s()
		p.modulus = prime31
		p.run = func() error {
			C.fflas_int64(prime31, C.size_t(s.m), C.size_t(s.k), C.size_t(s.n), (*C.int64_t)(&p.w[0]), (*C.int64_t)(&p.x[0]), (*C.int64_t)(&p.y[0]))
			return nil
		}
		return p, nil
	}})
}
