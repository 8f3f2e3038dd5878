/* Loads libraries into the tables that the trampolines jump through, and calls what
   gorgonia.org/cu does not. */
#pragma once

#include <cublas_v2.h>
#include <cuda.h>

/* driver_open_* load the library at path. On failure they return a result of the
   library's, or -1 where it cannot be loaded, with the reason in why. */
int driver_open_cuda(const char *path, char *why, int n);
int driver_open_cublas(const char *path, char *why, int n);

/* driver_launch launches f with n parameters that lie one after the other in args,
   parameter i at byte offsets[i]. */
CUresult driver_launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned shared,
                       CUstream s, char *args, const int *offsets, int n);

/* driver_tensor_map describes rows of bytes, stride bytes apart, in images of rows
   each, to be copied in boxes of height rows by 128 bytes, swizzled. */
CUresult driver_tensor_map(void *map, CUdeviceptr base, uint64_t bytes, uint64_t rows, uint64_t images,
                           uint64_t stride, uint64_t image, uint32_t height);

/* driver_patch_map describes maps of bytes, of size C, W, H and N, to be copied in boxes of
   channels of a number of pixels, swizzled. corners are the first pixel's least column and row,
   and how far beyond the last column and row it may lie. */
CUresult driver_patch_map(void *map, CUdeviceptr base, const uint64_t *size, const int *corners, const uint32_t *steps,
                          uint32_t channels, uint32_t pixels);
