package adversary

import (
	"io"

	"google.golang.org/grpc/mem"

	"github.com/securenets/securenets/internal/wire"
)

// frame is a message of any type as bytes.
type frame struct{ bytes mem.BufferSlice }

func (f *frame) Free() { f.bytes.Free() }

// codec is wire.Codec, and passes frames unchanged.
type codec struct{ wire.Codec }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		f.bytes.Ref()
		return f.bytes, nil
	}
	return c.Codec.Marshal(v)
}

func (c codec) Unmarshal(b mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		b.Ref()
		f.bytes = b
		return nil
	}
	return c.Codec.Unmarshal(b, v)
}

// relay forwards messages from one stream to another until one of them ends. see may change
// each message before it is sent. It returns nil at the end of the receiving stream.
func relay[M any, P interface {
	*M
	Free()
}](to interface{ SendMsg(any) error }, from interface{ RecvMsg(any) error }, see func(P)) error {
	for {
		m := P(new(M))
		if err := from.RecvMsg(m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		see(m)
		err := to.SendMsg(m)
		m.Free()
		if err != nil {
			return err
		}
	}
}
