//go:build openblas

package main

/*
#cgo LDFLAGS: -lopenblas
#include <cblas-openblas.h>
*/
import "C"

func init() {
	C.openblas_set_num_threads(1)
	version := C.GoString(C.openblas_get_config()) + " on " + C.GoString(C.openblas_get_corename())
	register(peer{"openblas-dgemm", version, func(s *shape) (product, error) {
		p := s.float64s()
		m, k, n, w, x, y := C.blasint(s.m), C.blasint(s.k), C.blasint(s.n), (*C.double)(&p.w[0]), (*C.double)(&p.x[0]), (*C.double)(&p.y[0])
		p.run = func() error {
			C.cblas_dgemm(C.CblasRowMajor, C.CblasNoTrans, C.CblasNoTrans, m, n, k, 1, w, k, x, n, 0, y, n)
			return nil
		}
		if s.n == 1 {
			p.run = func() error {
				C.cblas_dgemv(C.CblasRowMajor, C.CblasNoTrans, m, k, 1, w, k, x, 1, 0, y, 1)
				return nil
			}
		}
		return p, nil
	}})
	register(peer{"openblas-sgemm", version, func(s *shape) (product, error) {
		p := s.float32s()
		m, k, n, w, x, y := C.blasint(s.m), C.blasint(s.k), C.blasint(s.n), (*C.float)(&p.w[0]), (*C.float)(&p.x[0]), (*C.float)(&p.y[0])
		p.run = func() error {
			C.cblas_sgemm(C.CblasRowMajor, C.CblasNoTrans, C.CblasNoTrans, m, n, k, 1, w, k, x, n, 0, y, n)
			return nil
		}
		if s.n == 1 {
			p.run = func() error {
				C.cblas_sgemv(C.CblasRowMajor, C.CblasNoTrans, m, k, 1, w, k, x, 1, 0, y, 1)
				return nil
			}
		}
		return p, nil
	}})
}
