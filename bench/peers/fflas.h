#pragma once
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
/* y = w·x mod p: w of m x k, x of k x n, y of m x n, all by rows, entries centred. */
void fflas_double(double p, size_t m, size_t k, size_t n, const double *w, const double *x, double *y);
void fflas_int64(int64_t p, size_t m, size_t k, size_t n, const int64_t *w, const int64_t *x, int64_t *y);
const char *fflas_version(void);
#ifdef __cplusplus
}
#endif
