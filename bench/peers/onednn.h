#pragma once
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct onednn onednn;
/* A product with the weights w, m x k by rows, packed as oneDNN likes them best. NULL: it has none. */
onednn *onednn_load(int64_t m, int64_t k, int64_t n, const int8_t *w);
/* y = x·w^T: x of n x k, y of n x m, by rows. 0: it went well. */
int onednn_run(onednn *p, const uint8_t *x, int32_t *y);
void onednn_free(onednn *p);
/* As major·2^32 + minor·2^16 + patch. */
int64_t onednn_version(void);
#ifdef __cplusplus
}
#endif
