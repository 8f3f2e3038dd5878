//go:build fflas

#include <givaro/modular-balanced.h>
#include <fflas-ffpack/fflas-ffpack.h>

#include "fflas.h"

template <class Field>
static void multiply(typename Field::Element p, size_t m, size_t k, size_t n, const typename Field::Element *w,
                     const typename Field::Element *x, typename Field::Element *y) {
	const Field f(p);
	if (n == 1) {
		FFLAS::fgemv(f, FFLAS::FflasNoTrans, m, k, f.one, w, k, x, 1, f.zero, y, 1);
		return;
	}
	FFLAS::fgemm(f, FFLAS::FflasNoTrans, FFLAS::FflasNoTrans, m, n, k, f.one, w, k, x, n, f.zero, y, n);
}

void fflas_double(double p, size_t m, size_t k, size_t n, const double *w, const double *x, double *y) {
	multiply<Givaro::ModularBalanced<double>>(p, m, k, n, w, x, y);
}

void fflas_int64(int64_t p, size_t m, size_t k, size_t n, const int64_t *w, const int64_t *x, int64_t *y) {
	multiply<Givaro::ModularBalanced<int64_t>>(p, m, k, n, w, x, y);
}

const char *fflas_version(void) { return __FFLASFFPACK_VERSION; }
