//go:build gpu

#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "names.h"

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

extern void *driver_cuda[], *driver_cublas[];

int driver_cuda_absent(void) { return CUDA_ERROR_NO_DEVICE; }
int driver_cublas_absent(void) { return CUBLAS_STATUS_NOT_INITIALIZED; }

/* What a library that is there lacks. */
static int missing_cuda(void) { return CUDA_ERROR_NOT_FOUND; }
static int missing_cublas(void) { return CUBLAS_STATUS_NOT_SUPPORTED; }

/* gorgonia.org/cu calls cuInit when the program starts and ends it on any error. The
   driver's own runs in driver_open_cuda. */
__attribute__((visibility("hidden"))) CUresult cuInit(unsigned int flags)
{
	(void)flags;
	return CUDA_SUCCESS;
}

static void *load(const char *path, const char *const *names, int count, void **table, void *missing, char *why, int n)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		snprintf(why, n, "%s", dlerror());
		return NULL;
	}
	for (int i = 0; i < count; i++) {
		void *f = dlsym(lib, names[i]);
		table[i] = f ? f : missing;
	}
	return lib;
}

int driver_open_cuda(const char *path, char *why, int n)
{
	void *lib = load(path, names_cuda, LENGTH(names_cuda), driver_cuda, (void *)missing_cuda, why, n);
	if (!lib)
		return -1;
	CUresult (*init)(unsigned int) = (CUresult(*)(unsigned int))dlsym(lib, "cuInit");
	CUresult r = init ? init(0) : CUDA_ERROR_NOT_FOUND;
	if (r == CUDA_SUCCESS)
		return 0;
	for (int i = 0; i < LENGTH(names_cuda); i++)
		driver_cuda[i] = (void *)driver_cuda_absent;
	snprintf(why, n, "%s: cuInit: error %d", path, r);
	return r;
}

int driver_open_cublas(const char *path, char *why, int n)
{
	return load(path, names_cublas, LENGTH(names_cublas), driver_cublas, (void *)missing_cublas, why, n) ? 0 : -1;
}

CUresult driver_launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned shared,
                       CUstream s, char *args, const int *offsets, int n)
{
	void *params[8];
	if (n > LENGTH(params))
		return CUDA_ERROR_INVALID_VALUE;
	for (int i = 0; i < n; i++)
		params[i] = args + offsets[i];
	return cuLaunchKernel(f, gx, gy, gz, bx, 1, 1, shared, s, params, NULL);
}

CUresult driver_tensor_map(void *map, CUdeviceptr base, uint64_t bytes, uint64_t rows, uint64_t images,
                           uint64_t stride, uint64_t image, uint32_t height)
{
	CUtensorMap made; /* aligned as it has to be */
	uint64_t size[3] = {bytes, rows, images}, strides[2] = {stride, image};
	uint32_t box[3] = {128, height, 1}, step[3] = {1, 1, 1};
	CUresult r = cuTensorMapEncodeTiled(&made, CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, (void *)base, size, strides, box, step,
	                                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	memcpy(map, &made, sizeof made);
	return r;
}

CUresult driver_patch_map(void *map, CUdeviceptr base, const uint64_t *size, const int *corners, const uint32_t *steps,
                          uint32_t channels, uint32_t pixels)
{
	CUtensorMap made; /* aligned as it has to be */
	uint64_t strides[3] = {size[0], size[0] * size[1], size[0] * size[1] * size[2]};
	uint32_t step[4] = {1, steps[0], steps[1], 1};
	CUtensorMapSwizzle swizzle = channels == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : channels == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_32B;
	CUresult r = cuTensorMapEncodeIm2col(&made, CU_TENSOR_MAP_DATA_TYPE_UINT8, 4, (void *)base, size, strides, corners, corners + 2,
	                                     channels, pixels, step, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
	                                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	memcpy(map, &made, sizeof made);
	return r;
}
