//go:build onednn

package main

/*
#cgo CXXFLAGS: -O2 -std=gnu++17
#cgo LDFLAGS: -ldnnl
#include "onednn.h"
*/
import "C"

import (
	"errors"
	"fmt"
)

func init() {
	v := uint64(C.onednn_version())
	version := fmt.Sprintf("%d.%d.%d", v>>32, v>>16&0xffff, v&0xffff)
	register(peer{"onednn-int8", version, func(s *shape) (product, error) {
		p := s.bytes()
		loaded := C.onednn_load(C.int64_t(s.m), C.int64_t(s.k), C.int64_t(s.n), (*C.int8_t)(&p.w[0]))
		if loaded == nil {
			return nil, errors.New("oneDNN has no such product")
		}
		p.run = func() error {
			if C.onednn_run(loaded, (*C.uint8_t)(&p.x[0]), (*C.int32_t)(&p.y[0])) != 0 {
				return errors.New("oneDNN failed")
			}
			return nil
		}
		p.free = func() { C.onednn_free(loaded) }
		return p, nil
	}})
}
