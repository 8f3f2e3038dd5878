//go:build gpu && cgo && linux && amd64

package driver

/*
#cgo LDFLAGS: -L${SRCDIR}/lib
#cgo noescape driver_launch
#cgo noescape driver_tensor_map
#cgo noescape driver_patch_map
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"gorgonia.org/cu"
	cublas "gorgonia.org/cu/blas"
)

// Error is the failure of a call of this package.
type Error struct {
	Call string
	Code int // CUresult, or cublasStatus_t if BLAS is set
	BLAS bool
}

func (e *Error) Error() string {
	if e.BLAS {
		return fmt.Sprintf("%s: %v", e.Call, cublas.Status(e.Code))
	}
	return fmt.Sprintf("%s: CUDA error %d", e.Call, e.Code)
}

func result(call string, r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return &Error{Call: call, Code: int(r)}
}

func status(call string, r C.cublasStatus_t) error {
	if r == C.CUBLAS_STATUS_SUCCESS {
		return nil
	}
	return &Error{Call: call, Code: int(r), BLAS: true}
}

// Kind is what a failure means for the caller.
type Kind int

const (
	Failed      Kind = iota // the call failed; the device still works
	Unsupported             // the device or library lacks the feature
	OutOfMemory             // of the device or of pinned memory
	Lost                    // the context is unusable
)

// KindOf returns the kind of an error of this package, of gorgonia.org/cu or of its package
// blas, and the worst kind of joined errors. Unknown errors count as a lost device.
func KindOf(err error) Kind {
	switch e := err.(type) {
	case *Error:
		if e.BLAS {
			return blasKind(e.Code)
		}
		return cudaKind(e.Code)
	case cublas.Status:
		return blasKind(int(e))
	case interface{ Unwrap() error }:
		return KindOf(e.Unwrap())
	case interface{ Cause() error }: // of github.com/pkg/errors
		return KindOf(e.Cause())
	case interface{ Unwrap() []error }:
		worst := Failed
		for _, each := range e.Unwrap() {
			worst = max(worst, KindOf(each))
		}
		return worst
	}
	if reflect.TypeOf(err) == reflect.TypeOf(error(cu.OutOfMemory)) { // cu does not export its type
		return cudaKind(int(reflect.ValueOf(err).Int()))
	}
	return Lost
}

func cudaKind(code int) Kind {
	switch code {
	case C.CUDA_ERROR_OUT_OF_MEMORY:
		return OutOfMemory
	case C.CUDA_ERROR_INVALID_VALUE, C.CUDA_ERROR_NOT_FOUND, C.CUDA_ERROR_INVALID_HANDLE:
		return Failed
	case C.CUDA_ERROR_NO_BINARY_FOR_GPU, C.CUDA_ERROR_NOT_SUPPORTED, C.CUDA_ERROR_INVALID_PTX,
		C.CUDA_ERROR_UNSUPPORTED_PTX_VERSION, C.CUDA_ERROR_JIT_COMPILER_NOT_FOUND, C.CUDA_ERROR_INVALID_IMAGE:
		return Unsupported
	}
	return Lost
}

func blasKind(code int) Kind {
	switch code {
	case C.CUBLAS_STATUS_ALLOC_FAILED:
		return OutOfMemory
	case C.CUBLAS_STATUS_INVALID_VALUE:
		return Failed
	case C.CUBLAS_STATUS_NOT_SUPPORTED, C.CUBLAS_STATUS_ARCH_MISMATCH:
		return Unsupported
	}
	return Lost
}

var opened struct {
	sync.Mutex
	driver, blas string
}

// Open loads the first driver library that can be opened, and the first of cuBLAS, for the
// whole process. Opening again does nothing.
func Open(drivers, blas []string) error {
	opened.Lock()
	defer opened.Unlock()
	if opened.driver == "" {
		path, err := first(drivers, func(p, why *C.char, n C.int) C.int { return C.driver_open_cuda(p, why, n) })
		if err != nil {
			return err
		}
		opened.driver = path
	}
	if opened.blas == "" {
		path, err := first(blas, func(p, why *C.char, n C.int) C.int { return C.driver_open_cublas(p, why, n) })
		if err != nil {
			return err
		}
		opened.blas = path
	}
	return nil
}

func first(paths []string, open func(path, why *C.char, n C.int) C.int) (string, error) {
	var failed error
	for _, path := range paths {
		const length = 512
		why := (*C.char)(C.calloc(1, length))
		name := C.CString(path)
		r := open(name, why, length)
		text := C.GoString(why)
		C.free(unsafe.Pointer(name))
		C.free(unsafe.Pointer(why))
		if r == 0 {
			return path, nil
		}
		failed = errors.Join(failed, errors.New(text))
	}
	return "", failed
}

// HostAlloc returns pinned memory, for asynchronous copies with every device. The memory is
// not Go's: cu.MemFreeHost frees it.
func HostAlloc(bytes int64) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	const portable = 1
	err := result("cuMemHostAlloc", C.cuMemHostAlloc(&p, C.size_t(bytes), portable))
	return p, err
}

// SetShared sets the maximum bytes of dynamic shared memory of a function's blocks.
func SetShared(fn cu.Function, bytes int) error {
	f := *(*C.CUfunction)(unsafe.Pointer(&fn))
	return result("cuFuncSetAttribute", C.cuFuncSetAttribute(f, C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(bytes)))
}

// Grid is the shape of a launch: blocks, threads per block, and bytes of shared memory.
type Grid struct {
	X, Y, Z, Threads, Shared int
}

// Launch queues fn on a stream. Parameters have any size, unlike those of cu.Function.Launch,
// which have 8 bytes. They must hold no Go pointers.
func Launch(fn cu.Function, g Grid, stream cu.Stream, params ...Param) error {
	size := 0
	for _, p := range params {
		size += len(p)
	}
	args, offsets := make([]byte, 0, size), make([]C.int, 0, len(params))
	for _, p := range params {
		offsets = append(offsets, C.int(len(args)))
		args = append(args, p...)
	}
	return result("cuLaunchKernel", C.driver_launch(*(*C.CUfunction)(unsafe.Pointer(&fn)),
		C.uint(g.X), C.uint(max(1, g.Y)), C.uint(max(1, g.Z)), C.uint(g.Threads), C.uint(g.Shared),
		C.CUstream(unsafe.Pointer(stream.C())), (*C.char)(unsafe.Pointer(&args[0])), &offsets[0], C.int(len(offsets))))
}

// Param is a kernel's parameter as bytes.
type Param []byte

// Arg returns *v as a parameter. T must have the layout of the kernel's parameter in C.
func Arg[T any](v *T) Param {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// TensorMap describes a matrix to a device's copy engine. Its content is opaque.
type TensorMap [128]byte

// Rows describes images that lie Image bytes apart. Their rows lie Stride bytes apart and have
// Bytes bytes. They are copied in boxes of Height rows by 128 bytes.
type Rows struct {
	Base                                       cu.DevicePtr
	Bytes, Rows, Images, Stride, Image, Height int
}

// NewTensorMap returns r as encoded by the driver.
func NewTensorMap(r Rows) (m TensorMap, err error) {
	err = result("cuTensorMapEncodeTiled", C.driver_tensor_map(unsafe.Pointer(&m), C.CUdeviceptr(r.Base),
		C.uint64_t(r.Bytes), C.uint64_t(r.Rows), C.uint64_t(r.Images), C.uint64_t(r.Stride), C.uint64_t(r.Image), C.uint32_t(r.Height)))
	return m, err
}

// Patches describes maps of bytes, N of H x W x C, of which the copy engine gathers patches: a
// number of channels of as many pixels, StepW and StepH apart, the first of which lie from Left
// and Top on, up to Right and Bottom beyond the last column and row.
type Patches struct {
	Base                     cu.DevicePtr
	C, W, H, N               int
	Left, Top, Right, Bottom int
	StepW, StepH             int
	Channels, Pixels         int // Channels: 32, 64 or 128, which are swizzled
}

// NewPatchMap returns p as encoded by the driver.
func NewPatchMap(p Patches) (m TensorMap, err error) {
	size := [4]C.uint64_t{C.uint64_t(p.C), C.uint64_t(p.W), C.uint64_t(p.H), C.uint64_t(p.N)}
	corners := [4]C.int{C.int(p.Left), C.int(p.Top), C.int(p.Right), C.int(p.Bottom)}
	steps := [2]C.uint32_t{C.uint32_t(p.StepW), C.uint32_t(p.StepH)}
	err = result("cuTensorMapEncodeIm2col", C.driver_patch_map(unsafe.Pointer(&m), C.CUdeviceptr(p.Base),
		&size[0], &corners[0], &steps[0], C.uint32_t(p.Channels), C.uint32_t(p.Pixels)))
	return m, err
}

// handle returns the cuBLAS handle, which is the first field of cublas.Standard.
func handle(b *cublas.Standard) C.cublasHandle_t {
	return *(*C.cublasHandle_t)(unsafe.Pointer(b))
}

// SetStream sets the stream that b queues products on.
func SetStream(b *cublas.Standard, s cu.Stream) error {
	return status("cublasSetStream", C.cublasSetStream(handle(b), C.cudaStream_t(unsafe.Pointer(s.C()))))
}

// Pedantic makes b compute in the requested precision, without emulation.
func Pedantic(b *cublas.Standard) error {
	return status("cublasSetMathMode", C.cublasSetMathMode(handle(b), C.CUBLAS_PEDANTIC_MATH))
}

// BLASVersion returns the version of cuBLAS.
func BLASVersion(b *cublas.Standard) (string, error) {
	var v C.int
	if err := status("cublasGetVersion", C.cublasGetVersion(handle(b), &v)); err != nil {
		return "", err
	}
	if v < 100000 { // the numbering until version 10
		return fmt.Sprintf("%d.%d.%d", v/1000, v%1000/100, v%100), nil
	}
	return fmt.Sprintf("%d.%d.%d", v/10000, v%10000/100, v%100), nil
}

// Type is the type of a product's elements.
type Type int

const (
	Int8    Type = iota // summed in int32
	BF16                // summed in float32
	Float32             // without TF32
	Float64
)

var gemmTypes = map[Type]struct {
	in, out C.cudaDataType
	compute C.cublasComputeType_t
}{
	Int8:    {C.CUDA_R_8I, C.CUDA_R_32I, C.CUBLAS_COMPUTE_32I},
	BF16:    {C.CUDA_R_16BF, C.CUDA_R_16BF, C.CUBLAS_COMPUTE_32F},
	Float32: {C.CUDA_R_32F, C.CUDA_R_32F, C.CUBLAS_COMPUTE_32F},
	Float64: {C.CUDA_R_64F, C.CUDA_R_64F, C.CUBLAS_COMPUTE_64F},
}

// Gemm is a batch of products C = A B^T of row-major matrices: A is M x K, B N x K, C
// M x N. LD is the number of elements from row to row, Step from matrix to matrix.
type Gemm struct {
	Type                Type
	M, N, K, Batch      int
	A, B, C             cu.DevicePtr
	LDA, LDB, LDC       int
	StepA, StepB, StepC int64
}

// Multiply queues g. For Int8, K and LDs must be multiples of 4.
func Multiply(b *cublas.Standard, g Gemm) error {
	t := gemmTypes[g.Type]
	// In cuBLAS' column-major order, C^T = B A^T. The scalars' type depends on that of products.
	var one, zero [8]byte
	switch g.Type {
	case Int8:
		*(*int32)(unsafe.Pointer(&one)) = 1
	case BF16, Float32:
		*(*float32)(unsafe.Pointer(&one)) = 1
	case Float64:
		*(*float64)(unsafe.Pointer(&one)) = 1
	}
	pointer := func(p cu.DevicePtr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }
	return status("cublasGemmStridedBatchedEx", C.cublasGemmStridedBatchedEx(handle(b), C.CUBLAS_OP_T, C.CUBLAS_OP_N,
		C.int(g.N), C.int(g.M), C.int(g.K), unsafe.Pointer(&one),
		pointer(g.B), t.in, C.int(g.LDB), C.longlong(g.StepB),
		pointer(g.A), t.in, C.int(g.LDA), C.longlong(g.StepA), unsafe.Pointer(&zero),
		pointer(g.C), t.out, C.int(g.LDC), C.longlong(g.StepC),
		C.int(g.Batch), t.compute, C.CUBLAS_GEMM_DEFAULT))
}

// Floats returns n float64 in device memory as a slice for gorgonia.org/cu/blas. Go code must
// not read or write its elements.
func Floats(p cu.DevicePtr, n int) []float64 {
	return unsafe.Slice(*(**float64)(unsafe.Pointer(&p)), n)
}
