/* A CUDA driver, a cuBLAS and an NVML over the host's memory, for tests.

   Work that is queued on a stream runs when the stream is waited for or asked, not before, so
   that what must wait and does not shows. A module is PTX text; a function is its
   kernel's twin in plain C, by name. The n-th call after fake_fail fails on demand; a
   device that is lost so stays lost until its context is gone. */
#include <cublas_v2.h>
#include <cuda.h>

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct op {
	void (*run)(struct op *);
	struct op *next;
	struct CUctx_st *ctx;
	uintptr_t a[24];
	char args[512];
} op;

struct CUctx_st {
	int retained, lost, device;
};

struct CUstream_st {
	struct CUctx_st *ctx;
	pthread_mutex_t mutex; /* held while its work runs */
	op *first, **last;
};

struct CUevent_st {
	CUstream stream;
	long recorded, reached; /* how often it was queued, and how often that ran */
	double at;
};

struct cublasContext {
	struct CUctx_st *ctx;
	CUstream stream;
};

typedef struct block {
	struct CUctx_st *ctx; /* NULL: pinned */
	char *at;
	size_t bytes;
	struct block *next;
} block;

enum { DEVICES = 8 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct CUctx_st contexts[DEVICES];
static block *blocks;
static size_t used[DEVICES];
static __thread struct CUctx_st *current;

/* Settings, and what is alive. */
static struct {
	long devices, major, minor, memory, int8, nvml;
} set = {1, 9, 0, 1l << 32, 1, 1};
static struct {
	long bytes, pinned, streams, handles, contexts, modules, events, calls, launches;
} alive;

/* The failure to come. */
static struct {
	long at, code, device;
	char name[64], happened[64];
} fail;

#define EXPORT __attribute__((visibility("default")))

EXPORT void fake_set(long devices, long major, long minor, long memory, long int8, long nvml)
{
	set.devices = devices, set.major = major, set.minor = minor, set.memory = memory, set.int8 = int8, set.nvml = nvml;
}

/* fake_fail has call number at from now on fail with a CUresult, counting those of one
   name, or, for "", all, made on one device, or, for -1, on any. */
EXPORT void fake_fail(const char *name, long at, long code, long device)
{
	pthread_mutex_lock(&mutex);
	fail.at = at, fail.code = code, fail.device = device;
	snprintf(fail.name, sizeof fail.name, "%s", name);
	fail.happened[0] = 0;
	pthread_mutex_unlock(&mutex);
}

/* fake_happened writes the name of the call that failed, "" for none. */
EXPORT void fake_happened(char *name, int n)
{
	pthread_mutex_lock(&mutex);
	snprintf(name, n, "%s", fail.happened);
	pthread_mutex_unlock(&mutex);
}

EXPORT void fake_alive(long *counts)
{
	pthread_mutex_lock(&mutex);
	memcpy(counts, &alive, sizeof alive);
	pthread_mutex_unlock(&mutex);
}

static int fatal(long code) { return code == 700 || code == 719 || code == 214; }

/* call counts one and returns what it is to fail with. */
static int call(const char *name, struct CUctx_st *ctx)
{
	pthread_mutex_lock(&mutex);
	int r = 0;
	alive.calls++;
	if (ctx && ctx->lost) {
		r = ctx->lost;
	} else if (fail.at > 0 && (!fail.name[0] || !strcmp(fail.name, name)) && (fail.device < 0 || (ctx && fail.device == ctx->device)) &&
	           --fail.at == 0) {
		r = fail.code;
		snprintf(fail.happened, sizeof fail.happened, "%s", name);
		if (fatal(r) && ctx)
			ctx->lost = r;
	}
	pthread_mutex_unlock(&mutex);
	return r;
}

#define CALL(ctx)                          \
	do {                                   \
		int r_ = call(__func__, ctx);      \
		if (r_)                            \
			return r_;                     \
	} while (0)
#define IN_CONTEXT()                       \
	do {                                   \
		if (!current)                      \
			return CUDA_ERROR_INVALID_CONTEXT; \
		CALL(current);                     \
	} while (0)

static int within(struct CUctx_st *ctx, uintptr_t at, size_t bytes)
{
	int r = 0;
	pthread_mutex_lock(&mutex);
	for (block *b = blocks; b && !r; b = b->next)
		r = b->ctx == ctx && at >= (uintptr_t)b->at && at + bytes <= (uintptr_t)b->at + b->bytes;
	pthread_mutex_unlock(&mutex);
	return r;
}

/* Memory. */

static char *take(struct CUctx_st *ctx, size_t bytes)
{
	void *at; /* of the exact size, so that a sanitizer sees what is beyond */
	if (posix_memalign(&at, 256, bytes))
		abort();
	memset(at, 0xA5, bytes);
	block *b = malloc(sizeof *b);
	*b = (block){ctx, at, bytes, blocks};
	blocks = b;
	return at;
}

static block *drop(struct CUctx_st *ctx, uintptr_t at)
{
	for (block **p = &blocks; *p; p = &(*p)->next)
		if ((*p)->ctx == ctx && (uintptr_t)(*p)->at == at) {
			block *b = *p;
			*p = b->next;
			return b;
		}
	return NULL;
}

EXPORT CUresult cuInit(unsigned int flags)
{
	(void)flags;
	CALL(NULL);
	return 0;
}
EXPORT CUresult cuDriverGetVersion(int *v) { return *v = 13000, 0; }
EXPORT CUresult cuDeviceGetCount(int *n)
{
	CALL(NULL);
	*n = set.devices;
	return 0;
}
EXPORT CUresult cuDeviceGet(CUdevice *d, int i)
{
	CALL(NULL);
	if (i < 0 || i >= set.devices)
		return CUDA_ERROR_INVALID_DEVICE;
	*d = i;
	return 0;
}
EXPORT CUresult cuDeviceGetName(char *s, int n, CUdevice d)
{
	CALL(NULL);
	snprintf(s, n, "fake %d", d);
	return 0;
}
EXPORT CUresult cuDeviceGetUuid(CUuuid *u, CUdevice d)
{
	CALL(NULL);
	memset(u, 0, sizeof *u);
	((char *)u)[15] = d;
	return 0;
}
EXPORT CUresult cuDeviceTotalMem_v2(size_t *n, CUdevice d)
{
	(void)d;
	CALL(NULL);
	*n = set.memory;
	return 0;
}
EXPORT CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d)
{
	(void)d;
	CALL(NULL);
	switch ((int)a) {
	case 75: *v = set.major; break;
	case 76: *v = set.minor; break;
	case 16: *v = 4; break; /* multiprocessors */
	default: return CUDA_ERROR_INVALID_VALUE;
	}
	return 0;
}
EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice d, unsigned int flags)
{
	(void)d, (void)flags;
	CALL(NULL);
	return 0;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d)
{
	CALL(NULL);
	pthread_mutex_lock(&mutex);
	*c = &contexts[d];
	(*c)->device = d;
	if (!(*c)->retained++)
		alive.contexts++;
	pthread_mutex_unlock(&mutex);
	return 0;
}
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d)
{
	int r = call(__func__, NULL);
	pthread_mutex_lock(&mutex);
	struct CUctx_st *c = &contexts[d];
	if (!c->retained) {
		pthread_mutex_unlock(&mutex);
		return CUDA_ERROR_INVALID_CONTEXT;
	}
	if (!--c->retained) {
		alive.contexts--;
		alive.modules = 0; /* they go with it, as a driver's do */
		if (c->lost) { /* so does all that it held */
			for (block **p = &blocks; *p;) {
				block *b = *p;
				if (b->ctx != c) {
					p = &b->next;
					continue;
				}
				*p = b->next;
				alive.bytes -= b->bytes;
				used[d] -= b->bytes;
				free(b->at);
				free(b);
			}
		}
		c->lost = 0;
	}
	pthread_mutex_unlock(&mutex);
	return r;
}
EXPORT CUresult cuCtxSetCurrent(CUcontext c)
{
	CALL(c);
	current = c;
	return 0;
}
EXPORT CUresult cuMemGetInfo_v2(size_t *f, size_t *t)
{
	IN_CONTEXT();
	*f = set.memory - used[current->device];
	*t = set.memory;
	return 0;
}
EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n)
{
	IN_CONTEXT();
	if (!n)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&mutex);
	int d = current->device, r = n > set.memory - used[d] ? CUDA_ERROR_OUT_OF_MEMORY : 0;
	if (!r) {
		*p = (CUdeviceptr)take(current, n);
		used[d] += n;
		alive.bytes += n;
	}
	pthread_mutex_unlock(&mutex);
	return r;
}
EXPORT CUresult cuMemFree_v2(CUdeviceptr p)
{
	if (!current)
		return CUDA_ERROR_INVALID_CONTEXT;
	/* A failure may be that of earlier work: what is to be freed is gone even so. */
	int r = call(__func__, current);
	if (current->lost)
		return current->lost;
	pthread_mutex_lock(&mutex);
	block *b = drop(current, p);
	if (b) {
		used[current->device] -= b->bytes;
		alive.bytes -= b->bytes;
		free(b->at);
		free(b);
	}
	pthread_mutex_unlock(&mutex);
	return r ? r : b ? 0 : CUDA_ERROR_INVALID_VALUE;
}
EXPORT CUresult cuMemHostAlloc(void **p, size_t n, unsigned int flags)
{
	(void)flags;
	IN_CONTEXT();
	pthread_mutex_lock(&mutex);
	*p = take(NULL, n);
	alive.pinned += n;
	pthread_mutex_unlock(&mutex);
	return 0;
}
EXPORT CUresult cuMemFreeHost(void *p)
{
	/* It is freed even if the context is lost. */
	int r = call(__func__, current);
	pthread_mutex_lock(&mutex);
	block *b = drop(NULL, (uintptr_t)p);
	if (b) {
		alive.pinned -= b->bytes;
		free(b->at);
		free(b);
	}
	pthread_mutex_unlock(&mutex);
	return r ? r : b ? 0 : CUDA_ERROR_INVALID_VALUE;
}

/* Streams. */

static void queue(CUstream s, op o)
{
	op *p = malloc(sizeof *p);
	*p = o;
	p->next = NULL;
	p->ctx = s->ctx;
	pthread_mutex_lock(&s->mutex);
	*s->last = p;
	s->last = &p->next;
	pthread_mutex_unlock(&s->mutex);
}

/* step runs the work queued first. The caller holds the stream's mutex. */
static void step(CUstream s)
{
	op *o = s->first;
	if (!(s->first = o->next))
		s->last = &s->first;
	o->run(o);
	free(o);
}

static void drain(CUstream s)
{
	pthread_mutex_lock(&s->mutex);
	while (s->first)
		step(s);
	pthread_mutex_unlock(&s->mutex);
}

EXPORT CUresult cuStreamCreate(CUstream *s, unsigned int flags)
{
	(void)flags;
	IN_CONTEXT();
	*s = calloc(1, sizeof **s);
	(*s)->ctx = current;
	(*s)->last = &(*s)->first;
	pthread_mutex_init(&(*s)->mutex, NULL);
	pthread_mutex_lock(&mutex);
	alive.streams++;
	pthread_mutex_unlock(&mutex);
	return 0;
}
EXPORT CUresult cuStreamDestroy_v2(CUstream s)
{
	int r = call(__func__, s->ctx); /* it is gone even so */
	if (!s->ctx->lost)
		drain(s);
	while (s->first) {
		op *o = s->first;
		s->first = o->next;
		free(o);
	}
	pthread_mutex_destroy(&s->mutex);
	free(s);
	pthread_mutex_lock(&mutex);
	alive.streams--;
	pthread_mutex_unlock(&mutex);
	return r;
}
EXPORT CUresult cuStreamSynchronize(CUstream s)
{
	IN_CONTEXT();
	drain(s);
	return s->ctx->lost;
}
EXPORT CUresult cuStreamQuery(CUstream s)
{
	IN_CONTEXT();
	drain(s); /* done by now */
	return s->ctx->lost;
}
EXPORT CUresult cuCtxSynchronize(void)
{
	IN_CONTEXT();
	return 0;
}

static void copy(op *o) { memcpy((void *)o->a[0], (void *)o->a[1], o->a[2]); }

#define COPY(to, from, n, device, s)                                                        \
	do {                                                                                    \
		IN_CONTEXT();                                                                       \
		if ((s)->ctx != current || !within(current, (uintptr_t)(device), n))                \
			return CUDA_ERROR_INVALID_VALUE;                                                \
		queue(s, (op){.run = copy, .a = {(uintptr_t)(to), (uintptr_t)(from), (uintptr_t)(n)}}); \
		return 0;                                                                           \
	} while (0)

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void *h, size_t n, CUstream s)
{
	if (!within(NULL, (uintptr_t)h, n)) /* others are copied at once, and that not by a stream: we want none */
		return CUDA_ERROR_INVALID_VALUE;
	COPY(d, h, n, d, s);
}
EXPORT CUresult cuMemcpyDtoHAsync_v2(void *h, CUdeviceptr d, size_t n, CUstream s)
{
	if (!within(NULL, (uintptr_t)h, n))
		return CUDA_ERROR_INVALID_VALUE;
	COPY(h, d, n, d, s);
}
EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s)
{
	if (!within(current, from, n))
		return CUDA_ERROR_INVALID_VALUE;
	COPY(to, from, n, to, s);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e3 * t.tv_sec + 1e-6 * t.tv_nsec;
}

EXPORT CUresult cuEventCreate(CUevent *e, unsigned int flags)
{
	(void)flags;
	IN_CONTEXT();
	*e = calloc(1, sizeof **e);
	pthread_mutex_lock(&mutex);
	alive.events++;
	pthread_mutex_unlock(&mutex);
	return 0;
}
EXPORT CUresult cuEventDestroy_v2(CUevent e)
{
	free(e);
	pthread_mutex_lock(&mutex);
	alive.events--;
	pthread_mutex_unlock(&mutex);
	return 0;
}
static void tell(op *o)
{
	CUevent e = (CUevent)o->a[0];
	e->at = now();
	e->reached++;
}
EXPORT CUresult cuEventRecord(CUevent e, CUstream s)
{
	IN_CONTEXT();
	e->stream = s;
	e->recorded++;
	queue(s, (op){.run = tell, .a = {(uintptr_t)e}});
	return 0;
}
/* await runs another stream's work up to what was recorded when the wait was queued. */
static void await(op *o)
{
	CUevent e = (CUevent)o->a[0];
	CUstream s = (CUstream)o->a[1];
	pthread_mutex_lock(&s->mutex);
	while (e->reached < (long)o->a[2])
		step(s);
	pthread_mutex_unlock(&s->mutex);
}
EXPORT CUresult cuStreamWaitEvent(CUstream s, CUevent e, unsigned int flags)
{
	(void)flags;
	IN_CONTEXT();
	if (s->ctx != current || !e->stream || e->stream == s)
		return CUDA_ERROR_INVALID_VALUE;
	queue(s, (op){.run = await, .a = {(uintptr_t)e, (uintptr_t)e->stream, (uintptr_t)e->recorded}});
	return 0;
}
EXPORT CUresult cuEventSynchronize(CUevent e)
{
	IN_CONTEXT();
	drain(e->stream);
	return 0;
}
EXPORT CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	IN_CONTEXT();
	*ms = to->at - from->at;
	return 0;
}

/* Kernels: twins of kernels.cu and hopper.cu. */

typedef struct {
	uint32_t primes, modulus, half, lift, powers[4];
	float p[4], inverse[4];
	uint32_t unitPowers[4], unitBias[4], rest[4], correction, modulus64[2], unused;
	uint64_t idempotent[2];
} ring;

static uint32_t prime(const ring *r, unsigned i) { return r->p[i]; }

/* residue writes word a at element at of image i. */
static void residue(const ring *r, int wide, void *images, unsigned i, int64_t at, uint32_t a)
{
	if (wide) {
		((double *)images)[at] = a % r->modulus64[i];
	} else if (r->lift) {
		((int8_t *)images)[at] = (int64_t)a - (a > r->half ? (int64_t)r->modulus : 0);
	} else {
		int p = prime(r, i), v = a % p;
		((int8_t *)images)[at] = v > p / 2 ? v - p : v;
	}
}

static unsigned count(const ring *r, int wide)
{
	return wide ? (r->primes + 1) / 2 : r->lift ? 1 : r->primes;
}

typedef struct {
	const uint32_t *x;
	void *images;
	int64_t rows, pad;
	uint32_t terms, ld, groups, shift;
	ring r;
} split;

static void doSplit(op *o, int wide)
{
	split s;
	memcpy(&s, o->args, sizeof s);
	for (unsigned i = 0; i < count(&s.r, wide); i++)
		for (int64_t row = 0; row < s.groups * s.pad; row++)
			for (uint32_t k = 0; k < s.ld; k++) {
				int64_t g = row / s.pad, j = row % s.pad;
				uint32_t a = j < s.rows && k < s.terms ? s.x[(g * s.rows + j) * s.terms + k] : 0;
				residue(&s.r, wide, s.images, i, (i * s.groups * s.pad + row) * s.ld + k, a);
			}
}
static void split8(op *o) { doSplit(o, 0); }
static void split64(op *o) { doSplit(o, 1); }

typedef struct {
	const uint32_t *x;
	void *images;
	const struct { int32_t offset, row, column, unused; } *places;
	int64_t first, rows, pad;
	uint32_t terms, ld, groups, shift;
	int32_t h, w, c, top, left, sh, sw, outW, positions, depth;
	ring r;
} patch;

static void doPatch(op *o, int wide)
{
	patch s;
	memcpy(&s, o->args, sizeof s);
	for (unsigned i = 0; i < count(&s.r, wide); i++)
		for (int64_t row = 0; row < s.groups * s.pad; row++)
			for (uint32_t k = 0; k < s.ld; k++) {
				int64_t g = row / s.pad, j = row % s.pad, position = s.first + j;
				uint32_t a = 0;
				if (j < s.rows && k < s.terms) {
					int p = position % s.positions / s.outW, q = position % s.positions % s.outW;
					int h = p * s.sh - s.top + s.places[k].row, w = q * s.sw - s.left + s.places[k].column;
					const uint32_t *x = s.x + position / s.positions * s.h * s.w * s.c;
					/* the channel, from what offset adds to row and column */
					int channel = s.places[k].offset - (s.places[k].row * s.w + s.places[k].column) * s.c;
					if (h >= 0 && h < s.h && w >= 0 && w < s.w)
						a = x[((int64_t)h * s.w + w) * s.c + g * s.depth + channel];
				}
				residue(&s.r, wide, s.images, i, (i * s.groups * s.pad + row) * s.ld + k, a);
			}
}
static void patch8(op *o) { doPatch(o, 0); }
static void patch64(op *o) { doPatch(o, 1); }

typedef struct {
	const int8_t *maps;
	int8_t *images;
	const struct { int32_t offset, row, column, unused; } *places;
	int64_t first, rows, pad, step;
	uint32_t terms, ld, groups, shift;
	int32_t h, w, c, top, left, sh, sw, outW, positions, depth;
	uint32_t count, unused;
} gather;

static void gather8(op *o)
{
	gather s;
	memcpy(&s, o->args, sizeof s);
	for (unsigned i = 0; i < s.count; i++)
		for (int64_t row = 0; row < s.groups * s.pad; row++)
			for (uint32_t k = 0; k < s.ld; k++) {
				int64_t g = row / s.pad, j = row % s.pad, position = s.first + j;
				int8_t a = 0;
				if (j < s.rows && k < s.terms) {
					int p = position % s.positions / s.outW, q = position % s.positions % s.outW;
					int h = p * s.sh - s.top + s.places[k / 16].row, w = q * s.sw - s.left + s.places[k / 16].column;
					if (h >= 0 && h < s.h && w >= 0 && w < s.w)
						a = s.maps[i * s.step + ((position / s.positions * s.h + h) * s.w + w) * s.c + g * s.depth + k % s.depth];
				}
				s.images[(i * s.groups * s.pad + row) * s.ld + k] = a;
			}
}

/* weights sets w to the words that have one residue of 1 and the others of 0. */
static void weights(const ring *r, uint64_t *w)
{
	for (unsigned i = 0; i < r->primes; i++) {
		int64_t p = prime(r, i), rest = r->modulus / p, e = 1;
		while (rest % p * e % p != 1 % p)
			e++;
		w[i] = (uint64_t)rest * e;
	}
}

/* word returns the word with these residues. */
static uint32_t word(const ring *r, const uint64_t *weights, const int64_t *sums)
{
	uint64_t y = 0;
	for (unsigned i = 0; i < r->primes; i++) {
		int64_t p = prime(r, i);
		y = (y + (sums[i] % p + p) % p * weights[i]) % r->modulus;
	}
	return y;
}

typedef struct {
	const void *sums;
	uint32_t *y;
	int64_t rows, pad;
	uint32_t outs, ld, groups, shift;
	ring r;
} combine;

static void doCombine(op *o, int wide)
{
	combine s;
	memcpy(&s, o->args, sizeof s);
	int64_t image = s.groups * s.pad * s.ld;
	uint64_t ones[4];
	weights(&s.r, ones);
	for (int64_t j = 0; j < s.rows; j++)
		for (uint32_t g = 0; g < s.groups; g++)
			for (uint32_t out = 0; out < s.outs; out++) {
				int64_t at = (g * s.pad + j) * s.ld + out, sums[4];
				for (unsigned i = 0; i < s.r.primes; i++)
					sums[i] = wide ? (int64_t)((const double *)s.sums)[at + i / 2 * image] : ((const int32_t *)s.sums)[at + i * image];
				s.y[(j * s.groups + g) * s.outs + out] = word(&s.r, ones, sums);
			}
}
static void combine8(op *o) { doCombine(o, 0); }
static void combine64(op *o) { doCombine(o, 1); }

/* A map of rows, or, with pixels, of patches. */
typedef struct {
	const int8_t *base;
	uint64_t bytes, rows, images, stride, image, height;
	uint32_t c, w, h, n, channels, pixels;
	int16_t left, top, right, bottom, sw, sh;
} map;

_Static_assert(sizeof(map) <= sizeof(CUtensorMap), "map");

EXPORT CUresult cuTensorMapEncodeTiled(CUtensorMap *to, CUtensorMapDataType type, cuuint32_t rank, void *base, const cuuint64_t *size,
                                       const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *step, CUtensorMapInterleave interleave,
                                       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
	(void)promotion;
	IN_CONTEXT();
	if (type != 0 || rank != 3 || step[0] != 1 || step[1] != 1 || step[2] != 1 || interleave != 0 || swizzle != 3 || fill != 0 ||
	    (uintptr_t)base % 16 || strides[0] % 16 || strides[1] % 16 || box[0] != 128 || !box[1] || box[1] > 256 || box[2] != 1 || (uintptr_t)to % 64)
		return CUDA_ERROR_INVALID_VALUE;
	map m = {.base = base, .bytes = size[0], .rows = size[1], .images = size[2], .stride = strides[0], .image = strides[1], .height = box[1]};
	memset(to, 0, sizeof *to);
	memcpy(to, &m, sizeof m);
	return 0;
}

static int small(int v) { return v >= -128 && v <= 127; }

EXPORT CUresult cuTensorMapEncodeIm2col(CUtensorMap *to, CUtensorMapDataType type, cuuint32_t rank, void *base, const cuuint64_t *size,
                                        const cuuint64_t *strides, const int *lower, const int *upper, cuuint32_t channels, cuuint32_t pixels,
                                        const cuuint32_t *step, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                        CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
	(void)promotion;
	IN_CONTEXT();
	if (type != 0 || rank != 4 || step[0] != 1 || step[1] < 1 || step[1] > 8 || step[2] < 1 || step[2] > 8 || step[3] != 1 || interleave != 0 ||
	    channels != 16u << swizzle || fill != 0 || (uintptr_t)base % 16 || strides[0] % 16 || strides[0] != size[0] ||
	    strides[1] != size[0] * size[1] || strides[2] != strides[1] * size[2] || !pixels || pixels > 1024 || (uintptr_t)to % 64 ||
	    !small(lower[0]) || !small(lower[1]) || !small(upper[0]) || !small(upper[1]))
		return CUDA_ERROR_INVALID_VALUE;
	map m = {.base = base, .c = size[0], .w = size[1], .h = size[2], .n = size[3], .channels = channels, .pixels = pixels,
	         .left = lower[0], .top = lower[1], .right = upper[0], .bottom = upper[1], .sw = step[1], .sh = step[2]};
	memset(to, 0, sizeof *to);
	memcpy(to, &m, sizeof m);
	return 0;
}

typedef struct {
	CUtensorMap x, w;
	uint32_t *y;
	uint32_t rows, outs, high, wide, steps;
	uint32_t perPlace, chunk, kw, dh, dw, outW, positions;
	int32_t top, left;
	uint32_t sh, sw, samples;
	ring r;
} product;

/* row returns a row's elements, or NULL for one that is not there, which reads as zeros. */
static const int8_t *row(const map *m, uint64_t image, uint64_t row)
{
	return image < m->images && row < m->rows ? m->base + image * m->image + row * m->stride : NULL;
}

/* dot sums products of bytes: of no more than fit. */
static int32_t dot(const int8_t *a, const int8_t *b, int64_t n)
{
	int32_t s = 0;
	for (int64_t i = 0; i < n; i++)
		s += a[i] * b[i];
	return s;
}

/* gathered sums the products of the patch at a position with weights of n bytes, as the copy
   engine walks from the tile's first position on. */
static int32_t gathered(const product *s, const map *m, unsigned image, uint32_t position, uint32_t tile, const int8_t *w, uint32_t n)
{
	uint32_t first = position / tile * tile, at = first % s->positions;
	int64_t sample = (int64_t)image * s->samples + first / s->positions;
	int column = (int)(at % s->outW * s->sw) - s->left, line = (int)(at / s->outW * s->sh) - s->top;
	for (uint32_t i = first; i < position; i++)
		if ((column += m->sw) >= (int)m->w + m->right) {
			column = m->left;
			if ((line += m->sh) >= (int)m->h + m->bottom) {
				line = m->top;
				sample++;
			}
		}
	int32_t sum = 0;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t place = k / (s->perPlace * s->chunk), channel = k % (s->perPlace * s->chunk);
		int x = column + (int)(place % s->kw * s->dw), y = line + (int)(place / s->kw * s->dh);
		if (channel < m->c && x >= 0 && x < (int)m->w && y >= 0 && y < (int)m->h && sample < m->n)
			sum += w[k] * m->base[((sample * m->h + y) * m->w + x) * m->c + channel];
	}
	return sum;
}

/* multiply is a product by tiles of rows by outs, copied in boxes of xHeight and wHeight. */
static void multiply(op *o, uint32_t rows, uint32_t outs, uint32_t xHeight, uint32_t wHeight)
{
	product s;
	map x, w;
	memcpy(&s, o->args, sizeof s);
	memcpy(&x, &s.x, sizeof x);
	memcpy(&w, &s.w, sizeof w);
	uint32_t reach = s.steps * 128;
	/* Offsets of the chunks that are copied, behind the last place too, have 8 bits. */
	if (s.perPlace && ((reach / s.chunk - 1) / s.perPlace / s.kw * s.dh > 255 || (s.kw - 1) * s.dw > 255)) {
		o->ctx->lost = CUDA_ERROR_LAUNCH_FAILED;
		return;
	}
	if ((s.perPlace ? x.pixels : x.height) != xHeight || w.height != wHeight || reach < w.bytes || s.high * rows < s.rows || s.wide * outs < s.outs ||
	    (s.perPlace ? s.chunk != x.channels || s.sw != (uint32_t)x.sw || s.sh != (uint32_t)x.sh || (xHeight != rows && s.chunk != 128)
	                : reach < x.bytes || s.chunk != 128)) {
		o->ctx->lost = CUDA_ERROR_LAUNCH_FAILED;
		return;
	}
	uint64_t ones[4], bytes = !s.perPlace && x.bytes < w.bytes ? x.bytes : w.bytes;
	weights(&s.r, ones);
	for (uint32_t j = 0; j < s.rows; j++)
		for (uint32_t out = 0; out < s.outs; out++) {
			int64_t sums[4] = {0};
			for (unsigned i = 0; i < s.r.primes; i++) {
				const int8_t *b = row(&w, s.r.lift ? 0 : i, out), *a = s.perPlace ? NULL : row(&x, i, j);
				if (b && s.perPlace)
					sums[i] = gathered(&s, &x, i, j, xHeight, b, bytes);
				else if (a && b)
					sums[i] = dot(a, b, bytes);
			}
			s.y[(uint64_t)j * s.outs + out] = word(&s.r, ones, sums);
		}
}
static void fused(op *o) { multiply(o, 256, 192, 128, 96); }
#define PARALLEL(groups, columns) \
	static void parallel##groups##x##columns(op *o) { multiply(o, columns, 64 * groups, columns, 64); }
PARALLEL(2, 64)
PARALLEL(2, 128)
PARALLEL(1, 256)

static const struct twin {
	const char *name;
	size_t size; /* of the parameter */
	void (*run)(op *);
} twins[] = {
	{"split8", sizeof(split), split8}, {"split64", sizeof(split), split64}, {"patch8", sizeof(patch), patch8},
	{"patch64", sizeof(patch), patch64}, {"combine8", sizeof(combine), combine8}, {"combine64", sizeof(combine), combine64},
	{"gather8", sizeof(gather), gather8}, {"fused", sizeof(product), fused}, {"parallel2x64", sizeof(product), parallel2x64},
	{"parallel2x128", sizeof(product), parallel2x128}, {"parallel1x256", sizeof(product), parallel1x256},
};

EXPORT CUresult cuModuleLoadData(CUmodule *m, const void *image)
{
	IN_CONTEXT();
	if (!strstr(image, ".entry"))
		return CUDA_ERROR_INVALID_PTX;
	if (strstr(image, ".target sm_90a") && (set.major != 9 || set.minor != 0))
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	*m = (CUmodule)image; /* what it points to stays only as long as the call: names are looked up below */
	pthread_mutex_lock(&mutex);
	alive.modules++;
	pthread_mutex_unlock(&mutex);
	return 0;
}
EXPORT CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name)
{
	(void)m;
	IN_CONTEXT();
	for (unsigned i = 0; i < sizeof twins / sizeof *twins; i++)
		if (!strcmp(twins[i].name, name))
			return *f = (CUfunction)&twins[i], 0;
	return CUDA_ERROR_NOT_FOUND;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v)
{
	(void)f, (void)a;
	IN_CONTEXT();
	return v > 232448 ? CUDA_ERROR_INVALID_VALUE : 0;
}
EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                               CUstream s, void **params, void **extra)
{
	(void)shared, (void)extra;
	IN_CONTEXT();
	if (s->ctx != current || !gx || !gy || !gz || !bx || bx > 1024 || by != 1 || bz != 1)
		return CUDA_ERROR_INVALID_VALUE;
	const struct twin *t = (const struct twin *)f;
	op o = {.run = t->run};
	memcpy(o.args, params[0], t->size);
	queue(s, o);
	pthread_mutex_lock(&mutex);
	alive.launches++;
	pthread_mutex_unlock(&mutex);
	return 0;
}

/* cuBLAS. */

static int blas(int r)
{
	return r == 0 ? 0 : r == CUDA_ERROR_OUT_OF_MEMORY ? CUBLAS_STATUS_ALLOC_FAILED : CUBLAS_STATUS_EXECUTION_FAILED;
}

EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t *h)
{
	if (!current)
		return CUBLAS_STATUS_NOT_INITIALIZED;
	int r = call(__func__, current);
	if (r)
		return blas(r);
	*h = calloc(1, sizeof **h);
	(*h)->ctx = current;
	pthread_mutex_lock(&mutex);
	alive.handles++;
	pthread_mutex_unlock(&mutex);
	return 0;
}
EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t h)
{
	int r = call(__func__, h->ctx);
	free(h);
	pthread_mutex_lock(&mutex);
	alive.handles--;
	pthread_mutex_unlock(&mutex);
	return blas(r);
}
EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s)
{
	int r = call(__func__, h->ctx);
	h->stream = (CUstream)s;
	return blas(r);
}
EXPORT cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m)
{
	(void)m;
	return blas(call(__func__, h->ctx));
}

EXPORT cublasStatus_t cublasGetVersion_v2(cublasHandle_t h, int *v)
{
	*v = 130100;
	return blas(call(__func__, h->ctx));
}

static double value(cudaDataType t, const void *p, int64_t at)
{
	switch ((int)t) {
	case CUDA_R_8I: return ((const int8_t *)p)[at];
	case CUDA_R_32I: return ((const int32_t *)p)[at];
	case CUDA_R_32F: return ((const float *)p)[at];
	case CUDA_R_16BF: {
		uint32_t bits = (uint32_t)((const uint16_t *)p)[at] << 16;
		float f;
		memcpy(&f, &bits, 4);
		return f;
	}
	}
	return ((const double *)p)[at];
}

static int width(cudaDataType t)
{
	return t == CUDA_R_8I ? 1 : t == CUDA_R_16BF ? 2 : t == CUDA_R_64F ? 8 : 4;
}

/* gemm: C = A^T B of column-major matrices, A k x m, B k x n. */
static void gemm(op *o)
{
	int64_t m = o->a[0], n = o->a[1], k = o->a[2], batch = o->a[12];
	cudaDataType in = o->a[13], out = o->a[14];
	for (int64_t b = 0; b < batch; b++) {
		const char *A = (char *)o->a[3] + b * (int64_t)o->a[5] * width(in), *B = (char *)o->a[6] + b * (int64_t)o->a[8] * width(in);
		char *C = (char *)o->a[9] + b * (int64_t)o->a[11] * width(out);
		for (int64_t j = 0; j < n; j++)
			for (int64_t i = 0; i < m; i++) {
				double sum = 0; /* exact for sums of bytes and of our residues */
				int64_t at = i + j * (int64_t)o->a[10];
				if (in == CUDA_R_8I) {
					((int32_t *)C)[at] = dot((const int8_t *)A + i * (int64_t)o->a[4], (const int8_t *)B + j * (int64_t)o->a[7], k);
					continue;
				}
				for (int64_t l = 0; l < k; l++)
					sum += value(in, A, l + i * (int64_t)o->a[4]) * value(in, B, l + j * (int64_t)o->a[7]);
				switch ((int)out) {
				case CUDA_R_64F: ((double *)C)[at] = sum; break;
				case CUDA_R_32F: ((float *)C)[at] = sum; break;
				case CUDA_R_16BF: {
					float f = sum;
					uint32_t bits;
					memcpy(&bits, &f, 4);
					((uint16_t *)C)[at] = bits >> 16;
				}
				}
			}
	}
}

static int fits(cublasHandle_t h, const void *p, int64_t columns, int64_t rows, int64_t ld, int64_t step, int64_t batch, int bytes)
{
	return within(h->ctx, (uintptr_t)p, ((batch - 1) * step + (columns - 1) * ld + rows) * bytes);
}

static cublasStatus_t push(cublasHandle_t h, int ta, int tb, int64_t m, int64_t n, int64_t k, const void *A, int64_t lda, int64_t sa,
                           const void *B, int64_t ldb, int64_t sb, void *C, int64_t ldc, int64_t sc, int64_t batch, cudaDataType in, cudaDataType out)
{
	if (ta != CUBLAS_OP_T || tb != CUBLAS_OP_N || m <= 0 || n <= 0 || k <= 0 || lda < k || ldb < k || ldc < m || batch <= 0)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (in == CUDA_R_8I && (lda % 4 || ldb % 4 || ldc % 4 || k % 4 || m % 4 || (uintptr_t)A % 4 || (uintptr_t)B % 4 || sa % 4 || sb % 4))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	if (!fits(h, A, m, k, lda, sa, batch, width(in)) || !fits(h, B, n, k, ldb, sb, batch, width(in)) || !fits(h, C, n, m, ldc, sc, batch, width(out)))
		return CUBLAS_STATUS_EXECUTION_FAILED;
	queue(h->stream, (op){.run = gemm, .a = {m, n, k, (uintptr_t)A, lda, sa, (uintptr_t)B, ldb, sb, (uintptr_t)C, ldc, sc, batch, in, out}});
	return 0;
}

EXPORT cublasStatus_t cublasDgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const double *alpha,
                                     const double *A, int lda, const double *B, int ldb, const double *beta, double *C, int ldc)
{
	int r = call(__func__, h->ctx);
	if (r)
		return blas(r);
	if (*alpha != 1 || *beta != 0)
		return CUBLAS_STATUS_INVALID_VALUE;
	return push(h, ta, tb, m, n, k, A, lda, 0, B, ldb, 0, C, ldc, 0, 1, CUDA_R_64F, CUDA_R_64F);
}

EXPORT cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *alpha,
                                                 const void *A, cudaDataType At, int lda, long long sa, const void *B, cudaDataType Bt, int ldb,
                                                 long long sb, const void *beta, void *C, cudaDataType Ct, int ldc, long long sc, int batch,
                                                 cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
	(void)beta, (void)algo;
	int r = call(__func__, h->ctx);
	if (r)
		return blas(r);
	if (At == CUDA_R_8I && (!set.int8 || Bt != At || Ct != CUDA_R_32I || compute != CUBLAS_COMPUTE_32I || *(const int32_t *)alpha != 1))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	return push(h, ta, tb, m, n, k, A, lda, sa, B, ldb, sb, C, ldc, sc, batch, At, Ct);
}

/* NVML. */

EXPORT int nvmlInit_v2(void) { return set.nvml ? 0 : 9; } /* driver not loaded */
EXPORT int nvmlShutdown(void) { return 0; }
EXPORT int nvmlSystemGetDriverVersion(char *s, unsigned n)
{
	snprintf(s, n, "580.0");
	return 0;
}
EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, void **h)
{
	unsigned d = 99;
	if (sscanf(uuid, "GPU-00000000-0000-0000-0000-%x", &d) != 1 || d >= set.devices)
		return 6; /* not found */
	*h = &contexts[d];
	return 0;
}
EXPORT int nvmlDeviceGetUtilizationRates(void *h, unsigned *u)
{
	(void)h;
	u[0] = 37, u[1] = 5;
	return 0;
}
EXPORT int nvmlDeviceGetMemoryInfo(void *h, unsigned long long *m)
{
	(void)h;
	m[0] = set.memory, m[1] = set.memory - 1000, m[2] = 1000;
	return 0;
}
EXPORT int nvmlDeviceGetPowerUsage(void *h, unsigned *mw)
{
	(void)h;
	*mw = 250500;
	return 0;
}
EXPORT int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *t)
{
	(void)h;
	*t = sensor == 0 ? 44 : 0;
	return 0;
}
