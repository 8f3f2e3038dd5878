//go:build gpu && cgo && linux && amd64

// Package fake is a CUDA driver, a cuBLAS and an NVML for tests, in the host's memory and with
// failures on demand. It checks the calls that are made, not what a real device computes, nor
// how fast.
package fake

/*
#include <dlfcn.h>
#include <stdlib.h>

typedef struct {
	long bytes, pinned, streams, handles, contexts, modules, events, calls, launches;
} counts;

static void *lib;
static char *open_fake(const char *path) { return (lib = dlopen(path, RTLD_NOW)) ? NULL : dlerror(); }
static void set(long devices, long major, long minor, long memory, long int8, long nvml)
{
	((void (*)(long, long, long, long, long, long))dlsym(lib, "fake_set"))(devices, major, minor, memory, int8, nvml);
}
static void fail(const char *name, long at, long code, long device)
{
	((void (*)(const char *, long, long, long))dlsym(lib, "fake_fail"))(name, at, code, device);
}
static void happened(char *name, int n) { ((void (*)(char *, int))dlsym(lib, "fake_happened"))(name, n); }
static void alive(counts *c) { ((void (*)(counts *))dlsym(lib, "fake_alive"))(c); }
*/
import "C"

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"unsafe"
)

// Build compiles the library into dir, with flags for the compiler, opens it for the
// functions below, and returns its path.
func Build(dir string, flags ...string) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	path := filepath.Join(dir, "libfake.so")
	args := append([]string{"-shared", "-fPIC", "-O3", "-Wall", "-Werror", "-fvisibility=hidden",
		"-I", filepath.Join(filepath.Dir(here), "../driver/include"), "-o", path}, flags...)
	out, err := exec.Command("gcc", append(args, filepath.Join(filepath.Dir(here), "testdata/fake.c"), "-lpthread")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gcc: %w\n%s", err, out)
	}
	return path, Open(path)
}

// Open opens a library that Build made.
func Open(path string) error {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	if why := C.open_fake(p); why != nil {
		return errors.New(C.GoString(why))
	}
	return nil
}

// Machine describes the machine that the library presents.
type Machine struct {
	Devices      int
	Major, Minor int   // compute capability
	Memory       int64 // bytes of each device
	NoInt8       bool  // cuBLAS has no int8 products
	NoNVML       bool
}

// Hopper returns a machine with the given number of devices of compute capability 9.0.
func Hopper(devices int) Machine {
	return Machine{Devices: devices, Major: 9, Memory: 1 << 32}
}

// Set sets the machine.
func Set(m Machine) {
	yes := func(b bool) C.long {
		if b {
			return 1
		}
		return 0
	}
	C.set(C.long(m.Devices), C.long(m.Major), C.long(m.Minor), C.long(m.Memory), yes(!m.NoInt8), yes(!m.NoNVML))
}

// Codes of failures.
const (
	OutOfMemory = 2
	LaunchLost  = 719 // the device is lost
)

// Any is any device.
const Any = -1

// Fail makes a call fail with a code of the driver: the call number at, counted from 1 and from
// now on, of those with the given name ("" for any) on the given device. at 0 cancels it.
func Fail(name string, at, code, device int) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	C.fail(n, C.long(at), C.long(code), C.long(device))
}

// Failed returns the name of the call that failed since Fail, or "".
func Failed() string {
	var name [64]C.char
	C.happened(&name[0], 64)
	return C.GoString(&name[0])
}

// Counts are the resources in use, and the numbers of calls and launches.
type Counts struct {
	Bytes, Pinned, Streams, Handles, Contexts, Modules, Events int
	Calls, Launches                                            int
}

// Alive returns the current counts.
func Alive() Counts {
	var c C.counts
	C.alive(&c)
	return Counts{int(c.bytes), int(c.pinned), int(c.streams), int(c.handles), int(c.contexts), int(c.modules), int(c.events),
		int(c.calls), int(c.launches)}
}

// Left returns the counts that should be zero when all is closed.
func (c Counts) Left() Counts {
	c.Calls, c.Launches = 0, 0
	return c
}
