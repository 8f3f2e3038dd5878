package wire

import (
	"google.golang.org/grpc/mem"

	"github.com/securenets/securenets/internal/pool"
)

// buffers lends memory for messages. gRPC's own pool clears each buffer before it lends it, and
// has none between 32 KiB and 1 MiB: a message of 33 KiB would hold, and have cleared, thirty
// times its size.
var buffers mem.BufferPool = &bufferPool{}

type bufferPool struct{ memory pool.Of[byte] }

// Get returns n bytes of arbitrary content, of messages sent or received before: all of them must
// be written before any is read.
func (p *bufferPool) Get(n int) *[]byte {
	if mem.IsBelowBufferPoolingThreshold(n) { // mem does not return such a buffer
		b := make([]byte, n)
		return &b
	}
	b := p.memory.Get(n)
	return &b
}

func (p *bufferPool) Put(b *[]byte) { p.memory.Put(*b) }
